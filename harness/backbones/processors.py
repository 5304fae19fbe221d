"""What an image processor of transformers does to an image, found by giving it images of one colour.

Its settings have other names and defaults from class to class: rescaling, an offset, a second division, the order of the channels. For an
image of one colour all of them together are one linear map of the channels, which is measured, and compared with what is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.core.errors import UserError, first_line, refuse_malformed

_SIDE, _LONG = 512, 768
"""Short and long side of the probe images in pixels."""
_CLOSE = 1e-3
_APART = 0.03
"""What parts of a side may differ by: pixels are whole."""
_FIX = "measure network and processor together by a function of yours: --classifier MODULE:FUNCTION"


@dataclass(frozen=True)
class Inputs:
    """How a processor feeds its network.

    Attributes:
        mean: Normalisation mean of red, green, blue in [0, 1].
        std: Normalisation standard deviation.
        image_size: Side of the square input in pixels.
        interpolation: How images are resized, by PIL's name.
        crop: Crop size over resized size.
        crop_mode: ``center``, or ``squash`` where an image is made square without regard to its aspect before it is cropped.
        flipped: Whether the network takes blue first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    interpolation: str
    crop: float
    crop_mode: str
    flipped: bool


def inputs_of(folder: Path) -> Inputs:
    """Return how the image processor of a folder of transformers feeds its network.

    Raises:
        UserError: transformers cannot build it, or it does what no resize, centre crop and normalisation does.
    """
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers fails in any way on settings that it does not expect
        raise _refused(folder, f"transformers cannot build it: {first_line(error)}") from error
    with refuse_malformed(folder / "preprocessor_config.json", _FIX):
        return measured(processor, folder)


def measured(processor: Any, folder: Path) -> Inputs:
    """Return what a processor does to images.

    Args:
        processor: From a list of PIL images to a mapping with ``pixel_values`` (B, 3, H, W).
        folder: Where it comes from, for messages.

    Raises:
        UserError: as `inputs_of`.
    """
    from PIL import Image

    mean, std, flipped, side = _colours(processor, folder)
    resample = getattr(processor, "resample", None)
    if not getattr(processor, "do_resize", True) or resample is None:
        raise _refused(folder, "it does not resize, so it states no size of the input")
    crop = _crop(processor, side)
    mode = _crop_mode(processor, folder, crop)
    return Inputs(mean, std, side, Image.Resampling(int(resample)).name.lower(), crop, mode, flipped)


def _apply(processor: Any, folder: Path, image: Any) -> torch.Tensor:
    try:
        found = torch.as_tensor(processor([image], return_tensors="pt")["pixel_values"])
    except Exception as error:  # a processor may fail in any way on settings that it does not expect
        raise _refused(folder, f"it fails on an image: {type(error).__name__}: {error}") from error
    if found.ndim != 4 or found.shape[:2] != (1, 3) or found.shape[2] != found.shape[3]:
        raise _refused(folder, f"it makes inputs of the shape {tuple(found.shape)}, not square ones of three channels")
    return found[0].double()


def _colours(processor: Any, folder: Path) -> tuple[Any, Any, bool, int]:
    """Return mean and standard deviation of red, green, blue, whether blue comes first, and the side."""
    from PIL import Image

    def answer(*rgb: int) -> torch.Tensor:
        found = _apply(processor, folder, Image.new("RGB", (_SIDE, _SIDE), rgb)).flatten(1)
        if float((found.amax(1) - found.amin(1)).max()) > _CLOSE * max(1.0, float(found.abs().max())):
            raise _refused(folder, "an image of one colour does not stay so: it pads images, or marks them")
        return found[:, 0]

    black = answer(0, 0, 0)
    slopes = torch.stack([answer(*(255 * (channel == one) for one in range(3))) - black for channel in range(3)])
    flipped = bool(slopes[0, 0] < slopes[0, 2])  # red in, blue out
    if flipped:
        slopes, black = slopes.flip(1), black.flip(0)
    scale, expected = slopes.diagonal(), black + slopes.diagonal() * torch.tensor([51, 102, 204]).double() / 255
    grey = answer(51, 102, 204)
    grey = grey.flip(0) if flipped else grey
    rest = float((slopes - scale.diag()).abs().max())
    if (
        rest > _CLOSE * float(scale.max())
        or scale.min() <= 0
        or float((grey - expected).abs().max()) > 0.02 * float(scale.max())
    ):
        raise _refused(folder, "it mixes channels, or is no normalisation by mean and standard deviation")
    side = _apply(processor, folder, Image.new("RGB", (_SIDE, _SIDE))).shape[1]
    mean = _stated(-black / scale, getattr(processor, "image_mean", None))
    std = _stated(1 / scale, getattr(processor, "image_std", None))
    return mean, std, flipped, int(side)


