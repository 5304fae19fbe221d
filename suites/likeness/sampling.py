"""Which images are compared: equally many real ones and ones of the data set, per class, chosen by name and content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.api import derive_seed


@dataclass(frozen=True)
class Samples:
    """Positions in the two sources, class by class and equally many of each class."""

    real: tuple[int, ...]
    images: tuple[int, ...]
    labels: tuple[int, ...]
    """Class of each pair of positions."""


def draw_samples(real: Any, images: Any, classes: Sequence[str], per_class: int) -> Samples:
    """Draw the two samples.

    Of the real images of a class at most half are drawn, and none with the bytes of one that is drawn for the data set: so real
    images can be compared with other real images, at the same number as any other data set.

    Args:
        real: Real images: ``names``, ``labels`` and ``read``.
        images: Those of the data set.
        classes: Ordered class ids.
        per_class: Most images of a class.
    """
    members = [_by_class(source.labels, len(classes)) for source in (real, images)]
    chosen: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label, class_id in enumerate(classes):
        known, candidates = (found[label] for found in members)
        drawn = _in_order(known, real.names, "real", class_id)[: min(per_class, len(known) // 2)]
        taken = {_digest(real.read(place)) for place in drawn}
        kept: list[int] = []
        for place in _in_order(candidates, images.names, "images", class_id):
            if len(kept) == len(drawn):
                break
            if _digest(images.read(place)) not in taken:
                kept.append(place)
        chosen[0].extend(drawn[: len(kept)])
        chosen[1].extend(kept)
        chosen[2].extend([label] * len(kept))
    return Samples(tuple(chosen[0]), tuple(chosen[1]), tuple(chosen[2]))


def _by_class(labels: Sequence[int], count: int) -> Mapping[int, list[int]]:
    found: dict[int, list[int]] = {label: [] for label in range(count)}
    for place, label in enumerate(labels):
        found[label].append(place)
    return found


def _in_order(places: Sequence[int], names: Sequence[str], side: str, class_id: str) -> list[int]:
    """Return places in an order that depends on the names alone."""
    return sorted(places, key=lambda place: (derive_seed("likeness", side, class_id, names[place]), names[place]))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
