"""The suite `images` as it is run: real images against themselves and against worse ones, and scores of rows made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from harness.core.errors import UserError
from harness.images.shards import member_name
from harness.microworld.causes import SHAPES, Doses, draw_causes
from harness.microworld.renderer import render, to_uint8
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.border import checked_rows, checked_score, checked_units
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from harness.store.records import Record
from suites.images import DATA, Images, ImagesSettings
from suites.likeness import encoders

PER_CLASS = 24
PROFILE = """name = "toy"
classes = "{classes}"
[dataset]
images_per_class = 24
chunk = 24
size_px = 64
copy_px = 64
[backbones.resnet10]
epochs = 1
warmup_epochs = 0
[suites.images]
clip = "package:harness.microworld/weights/clip_large"
prompt = "photo of {{class_name}}"
[data]
train = {{}}
"""
SECONDARY = (
    "density", "precision", "coverage", "recall", "near_duplicates", "class_agreement", "origin_accuracy", "diversity",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write real images (renders of all shapes), and a blurred, a mislabelled and a repetitive copy of them."""
    root = tmp_path_factory.mktemp("images")
    (root / "classes.txt").write_text("".join(f"n{i:08d} {shape}\n" for i, shape in enumerate(SHAPES)))
    (root / "toy.toml").write_text(PROFILE.format(classes=root / "classes.txt"))
    labels = np.repeat(np.arange(len(SHAPES)), PER_CLASS)
    seeds = np.arange(len(labels), dtype=np.uint64)
    causes = draw_causes(labels, seeds, Doses(texture=0.6, scene=0.6, light=0.0, weather=0.0))
    pictures = to_uint8(render(causes, seeds, size_px=64, coloured=True).images).transpose(0, 2, 3, 1)
    for place, (label, pixels) in enumerate(zip(labels, pictures, strict=True)):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        _save(root / "real", int(label), place % PER_CLASS, image)
        _save(root / "blurred", int(label), place % PER_CLASS, image.filter(ImageFilter.GaussianBlur(6)))
        _save(root / "mislabelled", (int(label) + 1) % len(SHAPES), place % PER_CLASS, image.rotate(2))
        first = Image.fromarray(np.ascontiguousarray(pictures[place - place % PER_CLASS]))
        _save(
            root / "repetitive",
            int(label),
            place % PER_CLASS,
            first.point(lambda v, i=place % PER_CLASS: min(255, v + 1 + i % 12)),
        )
    return root


def _save(root: Path, label: int, index: int, image: Image.Image) -> None:
    path = root / member_name(f"n{label:08d}", index)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def plan_of(
    folder: Path, generators: str, suites: str = "images", sets: tuple[str, ...] = (), *, real: bool = True
) -> Plan:
    registry.generators.cache_clear()
    data = (f"train={folder / 'real'}",) if real else ()
    return Planner(Selection(load_profile(str(folder / "toy.toml"), sets, data).profile, generators, suites)).build()


def records(
    folder: Path, place: str, generators: str, sets: tuple[str, ...] = ()
) -> dict[str, tuple[Record, pd.DataFrame]]:
    """Measure datasets in this process; return record and rows by generator."""
    plan, store, found = plan_of(folder, generators, sets=sets), Store(folder / place), {}
    for cell in plan.cells.values():
        for shard in (*cell.shards, ""):
            execute(Job(cell, plan.inputs(cell), plan.sources_of(cell), str(store.root), shard))
        if cell.kind == "evaluate" and cell.name == "images":
            record = Record.from_json((store.folder(cell) / "record.json").read_text())
            found[record.subject.generator] = (record, pd.read_parquet(store.folder(cell) / "rows.parquet"))
    return found


def values(record: Record) -> dict[str, float]:
    return {m.name: m.estimate.value for m in record.metrics if m.estimate.value is not None}


def test_real_images_against_real_ones_and_against_worse_ones(folder: Path) -> None:
    worse = ("blurred", "mislabelled", "repetitive")
    found = records(folder, "store", ",".join(["real", *(f"folder:{folder / name}" for name in worse)]))
    value = {name.removeprefix("folder:"): values(record) for name, (record, _) in found.items()}
    real = value["real"]
    assert real["precision"] > 0.75 and real["recall"] > 0.75 and real["coverage"] > 0.85
    assert real["density"] == pytest.approx(1, abs=0.25)
    (origin,) = (m.estimate for m in found["real"][0].metrics if m.name == "origin_accuracy")
    assert origin.low is not None and origin.high is not None and origin.low < 0.5 < origin.high
    assert real["class_agreement"] > 0.9 and real["near_duplicates"] == 0
    assert real["diversity"] == pytest.approx(1, abs=0.15)

    blurred = value["blurred"]
    for name in ("density", "coverage", "precision", "recall", "class_agreement"):
        assert blurred[name] < real[name] - 0.2, name
    assert blurred["origin_accuracy"] > 0.9
    assert value["mislabelled"]["class_agreement"] < 0.1 < 0.8 < value["mislabelled"]["precision"]
    assert value["mislabelled"]["class_agreement_real"] == real["class_agreement_real"]
    assert value["repetitive"]["near_duplicates"] == 1 and value["repetitive"]["diversity"] < 0.1
    assert value["repetitive"]["recall"] < 0.5

    for record, rows in found.values():
        n = len(SHAPES) * PER_CLASS // 2
        assert rows.groupby("side").size().to_dict() == {"real": n, "images": n}
        assert record.subject.backbone == "-" and record.valid
        assert [m.name for m in record.metrics if m.role == "secondary"] == list(SECONDARY)
        assert not [m for m in record.metrics if m.role == "primary"], "the main table does not grow"
        assert all(
            m.estimate.n > 0 and m.estimate.low is not None for m in record.metrics if m.name != "diversity_real"
        )
        assert f"{n} images a side" in record.notes[0]


