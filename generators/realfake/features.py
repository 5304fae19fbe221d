"""CLIP features of the real images: the projected image embedding, not normalised, as float16."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from generators.diffusion.real_images import RealImages, to_signed
from generators.lbgen.encoders import OpenClipEncoder, load_named_encoder
from generators.lbgen.preprocess import preprocess
from harness.api import Context, atomic_path

FILE = "features.npy"
PART = "features.float16"
_EVERY = 64


def write_features(ctx: Context) -> None:
    """Write ``features.npy``, (images, width) float16, in the order (class, file name); goes on after a kill."""
    images = RealImages.of(ctx)
    tower = load_named_encoder(ctx.source("clip"), ctx.device)
    part = ctx.scratch / PART
    with part.open("ab") as stream:
        done = stream.tell() // _bytes(tower)
        stream.truncate(done * _bytes(tower))  # a kill may tear the last row
        for position in range(done, len(images)):
            stream.write(feature(tower, images, position, ctx.device).tobytes())
            if position % _EVERY == 0:
                stream.flush()
                ctx.progress(position + 1, len(images), "features")
    with atomic_path(ctx.out / FILE) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.fromfile(part, dtype=np.float16).reshape(len(images), tower.dim))


def clip_square(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square of an image whose short side is ``size`` pixels (bicubic).

    As CLIP's published processor does, which the published extraction uses: offsets are rounded down, where torchvision's
    are rounded to the nearest.
    """
    width, height = image.size
    short = min(width, height)
    if short != size:
        image = image.resize((width * size // short, height * size // short), Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))


def _bytes(tower: OpenClipEncoder) -> int:
    return tower.dim * np.dtype(np.float16).itemsize


@torch.no_grad()
def feature(tower: OpenClipEncoder, images: RealImages, position: int, device: str) -> np.ndarray:
    """Return the feature of one image, (width,) float16: short side to the tower's size, centre crop, one at a time."""
    pixels = to_signed(clip_square(images.picture(position), tower.size))[None] / 2 + 0.5
    normalised = preprocess(pixels.to(device), tower.size, tower.mean, tower.std)
    return tower.model.encode_image(normalised)[0].half().cpu().numpy()
