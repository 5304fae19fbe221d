"""Validation images of ImageNet-like data: class folders named by wnid, or the flat archive with its devkit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.api import IMAGE_SUFFIXES, ClassList, DataMissing, UserError, list_files, list_folders, load_classes

_FLAT_PREFIX = "ILSVRC2012_val_"
_PLACES = ("val", "validation", "")
_DEVKITS = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/ILSVRC2012_devkit_t12", "devkit", "")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True, eq=False)
class ClassImages:
    """Images with labels in the order of a class list."""

    root: Path
    layout: str
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """(n,) position in the class list."""
    outside: int
    """Images left out because their class is not in the list."""


def read_validation(
    root: Path, class_ids: Sequence[str], *, name: str = "val", per_class: int | None = None
) -> ClassImages:
    """Read a validation set, keeping the classes in ``class_ids``; labels are positions in that list.

    Class folders (``root/val/<wnid>/*.JPEG`` or ``root/<wnid>/``) or the flat ILSVRC 2012 archive with the devkit beside
    it, whose ground truth counts in the order of ``meta.mat`` and not of the sorted wnids.

    Args:
        root: Data root.
        class_ids: Ordered class ids of the head.
        name: Data set name for messages.
        per_class: Expected images per class; None is not checked.

    Raises:
        DataMissing: no known layout, or a class without images.
        UserError: wrong counts.
    """
    root = Path(root)
    for place in _PLACES:
        folder = root / place if place else root
        if any((folder / class_id).is_dir() for class_id in class_ids):
            return _checked(_read_folders(folder, class_ids), class_ids, name, per_class)
    for place in _PLACES:
        folder = root / place if place else root
        if folder.is_dir() and any(file.startswith(_FLAT_PREFIX) for file in list_files(folder)):
            return _checked(_read_flat(folder, root, class_ids, name), class_ids, name, per_class)
    raise DataMissing(
        f"{name}: no validation images in {root}",
        f"expected folders such as val/{class_ids[0]}/, or {_FLAT_PREFIX}*.JPEG with the devkit",
        f"point the data set to the right folder: --data {name}=PATH",
    )


def listed_classes(root: Path) -> ClassList:
    """Return the smallest shipped ImageNet list that covers the class folders; the full one for a flat archive."""
    small, full = load_classes("imagenet100"), load_classes("imagenet1k")
    places = [Path(root) / place for place in _PLACES]
    known = {name for place in places if place.is_dir() for name in list_folders(place)} & set(full.ids)
    return small if known and known <= set(small.ids) else full


def own_classes(root: Path) -> tuple[str, ...]:
    """Return the sorted class folders of validation images none of whose classes is ImageNet's; empty for all others."""
    known = set(load_classes("imagenet1k").ids)
    for place in _PLACES:
        folder = Path(root) / place if place else Path(root)
        named = (
            [name for name in list_folders(folder) if list_files(folder / name, IMAGE_SUFFIXES)]
            if folder.is_dir()
            else []
        )
        if named:
            return () if known & set(named) else tuple(named)
    return ()


def _read_folders(folder: Path, class_ids: Sequence[str]) -> ClassImages:
    known = {class_id: label for label, class_id in enumerate(class_ids)}
    paths: list[str] = []
    labels: list[int] = []
    outside = 0
    for name in list_folders(folder):
        images = list_files(folder / name, IMAGE_SUFFIXES)
        if name not in known:
            outside += len(images)
            continue
        paths += [f"{name}/{image}" for image in images]
        labels += [known[name]] * len(images)
    return ClassImages(folder, "class folders", tuple(paths), np.array(labels, dtype=np.int64), outside)


def _read_flat(folder: Path, root: Path, class_ids: Sequence[str], name: str) -> ClassImages:
    wnids = _flat_wnids(root, name)
    images = [file for file in list_files(folder, IMAGE_SUFFIXES) if file.startswith(_FLAT_PREFIX)]
    odd = [file for file in images if not Path(file).stem.removeprefix(_FLAT_PREFIX).isdecimal()]
    if odd:
        raise UserError(
            f"{name}: {len(odd)} files are not named like validation images",
            f"expected {_FLAT_PREFIX}<number>.JPEG, found {', '.join(odd[:3])} in {folder}",
            "remove them (such as second copies), or unpack the validation archive again",
        )
    if len(images) != len(wnids):
        raise UserError(
            f"{name}: images and ground truth differ",
            f"expected {len(wnids)} images, found {len(images)}",
            "unpack the validation archive again",
        )
    known = {class_id: label for label, class_id in enumerate(class_ids)}
    numbers = [int(Path(file).stem.rpartition("_")[2]) for file in images]
    if numbers != list(range(1, len(images) + 1)):
        raise UserError(
            f"{name}: image numbers have gaps",
            f"expected 1 to {len(images)}, found up to {max(numbers)}",
            "unpack the validation archive again",
        )
    kept = [(file, known[wnid]) for file, wnid in zip(images, wnids, strict=True) if wnid in known]
    return ClassImages(
        folder,
        "flat archive with devkit",
        tuple(file for file, _ in kept),
        np.array([label for _, label in kept], dtype=np.int64),
        len(images) - len(kept),
    )


def _flat_wnids(root: Path, name: str) -> list[str]:
    """Return the wnid of every validation image in the order of the image numbers."""
    from suites.transfer.mat import load_mat, struct_field

    places = (base / devkit / "data" for base in (root, root.parent) for devkit in _DEVKITS)
    found = next((place for place in places if (place / _GROUND_TRUTH).is_file()), None)
    if found is None:
        raise DataMissing(
            f"{name}: flat validation images without the devkit",
            f"expected ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH} in {root} or beside it, found none",
            "unpack ILSVRC2012_devkit_t12.tar.gz there, or sort the images into one folder per wnid",
        )
    meta = found / "meta.mat"
    table = load_mat(name, meta, "synsets")["synsets"]
    wnid = dict(
        zip(
            (int(i) for i in struct_field(name, table, "ILSVRC2012_ID", meta)),
            struct_field(name, table, "WNID", meta),
            strict=True,
        )
    )
    words = (found / _GROUND_TRUTH).read_bytes().split()
    odd = next((place for place, word in enumerate(words) if not word.isdigit()), None)
    if odd is not None:
        raise UserError(
            f"{name}: the ground truth is damaged",
            f"{found / _GROUND_TRUTH}: entry {odd + 1} is {words[odd].decode(errors='replace')!r}, expected a class number",
            "unpack ILSVRC2012_devkit_t12.tar.gz again",
        )
    numbers = [int(word) for word in words]
    unknown = sorted(set(numbers) - set(wnid))
    if unknown:
        raise UserError(
            f"{name}: ground truth names unknown classes",
            f"ids {unknown[:3]} are not in meta.mat",
            "use ground truth and meta.mat of one devkit",
        )
    return [str(wnid[number]) for number in numbers]


def _checked(images: ClassImages, class_ids: Sequence[str], name: str, per_class: int | None) -> ClassImages:
    counts = np.bincount(images.labels, minlength=len(class_ids))
    if (counts == 0).any():
        missing = [class_ids[i] for i in np.flatnonzero(counts == 0)[:3]]
        raise DataMissing(
            f"{name}: {int((counts == 0).sum())} classes have no validation images",
            f"expected images of {len(class_ids)} classes, found none of {', '.join(missing)} in {images.root}",
            f"complete the set, or name the classes it holds: --set data.{name}.card=CARD.json with "
            '{"classes": "imagenet100"} or the path of a list',
        )
    if per_class is not None and (counts != per_class).any():
        odd = int(np.flatnonzero(counts != per_class)[0])
        raise UserError(
            f"{name}: wrong number of validation images",
            f"expected {per_class} of each class, found {int(counts[odd])} of {class_ids[odd]}",
            "unpack the validation archive again",
        )
    return images
