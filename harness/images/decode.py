"""The one place that opens pictures. Every reader follows the same policy.

* Damaged files are refused with an error that names the file. Truncated files are refused too: what a decoder fills in
  for the missing part is no picture. Two protocols load truncated files (FOCUS's released evaluation and the transfer
  data sets' toolbox); they pass ``complete=True``, count these files and report the count.
* 16-bit grey is scaled to 8 bits by its high byte, as Pillow does for 16-bit colour. Pixels of 32 bits (integer or
  float) have no stated range and are refused.
* Palettes give their colours. Alpha and transparent colours are dropped, not blended with a background.
* CMYK and YCCK are converted as Pillow does, without colour profiles.
* An animation gives its first frame.
* The EXIF orientation is not applied: the public evaluations and training recipes read pixels as stored.
* A file that declares more than 89,478,485 pixels, from which on Pillow warns, is refused before anything is decoded.
* What the bytes are decides, not the name, among the formats that Pillow decodes itself: JPEG, PNG, GIF, WebP, BMP, TIFF,
  PPM. Others are refused; some would start a program, as PostScript does.

COCO and ADE20K are the exception: the toolboxes (mmdet, mmseg) open their pictures with OpenCV, as the public protocols
do. OpenCV applies the EXIF orientation and completes truncated JPEG files; ``suites.perception.pictures`` checks
the files beforehand.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.core.errors import DataMissing, UserError
from harness.core.limits import TooLarge, refuse_pixels

T = TypeVar("T")
_UNDECODABLE = (
    OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error, Image.DecompressionBombError
)  # fmt: skip
"""What decoding a file from elsewhere may raise."""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM")
"""Pillow's names of the formats that are decoded."""
_JPEG_END = b"\xff\xd9"
_FIX = "fetch this file of the data set again, or make the data set again"


@dataclass(frozen=True)
class Picture:
    """A decoded file."""

    image: Image.Image
    """RGB, 8 bits a channel."""
    mode: str
    """Pillow's mode of the stored pixels, such as ``L`` or ``I;16``."""
    format: str
    """Such as ``JPEG``."""
    truncated: str = ""
    """Why the decoder stopped early; empty for a whole file."""
    quantization: Any = None
    """Quantisation tables of a JPEG."""


def decode(content: bytes | Path, name: str) -> Image.Image:
    """Decode a whole image to RGB; see ``open_picture``."""
    return open_picture(content, name).image


def open_picture(content: bytes | Path, name: str = "", *, complete: bool = False) -> Picture:
    """Decode an image after the policy of this module.

    Args:
        content: The encoded bytes, or a file.
        name: What errors call it; by default the path.
        complete: Accept a truncated file and give what Pillow gives with ``LOAD_TRUNCATED_IMAGES``, a switch that would
            hold for the whole process.

    Raises:
        DataMissing: there is no such file.
        UserError: the bytes are no image, only a part of one, of a pixel type without a range, or too many pixels.
    """
    name = name or str(content)
    encoded = _read(content, name) if isinstance(content, Path) else content
    try:
        image = _opened(io.BytesIO(encoded), name)
        truncated = _load(image)
        if truncated:
            if not complete:
                raise _unreadable(name, "it is truncated or damaged")
            image = _completed(image, encoded)
        return Picture(
            to_rgb(image, name), image.mode, image.format or "", truncated, getattr(image, "quantization", None)
        )
    except _UNDECODABLE as error:
        raise _unreadable(name, _why(error)) from error


def picture_header(path: Path) -> tuple[str, tuple[int, int]]:
    """Return Pillow's mode and (width, height) of a file; nothing is decoded.

    Raises:
        UserError: the file is no image.
    """
    return _raw(path, lambda image: (image.mode, image.size))


def read_indices(path: Path) -> np.ndarray:
    """Return the stored numbers (H, W) of a label picture, whose pixels are classes and not colours.

    Raises:
        UserError: the file is no image, or only a part of one.
    """
    return _raw(path, np.asarray)


def to_rgb(image: Image.Image, name: str = "an image") -> Image.Image:
    """Return an opened image as RGB after the policy of this module.

    Raises:
        UserError: its pixels are 32-bit numbers.
    """
    if image.mode == "RGB":
        return image
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise _unreadable(name, "its pixels are 32-bit numbers of unknown range", "convert it to 8 or 16 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where it drops a transparent colour without this step
    return image.convert("RGB")


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(f"{name} is missing", "the data set lists it", "fetch the data set again") from error
    except OSError as error:
        raise _unreadable(name, error.strerror or str(error)) from error


def _raw(path: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with _opened(path, str(path)) as image:
            return use(image)
    except _UNDECODABLE as error:
        raise _unreadable(str(path), _why(error)) from error


def _opened(source: Path | io.BytesIO, name: str) -> Image.Image:
    """Open a picture of a known format and size; nothing is decoded yet.

    Raises:
        TooLarge: it declares too many pixels.
    """
    try:
        image: Image.Image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name} cannot be read as an image", _why(error), _FIX) from error
    refuse_pixels(name, *image.size)
    return image


def _load(image: Image.Image) -> str:
    """Decode; return why the decoder stopped early."""
    try:
        image.load()
    except _UNDECODABLE as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _completed(image: Image.Image, encoded: bytes) -> Image.Image:
    """Return what a truncated file still holds: a JPEG ended early on purpose, of others the part decoded so far."""
    if image.format == "JPEG":
        with suppress(*_UNDECODABLE):
            ended: Image.Image = Image.open(io.BytesIO(encoded + _JPEG_END), formats=FORMATS)
            ended.load()
            return ended
    image.tile = []  # type: ignore[attr-defined]  # nothing is left to decode: load() hands out what is there
    image.load()
    return image


def _why(error: Exception) -> str:
    """Return why an image cannot be decoded, in words that are the same in every process."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than are decoded safely"
    return "it is truncated or damaged"


def _unreadable(name: str, why: str, fix: str = _FIX) -> UserError:
    return UserError(f"{name} cannot be read as an image", why, fix)
