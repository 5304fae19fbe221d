"""Stanford Cars in both distributions: consolidated (``cars_annos.mat``) and split (``devkit`` and two folders)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import DataMissing, find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked
from suites.transfer.mat import load_mat, strings, struct_field

_PLACES = ("", "stanford_cars", "cars196", "cars", "stanford-cars")
_DEVKITS = ("devkit", "car_devkit", "devkit/devkit", "car_devkit/devkit")  # the second is Kaggle's
_LABELLED_TEST = "cars_test_annos_withlabels.mat"


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read Cars from whichever distribution is there; labels on disk are 1-based.

    Mirrors exist that ship ``cars_annos.mat`` beside split-layout images: its names do not fit those images, so the
    consolidated layout is used only where ``car_ims`` exists.
    """
    base = find_root(
        card.name,
        root,
        _PLACES,
        lambda folder: _consolidated(folder) or _split(folder),
        "car_ims/ with cars_annos.mat, or cars_train/, cars_test/ and devkit/",
    )
    images = _read_consolidated(card, base) if _consolidated(base) else _read_split(card, base)
    return checked(images, card)


def _consolidated(folder: Path) -> bool:
    return (folder / "cars_annos.mat").is_file() and (folder / "car_ims").is_dir()


def _split(folder: Path) -> bool:
    return (folder / "cars_train").is_dir() and (_devkit(folder) is not None or (folder / "cars_annos.mat").is_file())


def _devkit(folder: Path) -> Path | None:
    """Return the innermost folder of the devkit."""
    return next((folder / name for name in reversed(_DEVKITS) if (folder / name).is_dir()), None)


def _read_consolidated(card: TransferCard, base: Path) -> LabelledImages:
    path = base / "cars_annos.mat"
    content = load_mat(card.name, path, "annotations", "class_names")
    table = content["annotations"]
    nested = "car_ims/" if (base / "car_ims" / "car_ims").is_dir() else ""
    files = np.array([nested + str(name) for name in struct_field(card.name, table, "relative_im_path", path)])
    labels = np.array(struct_field(card.name, table, "class", path), dtype=np.int64) - 1
    in_test = np.array(struct_field(card.name, table, "test", path), dtype=bool)
    parts = [Part(tuple(files[mask].tolist()), labels[mask]) for mask in (~in_test, in_test)]
    return LabelledImages(card.dataset, "consolidated", base, strings(content["class_names"]), parts[0], parts[1])


def _read_split(card: TransferCard, base: Path) -> LabelledImages:
    devkit = _devkit(base)
    if devkit is None:
        raise DataMissing(
            f"{card.name}: cars_annos.mat does not fit these images",
            f"it names the 16,185 files of car_ims/, but {base} holds cars_train/ and cars_test/, which are "
            "numbered differently, and no devkit/",
            "get devkit/ with cars_train_annos.mat and the labelled test annotations, or car_ims/",
        )
    classes = strings(load_mat(card.name, devkit / "cars_meta.mat", "class_names")["class_names"])
    test_file = next(
        (folder / _LABELLED_TEST for folder in (base, devkit) if (folder / _LABELLED_TEST).is_file()), None
    )
    if test_file is None:
        raise DataMissing(
            f"{card.name}: {_LABELLED_TEST} is missing",
            f"expected it in {base} or {devkit}; the devkit's own test file has no labels",
            "get the labelled test annotations, which are distributed separately",
        )
    train = _read_part(card, base, "cars_train", devkit / "cars_train_annos.mat")
    test = _read_part(card, base, "cars_test", test_file)
    return LabelledImages(card.dataset, "split", base, classes, train, test)


def _read_part(card: TransferCard, base: Path, folder: str, path: Path) -> Part:
    table = load_mat(card.name, path, "annotations")["annotations"]
    labels = np.array(struct_field(card.name, table, "class", path), dtype=np.int64) - 1
    prefix = f"{folder}/{folder}" if (base / folder / folder).is_dir() else folder  # some mirrors nest it twice
    return Part(tuple(f"{prefix}/{name}" for name in struct_field(card.name, table, "fname", path)), labels)
