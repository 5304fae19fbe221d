"""Describable Textures: ``images/<class>/`` and ``labels/{train,val,test}<partition>.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked, label_index, read_lines

_PLACES = ("", "dtd", "dtd/dtd")  # torchvision keeps it in a doubled folder


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read one partition of DTD; trainval is train followed by val, the class index that of the sorted class names."""
    base = find_root(
        card.name,
        root,
        _PLACES,
        lambda folder: (folder / "labels").is_dir() and (folder / "images").is_dir(),
        "images/ and labels/",
    )
    lines = {
        name: read_lines(card, base / "labels" / f"{name}{card.partition}.txt") for name in ("train", "val", "test")
    }
    classes = tuple(sorted({line.split("/")[0] for part in lines.values() for line in part}))
    train, val, test = (_part(card, classes, lines[name], name) for name in ("train", "val", "test"))
    trainval = Part(train.paths + val.paths, np.concatenate([train.labels, val.labels]))
    official = np.arange(len(trainval)) >= len(train)
    return checked(LabelledImages(card.dataset, "dtd-r1.0.1", base, classes, trainval, test, official), card)


def _part(card: TransferCard, classes: tuple[str, ...], lines: list[str], name: str) -> Part:
    labels = label_index(card, classes, [line.split("/")[0] for line in lines], f"{name}{card.partition}.txt")
    return Part(tuple(f"images/{line}" for line in lines), labels)
