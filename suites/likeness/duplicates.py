"""Near duplicates: images whose perceptual hashes differ in few bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SIDE = 32
BITS = 8
"""Frequencies a side; the mean is left out, which leaves 63 bits."""
DISTANCE = 2
"""Most differing bits of a near duplicate."""
_BLOCK = 2000


def perceptual_hash(image: Image) -> int:
    """Return the 63-bit DCT hash of an image: which of its low frequencies in grey, 32 x 32 px, lie above their median."""
    from PIL import Image as Pillow
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Pillow.Resampling.LANCZOS), dtype=np.float64)
    low = np.round(dctn(grey, norm="ortho")[:BITS, :BITS].ravel()[1:], 6)
    return int("".join("1" if flag else "0" for flag in low > np.median(low)), 2)


def near_duplicates(hashes: NDArray[np.uint64], distance: int = DISTANCE) -> NDArray[np.bool_]:
    """Return which images differ from some other one in at most ``distance`` bits: (n,)."""
    found = np.zeros(len(hashes), dtype=bool)
    for start in range(0, len(hashes), _BLOCK):
        apart = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None])
        apart[np.arange(len(apart)), start + np.arange(len(apart))] = 64
        found[start : start + _BLOCK] = (apart <= distance).any(axis=1)
    return found
