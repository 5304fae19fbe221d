"""Where objects stand in worlds that plant a correlation of the class with their size or their place."""

from __future__ import annotations

import numpy as np

from harness.microworld.causes import IntArray
from harness.microworld.renderer import FloatArray, Placement, SeedArray, natural_placement

SIZES: tuple[str, ...] = ("small", "medium", "large")
POSITIONS: tuple[str, ...] = ("upper", "middle", "lower")

_HALF_WIDTH = np.array([0.36, 0.52, 0.82], dtype=np.float32)
_HALF_WIDTH_SPREAD = 0.1  # in units of the half-width itself
_HEIGHT = np.array([-0.36, 0.0, 0.36], dtype=np.float32)
_HEIGHT_SPREAD = 0.07
_SIZE_STREAM = 0x2545F4914F6CDD1D
_POSITION_STREAM = 0x6C8E9CF570932BD5


def partner_size(shape: IntArray) -> IntArray:
    """Return the size, an index into SIZES, that each shape prefers in a biased world."""
    return np.asarray(shape, dtype=np.int64) % len(SIZES)


def partner_position(shape: IntArray) -> IntArray:
    """Return the position, an index into POSITIONS, that each shape prefers; unlike ``partner_size``, and as balanced."""
    shape = np.asarray(shape, dtype=np.int64)
    return (shape + shape // 3) % len(POSITIONS)


def planted_placement(shapes: IntArray, seeds: SeedArray, size: float, position: float) -> Placement:
    """Return poses: with probability ``size`` of the half-width that the shape prefers, with ``position`` at its height.

    Otherwise both are the renderer's own, so at doses of 0 every pose is ``natural_placement``. The same uniforms decide for
    every dose.
    """
    place = natural_placement(seeds)
    usual_size, usual_place = _draw(seeds, _SIZE_STREAM), _draw(seeds, _POSITION_STREAM)
    scale = half_widths(partner_size(shapes), usual_size[:, 1])
    cy = heights(partner_position(shapes), usual_place[:, 1])
    return Placement(
        place.cx,
        np.where(usual_place[:, 0] < position, cy, place.cy),
        np.where(usual_size[:, 0] < size, scale, place.scale),
        place.rotation,
    )


def half_widths(sizes: IntArray, uniforms: FloatArray) -> FloatArray:
    """Return half-widths (n,) of sizes given as indices into SIZES, spread by uniforms in [0, 1)."""
    return (_HALF_WIDTH[sizes] * (1 + _HALF_WIDTH_SPREAD * (2 * uniforms - 1))).astype(np.float32)


def heights(positions: IntArray, uniforms: FloatArray) -> FloatArray:
    """Return vertical centres (n,), down is positive, of positions given as indices into POSITIONS."""
    return (_HEIGHT[positions] + _HEIGHT_SPREAD * (2 * uniforms - 1)).astype(np.float32)


def _draw(seeds: SeedArray, stream: int) -> FloatArray:
    """Return two uniforms of each seed: whether the preferred value is taken, and where within its range."""
    out = np.empty((len(seeds), 2), dtype=np.float32)
    for row, seed in zip(out, np.asarray(seeds, dtype=np.uint64).tolist(), strict=True):
        np.random.Generator(np.random.PCG64(seed ^ stream)).random(dtype=np.float32, out=row)
    return out
