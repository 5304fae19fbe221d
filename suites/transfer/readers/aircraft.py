"""FGVC Aircraft at variant level: ``data/images`` and ``data/images_variant_{train,val,test}.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import UserError, find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked, label_index, read_lines

_PLACES = ("", "data", "fgvc-aircraft-2013b/data", "aircraft/fgvc-aircraft-2013b/data")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read Aircraft; trainval is train followed by val, the class index is the line number in ``variants.txt``."""
    base = find_root(
        card.name, root, _PLACES, lambda folder: (folder / "variants.txt").is_file(), "variants.txt and images/"
    )
    classes = tuple(read_lines(card, base / "variants.txt"))
    train, val, test = (_part(card, base, classes, name) for name in ("train", "val", "test"))
    trainval = Part(train.paths + val.paths, np.concatenate([train.labels, val.labels]))
    official = np.arange(len(trainval)) >= len(train)
    return checked(LabelledImages(card.dataset, "fgvc-aircraft-2013b", base, classes, trainval, test, official), card)


def _part(card: TransferCard, base: Path, classes: tuple[str, ...], name: str) -> Part:
    path = base / f"images_variant_{name}.txt"
    # names hold spaces, slashes and hyphens ("Cessna 172", "F/A-18"): only the first space separates
    rows = [line.split(" ", 1) for line in read_lines(card, path)]
    if any(len(row) != 2 for row in rows):
        raise UserError(
            f"{card.name}: {path.name} is damaged",
            "expected lines '<7-digit id> <variant name>'",
            "unpack the annotation files again",
        )
    labels = label_index(card, classes, [row[1].strip() for row in rows], path.name)
    return Part(tuple(f"images/{row[0]}.jpg" for row in rows), labels)