def test_rows_do_not_depend_on_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = records(folder, "a", "real")["real"][1]
    features = encoders.Encoder.features
    monkeypatch.setattr(encoders.Encoder, "features", lambda self, images, batch=7: features(self, images, batch))
    few = records(folder, "b", "real")["real"][1]
    for column in whole.columns.difference(["distance", "density"]):
        pd.testing.assert_series_equal(whole[column], few[column])
    assert np.nanmax(np.abs(whole["distance"] - few["distance"])) < 1e-3
    assert np.nanmean(np.abs(whole["density"] - few["density"])) < 1e-2


def test_too_few_images_are_refused_with_the_reason(folder: Path) -> None:
    one_class = folder / "few.txt"
    one_class.write_text(f"n{0:08d} {SHAPES[0]}\nn{1:08d} {SHAPES[1]}\n")
    with pytest.raises(UserError, match="4 images a side are too few"):
        records(folder, "few", "real", (f"classes={one_class}", "suites.images.per_class=2"))


def test_a_mix_is_measured_as_any_other_dataset(folder: Path) -> None:
    name = f"mix:real=0.5+folder:{folder / 'blurred'}=0.5"
    found = records(folder, "mixed", f"{name},folder:{folder / 'blurred'}")
    mixed, blurred = (values(found[each][0]) for each in ("mix:folder:blurred=0.5+real=0.5", "folder:blurred"))
    assert blurred["precision"] + 0.1 < mixed["precision"] < 0.9
    assert 0.6 < mixed["origin_accuracy"] < blurred["origin_accuracy"] - 0.1


def rows_by_hand() -> pd.DataFrame:
    """Return two images a side in two classes."""
    blank = float("nan")
    common = {"label": [0, 1], "origin": [1.0, 0.0]}
    real = {
        "side": "real", "item": ["r0", "r1"], "density": blank, "precision": blank, "coverage": [1.0, 0.0], "recall": [1.0, 1.0],
        "near_duplicates": blank, "class_agreement": [1.0, 1.0], "distance": [0.5, 0.25],
    }  # fmt: skip
    images = {
        "side": "images", "item": ["y0", "y1"], "density": [1.8, 0.2], "precision": [1.0, 0.0], "coverage": blank, "recall": blank,
        "near_duplicates": [0.0, 0.0], "class_agreement": [0.0, 1.0], "distance": [0.25, 0.25],
    }  # fmt: skip
    return pd.concat([pd.DataFrame({**real, **common}), pd.DataFrame({**images, **common})], ignore_index=True)


def test_scores_of_rows_made_by_hand() -> None:
    suite, rows, settings = Images(), checked_rows(Images(), rows_by_hand()), ImagesSettings(clip="x")
    (item,) = suite.items(settings, "any")
    score = checked_score(suite, suite.score(rows, item, settings, {DATA: {}}))
    found = {m.name: m.estimate.value for m in score.metrics}
    assert found == {
        "density": pytest.approx(1.0), "precision": 0.5, "coverage": 0.5, "recall": 1.0, "near_duplicates": 0.0,
        "class_agreement": 0.5, "class_agreement_real": 1.0, "origin_accuracy": 0.5,
        "diversity": pytest.approx(0.5 / 0.75), "diversity_images": 0.25, "diversity_real": 0.375,
    }  # fmt: skip
    assert {m.name: m.estimate.n for m in score.metrics if m.name in ("recall", "origin_accuracy", "diversity")} == {
        "recall": 2, "origin_accuracy": 4, "diversity": 2,
    }  # fmt: skip
    assert not score.checks[0].passed and score.checks[0].value == 2, "two images have no neighbours worth the name"
    shuffled = suite.score(rows.sample(frac=1, random_state=1), item, settings, {DATA: {}})
    assert shuffled == score
    names = [m.name for m in score.metrics if m.role == "secondary"]
    units = checked_units(suite, suite.units(rows, item, settings, {}, names), score, names)
    assert {each.metric for each in units} == set(SECONDARY) - {"diversity"}


def test_without_a_clip_the_class_is_not_read_and_says_so() -> None:
    rows = rows_by_hand().assign(class_agreement=float("nan"))
    score = Images().score(rows, Images().items(ImagesSettings(encoder="x"), "any")[0], ImagesSettings(encoder="x"), {})
    agreement = next(m.estimate for m in score.metrics if m.name == "class_agreement")
    assert agreement.value is None and "no CLIP is named" in agreement.reason


def test_the_suite_is_not_planned_without_encoder_or_real_images(folder: Path) -> None:
    nothing = plan_of(folder, f"folder:{folder / 'blurred'}", real=False)
    assert not nothing.cells and any(e.what == "images" and e.asked for e in nothing.not_run), nothing.not_run
    no_encoder = plan_of(folder, "real", sets=("suites.images.clip=",))
    assert "names no encoder" in next(e.reason for e in no_encoder.not_run if e.what.startswith("images "))
    with pytest.raises(UserError, match="prompt"):
        plan_of(folder, "real", sets=("suites.images.prompt=a photo",))


def test_the_group_images_holds_both_suites_and_counts_the_one_of_its_name_as_asked_for() -> None:
    ids, asked = registry.suites().expand("images")
    assert set(ids) == {"images", "generated-correlation"} and asked == {"images"}


def test_every_metric_is_described() -> None:
    rows = rows_by_hand()
    names = {
        m.name
        for m in Images().score(rows, Images().items(ImagesSettings(clip="x"), "a")[0], ImagesSettings(), {}).metrics
    }
    assert names == set(Images.card.metrics)
    assert json.dumps(Images.card.metrics)
