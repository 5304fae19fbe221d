"""Signed-distance parts from which the outlines of the novel classes are put together.

An outline is a function ``(x, y) -> d`` on floating-point arrays of one shape, with x to the right, y downwards and the
object inside the unit circle; d < 0 inside. Distances need not be Euclidean: only the sign and a slope near one at the
border matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""Floating-point values, one per pixel."""
Outline = Callable[[Field, Field], Field]
Point = tuple[float, float]


def ellipse(x: Field, y: Field, centre: Point, radii: Point) -> Field:
    """Return the distance to an axis-aligned ellipse."""
    across, down = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    scaled = np.maximum(np.hypot(across, down), 1e-3)
    slope = np.hypot(across / radii[0], down / radii[1])  # dividing by it makes thin ellipses as crisp as round ones
    return scaled * (scaled - 1.0) / np.maximum(slope, 1e-3 / max(radii))


def box(x: Field, y: Field, centre: Point, half: Point, corner: float = 0.0) -> Field:
    """Return the distance to a box with rounded corners of radius ``corner``."""
    across = np.abs(x - centre[0]) - half[0] + corner
    down = np.abs(y - centre[1]) - half[1] + corner
    outside = np.hypot(np.maximum(across, 0.0), np.maximum(down, 0.0))
    return outside + np.minimum(np.maximum(across, down), 0.0) - corner


def capsule(x: Field, y: Field, start: Point, end: Point, radius: float) -> Field:
    """Return the distance to a thick line segment."""
    run, rise = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * run + (y - start[1]) * rise) / (run * run + rise * rise)
    along = np.clip(along, 0.0, 1.0)
    return np.hypot(x - start[0] - along * run, y - start[1] - along * rise) - radius


def polygon(x: Field, y: Field, corners: Sequence[Point]) -> Field:
    """Return the exact signed distance to a simple polygon (even-odd rule)."""
    nearest = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        nearest = np.minimum(nearest, capsule(x, y, (ax, ay), (bx, by), 0.0))
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return np.where(inside, -nearest, nearest).astype(np.float32)


def union(*parts: Field) -> Field:
    """Return the distance to the union of parts."""
    merged = parts[0]
    for part in parts[1:]:
        merged = np.minimum(merged, part)
    return merged


def cut(body: Field, *holes: Field) -> Field:
    """Return the distance to a body with holes removed."""
    return np.maximum(body, -union(*holes))
