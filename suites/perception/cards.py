"""Describe the COCO and ADE20K folders a run reads: paths, class lists, expected counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.api import (
    IMAGE_SUFFIXES,
    DataMissing,
    Settings,
    UserError,
    list_files,
    list_folders,
    parse_json,
    refuse_malformed,
    unpacking_command,
)

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
_OBJECT = ("image_id", "category_id", "bbox", "area", "segmentation")
"""What training and evaluation read of an annotation; without ``iscrowd`` it is a single object."""
MOST_CLASSES = 254
"""Labels are bytes; once 0 is left out, 255 stands for pixels that do not count."""


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
    if not (root / card.val_json).is_file():
        _explain_coco(root, card)
    for field in ("train_folder", "val_folder"):
        name = getattr(card, field)
        nested = f"images/{name}"
        folders[field] = nested if not (root / name).is_dir() and (root / nested).is_dir() else name
        require(root / folders[field], "COCO")
    return card.model_copy(update=folders)


def _explain_coco(root: Path, card: CocoCard) -> None:
    """Raise where annotations are missing for a reason that can be seen.

    Raises:
        DataMissing: they lie one folder deeper, are packed, or are in another form.
    """
    inside = [name for name in list_folders(root) if (root / name / card.val_json).is_file()] if root.is_dir() else []
    packed = unpacking_command(root)
    if inside or packed:
        raise DataMissing(
            "COCO data not found",
            f"{root / card.val_json} does not exist" + (f", but {inside[0]}/{card.val_json} does" if inside else ""),
            f"point --data at {root / inside[0]}" if inside else f"unpack the archives: {packed}",
        )


def settle_ade(root: Path) -> Path:
    """Return the folder of the data: the root, or the folder in it that the public archive unpacks to."""
    nested = root / "ADEChallengeData2016"
    if nested.is_dir():
        return nested
    full = next((name for name in list_folders(root) if name.startswith("ADE20K_20")), "") if root.is_dir() else ""
    packed = unpacking_command(root)
    if full or (packed and not (root / "images").is_dir()):
        raise DataMissing(
            "ADE20K data not found",
            f"{full} is the full release, whose labels are not the challenge's 150 classes"
            if full
            else f"{root} is packed",
            "get ADEChallengeData2016.zip" if full else f"unpack it: {packed}",
        )
    return root


def read_coco(root: Path, relative: str) -> dict[str, Any]:
    """Read one COCO annotation file."""
    path = require(root / relative, "COCO")
    with refuse_malformed(path, "download it again"):
        return _checked(path)


def _checked(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = parse_json(path.read_text())
    except ValueError as error:
        raise UserError("a COCO annotation file is not JSON", f"{path}: {error}", "download it again") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise UserError("a COCO annotation file has no annotations", f"{path} lacks {missing}", "use instances_*.json")
    _check_references(content, path)
    return content


def _check_references(content: dict[str, Any], path: Path) -> None:
    ids = {
        key: [_id(item, "id", key, path) for item in content[key]] for key in ("images", "categories", "annotations")
    }
    for key, found in ids.items():
        twice = [number for number, count in Counter(found).items() if count > 1]
        if twice:
            why = f"{path}: {key}, id {twice[0]}"
            raise UserError("a COCO annotation file uses an id twice", why, "number its entries anew")
    nameless = [item["id"] for item in content["categories"] if not isinstance(item.get("name"), str)]
    if nameless:
        raise UserError("a COCO category has no name", f"{path}: category {nameless[0]}", "use instances_*.json")
    outside = [item for item in content["images"] if _leads_out(str(item.get("file_name", "")))]
    if outside:
        why = f"{path}: image {outside[0]['id']}, file_name {outside[0].get('file_name')!r}"
        raise UserError(
            "a COCO annotation file lists a picture outside its folder", why, "use paths below the image folder"
        )
    for item in content["annotations"]:
        absent = [field for field in _OBJECT if field not in item]
        if absent:
            why = f"{path}: annotation {item['id']} lacks {', '.join(absent)}"
            raise UserError("a COCO annotation is not complete", why, "use instances_*.json")
    images, kinds = set(ids["images"]), set(ids["categories"])
    lost = [a["id"] for a in content["annotations"]
            if _id(a, "image_id", "annotations", path) not in images
            or _id(a, "category_id", "annotations", path) not in kinds]  # fmt: skip
    if lost:
        why = f"{path}: {len(lost)} annotations, first id {lost[0]}"
        raise UserError("COCO annotations of unknown images or categories", why, "use the original file")


def _leads_out(name: str) -> bool:
    return not name or name.startswith("/") or ".." in name.split("/")


def _id(item: dict[str, Any], field: str, key: str, path: Path) -> int:
    """Return an id; text is refused, because the toolboxes compare it with numbers and find nothing."""
    value = item.get(field)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        why = f"{path}: {key}, {field} {value!r}"
        raise UserError("a COCO annotation file has an id that is no 64-bit integer", why, "number its entries anew")
    return value


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
    if len(rows) > MOST_CLASSES:
        raise UserError(
            "the ADE20K object table has too many classes",
            f"{len(rows)} found; 8-bit labels hold {MOST_CLASSES}, because the last value means unlabelled",
            "merge classes",
        )
    if card.n_classes is not None and len(rows) != card.n_classes:
        raise UserError(
            "the ADE20K object table has the wrong number of classes",
            f"{len(rows)} found, {card.n_classes} expected",
            "use the matching card or the original table",
        )
    return tuple(name for _, name in rows)


def ade_stems(root: Path, folder: str) -> list[str]:
    """Return the sorted stems of the pictures of one split.

    Raises:
        DataMissing: there is none.
        UserError: some pictures have other names than the toolbox reads.
    """
    names = list_files(require(root / folder, "ADE20K"))
    stems = [Path(name).stem for name in names if name.endswith(".jpg")]
    others = [name for name in names if not name.endswith(".jpg") and Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if others:
        raise UserError(
            f"{len(others)} pictures of ADE20K are not called .jpg",
            f"such as {root / folder / others[0]}; the toolbox reads {len(stems)} .jpg files and would leave these out",
            "use the pictures of the public archive, or call JPEG files .jpg",
        )
    if not stems:
        raise DataMissing("ADE20K split is empty", f"no .jpg in {root / folder}", "unpack the archive there")
    return stems
