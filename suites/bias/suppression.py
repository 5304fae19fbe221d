"""Pictures with one cue taken out, at the strengths of feature-reliance (Burgert et al., NeurIPS 2025).

Every function takes and returns RGB uint8 (H, W, 3). Lengths are in pixels of the network's input, which is 224 px there. A
picture depends on itself, its name, the cue and the level alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.api import derive_seed

Picture = npt.NDArray[np.uint8]

_SPACE = 75  # sigma of the bilateral filter over space, pixels: wider than its window, which so decides alone
_TEMPLATE, _SEARCH = 15, 21  # windows of non-local means; the public code says 14, of which OpenCV makes 15
_LUMA = np.array([0.299, 0.587, 0.114])


def remove_colour(picture: Picture, share: float, name: str) -> Picture:
    """Blend the picture with its grey version (ITU-R BT.601); ``share`` is that of grey, from 0 to 1."""
    grey = np.rint(picture @ _LUMA)[..., None]
    return np.rint((1 - share) * picture + share * grey).astype(np.uint8)


def smooth_bilaterally(picture: Picture, diameter: float, name: str) -> Picture:
    """Filter bilaterally over ``diameter`` pixels, 0 for none; its sigma over colours grows with it, 50 at 4 to 200 at 14."""
    import cv2

    if not diameter:  # OpenCV would make a window of its own
        return picture.copy()
    cv2.setNumThreads(1)
    return np.asarray(cv2.bilateralFilter(picture, int(diameter), 15 * diameter - 10, _SPACE), dtype=np.uint8)


def smooth_non_locally(picture: Picture, strength: float, name: str) -> Picture:
    """Filter with non-local means of strength ``h``."""
    import cv2

    cv2.setNumThreads(1)
    return np.asarray(cv2.fastNlMeansDenoising(picture, None, strength, _TEMPLATE, _SEARCH), dtype=np.uint8)


def shuffle_patches(picture: Picture, grid: float, name: str) -> Picture:
    """Put the ``grid`` x ``grid`` tiles of the picture in another order, one of its name and the grid.

    Tiles are squares of whole pixels; what does not go up in them stays where it is, at the right and at the bottom.
    """
    cells = int(grid)
    tall, wide = picture.shape[0] // cells, picture.shape[1] // cells
    found, rng = picture.copy(), np.random.default_rng(derive_seed("patch shuffle", name, cells))
    for place, source in enumerate(rng.permutation(cells * cells)):
        (y, x), (v, u) = divmod(place, cells), divmod(int(source), cells)
        found[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = picture[
            v * tall : (v + 1) * tall, u * wide : (u + 1) * wide
        ]
    return found


def blur(picture: Picture, side: float, name: str) -> Picture:
    """Blur with a Gaussian kernel of ``side`` pixels and a standard deviation of (side - 1) / 6 pixels."""
    import cv2

    cv2.setNumThreads(1)
    return np.asarray(cv2.GaussianBlur(picture, (int(side), int(side)), max((side - 1) / 6, 1e-3)), dtype=np.uint8)


@dataclass(frozen=True)
class Cue:
    """One way to take out a cue.

    Attributes:
        suppress: Called with picture, level and the name of the picture.
        identity: Level at which nothing changes.
        levels: Published levels, from weak to strong.
        unit: What a level counts, in words.
    """

    suppress: Callable[[Picture, float, str], Picture]
    identity: float
    levels: tuple[float, ...]
    unit: str


CUES: Mapping[str, Cue] = {
    "colour": Cue(remove_colour, 0.0, (0.2, 0.4, 0.6, 0.8, 1.0), "share of grey"),
    "texture": Cue(smooth_bilaterally, 0.0, (4, 6, 8, 10, 12, 14), "diameter of the bilateral filter, px"),
    "texture_nlm": Cue(smooth_non_locally, 0.0, (5, 10, 15, 20, 25), "strength h of non-local means"),
    "global_shape": Cue(shuffle_patches, 1.0, (2, 4, 6, 8, 10, 12, 14, 16), "tiles a side"),
    "local_detail": Cue(blur, 1.0, (3, 5, 7, 9, 11, 13, 15), "side of the Gaussian kernel, px"),
}
"""Cue to how it is taken out. Texture is taken out in two ways."""
