"""Masks as COCO stores them: polygons along pixel borders, and uncompressed run lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return run lengths of a mask (H, W) in column order, the first run being of zeros (possibly empty)."""
    flat = mask.ravel(order="F")
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def outline_polygon(mask: NDArray[np.bool_]) -> list[int] | None:
    """Return the border of a mask (H, W) as x1, y1, x2, y2, ... in pixel-corner coordinates.

    ``None`` where one closed line cannot say it: the mask has a hole, several pieces, or pieces that touch at a corner.
    """
    following = _border_steps(mask)
    if following is None:
        return None
    start = min(following)
    line, corner = [start], following[start]
    while corner != start:
        line.append(corner)
        corner = following[corner]
    if len(line) != len(following):
        return None
    bends = [
        here
        for before, here, after in zip([line[-1], *line[:-1]], line, [*line[1:], line[0]], strict=True)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    return [value for corner in bends for value in corner]


def _border_steps(mask: NDArray[np.bool_]) -> dict[Corner, Corner] | None:
    """Return from each border corner the next one, the inside on the right; None where a corner has two ways on."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    following: dict[Corner, Corner] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # nothing above: along the top edge, to the right
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    for neighbour, (ax, ay), (bx, by) in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            corner = (column + ax, row + ay)
            if corner in following:
                return None
            following[corner] = (column + bx, row + by)
    return following or None
