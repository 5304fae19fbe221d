"""Signed distance functions of the class shapes, and the pieces to write more of them.

A shape function takes object coordinates x, y (float32 arrays of one shape; x to the right, y DOWN; the object lives
in about [-1, 1]) and returns an approximate signed distance in the same unit, negative inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ShapeFunction = Callable[[FloatArray, FloatArray], FloatArray]


def circle(x: FloatArray, y: FloatArray, cx: float, cy: float, radius: float) -> FloatArray:
    """Return the distance to a circle."""
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - np.float32(radius)


def box(x: FloatArray, y: FloatArray, cx: float, cy: float, half_w: float, half_h: float) -> FloatArray:
    """Return the (Chebyshev) distance to an axis-parallel box."""
    return np.maximum(np.abs(x - cx) - np.float32(half_w), np.abs(y - cy) - np.float32(half_h))


def polygon(x: FloatArray, y: FloatArray, points: Sequence[tuple[float, float]]) -> FloatArray:
    """Return the exact signed distance to a simple polygon, convex or not (even-odd inside test)."""
    nearest = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=np.bool_)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        wx, wy = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2, out=nearest)
        if ay != by:
            spans = (wy >= 0) != (y >= np.float32(by))
            inside ^= spans & (wx < ex * (wy / ey))
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def radial_points(radii: Sequence[float], count: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """Return `count` points round the origin, from the top, with the radii repeated in order."""
    angles = [2 * np.pi * (k / count) + turn - np.pi / 2 for k in range(count)]
    return [
        (float(radii[k % len(radii)] * np.cos(a)), float(radii[k % len(radii)] * np.sin(a)))
        for k, a in enumerate(angles)
    ]


def _disc(x: FloatArray, y: FloatArray) -> FloatArray:
    return circle(x, y, 0, 0, 0.85)


def _square(x: FloatArray, y: FloatArray) -> FloatArray:
    return box(x, y, 0, 0, 0.74, 0.74)


def _triangle(x: FloatArray, y: FloatArray) -> FloatArray:
    return polygon(x, y, [(0.0, -0.95), (0.95, 0.75), (-0.95, 0.75)])


_STAR = radial_points((1.0, 0.42), 10)


def _star(x: FloatArray, y: FloatArray) -> FloatArray:
    return polygon(x, y, _STAR)


def _cross(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.minimum(box(x, y, 0, 0, 0.3, 0.95), box(x, y, 0, 0, 0.95, 0.3))


def _ring(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.abs(circle(x, y, 0, 0, 0.66)) - np.float32(0.22)


def _crescent(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(circle(x, y, 0.0, 0, 0.92), -circle(x, y, 0.42, 0, 0.68))


def _heart(x: FloatArray, y: FloatArray) -> FloatArray:
    ax = np.abs(x)
    lobe = circle(ax, y, 0.42, -0.34, 0.47)
    # the cone from the outer tangent of the lobe down to the tip
    cone = np.maximum((ax * 0.80 + (y - 0.95) * 0.60).astype(np.float32), -(y + np.float32(0.36)))
    return np.minimum(lobe, cone)


def _arrow(x: FloatArray, y: FloatArray) -> FloatArray:
    return polygon(
        x, y,
        [(-0.95, -0.24), (0.05, -0.24), (0.05, -0.78), (0.98, 0.0), (0.05, 0.78), (0.05, 0.24), (-0.95, 0.24)],
    )  # fmt: skip


def _gear(x: FloatArray, y: FloatArray) -> FloatArray:
    radius = np.sqrt(x * x + y * y)
    teeth = np.float32(0.15) * np.tanh(3 * np.cos(8 * np.arctan2(y, x)))
    return np.maximum(radius - (np.float32(0.76) + teeth), np.float32(0.2) - radius)


def _leaf(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(circle(x, y, 0, 0.48, 1.08), circle(x, y, 0, -0.48, 1.08))


_BOLT = [(0.25, -0.98), (-0.62, 0.14), (-0.06, 0.14), (-0.28, 0.98), (0.62, -0.22), (0.08, -0.22), (0.52, -0.98)]


def _bolt(x: FloatArray, y: FloatArray) -> FloatArray:
    return polygon(x, y, _BOLT)


SHAPE_FUNCTIONS: dict[str, ShapeFunction] = {
    "disc": _disc, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross, "ring": _ring,
    "crescent": _crescent, "heart": _heart, "arrow": _arrow, "gear": _gear, "leaf": _leaf, "bolt": _bolt,
}  # fmt: skip


def shape_distance(
    name: str, x: FloatArray, y: FloatArray, functions: Mapping[str, ShapeFunction] = SHAPE_FUNCTIONS
) -> FloatArray:
    """Return the signed distance of a named shape at object coordinates x, y (negative inside)."""
    return functions[name](x, y)
