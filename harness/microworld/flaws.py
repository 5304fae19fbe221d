"""Flaws of a data set that have nothing to do with what its classes look like: copies, missing looks, wrong labels, a colour cast.

Every flaw is a share from 0 to 1. The same uniforms decide for every share, so a larger one changes only further images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import LIGHTS, SCENES, SHAPES, TEXTURES, WEATHERS, Causes, IntArray
from harness.microworld.renderer import SeedArray
from harness.microworld.shapes import FloatArray

FLAWS: tuple[str, ...] = ("duplicates", "modes", "labels", "tint")

_TINT = np.array([1.0, 0.86, 0.66], dtype=np.float32)
"""What is left of red, green and blue under the cast."""
_NEAR = np.float32(2 / 255)
"""By how much a copy is brighter than its original, so that its bytes are others."""
_STREAMS = {"duplicates": 0x1B873593CC9E2D51, "labels": 0x38B34AE5A1E38B93, "tint": 0x52DCE729DA3ED7B5}


def copied(indices: IntArray, seeds: SeedArray, share: float) -> NDArray[np.bool_]:
    """Return which images are near copies of the one before them: odd ones, so that originals stay."""
    return np.asarray((indices % 2 == 1) & (_uniforms(seeds, "duplicates")[:, 0] < share))


def originals(indices: IntArray, seed_of: Callable[[int], int], share: float) -> tuple[SeedArray, NDArray[np.bool_]]:
    """Return the seeds that pictures are drawn from, and which of them are near copies.

    Args:
        indices: (n,) places of the images in their class.
        seed_of: Seed of the image at a place.
        share: Share of the images that have a near copy, or are one.
    """
    own = np.asarray([seed_of(int(index)) for index in indices], dtype=np.uint64)
    copies = copied(indices, own, share)
    before = np.asarray([seed_of(int(index) - 1) if copy else 0 for index, copy in zip(indices, copies, strict=True)])
    return np.where(copies, before.astype(np.uint64), own), copies


def mislabelled(shapes: IntArray, seeds: SeedArray, share: float) -> IntArray:
    """Return the shapes that are drawn: with probability ``share`` another than that of the class, all others alike."""
    u = _uniforms(seeds, "labels")
    step = 1 + np.minimum((u[:, 1] * (len(SHAPES) - 1)).astype(np.int64), len(SHAPES) - 2)
    return np.where(u[:, 0] < share, (shapes + step) % len(SHAPES), shapes)


def without_modes(causes: Causes, share: float) -> Causes:
    """Return causes of which that share of the textures, scenes, lights and weathers never occurs; one of each always does."""

    def kept(values: IntArray, count: int) -> IntArray:
        return values % max(1, round((1 - share) * count))

    return Causes(
        causes.shape,
        kept(causes.texture, len(TEXTURES)),
        kept(causes.scene, len(SCENES)),
        kept(causes.light, len(LIGHTS)),
        kept(causes.weather, len(WEATHERS)),
    )


def finish(images: FloatArray, copies: NDArray[np.bool_], seeds: SeedArray, tint: float) -> FloatArray:
    """Return images (n, 3, H, W) in [0, 1] of which copies are a little brighter, and a share ``tint`` has a warm cast."""
    found = np.array(images, dtype=np.float32)
    found[copies] = np.minimum(found[copies] + _NEAR, 1)
    cast = _uniforms(seeds, "tint")[:, 0] < tint
    found[cast] *= _TINT[:, None, None]
    return found


def _uniforms(seeds: SeedArray, flaw: str) -> FloatArray:
    """Return two numbers in [0, 1) for each seed."""
    u = np.empty((len(seeds), 2), dtype=np.float32)
    for row, seed in zip(u, np.asarray(seeds, dtype=np.uint64).tolist(), strict=True):
        np.random.Generator(np.random.PCG64(seed ^ _STREAMS[flaw])).random(dtype=np.float32, out=row)
    return u
