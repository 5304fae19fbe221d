"""Validation images of ImageNet-like data: class folders, ImageNet-V2's numbered folders, the flat archive, packed files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.api import (
    IMAGE_SUFFIXES,
    PART_FOLDERS,
    ClassList,
    DataMissing,
    UserError,
    class_images,
    list_files,
    list_folders,
    load_classes,
    part_of_folder,
    unpacking_command,
)
from suites import ilsvrc
from suites.class_images import ClassImages
from suites.packed import counted_list, read_packed, refuse_named_otherwise

PUBLISHED_PER_CLASS = 50
"""Validation images of each class in ILSVRC 2012, and so in ImageNet-100."""
_PART = "validation"
_PLACES = (*PART_FOLDERS[_PART], "")
_V2 = "imagenetv2"
"""Beginning (lower case) of the folders of ImageNet-V2; its authors number them by the sorted wnids."""


def read_validation(
    root: Path, class_ids: Sequence[str], *, name: str = "val", per_class: int | None = None, numbered: str = ""
) -> ClassImages:
    """Read a validation set, keeping the classes in ``class_ids``; labels are positions in that list.

    Class folders (``root/val/<wnid>/*.JPEG`` or ``root/<wnid>/``), the folders 0 ... 999 of ImageNet-V2, the flat ILSVRC 2012
    archive with its devkit (whose ground truth counts in the order of ``meta.mat`` and not of the sorted wnids) or with
    Kaggle's solution file, or the validation part of tar shards or parquet files.

    Args:
        root: Data root.
        class_ids: Ordered class ids of the head.
        name: Data set name for messages.
        per_class: Expected images per class; None is not checked, and a subset of the flat archive is read.
        numbered: Class list whose ids folders or labels that are numbers count; empty: only where it is known.

    Raises:
        DataMissing: no known layout, or a class without images.
        UserError: wrong counts, training images, or labels whose meaning is not known.
    """
    root = Path(root)
    found = _found(root, class_ids, name, per_class, numbered)
    return _checked(found, class_ids, name, per_class)


def check_layout(root: Path, class_ids: Sequence[str], name: str, per_class: int | None, numbered: str) -> None:
    """Refuse a validation set that cannot be measured whatever classes a head has; the arguments are ``read_validation``'s.

    Raises:
        DataMissing: no known layout.
        UserError: training images, labels whose meaning is not known, or no class has ``per_class`` images.
    """
    images = _found(root, class_ids, name, per_class, numbered)
    counts = np.bincount(images.labels, minlength=len(class_ids))
    if per_class is not None and counts.any() and per_class not in counts:
        raise _wrong_count(counts, int(np.flatnonzero(counts)[0]), class_ids, name, per_class)


def _found(root: Path, class_ids: Sequence[str], name: str, per_class: int | None, numbered: str) -> ClassImages:
    if _called_training(root):
        raise UserError(
            f"{name}: {root} is a folder of training images by its name",
            "accuracy on images that were trained on says nothing",
            f"give the folder of the validation images, or the one that holds both parts: --data {name}={root.parent}",
        )
    return _in_known_layout(root, class_ids, name, per_class, numbered)


def _called_training(root: Path) -> bool:
    """Return whether a folder, or what it links to, is called by training images and holds no folder of validation images."""
    if any((root / place).is_dir() for place in PART_FOLDERS[_PART]):
        return False
    return any(part_of_folder(name) == "training" for name in (root.name, root.resolve().name))


def _in_known_layout(
    root: Path, class_ids: Sequence[str], name: str, per_class: int | None, numbered: str
) -> ClassImages:
    places = [root / place if place else root for place in _PLACES]
    for folder in places:
        if any((folder / class_id).is_dir() for class_id in class_ids):
            return _read_folders(folder, class_ids, {each: each for each in class_ids})
    for folder in (*places, *_v2_folders(root, name)):
        if numbers := _numbered_folders(folder):
            listed = _numbering(folder, numbers, name, numbered)
            images = replace(_read_folders(folder, class_ids, listed), layout="numbered class folders")
            refuse_named_otherwise(
                name, ((path, path, class_ids[i]) for path, i in zip(images.paths, images.labels, strict=True))
            )
            return images
    for folder in places:
        if folder.is_dir() and any(file.startswith(ilsvrc.PREFIX) for file in list_files(folder)):
            return _read_flat(folder, root, class_ids, name, per_class is None)
    packed = read_packed(root, class_ids, name, numbered)
    if packed is not None:
        return packed
    command = unpacking_command(root, root / "val", "val")
    raise DataMissing(
        f"{name}: no validation images in {root}",
        f"expected folders such as val/{class_ids[0]}/, or {ilsvrc.PREFIX}*.JPEG with the devkit",
        f"unpack the archive that lies there: {command}" if command else
        f"point the data set to the right folder: --data {name}=PATH",
    )  # fmt: skip


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
            return () if known & set(named) or all(map(str.isdigit, named)) else tuple(named)
    return ()


def _v2_folders(root: Path, name: str) -> list[Path]:
    """Return the folder of ImageNet-V2 in a root; its three variants are different test sets.

    Raises:
        UserError: several variants lie there.
    """
    found = [each for each in list_folders(root) if each.lower().startswith(_V2)] if root.is_dir() else []
    if len(found) > 1:
        raise UserError(
            f"{name}: several variants of ImageNet-V2 in {root}",
            f"{', '.join(found)} are different test sets",
            f"give one of them: --data {name}={root / found[0]}",
        )
    return [root / each for each in found]


def _numbered_folders(folder: Path) -> list[str]:
    """Return the folders called by numbers, in the order of the numbers, where all folders are."""
    names = list_folders(folder) if folder.is_dir() else []
    return sorted(names, key=int) if len(names) > 1 and all(n.isascii() and n.isdigit() for n in names) else []


def _numbering(folder: Path, names: Sequence[str], name: str, numbered: str) -> dict[str, str]:
    """Return the class id of each numbered folder.

    Raises:
        UserError: nobody has said what the numbers count, or they do not fit the list.
    """
    here = folder.name.lower().startswith(_V2) or folder.parent.name.lower().startswith(_V2)
    counted = numbered or ("imagenet1k" if here and names == [str(i) for i in range(1000)] else "")
    if not counted:
        raise UserError(
            f"{name}: what the numbers of the folders in {folder} mean is not known",
            f"they are {names[0]} to {names[-1]}; only their publisher knows which class each is (ImageNet-V2, whose folder is "
            f"called {_V2}-..., counts the sorted wnids)",
            f"{counted_list(name)}, or call them by wnid",
        )
    ids, numbers = load_classes(counted).ids, [int(each) for each in names]
    if numbers[-1] >= len(ids) or len(set(numbers)) != len(numbers):
        raise UserError(
            f"{name}: the folders in {folder} do not count {counted}",
            f"they are {names[0]} to {names[-1]}, {len(names)} folders of {len(set(numbers))} numbers; {counted} has {len(ids)}",
            "name the list they count in the card's 'numbered'",
        )
    return {each: ids[number] for each, number in zip(names, numbers, strict=True)}


def _read_folders(folder: Path, class_ids: Sequence[str], meaning: Mapping[str, str]) -> ClassImages:
    """Read class folders in the order of their class ids; ``meaning`` gives the class id of each folder that has one."""
    known = {class_id: label for label, class_id in enumerate(class_ids)}
    order = sorted((meaning.get(name, name), name) for name in list_folders(folder))
    paths: list[str] = []
    labels: list[int] = []
    outside = 0
    for class_id, name in order:
        if class_id not in known:
            outside += len(list_files(folder / name, IMAGE_SUFFIXES))
            continue
        images = class_images(folder, name, _PART)
        paths += [f"{name}/{image}" for image in images]
        labels += [known[class_id]] * len(images)
    return ClassImages(folder, "class folders", tuple(paths), np.array(labels, dtype=np.int64), outside)


def _read_flat(folder: Path, root: Path, class_ids: Sequence[str], name: str, subset: bool) -> ClassImages:
    images = [file for file in list_files(folder, IMAGE_SUFFIXES) if file.startswith(ilsvrc.PREFIX)]
    source, wnids = ilsvrc.labels(root, name, images)
    odd = [file for file in images if ilsvrc.image_number(file) not in wnids]
    if odd:
        raise UserError(
            f"{name}: {len(odd)} files are not named like validation images",
            f"expected {ilsvrc.PREFIX}<number>.JPEG with a number up to {max(wnids, default=0)}, found {', '.join(odd[:3])} in {folder}",
            "remove them (such as second copies), or unpack the validation archive again",
        )
    numbers = Counter(map(ilsvrc.image_number, images))
    twice = [file for file in images if numbers[ilsvrc.image_number(file)] > 1]
    if twice:
        raise UserError(f"{name}: two files claim one validation image", ", ".join(twice[:2]), "remove one of them")
    if len(images) != len(wnids) and not subset:
        raise UserError(
            f"{name}: images and ground truth differ",
            f"expected {len(wnids)} images, found {len(images)}",
            f"unpack the validation archive again, or measure these images as they are: {any_count(name)}",
        )
    known = {class_id: label for label, class_id in enumerate(class_ids)}
    kept = [(file, known[wnid]) for file in images if (wnid := wnids[ilsvrc.image_number(file)]) in known]
    return ClassImages(
        folder,
        f"flat archive with {source}",
        tuple(file for file, _ in kept),
        np.array([label for _, label in kept], dtype=np.int64),
        len(images) - len(kept),
    )


def any_count(name: str) -> str:
    """Return the option that accepts other numbers of images than the published ones."""
    return f"--set 'data.{name}.card={{\"per_class\": null}}'"


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
        raise _wrong_count(counts, int(np.flatnonzero(counts != per_class)[0]), class_ids, name, per_class)
    return images


def _wrong_count(
    counts: npt.NDArray[np.int64], odd: int, class_ids: Sequence[str], name: str, per_class: int
) -> UserError:
    return UserError(
        f"{name}: wrong number of validation images",
        f"expected {per_class} of each class, found {int(counts[odd])} of {class_ids[odd]}",
        f"complete the set, or measure these images as they are, in a column of their own: {any_count(name)}",
    )


def unpublished_counts(labels: npt.NDArray[np.int64], class_ids: Sequence[str]) -> str:
    """Say how many images of each class there are where ImageNet's published validation set has others; else empty.

    Args:
        labels: (n,) positions in ``class_ids``.
        class_ids: Classes of the images.
    """
    counts = np.bincount(labels, minlength=len(class_ids))
    if not set(class_ids) <= set(load_classes("imagenet1k").ids) or (counts == PUBLISHED_PER_CLASS).all():
        return ""
    low, high = int(counts.min()), int(counts.max())
    return f"{low if low == high else f'{low} to {high}'} images of each class instead of the published {PUBLISHED_PER_CLASS}"
