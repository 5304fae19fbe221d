"""Evaluation transforms as data.

Two transforms exist and must never be mixed up: the probe's (shorter side straight to the crop size) and the in-domain
evaluation's (a larger resize first). Both are bicubic with PIL's antialiasing, except that an external checkpoint has its
own in-domain transform; output is RGB in [0, 1]. Normalisation belongs to the classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.api import UserError, open_picture

CROP_RATIO = 0.875
"""Crop size over resize size of the in-domain transform: 224 / 256."""


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shorter side, then crop the centre."""

    id: str
    resize_short: int
    crop: int
    interpolation: str = "bicubic"
    """Filter of PIL: ``bicubic``, ``bilinear``, ``nearest``, ``lanczos``, ``box`` or ``hamming``."""

    def __str__(self) -> str:
        return f"shorter side {self.resize_short} {self.interpolation}, centre crop {self.crop}"

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize; the longer side is floor(short * long / shorter)."""
        if width <= height:
            return self.resize_short, int(self.resize_short * height / width)
        return int(self.resize_short * width / height), self.resize_short

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Return (3, crop, crop) float32 in [0, 1] of an RGB image."""
        rgb = image.resize(self.resized(*image.size), Image.Resampling[self.interpolation.upper()])
        left, top = (round((side - self.crop) / 2) for side in rgb.size)
        pixels = np.asarray(rgb.crop((left, top, left + self.crop, top + self.crop)))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def probe_transform(size: int = 224) -> EvalTransform:
    """Return the linear probe's transform: shorter side to ``size``, centre crop ``size``."""
    return EvalTransform(f"probe{size}", size, size)


def eval_transform(size: int = 224, ratio: float = CROP_RATIO, interpolation: str = "bicubic") -> EvalTransform:
    """Return the in-domain transform: shorter side to ``size / ratio`` (256 for 224), centre crop ``size``."""
    short = int(size / ratio)
    return EvalTransform(f"eval{short}", short, size, interpolation)


def load_pixels(
    path: Path, transform: EvalTransform, complete: bool, read: Callable[[], bytes] | None = None
) -> tuple[npt.NDArray[np.float32], str] | UserError:
    """Return (pixels, why the file is truncated), or the error of a file that cannot be used.

    Args:
        path: The image.
        transform: Resize and crop.
        complete: Use the decoded part of truncated files; see ``harness.images.decode``.
        read: Returns the encoded bytes where the image is no file of its own.
    """
    try:
        found = open_picture(read(), str(path), complete=complete) if read else open_picture(path, complete=complete)
    except UserError as error:
        return error
    return transform(found.image), found.truncated
