"""Readers of COCO and ADE20K on small folders in the public layouts, with what goes wrong in circulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.core.errors import DataMissing, UserError
from suites.perception.ade import check_files
from suites.perception.ade import draw as draw_ade
from suites.perception.cards import AdeCard, CocoCard, settle_ade, settle_coco
from suites.perception.coco import draw as draw_coco
from suites.perception.coco import pictures, used
from suites.perception.jobs import Job
from suites.perception.pictures import check_pictures
from suites.perception.subsets import subset

CATEGORIES = ((3, "car"), (90, "toothbrush"), (44, "bottle"))
"""Ids with gaps, not in order: the list's order is the label's."""
COCO_CARD = CocoCard(classes=CATEGORIES, train_images=10, val_images=3)
ADE_CARD = AdeCard(n_classes=3, train_images=10, val_images=3)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> None:
    """Write one noisy picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def annotations(folder: str, count: int) -> dict[str, Any]:
    """Return annotations of all kinds: polygons, run lengths of a crowd, an image without any, unordered ids."""
    ids = [581 - 57 * index for index in range(count)]
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 24, "height": 16} for i in ids]
    kept = [i for index, i in enumerate(ids) if index != 1]
    found = [
        {
            "id": 7 + i, "image_id": i, "category_id": CATEGORIES[i % 3][0], "iscrowd": int(i % 2), "area": 16,
            "bbox": [2, 2, 4, 4],
            "segmentation": {"size": [16, 24], "counts": [368, 16]} if i % 2 else [[2, 2, 6, 2, 6, 6, 2, 6]],
        }
        for i in kept
    ]  # fmt: skip
    categories = [{"id": i, "name": name, "supercategory": "thing"} for i, name in CATEGORIES]
    return {"info": {}, "licenses": [], "images": images, "annotations": found, "categories": categories}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Write a COCO folder of ten and three pictures; the third is grey."""
    root = tmp_path / "coco data"
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train", 10), ("val", 3)):
        content = annotations(part, count)
        for index, image in enumerate(content["images"]):
            picture(root / f"{part}2017" / image["file_name"], "L" if index == 2 else "RGB")
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Write an ADE20K folder as the archive unpacks: a top folder, macOS leftovers, CRLF, labels in modes L and P."""
    root = tmp_path / "ade" / "ADEChallengeData2016"
    for part, stem, count in (("training", "train", 10), ("validation", "val", 3)):
        for index in range(1, count + 1):
            name = f"ADE_{stem}_{index:08d}"
            picture(root / "images" / part / f"{name}.jpg", "L" if index == 2 else "RGB")
            labels = Image.new("L", (24, 16), index % 4)
            path = root / "annotations" / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index == 3:
                labels = labels.convert("P")
            labels.save(path)
        (root / "images" / part / "._ADE_train_00000001.jpg").write_bytes(b"resource fork")
    rows = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.2\t1\t1\t1\twall",
        "2\t0.1\t1\t1\t1\tbuilding, edifice",
        "3\t0.1\t1\t1\t0\tcar ",
    )
    (root / "objectInfo150.txt").write_bytes("\r\n".join(rows).encode())
    return root


def job(root: Path, fraction: float = 1.0, subset_seed: int = 0) -> Job:
    """Return a run that reads ``root``; there is no network in it."""
    out = root.parent / "out"
    out.mkdir(exist_ok=True)
    return Job({}, "resnet50", root, out, 0, fraction, subset_seed)


def read_coco(root: Path, fraction: float = 1.0, subset_seed: int = 0, card: CocoCard = COCO_CARD) -> tuple[Any, ...]:
    """Read as a run does, up to its first iteration."""
    run, here = job(root, fraction, subset_seed), settle_coco(root, card)
    truth, names, ids = draw_coco(run, here)
    return truth, names, ids, check_pictures(pictures(run, here, truth), "COCO")


def read_ade(root: Path, fraction: float = 1.0) -> tuple[Any, ...]:
    """Read as a run does, up to its first iteration."""
    here = settle_ade(root)
    names, ids = draw_ade(here, job(root, fraction), ADE_CARD)
    return names, ids, check_files(here, ADE_CARD, ids)


def test_coco_layout(coco: Path) -> None:
    """Labels follow the list's order, a subset keeps all categories and only its own images and annotations."""
    truth, names, ids, early = read_coco(coco, 0.5)
    assert names == ("car", "toothbrush", "bottle") and len(truth["images"]) == 3 and early == ()
    every = [image["id"] for image in annotations("train", 10)["images"]]
    assert ids == subset(every, 0.5, 0) != read_coco(coco, 0.5, 1)[2]
    read_coco(coco, 0.5)
    reduced = json.loads((coco.parent / "out/train.json").read_text())
    assert {str(image["id"]) for image in reduced["images"]} == set(ids) and len(reduced["categories"]) == 3
    assert reduced["annotations"] == [a for a in annotations("train", 10)["annotations"] if str(a["image_id"]) in ids]


def test_coco_pictures_in_a_folder_of_their_own(coco: Path) -> None:
    """Pictures may lie in ``images/``, as another common layout has it; the drawn ids stay."""
    plain = read_coco(coco, 0.2)
    (coco / "images").mkdir()
    for part in ("train2017", "val2017"):
        (coco / part).rename(coco / "images" / part)
    assert read_coco(coco, 0.2) == plain
    (coco / "images/val2017").rename(coco / "elsewhere")
    with pytest.raises(DataMissing, match="val2017"):
        read_coco(coco)


