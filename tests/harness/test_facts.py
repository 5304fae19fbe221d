"""What stands beside rows: what a look at the data found, from the data set to the record and the end of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.plan.model import Plan
from harness.plan.profile import load_profile
from harness.plugins.context import Context
from harness.run import facts
from harness.run.scoring import MEASURED, Measured, score_rows, write_scored
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.data import DataSource, find_data, materialise
from harness.store.records import Record
from suites.bias.texture import public_stimuli
from suites.texture_bias import TextureBias
from tests.harness.test_rescore import CARDS, cell, rows

PUBLIC = {row["relpath"]: row for row in public_stimuli()}


def found_of(root: Path, mark: str, suite: Any = None, name: str = "cue-conflict", card: Any = None) -> list[str]:
    """Return the findings of an evaluation that reads one data set."""
    one = Cell("evaluate", "texture-bias", 1, {}, data=(name,))
    ctx = Context(one, root, {}, {name: DataSource(name, str(root), mark, card or {})})
    return list(facts.findings(ctx, suite or TextureBias()))


@pytest.fixture
def stimuli(tmp_path: Path) -> Path:
    """Write 1280 files that have the names of the public stimuli, and nothing else of them."""
    for name in PUBLIC:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"noise")
    return tmp_path / "set"


def test_files_that_are_not_the_published_ones_are_a_finding(stimuli: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = min(PUBLIC)
    expected = [f"cue-conflict: 1280 of 1280 files differ from the published hashes (SHA-256), first {first}"]
    assert found_of(stimuli, "a") == expected
    monkeypatch.setattr("suites.bias.texture.differing", lambda base, items: pytest.fail("looked at again"))
    assert found_of(stimuli, "a") == expected  # once per worker and content
    monkeypatch.setattr("suites.bias.texture.differing", lambda base, items: [])
    assert found_of(stimuli, "b") == []


def test_what_a_look_refuses_or_stumbles_over_is_a_finding_and_ends_nothing(stimuli: Path) -> None:
    (stimuli / min(PUBLIC)).unlink()
    (line,) = found_of(stimuli, "short")
    assert line.startswith("cue-conflict: ") and "1279 images" in line and "1280" in line

    class Odd(TextureBias):
        data_inspectors = {"cue-conflict": "json:loads"}  # noqa: RUF012

    (line,) = found_of(stimuli, "odd", Odd())
    assert "could not be inspected (TypeError" in line
    assert found_of(stimuli, "other", name="unheard-of") == []


def test_embedded_data_give_no_finding() -> None:
    data = load_profile("micro").profile.data
    for name in ("cue-conflict", "in9", "dtd", "in-val"):
        source = find_data(name, data[name])
        assert isinstance(source, DataSource)
        assert found_of(materialise(source), source.data_hash, name=name, card=source.card) == []


def test_validation_images_of_own_classes_are_looked_at_as_what_they_are(tmp_path: Path) -> None:
    from suites.in_domain import InDomain

    for name in ("apple", "pear"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.png").write_bytes(b"x")
    assert found_of(tmp_path, "own", InDomain(), "in-val", {"per_class": 1}) == []
    (line,) = found_of(tmp_path, "short", InDomain(), "in-val")
    assert "wrong number of validation images" in line and "expected 50" in line


def test_findings_reach_the_record_and_the_end_of_a_run(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), Plan()
    measured = Measured({"weights": "raw"}, ("mean 0.5 instead of 0.4",), ("cue-conflict: all differ",))
    for seed in (0, 1):
        one = plan.add(cell(seed, {}))
        store.folder(one).mkdir(parents=True)
        scored = score_rows(one.spec, one.key, rows(seed), CARDS, {}, {}, measured)
        write_scored(store.folder(one), scored, CARDS, measured)
    record = Record.from_json((store.folder(one) / "record.json").read_text())
    assert record.findings == measured.findings and record.notes[0] == "mean 0.5 instead of 0.4"
    assert record.subject.network == {"weights": "raw"}
    assert Measured.from_json(json.loads((store.folder(one) / MEASURED).read_text())) == measured
    assert facts.found_in(store, plan) == ["cue-conflict: all differ"]  # once, of two evaluations


def test_the_network_is_found_behind_features_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = Cell("pretrain", "resnet10", 1, {})
    read = Cell("extract", "features-dtd", 1, {}, {"checkpoint": made.key})
    backbone = {"weights": "ema", "mean": [0.1] * 3, "std": [0.2] * 3, "image_size": 64, "interpolation": "bicubic",
                "recipe": {"arch": "resnet10", "lr": 0.1, "seed": 3, "steps": 9, "image_size": 64, "mean": [0.1] * 3}}  # fmt: skip
    for one in (made, read):
        store.folder(one).mkdir(parents=True)
        (store.folder(one) / "backbone.json").write_text(json.dumps(backbone if one is made else {}))
        store.seal(one, {})
    from harness.run.scoring import lineage

    inputs = lineage(tmp_path, {"features": read.key})
    found = facts.network_facts(tmp_path, inputs)
    assert facts._network(found) == {
        "weights": "ema", "mean": [0.1] * 3, "std": [0.2] * 3, "image_size": 64, "interpolation": "bicubic", "crop": 0.875,
        "precision": "fp32", "recipe": {"lr": 0.1},
    }  # fmt: skip
    assert facts.network_facts(tmp_path, lineage(tmp_path, {})) == {}


@pytest.mark.parametrize(("suite", "precision"), [("texture-bias", "bf16"), ("coco", "fp32"), ("ade20k", "fp32")])
def test_the_record_states_the_precision_that_the_suite_computes_in(tmp_path: Path, suite: str, precision: str) -> None:
    from harness.plugins import registry

    store, made = Store(tmp_path), Cell("pretrain", "resnet10", 1, {})
    store.folder(made).mkdir(parents=True)
    backbone = {"weights": "ema", "mean": [0.1] * 3, "std": [0.2] * 3, "image_size": 64, "interpolation": "bicubic",
                "precision": "bf16", "recipe": {}}  # fmt: skip
    (store.folder(made) / "backbone.json").write_text(json.dumps(backbone))
    store.seal(made, {})
    out = tmp_path / "evaluate" / "x"
    ctx = Context(Cell("evaluate", suite, 1, {}), out, {}, {})
    found = facts.measured_with(ctx, registry.suites().get(suite), {"checkpoint": made.key})
    assert found.network["precision"] == precision


@pytest.mark.slow
def test_a_run_warns_of_stimuli_that_are_not_the_public_ones(stimuli: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (224, 224), (90, 120, 30)).save(tmp_path / "one.png")
    for name in PUBLIC:
        (stimuli / name).write_bytes((tmp_path / "one.png").read_bytes())
    done = subprocess.run([sys.executable, "-m", "harness", "run", "--checkpoint", "baseline:constant:n02123045", "--suite",
                           "texture-bias", "--data", f"cue-conflict={stimuli}", "--store", "s"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True)  # fmt: skip
    assert "warning: cue-conflict: 1280 of 1280 files differ from the published hashes" in done.stderr
    assert "profile in1k (implied by class n02123045" in done.stderr
    record = Record.from_json(next((tmp_path / "s/evaluate").rglob("record.json")).read_text())
    assert record.findings and record.subject.network == {}
