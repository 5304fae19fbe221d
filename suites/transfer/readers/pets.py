"""Oxford-IIIT Pets: ``images/<Breed>_<n>.jpg`` and ``annotations/{trainval,test}.txt`` (class ids from 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import UserError, find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked, read_lines

_PLACES = ("", "oxford-iiit-pet", "pets", "oxford_pets")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read Pets; the breed in the file name must agree with the class id everywhere."""
    base = find_root(
        card.name,
        root,
        _PLACES,
        lambda folder: (_nested(folder, "annotations") / "trainval.txt").is_file(),
        "images/ and annotations/",
    )
    breeds: dict[int, str] = {}
    trainval, test = (_part(card, base, name, breeds) for name in ("trainval", "test"))
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise UserError(
            f"{card.name}: class ids have gaps",
            f"expected 1 to {len(breeds)}, found {sorted(breeds)[:3]} to {max(breeds)}",
            "use the complete annotation files",
        )
    classes = tuple(breeds[number] for number in sorted(breeds))
    return checked(LabelledImages(card.dataset, "oxford-iiit-pet", base, classes, trainval, test), card)


def _nested(base: Path, name: str) -> Path:
    """Return a folder, or the one of its own name in it, as Kaggle's mirror has them."""
    inner = base / name / name
    return inner if inner.is_dir() else base / name


def _part(card: TransferCard, base: Path, name: str, breeds: dict[int, str]) -> Part:
    path = _nested(base, "annotations") / f"{name}.txt"
    rows = [line.split() for line in read_lines(card, path) if not line.startswith("#")]
    for row in rows:
        if len(row) != 4 or not row[1].isdigit():
            raise UserError(
                f"{card.name}: {path.name} is damaged",
                f"expected '<image> <class> <species> <breed>', found '{' '.join(row)}'",
                "unpack the annotation archive again",
            )
        breed = row[0].rpartition("_")[0]
        if breeds.setdefault(int(row[1]), breed) != breed:
            raise UserError(
                f"{card.name}: class {row[1]} has two names",
                f"expected {breeds[int(row[1])]}, found {breed} in {path.name}",
                "use files of one release",
            )
    images = _nested(base, "images").relative_to(base)
    return Part(
        tuple(f"{images}/{row[0]}.jpg" for row in rows), np.array([int(row[1]) - 1 for row in rows], dtype=np.int64)
    )
