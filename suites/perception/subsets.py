"""Draw nested training subsets by hash, independent of every library's random generator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable


def subset(ids: Iterable[int | str], fraction: float, seed: int) -> tuple[str, ...]:
    """Take the first round(fraction * N) ids in the order of SHA-256 of ``"seed:id"``.

    Subsets of one seed are nested. The draw is over all ids of the full training set, before any filtering.

    Args:
        ids: The full set, any order; COCO image ids or ADE20K stems.
        fraction: In (0, 1].
        seed: Subset seed.

    Returns:
        The chosen ids as strings, in hash order.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    ordered = sorted({str(item) for item in ids}, key=lambda item: _digest(seed, item))
    return tuple(ordered[: math.floor(fraction * len(ordered) + 0.5)])


def subset_hash(ids: Iterable[str]) -> str:
    """Return the SHA-256 of the sorted ids, one a line."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _digest(seed: int, item: str) -> bytes:
    return hashlib.sha256(f"{seed}:{item}".encode()).digest()
