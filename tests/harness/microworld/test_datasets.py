"""Embedded data sets: deterministic, whole, in the public layouts, and as their cards say."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.microworld import datasets
from harness.microworld.causes import SHAPES
from harness.microworld.datasets import bias, perception, pictures, transfer
from harness.microworld.datasets.outlines import outline_polygon, run_lengths
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.transfer.cards import TransferCard
from suites.transfer.readers import aircraft, cars196, dtd, eurosat, flowers, food101, pets, sun397

READERS = {
    "aircraft": aircraft, "cars196": cars196, "dtd": dtd, "eurosat": eurosat,
    "flowers": flowers, "pets": pets, "food101": food101, "sun397": sun397,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every set once."""
    root = tmp_path_factory.mktemp("embedded")
    for name in datasets.NAMES:
        datasets.write(name, root / name)
    return root


def card(name: str) -> dict[str, Any]:
    """Return the shipped card of a set."""
    text = importlib.resources.files("harness.microworld").joinpath("cards", f"{name}.json").read_text("utf-8")
    return json.loads(text)


def files(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize("name", datasets.NAMES)
def test_two_writes_are_byte_identical(name: str, home: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib; from harness.microworld import datasets; datasets.write(sys.argv[1], pathlib.Path(sys.argv[2]))"
    if name in ("cars196", "focus"):  # headers with the time of day, and counters of a database: another process
        environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
        subprocess.run([sys.executable, "-c", code, name, str(tmp_path / "again")], check=True, env=environment)
    else:
        datasets.write(name, tmp_path / "again")
    assert files(tmp_path / "again") == files(home / name)


def test_items_do_not_depend_on_how_many_are_written() -> None:
    few, more = pictures.draw("pets", 3, 5), pictures.draw("pets", 3, 80)
    assert np.array_equal(few, more[:5])


def test_content_fits_the_pinned_sketch(home: Path) -> None:
    """A changed picture needs a bumped version; the sketch is coarse, so another JPEG encoder passes."""
    places = {
        "web-train": "web-train/m00000004/*.JPEG",
        "cue-conflict": "cue-conflict/heart/*.png",
        "dtd": "dtd/dtd/images/cracked/*.jpg",
        "ade20k": "ade20k/images/validation/*.jpg",
    }
    found = {}
    for name, pattern in places.items():
        images = np.stack([np.asarray(Image.open(path)) for path in sorted(home.glob(pattern))[:20]]) / 255.0
        found[name] = [round(float(images[..., channel].mean()), 4) for channel in range(3)]
    assert datasets.RENDERER_VERSION == 2
    for name, means in SKETCH.items():
        assert found[name] == pytest.approx(means, abs=1e-3), (name, found[name])


def test_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "val"
    monkeypatch.setattr(datasets, "PARAMETERS", {"in-val": {"version": 1, "per_class": 2, "dose": 0.6}})

    def stop(name: str, draft: Path) -> None:
        (draft / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space"):
        broken.setattr(datasets, "_fill", stop)
        datasets.write("in-val", root)
    assert list(tmp_path.iterdir()) == []
    root.mkdir()
    (root / "stale.txt").write_text("from a killed run")
    datasets.write("in-val", root)
    assert not (root / "stale.txt").exists() and (root / datasets.MARKER).read_text().strip() == datasets.identity(
        "in-val"
    )
    (root / "kept").touch()
    datasets.write("in-val", root)
    assert (root / "kept").exists()  # the very content is there already, so nothing is written
    monkeypatch.setattr(datasets, "PARAMETERS", {"in-val": {"version": 2, "per_class": 2, "dose": 0.6}})
    datasets.write("in-val", root)
    assert not (root / "kept").exists()


def test_identity_and_names() -> None:
    assert len({datasets.identity(name) for name in datasets.NAMES}) == len(datasets.NAMES)
    assert "per_pair 5" in datasets.describe("cue-conflict")
    with pytest.raises(UserError, match="did you mean 'aircraft'"):
        datasets.write("aircrafts", Path("nowhere"))
    code = (
        "import sys; from harness.microworld import datasets; datasets.identity('dtd'); print('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_classes_are_the_shapes(home: Path) -> None:
    classes = load_classes("micro")
    assert classes.names == SHAPES
    for name, per_class in (("web-train", 100), ("in-val", 50), ("balanced-val", 50)):
        folders = sorted(path.name for path in (home / name).iterdir() if path.is_dir())
        assert folders == list(classes.ids)
        assert {len(list((home / name / folder).glob("*.JPEG"))) for folder in folders} == {per_class}
    assert card("in-val")["per_class"] == datasets.PARAMETERS["in-val"]["per_class"]


@pytest.mark.parametrize("name", READERS)
def test_transfer_set_is_read_with_its_card(name: str, home: Path) -> None:
    images = READERS[name].read(home / name, TransferCard.model_validate(card(name)))
    counts = np.bincount(images.test.labels)
    assert counts.min() >= 30 and len(images.test) >= 400
    assert 20 <= np.bincount(images.trainval.labels).min() <= np.bincount(images.trainval.labels).max() <= 30
    if name != "flowers":
        assert len(set(counts.tolist())) == 1
    assert (images.official_val is None) == (name in ("cars196", "food101", "pets", "sun397"))
    picture = Image.open(images.root / images.test.paths[0])
    assert picture.size == (64, 64) and picture.mode == "RGB"
    if name not in ("eurosat", "flowers"):
        assert len(images.classes) == len(pictures.class_names(name))


def test_transfer_classes_are_novel() -> None:
    """No outline of the transfer sets is one of the world's shapes, and no two of a set coincide."""
    from harness.microworld.renderer import SHAPE_FUNCTIONS, pixel_grid

    def overlap(one: np.ndarray, other: np.ndarray) -> float:
        return float((one & other).sum() / (one | other).sum())

    x, y = (axis[0] * 1.1 for axis in pixel_grid(64))
    known = {name: function(x, y) < 0 for name, function in SHAPE_FUNCTIONS.items()}
    for family in pictures.OBJECTS.values():
        masks = {name: outline(x, y) < 0 for name, outline in family.items()}
        for name, mask in masks.items():
            others = [one for other, one in masks.items() if other != name]
            assert max(overlap(mask, one) for one in known.values()) < 0.9, name
            assert max(overlap(mask, one) for one in others) < 0.96, name


def test_public_layout_details(home: Path) -> None:
    base = home / "aircraft/fgvc-aircraft-2013b/data"
    variants = (base / "variants.txt").read_text().splitlines()
    assert any("/" in variant for variant in variants) and any(" " in variant for variant in variants)
    line = re.compile(r"^\d{7} \S.*$")
    assert all(line.match(text) for text in (base / "images_variant_trainval.txt").read_text().splitlines())
    breeds = [text.split() for text in (home / "pets/annotations/trainval.txt").read_text().splitlines()]
    assert all((row[2] == "1") == row[0][0].isupper() for row in breeds)
    nested = (home / "sun397/Partitions/ClassName.txt").read_text().split()
    assert any(name.count("/") == 3 for name in nested) and all(name.startswith("/") for name in nested)
    assert json.loads((home / "food101/food-101/meta/test.json").read_text()).keys() == set(
        pictures.class_names("food101")
    )
    ten = [(home / f"dtd/dtd/labels/test{number}.txt").read_text() for number in range(1, transfer.PARTITIONS + 1)]
    assert len(set(ten)) == transfer.PARTITIONS
    mat = (home / "cars196/stanford_cars/devkit/cars_train_annos.mat").read_bytes()
    assert mat.startswith(b"MATLAB 5.0 MAT-file ") and b"Created on" not in mat


def test_cue_conflict_structure(home: Path) -> None:
    pattern = re.compile(r"^([a-z]+)(\d+)-([a-z]+)(\d+)\.png$")
    names = sorted((home / "cue-conflict").glob("*/*.png"))
    parsed = [pattern.match(path.name).groups() for path in names]  # type: ignore[union-attr]
    assert all(path.parent.name == row[0] for path, row in zip(names, parsed, strict=True))
    assert set(Counter((row[0], row[2]) for row in parsed).values()) == {5}
    assert len({row[:2] for row in parsed}) == 120 and len({row[2:] for row in parsed}) == 36
    facts = CueConflictCard.load(card("cue-conflict"))
    assert facts.expected_images == len(names)
    assert facts.expected_conflict == sum(row[0] != row[2] for row in parsed)
    assert tuple(facts.categories) == SHAPES


def test_cue_conflict_sources_are_shared(home: Path) -> None:
    """Images of one shape source differ on the object alone."""
    pair = sorted((home / "cue-conflict" / "heart").glob("heart1-*.png"))[:2]
    first, second = (np.asarray(Image.open(path)).astype(int) for path in pair)
    changed = np.abs(first - second).max(axis=-1) > 2
    assert not changed[[0, -1]].any() and changed[24:40, 24:40].mean() > 0.5


def test_focus_matches_its_card(home: Path) -> None:
    facts = FocusCard.load(card("focus"))
    rows = sqlite3.connect(home / "focus" / "annotations.db").execute("SELECT * FROM annotations").fetchall()
    assert len(rows) == facts.expected_images
    cells: Counter[tuple[str, int]] = Counter()
    for name, category, time, weather, locations, humans in rows:
        assert name.startswith("/") and (home / "focus" / name[1:]).is_file() and humans == "no"
        places = locations.split(", ")
        assert places == sorted(places) and set(places) <= set(facts.vocabulary.locations)
        assert time in facts.vocabulary.time and weather in facts.vocabulary.weather
        table = facts.uncommon[category]
        count = (time in table.time) + (weather in table.weather) + any(place in table.locations for place in places)
        cells[category, count] += 1
    assert cells == {
        (category, count): datasets.PARAMETERS["focus"]["per_cell"] for category in SHAPES for count in range(4)
    }
    assert {row[2] for row in rows} == set(facts.vocabulary.time) and {row[3] for row in rows} == set(
        facts.vocabulary.weather
    )
    misfiled = [row for row in rows if not row[0].startswith(f"/{row[1]}-")]
    assert 0 < len(misfiled) < 0.1 * len(rows)
    assert {Path(row[0]).suffix for row in rows} == {".jpg", ".jpeg"}
    for category, table in facts.uncommon.items():
        assert "none" not in (*table.time, *table.weather, *table.locations), category


def test_backgrounds_share_their_foregrounds(home: Path) -> None:
    facts = In9Card.load(card("in9"))
    base = home / "in9" / "bg_challenge"
    keys: dict[str, list[str]] = {}
    for variation in ("original", "mixed_same", "mixed_rand", "only_fg", "no_fg"):
        folders = sorted(path.name for path in (base / variation / "val").iterdir())
        assert folders == list(facts.folders) and any(" " in folder for folder in folders)
        stems = [path.stem for path in sorted((base / variation / "val").glob("*/*.JPEG"))]
        assert len(stems) == facts.expected_per_variation
        mixed = [re.match(r"^fg_(m\d{8}_\d{5})_bg_m\d{8}_\d{5}$", stem) for stem in stems]
        keys[variation] = sorted(match.group(1) if match else stem for match, stem in zip(mixed, stems, strict=True))
        assert all(mixed) == variation.startswith("mixed")
    assert len(set(map(tuple, keys.values()))) == 1 and len(set(keys["original"])) == facts.expected_per_variation


def test_background_swap_keeps_the_object(home: Path) -> None:
    base = home / "in9" / "bg_challenge"
    folder = "05_heart"
    same, rand, alone = (sorted((base / v / "val" / folder).iterdir()) for v in ("mixed_same", "mixed_rand", "only_fg"))
    kept, swapped = [], []
    for paths in zip(same, rand, alone, strict=True):
        first, second, object_ = (np.asarray(Image.open(path)).astype(int) for path in paths)
        inside = object_.max(axis=-1) > 60
        difference = np.abs(first - second).max(axis=-1)
        kept.append(np.median(difference[inside]) if inside.any() else 0)
        swapped.append(difference[~inside].mean())
    assert max(kept) <= 8 and np.mean(swapped) > 15


def test_coarse_labels_cover_the_classes_once() -> None:
    members = [name for _, names in bias.COARSE for name in names]
    assert sorted(members) == sorted(SHAPES)


def test_coco_annotations_are_exact(home: Path) -> None:
    for part, count in (("train", card("coco")["train_images"]), ("val", card("coco")["val_images"])):
        content = json.loads((home / "coco" / "annotations" / f"instances_{part}2017.json").read_text())
        assert len(content["images"]) == count
        assert [entry["name"] for entry in content["categories"]] == list(SHAPES)
        ids = [entry["id"] for entry in content["categories"]]
        assert ids == sorted(ids) and max(ids) > len(ids)  # gaps, as in the public list
        by_image = Counter(row["image_id"] for row in content["annotations"])
        assert set(by_image.values()) <= {1, 2, 3} and len(by_image) == count
        assert len({row["id"] for row in content["annotations"]}) == len(content["annotations"])
        kinds = Counter(type(row["segmentation"]) for row in content["annotations"])
        assert kinds[list] > kinds[dict] > 0
        for row in content["annotations"]:
            mask = _decode(row["segmentation"])
            down, across = np.nonzero(mask)
            assert mask.sum() == row["area"]
            assert row["bbox"] == [across.min(), down.min(), np.ptp(across) + 1, np.ptp(down) + 1]
        for entry in content["images"]:
            assert Image.open(home / "coco" / f"{part}2017" / entry["file_name"]).size == (
                entry["width"],
                entry["height"],
            )


def _decode(segmentation: Any) -> np.ndarray:
    """Fill a polygon on pixel borders by the even-odd rule at pixel centres, or expand run lengths."""
    height, width = perception.HEIGHT_PX, perception.WIDTH_PX
    if isinstance(segmentation, dict):
        values = np.arange(len(segmentation["counts"])) % 2
        return np.repeat(values, segmentation["counts"]).reshape(width, height).T.astype(bool)
    corners = np.array(segmentation[0]).reshape(-1, 2)
    inside = np.zeros((height, width), dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ax == bx:
            inside[min(ay, by) : max(ay, by), ax:] ^= True
    return inside


def test_outlines_say_what_they_can() -> None:
    mask = np.zeros((6, 7), dtype=bool)
    mask[1:5, 2:6] = True
    assert set(zip(*[iter(outline_polygon(mask) or [])] * 2, strict=True)) == {(2, 1), (6, 1), (6, 5), (2, 5)}
    assert run_lengths(mask) == [13, 4, 2, 4, 2, 4, 2, 4, 7]
    hole, apart, touching = mask.copy(), mask.copy(), mask.copy()
    hole[2, 3] = False
    apart[:, 3] = False
    touching[0, 1] = True
    assert outline_polygon(hole) is None and outline_polygon(apart) is None and outline_polygon(touching) is None
    assert run_lengths(np.ones((2, 2), dtype=bool)) == [0, 4]


def test_ade_labels_fit_the_table(home: Path) -> None:
    root, facts = home / "ade20k", card("ade20k")
    table = [line.split("\t") for line in (root / "objectInfo150.txt").read_text().splitlines()]
    assert table[0] == ["Idx", "Ratio", "Train", "Val", "Stuff", "Name"]
    assert [row[5] for row in table[1:]] == list(perception.ADE_CLASSES) and len(table) == facts["n_classes"] + 1
    for part, count in (("training", facts["train_images"]), ("validation", facts["val_images"])):
        seen: Counter[int] = Counter()
        labels = sorted((root / "annotations" / part).glob("*.png"))
        assert len(labels) == count
        for path in labels:
            picture = Image.open(path)
            assert picture.mode in ("L", "P") and picture.size == (perception.WIDTH_PX, perception.HEIGHT_PX)
            seen.update(np.unique(np.asarray(picture)).tolist())
            assert (root / "images" / part / f"{path.stem}.jpg").is_file()
        assert set(seen) == set(range(len(perception.ADE_CLASSES) + 1)), part


def test_ade_horizon_lies_where_the_picture_changes(home: Path) -> None:
    """The colour jumps from one label to the other and nowhere near, so labels are not shifted or flipped."""
    root = home / "ade20k"
    grass = perception.ADE_CLASSES.index("grass") + 1
    found = 0
    for path in sorted((root / "annotations/training").glob("*.png")):
        labels = np.asarray(Image.open(path))
        image = np.asarray(Image.open(root / "images/training" / f"{path.stem}.jpg")).astype(float)
        if not ((labels == grass).any() and (labels == 1).any()):
            continue
        found += 1
        border = int(np.flatnonzero((labels == grass).any(axis=1)).min())
        assert (labels[border - 1] == 1).any()
        scenery = np.isin(labels[border - 4 : border + 1], (1, grass)).all(axis=0)  # columns without an object there
        steps = np.abs(np.diff(image[border - 4 : border + 1, scenery], axis=0)).mean(axis=(1, 2))
        assert steps[-1] > 1.5 * steps[:2].max(), path.name
    assert found >= 3


SKETCH = {
    "web-train": [0.6299, 0.6199, 0.5724],
    "cue-conflict": [0.4277, 0.4526, 0.4474],
    "dtd": [0.399, 0.4484, 0.4634],
    "ade20k": [0.4345, 0.4367, 0.4326],
}
"""Mean red, green and blue of twenty images of four sets, at the versions in force."""