def _stated(values: torch.Tensor, stated: Any) -> tuple[float, ...]:
    """Return the values as they are stated where the measured ones agree, else rounded to what float32 knows."""
    found = [round(value, 6) + 0.0 for value in values.tolist()]
    known = [float(value) for value in stated] if isinstance(stated, list | tuple) and len(stated) == 3 else found
    return tuple(known if all(abs(a - b) < 1e-4 for a, b in zip(found, known, strict=True)) else found)


def _crop(processor: Any, side: int) -> float:
    """Return crop size over resized size, as the settings state them."""
    size = getattr(processor, "size", None) or {}
    resized = next((size[name] for name in ("shortest_edge", "height") if size.get(name)), side)
    if getattr(processor, "do_center_crop", False):
        return min(1.0, side / resized)
    ratio = getattr(processor, "crop_pct", None)
    return float(ratio) if ratio and side < 384 else 1.0  # ConvNeXt's processor crops below 384 pixels only


def _crop_mode(processor: Any, folder: Path, crop: float) -> str:
    """Return how an image that is not square becomes so: by a crop of its centre, or squashed.

    Raises:
        UserError: the processor shows another part of an image than its settings say, or not its centre, or pads it.
    """
    square = _visible(processor, folder, _SIDE)
    if abs(square - crop) > _APART:
        raise _refused(folder, f"it shows {square:.0%} of the side of an image, its settings say {crop:.0%}")
    wide, high = _visible(processor, folder, _LONG), _visible(processor, folder, _LONG, upright=True)
    shown = {"center": (crop * _SIDE / _LONG, crop), "squash": (crop, crop)}
    for mode, expected in shown.items():
        if abs(wide - expected[0]) <= _APART and abs(high - expected[1]) <= _APART:
            return mode
    raise _refused(
        folder, f"of an image of {_LONG} x {_SIDE} pixels it shows {wide:.0%} of the width and {high:.0%} of the height"
    )


def _visible(processor: Any, folder: Path, width: int, upright: bool = False) -> float:
    """Return which part of the width (or height) of an image its input shows: measured at a grey ramp.

    Raises:
        UserError: the part is not the middle of the image.
    """
    import numpy as np
    from PIL import Image

    shape = (_SIDE, width, 3)
    along = np.linspace(0, 255, _SIDE if upright else width).round().astype("uint8")
    ramp = np.broadcast_to(along[:, None, None] if upright else along[None, :, None], shape)
    image = _apply(processor, folder, Image.fromarray(np.ascontiguousarray(ramp)))[0]
    inner, middle = len(image) // 4, len(image) // 2
    found = image[:, middle] if upright else image[middle]
    full, none = (
        _apply(processor, folder, Image.new("RGB", (width, _SIDE), (grey,) * 3))[0, middle, middle] for grey in (255, 0)
    )
    places = (found - none) / (full - none)
    if abs(float(places[inner] + places[-inner - 1]) / 2 - 0.5) > _APART:
        raise _refused(folder, "it does not take the middle of an image")
    slope = (places[-inner - 1] - places[inner]) / (len(places) - 2 * inner - 1)
    return float(slope * len(places))


def _refused(folder: Path, why: str) -> UserError:
    return UserError(f"the image processor of {folder} cannot be followed", why, _FIX)