@pytest.mark.parametrize(("what", "change"), [
    ("id twice", lambda c: c["images"].append(c["images"][0])),
    ("id twice", lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"])),
    ("id twice", lambda c: c["categories"].append(c["categories"][0])),
    ("no 64-bit integer", lambda c: c["annotations"][0].update(id="7")),
    ("no 64-bit integer", lambda c: c["annotations"][0].pop("id")),
    ("no 64-bit integer", lambda c: c["annotations"][0].update(image_id=str(c["annotations"][0]["image_id"]))),
    ("no 64-bit integer", lambda c: c["images"][0].update(id=2**63)),
    ("no 64-bit integer", lambda c: c["categories"][0].update(id=True)),
    ("not complete", lambda c: c["annotations"][0].pop("area")),
    ("unknown images", lambda c: c["annotations"][0].update(image_id=1)),
    ("unknown images or categories", lambda c: c["annotations"][0].update(category_id=12)),
    ("category list", lambda c: c["categories"].reverse()),
    ("has no annotations", lambda c: c.pop("annotations")),
    ("wrong number of images", lambda c: c["images"].pop(1)),
])  # fmt: skip
def test_coco_wrong_annotations(coco: Path, what: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Annotations that contradict themselves or the card are refused in words."""
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=what):
        read_coco(coco)


def test_coco_files_that_list_different_categories(coco: Path) -> None:
    """A label's number is its place in the training file, and is looked up in the validation file."""
    path, card = coco / "annotations/instances_train2017.json", COCO_CARD.model_copy(update={"classes": None})
    read_coco(coco, card=card)
    content = json.loads(path.read_text())
    content["categories"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="list different categories"):
        read_coco(coco, card=card)


def test_coco_cut_annotations(coco: Path) -> None:
    """An annotation file that was cut off is named."""
    path = coco / "annotations/instances_val2017.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="not JSON") as caught:
        read_coco(coco)
    assert "instances_val2017.json" in caught.value.why


def test_pictures_are_looked_at_before_the_run(coco: Path) -> None:
    """Missing and empty files are refused in one line each; a picture that ends early is used and noted."""
    files = sorted((coco / "train2017").glob("*.jpg"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    assert read_coco(coco)[3] == (files[0],)
    files[1].write_bytes(b"")
    with pytest.raises(UserError, match="1 of 13 files are empty") as caught:
        read_coco(coco)
    assert caught.value.why == str(files[1])
    files[1].write_text("<html>404</html>")
    with pytest.raises(UserError, match="no pictures"):
        read_coco(coco)
    for path in files[1:6]:
        path.unlink()
    with pytest.raises(DataMissing, match="5 of 13 files are missing") as caught:
        read_coco(coco)
    assert caught.value.why.endswith("and 2 more")


def test_ade_layout(ade: Path) -> None:
    """The archive's top folder may be the root or in it; hidden files are no pictures; names keep their commas."""
    names, ids, early = read_ade(ade, 0.5)
    assert names == ("wall", "building, edifice", "car") and early == ()
    assert ids == subset([f"ADE_train_{i:08d}" for i in range(1, 11)], 0.5, 0)
    listed = (ade.parent / "out/train.txt").read_text().splitlines()
    assert listed == sorted(ids)
    assert read_ade(ade.parent, 0.5) == (names, ids, early)


def replace(path: Path, labels: Image.Image) -> None:
    """Write another label picture."""
    labels.save(path)


@pytest.mark.parametrize(("what", "spoil"), [
    ("more than one 8-bit channel", lambda path: replace(path, Image.new("RGB", (24, 16)))),
    ("more than one 8-bit channel", lambda path: replace(path, Image.new("I;16", (24, 16)))),
    ("another size", lambda path: replace(path, Image.new("L", (16, 24)))),
    ("damaged", lambda path: path.write_bytes(path.read_bytes()[:-20])),
    ("missing", lambda path: path.unlink()),
])  # fmt: skip
def test_ade_wrong_labels(ade: Path, what: str, spoil: Callable[[Path], Any]) -> None:
    """A label picture of another kind or size, cut off, or not there stops the run before it starts, by name."""
    path = ade / "annotations/validation/ADE_val_00000003.png"
    spoil(path)
    with pytest.raises(UserError, match=what) as caught:
        read_ade(ade)
    assert caught.value.why == str(path)


def test_ade_incomplete(ade: Path) -> None:
    """A split of another size is refused with both numbers, an empty one with the folder."""
    (ade / "images/training/ADE_train_00000004.jpg").unlink()
    with pytest.raises(DataMissing, match="ADE20K training") as caught:
        read_ade(ade)
    assert caught.value.why == "9 found, 10 expected"
    for path in (ade / "images/training").glob("ADE*.jpg"):
        path.unlink()
    with pytest.raises(DataMissing, match="empty"):
        read_ade(ade)


def test_the_cost_counts_what_the_toolbox_will_use() -> None:
    content = annotations("train", 10)
    assert used(content, 16) == 9, "one image has no annotations"
    content["images"][0]["height"] = 15
    assert used(content, 16) == 8 and used(content, 32) == 0


def test_a_picture_that_declares_too_many_pixels_is_refused_before_the_toolbox_sees_it(tmp_path: Path) -> None:
    from harness.core.limits import TooLarge
    from tests.harness.test_limits import SIDE, png

    (tmp_path / "a.png").write_bytes(png(SIDE, SIDE))
    with pytest.raises(TooLarge):
        check_pictures([tmp_path / "a.png"], "COCO")
