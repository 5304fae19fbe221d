"""Differentiable preprocessing of decoder images for a CLIP-like encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.api import NORMALISATIONS

CLIP_MEAN, CLIP_STD = NORMALISATIONS["clip"]


def preprocess(images: Tensor, size: int, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> Tensor:
    """Resize to an exact square (bicubic, antialiased) and normalise, without clamping, so all pixels keep gradient.

    Args:
        images: (B, 3, H, W), nominal range [0, 1]; square images are assumed, others would be squashed.
        size: Side of the result in pixels.
        mean: Channel means in [0, 1].
        std: Channel deviations in [0, 1].
    """
    if images.shape[-2:] != (size, size):
        images = interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    shift = torch.tensor(mean, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images - shift) / scale
