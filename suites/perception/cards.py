"""Describe the COCO and ADE20K folders a run reads: paths, class lists, expected counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from harness.contracts import Settings
from harness.errors import DataMissing, UserError
from harness.tree import files

COCO_GAPS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
COCO_IDS = tuple(i for i in range(1, 91) if i not in COCO_GAPS)
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class CocoCard(Settings):
    """Locate and describe a data set in the COCO 2017 layout.

    Attributes:
        classes: (category id, name) in annotation order; ``None`` takes whatever the validation JSON lists.
        train_images: Images expected in the training annotations; ``None`` accepts any number.
        val_images: The same for validation.
    """

    train_json: str = "annotations/instances_train2017.json"
    val_json: str = "annotations/instances_val2017.json"
    train_folder: str = "train2017"
    val_folder: str = "val2017"
    classes: tuple[tuple[int, str], ...] | None = tuple(zip(COCO_IDS, COCO_NAMES, strict=True))
    train_images: int | None = 118_287
    val_images: int | None = 5_000


class AdeCard(Settings):
    """Locate and describe a data set in the ADEChallengeData2016 layout.

    Attributes:
        object_info: Tab-separated table with columns Idx and Name, one row a class, indices from 1.
        n_classes: Rows expected in it; ``None`` accepts any number.
    """

    train_folder: str = "images/training"
    val_folder: str = "images/validation"
    train_labels: str = "annotations/training"
    val_labels: str = "annotations/validation"
    object_info: str = "objectInfo150.txt"
    n_classes: int | None = 150
    train_images: int | None = 20_210
    val_images: int | None = 2_000


def require(path: Path, layout: str) -> Path:
    """Return ``path`` when it exists, else say what is missing and where it belongs."""
    if not path.exists():
        raise DataMissing(f"{layout} data not found", f"{path} does not exist", f"point --data at the {layout} root")
    return path


def settle_coco(root: Path, card: CocoCard) -> CocoCard:
    """Return the card with the folders as they are here: at the root, or in its folder ``images``."""
    folders = {}
    for field in ("train_folder", "val_folder"):
        name = getattr(card, field)
        nested = f"images/{name}"
        folders[field] = nested if not (root / name).is_dir() and (root / nested).is_dir() else name
        require(root / folders[field], "COCO")
    return card.model_copy(update=folders)


def settle_ade(root: Path) -> Path:
    """Return the folder of the data: the root, or the folder in it that the public archive unpacks to."""
    nested = root / "ADEChallengeData2016"
    return nested if nested.is_dir() else root


def read_coco(root: Path, relative: str) -> dict[str, Any]:
    """Read one COCO annotation file."""
    path = require(root / relative, "COCO")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError("a COCO annotation file is not JSON", f"{path}: {error}", "download it again") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise UserError("a COCO annotation file has no annotations", f"{path} lacks {missing}", "use instances_*.json")
    _check_references(content, path)
    return content


def _check_references(content: dict[str, Any], path: Path) -> None:
    images, kinds = [item["id"] for item in content["images"]], {item["id"] for item in content["categories"]}
    known = set(images)
    if len(known) != len(images):
        twice = next(number for number, count in Counter(images).items() if count > 1)
        raise UserError("a COCO annotation file lists an image twice", f"{path}: id {twice}", "use the original file")
    lost = [a["id"] for a in content["annotations"] if a["image_id"] not in known or a["category_id"] not in kinds]
    if lost:
        why = f"{path}: {len(lost)} annotations, first id {lost[0]}"
        raise UserError("COCO annotations of unknown images or categories", why, "use the original file")


def coco_classes(content: dict[str, Any], card: CocoCard) -> tuple[tuple[int, str], ...]:
    """Return (category id, name) in annotation order, checked against the card."""
    found = tuple((int(c["id"]), str(c["name"])) for c in content["categories"])
    if card.classes is not None and found != card.classes:
        first = next((pair for pair in zip(found, card.classes, strict=False) if pair[0] != pair[1]), None)
        raise UserError(
            "the COCO category list is not the one the data set card expects",
            f"{len(found)} categories found, {len(card.classes)} expected; first difference: {first}",
            "use the matching card or the original annotation files",
        )
    return found


def check_count(found: int, expected: int | None, what: str) -> None:
    """Refuse a data set whose number of items differs from its card."""
    if expected is not None and found != expected:
        raise DataMissing(
            f"{what}: wrong number of images", f"{found} found, {expected} expected", "complete the data set"
        )


def ade_classes(root: Path, card: AdeCard) -> tuple[str, ...]:
    """Return the class names of the object table in index order (index 1 first)."""
    path = require(root / card.object_info, "ADE20K")
    lines = [line.split("\t") for line in path.read_text(errors="replace").splitlines() if line.strip()]
    header = [cell.strip() for cell in lines[0]] if lines else []
    if "Idx" not in header or "Name" not in header:
        raise UserError("the ADE20K object table has no header", f"{path}: {header}", "columns Idx and Name are needed")
    index, name = header.index("Idx"), header.index("Name")
    odd = [cells for cells in lines[1:] if len(cells) <= max(index, name) or not cells[index].strip().isdecimal()]
    if odd:
        raise UserError("the ADE20K object table is damaged", f"{path}: line {odd[0]}", "use the original table")
    rows = [(int(cells[index]), cells[name].strip()) for cells in lines[1:]]
    if [i for i, _ in rows] != list(range(1, len(rows) + 1)):
        raise UserError("the ADE20K object table is not numbered 1, 2, ...", str(path), "use the original table")
    if card.n_classes is not None and len(rows) != card.n_classes:
        raise UserError(
            "the ADE20K object table has the wrong number of classes",
            f"{len(rows)} found, {card.n_classes} expected",
            "use the matching card or the original table",
        )
    return tuple(name for _, name in rows)


def ade_stems(root: Path, folder: str) -> list[str]:
    """Return the sorted stems of the pictures of one split."""
    stems = [Path(name).stem for name in files(require(root / folder, "ADE20K")) if name.endswith(".jpg")]
    if not stems:
        raise DataMissing("ADE20K split is empty", f"no .jpg in {root / folder}", "unpack the archive there")
    return stems
