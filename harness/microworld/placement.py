"""Where objects stand in worlds whose objects differ in size or place, and in which these may follow the class."""

from __future__ import annotations

import numpy as np

from harness.microworld.causes import IntArray
from harness.microworld.renderer import Placement, SeedArray, natural_placement
from harness.microworld.shapes import FloatArray

SIZES: tuple[str, ...] = ("small", "medium", "large")
POSITIONS: tuple[str, ...] = ("upper", "middle", "lower")

_HALF_WIDTH = np.array([0.45, 0.61, 0.84], dtype=np.float32)
_HALF_WIDTH_SPREAD = 0.06  # in units of the half-width itself
_HEIGHT = np.array([-0.22, 0.0, 0.22], dtype=np.float32)
_HEIGHT_SPREAD = 0.05
_SIZE_STREAM = 0x2545F4914F6CDD1D
_POSITION_STREAM = 0x6C8E9CF570932BD5


def partner_size(shape: IntArray) -> IntArray:
    """Return the size, an index into SIZES, that each shape prefers in a biased world."""
    return np.asarray(shape, dtype=np.int64) % len(SIZES)


def partner_position(shape: IntArray) -> IntArray:
    """Return the position, an index into POSITIONS, that each shape prefers; as balanced as ``partner_size``, and not alike."""
    shape = np.asarray(shape, dtype=np.int64)
    return (shape + shape // 3) % len(POSITIONS)


def planted_placement(
    shapes: IntArray, seeds: SeedArray, size: float | None = None, position: float | None = None
) -> Placement:
    """Return the poses of a world; the same uniforms decide for every dose.

    Args:
        shapes: (n,) indices into SHAPES.
        seeds: (n,) uint64, one per picture.
        size: Probability with which an object has the size that its shape prefers, else any of SIZES alike; None: sizes are
            those of ``natural_placement``.
        position: The same of its height in the picture.
    """
    place = natural_placement(seeds)
    scale, cy = place.scale, place.cy
    if size is not None:
        sizes, spread = _draw(seeds, _SIZE_STREAM, size, partner_size(shapes))
        scale = (_HALF_WIDTH[sizes] * (1 + _HALF_WIDTH_SPREAD * spread)).astype(np.float32)
    if position is not None:
        positions, spread = _draw(seeds, _POSITION_STREAM, position, partner_position(shapes))
        cy = (_HEIGHT[positions] + _HEIGHT_SPREAD * spread).astype(np.float32)
    return Placement(place.cx, cy, scale, place.rotation)


def _draw(seeds: SeedArray, stream: int, dose: float, partner: IntArray) -> tuple[IntArray, FloatArray]:
    """Return one of three levels for each seed, and a number in [-1, 1) that spreads them."""
    u = np.empty((len(seeds), 3), dtype=np.float32)
    for row, seed in zip(u, np.asarray(seeds, dtype=np.uint64).tolist(), strict=True):
        np.random.Generator(np.random.PCG64(seed ^ stream)).random(dtype=np.float32, out=row)
    free = np.minimum((u[:, 1] * 3).astype(np.int64), 2)
    return np.where(u[:, 0] < dose, partner, free), 2 * u[:, 2] - 1
