"""How much a fine-tune has to do and how long that takes, for plans (no torch)."""

from __future__ import annotations

import math

from harness.api import Workload

IMAGES_PER_SECOND = 22.0
"""Assumed speed of a fine-tune at 512 px in half precision on one A100.

Derived, not measured: 1.15 A100-seconds for an image of 51 guided steps (lbGen, CVPR 2025) are 0.0113 s for one image through
the UNet once; a trained image costs about four of those (forward, a backward of twice that, the autoencoder).
"""


def updates_of(epochs: float, images: int, batch: int) -> int:
    """Return the updates of so many passes, the last one filled up from the next pass."""
    return max(1, math.ceil(epochs * images / batch))


def finetune_amount(epochs: float, images: int, batch: int) -> Workload:
    """Return what a fine-tune on real images has to do."""
    return Workload(updates_of(epochs, images, batch), f"updates of {batch} images", IMAGES_PER_SECOND / batch)
