"""Seeded splits and subsets, functions of names and seeds only.

Instead of shuffling with a library's generator, items are ordered by the SHA-256 of their names and the seed: the same
on every platform and library version, whatever the order of the files on disk. A prefix of an order is a nested subset.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from harness.api import UserError

IntArray = npt.NDArray[np.int64]
VAL_FRACTION = Fraction(1, 5)
FOLDS_BELOW = 10
"""With fewer images in the smallest class, one validation image per class says little: use folds."""
MAX_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fold:
    """Positions to fit on and to validate on, both ascending."""

    fit: IntArray
    val: IntArray


def seeded_order(names: Sequence[str], *facts: str | int) -> IntArray:
    """Return the positions of ``names`` in an order drawn from ``facts``."""
    prefix = hashlib.sha256("\0".join(str(fact) for fact in facts).encode() + b"\0")
    keys = []
    for name in names:
        digest = prefix.copy()
        digest.update(name.encode())
        keys.append(digest.digest())
    return np.array(sorted(range(len(names)), key=lambda i: (keys[i], names[i])), dtype=np.int64)


def class_orders(
    dataset: str, purpose: str, names: Sequence[str], labels: IntArray, classes: Sequence[str], seed: int
) -> Iterator[tuple[int, IntArray]]:
    """Yield (label, positions in seeded order) per class that occurs; independent between classes and purposes."""
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        order = seeded_order([names[i] for i in members.tolist()], dataset, purpose, classes[label], seed)
        yield label, members[order]


def membership(names: Sequence[str], positions: IntArray) -> str:
    """Return the SHA-256 of the names at ``positions``, sorted and joined by line feeds: the checksum of a part."""
    return hashlib.sha256("\n".join(sorted(names[i] for i in positions.tolist())).encode()).hexdigest()


def toolbox_split(dataset: str, names: Sequence[str], labels: IntArray, classes: Sequence[str], seed: int) -> Fold:
    """Split 80/20 per class: the last ``floor(0.2 n)`` of the class's order, at least one, validate.

    The rule of the t-ReX toolbox, without its defect that one small class changes the fraction of all later ones.

    Raises:
        UserError: a class with a single image cannot be split.
    """
    val = []
    for label, order in class_orders(dataset, "split", names, labels, classes, seed):
        if len(order) < 2:
            raise UserError(
                f"{dataset}: class {classes[label]} has a single image",
                "a validation part needs at least two images per class",
                "use more images, or a fixed C",
            )
        val.append(order[len(order) - max(1, math.floor(VAL_FRACTION * len(order))) :])
    return _fold(np.concatenate(val), len(labels))


def official_split(dataset: str, official_val: npt.NDArray[np.bool_] | None) -> Fold:
    """Split by the distributed validation part.

    Raises:
        UserError: the data set has none.
    """
    if official_val is None:
        raise UserError(
            f"{dataset} has no distributed validation part",
            "only aircraft, dtd, eurosat and flowers do",
            "use the validation mode 'toolbox'",
        )
    return _fold(np.flatnonzero(official_val), len(official_val))


def stratified_folds(
    dataset: str, names: Sequence[str], labels: IntArray, classes: Sequence[str], seed: int
) -> tuple[Fold, ...]:
    """Return k stratified folds, k the size of the smallest class but at most five.

    Raises:
        UserError: a class with a single image.
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < 2:
        raise UserError(f"{dataset}: one image per class", "nothing is left to validate on", "use a fixed C")
    k = min(MAX_FOLDS, smallest)
    fold_of = np.empty(len(labels), dtype=np.int64)
    for shift, (_, order) in enumerate(class_orders(dataset, "folds", names, labels, classes, seed)):
        fold_of[order] = (np.arange(len(order)) + shift) % k  # the shift evens the sizes of the folds
    return tuple(_fold(np.flatnonzero(fold_of == fold), len(labels)) for fold in range(k))


def validation_folds(
    dataset: str, names: Sequence[str], labels: IntArray, classes: Sequence[str], seed: int
) -> tuple[Fold, ...]:
    """Return the toolbox split, or folds when the smallest class has fewer than ten images."""
    if int(np.unique(labels, return_counts=True)[1].min()) >= FOLDS_BELOW:
        return (toolbox_split(dataset, names, labels, classes, seed),)
    return stratified_folds(dataset, names, labels, classes, seed)


def subset_size(count: int, *, fraction: float | None = None, shots: int | None = None) -> int:
    """Return how many of ``count`` images of a class a subset keeps.

    A fraction keeps ``max(2, round-half-up(f n))``, shots keep ``min(k, n)``.
    """
    if (fraction is None) == (shots is None):
        raise ValueError("give either a fraction or a number of shots")
    if shots is not None:
        if shots < 1:
            raise UserError(f"{shots} shots per class", "at least one image per class is needed", "ask for shots >= 1")
        return min(shots, count)
    exact = Fraction(str(fraction))  # 0.1 is one tenth here, so that half cases round as on paper
    if not 0 < exact <= 1:
        raise UserError(
            f"fraction {fraction}", "a fraction of the training images lies in (0, 1]", "correct the fraction"
        )
    return min(count, max(2, math.floor(exact * count + Fraction(1, 2))))


def nested_subset(
    dataset: str,
    names: Sequence[str],
    labels: IntArray,
    classes: Sequence[str],
    seed: int,
    *,
    fraction: float | None = None,
    shots: int | None = None,
) -> IntArray:
    """Return ascending positions of a stratified subset; smaller fractions are subsets of larger ones."""
    kept = [
        order[: subset_size(len(order), fraction=fraction, shots=shots)]
        for _, order in class_orders(dataset, "subset", names, labels, classes, seed)
    ]
    return np.sort(np.concatenate(kept))


def _fold(val: IntArray, total: int) -> Fold:
    in_val = np.zeros(total, dtype=bool)
    in_val[val] = True
    return Fold(np.flatnonzero(~in_val), np.flatnonzero(in_val))
