"""Real images for fine-tunes and for synthesis that starts from them: found, decoded, cropped, flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.api import Context, FolderSource, decode_image, image_folder


@dataclass(frozen=True)
class RealImages:
    """The real training images in the order (class, file name)."""

    source: FolderSource

    @staticmethod
    def of(ctx: Context, data: str = "train") -> RealImages:
        """Return the images of a cell's data set, in the classes of the cell."""
        return RealImages(FolderSource(image_folder(ctx.data(data)), ctx.classes.ids))

    def __len__(self) -> int:
        return len(self.source.names)

    @property
    def names(self) -> Sequence[str]:
        """Return the paths below the class folders' parent."""
        return self.source.names

    @property
    def labels(self) -> Sequence[int]:
        """Return the class indices."""
        return self.source.labels

    @cached_property
    def by_class(self) -> dict[int, list[int]]:
        """Return the positions of the images of each class."""
        found: dict[int, list[int]] = {}
        for position, label in enumerate(self.labels):
            found.setdefault(label, []).append(position)
        return found

    def picture(self, position: int) -> Image.Image:
        """Return one decoded image in RGB."""
        return decode_image(self.source.read(position), self.names[position])


def crop_for_training(image: Image.Image, size: int, crop: str, generator: torch.Generator) -> Tensor:
    """Return (3, size, size) in [-1, 1]: short side to ``size`` (bilinear), crop, random horizontal flip.

    Args:
        image: RGB.
        size: Side in pixels.
        crop: ``centre`` (as torchvision rounds it) or ``random``.
        generator: Draws the flip, then the place of a random crop.
    """
    flip = bool(torch.rand((), generator=generator) < 0.5)
    width, height = image.size
    short = min(width, height)
    if short != size:
        image = image.resize((width * size // short, height * size // short), Image.Resampling.BILINEAR)
    spare = (image.size[0] - size, image.size[1] - size)
    if crop == "random":
        left, top = (int(torch.randint(each + 1, (), generator=generator)) for each in spare)
    else:
        left, top = (round(each / 2) for each in spare)  # torchvision's rule: half a pixel goes to the even side
    image = image.crop((left, top, left + size, top + size))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_signed(image)


def squash(image: Image.Image, size: int) -> Tensor:
    """Return (3, size, size) in [-1, 1], resized (bicubic) without regard to the aspect."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return to_signed(image)


def to_signed(image: Image.Image) -> Tensor:
    """Return an RGB picture as float32 (3, H, W) in [-1, 1]."""
    pixels = np.asarray(image, dtype=np.uint8)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
