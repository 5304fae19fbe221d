"""Evaluation transforms as data, and decoding that survives damaged files.

Two transforms exist and must never be mixed up: the probe's (shorter side straight to the crop size) and the in-domain
evaluation's (a larger resize first). Both are bicubic with PIL's antialiasing, except that an external checkpoint has its
own in-domain transform; output is RGB in [0, 1]. Normalisation belongs to the classifier.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

CROP_RATIO = 0.875
"""Crop size over resize size of the in-domain transform: 224 / 256."""

State = Literal["ok", "truncated", "unreadable"]
_DAMAGE = (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError)
_JPEG_END = b"\xff\xd9"
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shorter side, then crop the centre."""

    id: str
    resize_short: int
    crop: int
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __str__(self) -> str:
        return f"shorter side {self.resize_short} {self.interpolation}, centre crop {self.crop}"

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize; the longer side is floor(short * long / shorter)."""
        if width <= height:
            return self.resize_short, int(self.resize_short * height / width)
        return int(self.resize_short * width / height), self.resize_short

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Return (3, crop, crop) float32 in [0, 1]."""
        rgb = to_rgb(image)
        rgb = rgb.resize(self.resized(*rgb.size), _FILTERS[self.interpolation])
        left, top = (round((side - self.crop) / 2) for side in rgb.size)
        pixels = np.asarray(rgb.crop((left, top, left + self.crop, top + self.crop)))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def probe_transform(size: int = 224) -> EvalTransform:
    """Return the linear probe's transform: shorter side to ``size``, centre crop ``size``."""
    return EvalTransform(f"probe{size}", size, size)


def eval_transform(
    size: int = 224, ratio: float = CROP_RATIO, interpolation: Literal["bicubic", "bilinear"] = "bicubic"
) -> EvalTransform:
    """Return the in-domain transform: shorter side to ``size / ratio`` (256 for 224), centre crop ``size``."""
    short = int(size / ratio)
    return EvalTransform(f"eval{short}", short, size, interpolation)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB: grey is repeated, CMYK and palettes converted, an alpha channel dropped."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(path: Path) -> tuple[Image.Image | None, State, str]:
    """Return (image, state, reason); a truncated file gives what could be decoded, an unreadable one ``None``.

    PIL has a process-wide switch for truncated files, which threads would share and which hides that a file was
    damaged. Here the strict decoder runs; if it stops early, the file is counted as truncated and read as with that switch.
    """
    try:
        image = Image.open(path)
    except _DAMAGE as error:
        return None, "unreadable", f"{type(error).__name__}: {error}"
    try:
        image.load()
        return image, "ok", ""
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
    try:
        return _rest_of(image, path), "truncated", reason
    except _DAMAGE:
        return None, "unreadable", reason


def _rest_of(image: Image.Image, path: Path) -> Image.Image:
    """Return what a truncated file still holds: a JPEG ended early on purpose, of others the part decoded so far."""
    if image.format == "JPEG":
        with suppress(*_DAMAGE):
            ended = Image.open(io.BytesIO(path.read_bytes() + _JPEG_END))
            ended.load()
            return ended
    image.tile = []  # type: ignore[attr-defined]  # nothing is left to decode: load() hands out what is there
    image.load()
    return image


def load_pixels(path: Path, transform: EvalTransform) -> tuple[npt.NDArray[np.float32], State, str]:
    """Return (pixels, state, reason); an unreadable file becomes mid-grey, so that no item is lost."""
    image, state, reason = decode(path)
    if image is None:
        return np.full((3, transform.crop, transform.crop), 0.5, dtype=np.float32), state, reason
    return transform(image), state, reason
