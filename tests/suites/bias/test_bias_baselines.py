"""Trivial baselines: what they answer, that they are flagged, and that the command line puts them on the board."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from harness.backbones.baseline import Baseline, BaselineClassifier, parse_baseline
from harness.core.classes import load_classes
from harness.core.errors import UserError
from suites.bias import background, context, texture
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.people import answer_rows, answers
from tests.suites.bias.conftest import values
from tests.tiny_roots import BIAS, cue_set, focus_set, in9_set

IN1K = load_classes("imagenet1k").ids


def test_names_of_baselines():
    assert parse_baseline("baseline:constant", IN1K) == Baseline("constant", IN1K[0])
    assert parse_baseline("baseline:constant:n04285008", IN1K).name == "baseline:constant:n04285008"
    assert parse_baseline("baseline:humans", IN1K).name == "baseline:humans"
    for wrong, words in (
        ("baseline:constent", "did you mean 'constant'"),
        ("baseline:constant:n0", "not in the class list"),
        ("baseline:uniform:n04285008", "takes no class"),
    ):
        with pytest.raises(UserError, match="baseline|class list") as caught:
            parse_baseline(wrong, IN1K)
        assert words in str(caught.value)


def test_uniform_answers_depend_on_the_image_only_and_reach_all_classes():
    import torch

    model = BaselineClassifier(Baseline("uniform"), [f"c{i}" for i in range(8)])
    images = torch.randint(0, 256, (800, 3, 6, 6), generator=torch.Generator().manual_seed(0)).float() / 255
    whole = model(images)
    parts = torch.cat([model(part) for part in images.split(7)])
    assert torch.equal(whole, parts)
    assert torch.equal(model(images.flip(0)).flip(0), whole)
    counts = torch.bincount(whole.argmax(1), minlength=8)
    assert counts.min() > 60 and counts.max() < 145
    with pytest.raises(UserError, match="cannot classify images"):
        BaselineClassifier(Baseline("humans"), ["c0"])(images)


def test_constant_dog_answers_dog(tmp_path):
    """One image per ordered pair of the public categories, scored by the 1000-way map."""
    root, card = cue_set(tmp_path)
    dog = BaselineClassifier(Baseline("constant", "n02086240"), IN1K)
    result = texture.score(texture.predict_rows(dog, root, card), card)
    found = values(result)
    assert (found["TI"].value, found["TI"].n, found["cue_coverage"].value) == (0.5, 30, 0.125)
    assert not any(check.passed for check in result.checks)


@pytest.mark.parametrize("kind", ["constant", "uniform"])
def test_baselines_are_flagged_by_every_suite(kind, tmp_path):
    model = BaselineClassifier(parse_baseline(f"baseline:{kind}", IN1K), IN1K)
    cues, cue_card = cue_set(tmp_path / "cues")
    focus, focus_card = focus_set(tmp_path / "focus")
    swaps, in9_card = in9_set(tmp_path / "in9")
    for module, root, card in ((texture, cues, cue_card), (context, focus, focus_card), (background, swaps, in9_card)):
        result = module.score(module.predict_rows(model, root, card), card)
        assert not all(check.passed for check in result.checks)


def test_people_are_rows_with_their_published_ti(tmp_path, manifest):
    names = [row["relpath"] for row in manifest]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    card = CueConflictCard.load()
    rows = answer_rows(tmp_path, card)
    assert len(rows["image"]) == 12_800 == len(set(rows["image"])) and set(answers()) == {
        n.split("/")[1] for n in names
    }
    result = texture.score(rows, card)
    ti = values(result)["TI"]
    assert (ti.n, round(100 * ti.value, 4)) == (9236 + 398, 4.1312)
    assert result.notes[0] == "s = 9236, t = 398, neither = 2366, of 12000 conflict images"
    assert all(check.passed for check in result.checks)
    single = texture.texture_inclination({name: column for name, column in rows.items() if name != "stimulus"})
    assert ti.high - ti.low > 1.1 * (single.high - single.low)  # answers to one image are not independent
    (tmp_path / names[0]).rename(tmp_path / "airplane" / "airplane99-bicycle2.png")
    with pytest.raises(UserError, match="nobody was shown 1 of"):
        answer_rows(tmp_path, card)


def run_in100(root, spoil=None):
    """Run the bias suites of profile in100 from the command line, with a head of the CMC list that answers by chance."""
    arguments = ["run", "--checkpoint", "baseline:uniform", "--profile", "in100", "--suite", "bias", "--store", "store"]
    for name, write in BIAS.items():
        _, card = write(root / name)
        (root / f"{name}.json").write_text(card.model_dump_json())
        arguments += ["--set", f"data.{name}.root={root / name}", "--set", f"data.{name}.card={root / name}.json"]
    if spoil is not None:
        spoil(root)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments, "--slots", "1", "--quiet"],
        cwd=root, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    records = [json.loads(path.read_text()) for path in (root / "store").rglob("record.json")]
    return done, {record["suite"]: record for record in records}, root


@pytest.fixture(scope="module")
def in100_run(tmp_path_factory):
    return run_in100(tmp_path_factory.mktemp("in100"))


@pytest.mark.slow
def test_one_corrupt_file_loses_its_suite_only_and_is_named(tmp_path):
    def spoil(root):
        victim = root / "in9" / "bg_challenge" / "mixed_same" / "val" / "02_wheeled vehicle"
        min(victim.iterdir()).write_bytes(b"\xff\xd8\xff not a picture")

    done, records, _ = run_in100(tmp_path, spoil)
    assert done.returncode == 1 and set(records) == {"texture-bias", "context-bias"}
    lines = [line for line in done.stderr.splitlines() if "cannot be read as an image" in line]
    assert len(lines) == 1 and "02_wheeled vehicle/fg_n00000002_00000" in lines[0]
    assert "1 cells did not finish" in done.stderr and "Traceback" not in done.stderr


def test_profile_in100_runs_to_the_end_with_restricted_names(in100_run):
    done, records, root = in100_run
    assert done.returncode == 0, done.stderr
    primary = {
        suite: {m["name"]: m["estimate"] for m in record["metrics"] if m["role"] == "primary"}
        for suite, record in records.items()
    }
    assert set(primary["texture-bias"]) == {"TI@7of16"} and set(primary["background-bias"]) == {"BG_Gap@8of9"}
    assert set(primary["context-bias"]) == {"CB_avg", "CB_1@5of10", "CB_2@5of10"}
    cb_avg = primary["context-bias"]["CB_avg"]
    assert cb_avg["value"] is None and cb_avg["reason"] == "10 images in P3"
    board = (root / "store" / "leaderboard.md").read_text()
    assert "undefined: 10 images in P3" in board and "baseline:uniform" in board
    assert not any(all(check["passed"] for check in record["checks"]) for record in records.values())


def test_rows_of_a_run_give_the_record_again(in100_run):
    import pandas as pd

    from suites.bias.second_reading import second_reading

    _, records, root = in100_run
    for suite, module, card in (
        ("texture-bias", texture, CueConflictCard), ("context-bias", context, FocusCard),
        ("background-bias", background, In9Card),
    ):  # fmt: skip
        (path,) = (root / "store").rglob(f"*{suite}*/rows.parquet")
        data = {"texture-bias": "cue-conflict", "context-bias": "focus", "background-bias": "in9"}[suite]
        rows, facts = pd.read_parquet(path), card.load(json.loads((root / f"{data}.json").read_text()))
        further = {"further": second_reading(rows, facts)} if suite == "texture-bias" else {}
        again = module.score(rows, facts, **further)
        stored = {m["name"]: m["estimate"] for m in records[suite]["metrics"]}
        assert {m.name: m.estimate.to_dict() for m in again.metrics} == stored


def test_untrained_network_through_the_plan(in100_run):
    """The plan of an untrained network measures every suite; people are measured by texture-bias only."""
    _, _, root = in100_run
    counts = {}
    for kind in ("untrained", "humans"):
        done = subprocess.run(
            [sys.executable, "-m", "harness", "plan", "--checkpoint", f"baseline:{kind}", "--json", "--store", "s"],
            cwd=root, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        counts[kind] = done.stdout.count('"folder": "evaluate/')
    assert counts["humans"] == 1 and counts["untrained"] > 10


def test_untrained_networks_are_made_equal_every_time(tmp_path):
    from dataclasses import asdict
    from types import SimpleNamespace

    from harness.backbones.classifier import load_classifier
    from harness.backbones.preprocessing import Preprocessing
    from harness.run.tasks import make_baseline

    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        facts = {"kind": "untrained", "class": "", "arch": "resnet10"}
        feed = Preprocessing((0.5,) * 3, (0.5,) * 3, 64)
        ctx = SimpleNamespace(
            params=facts | asdict(feed), out=folder, classes=load_classes("micro"),
            seed=lambda *facts: 5,
        )  # fmt: skip
        make_baseline(ctx)
        found.append(load_classifier(folder))
    assert found[0].identity == found[1].identity and found[0].image_size == 64
    assert len(found[0].classes) == len(load_classes("micro").ids) and np.isfinite(found[0].info.mean).all()
