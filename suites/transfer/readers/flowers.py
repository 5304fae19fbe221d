"""Oxford Flowers-102: ``jpg/image_NNNNN.jpg``, ``imagelabels.mat`` and ``setid.mat`` (all numbers 1-based)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import UserError, find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked
from suites.transfer.mat import load_mat

_PLACES = ("", "flowers-102", "flowers102", "102flowers", "flowers")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read Flowers; trainval is ``trnid`` followed by ``valid``. The test part is the larger one, on purpose."""
    base = find_root(
        card.name,
        root,
        _PLACES,
        lambda folder: (folder / "imagelabels.mat").is_file(),
        "jpg/, imagelabels.mat and setid.mat",
    )
    labels = np.atleast_1d(load_mat(card.name, base / "imagelabels.mat", "labels")["labels"]).astype(np.int64) - 1
    ids = {
        name: np.atleast_1d(value).astype(np.int64)
        for name, value in load_mat(card.name, base / "setid.mat", "trnid", "valid", "tstid").items()
    }
    largest = max(int(value.max()) for value in ids.values())
    if largest > len(labels):
        raise UserError(
            f"{card.name}: setid.mat and imagelabels.mat differ",
            f"expected image numbers up to {len(labels)}, found {largest}",
            "use files of one release",
        )
    trainval = np.concatenate([ids["trnid"], ids["valid"]])
    official = np.arange(len(trainval)) >= len(ids["trnid"])
    classes = tuple(str(number) for number in range(1, int(labels.max()) + 2))
    images = LabelledImages(
        card.dataset, "102flowers", base, classes, _part(trainval, labels), _part(ids["tstid"], labels), official
    )
    return checked(images, card)


def _part(numbers: np.ndarray, labels: np.ndarray) -> Part:
    return Part(tuple(f"jpg/image_{number:05d}.jpg" for number in numbers.tolist()), labels[numbers - 1])
