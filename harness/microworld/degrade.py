"""Degradations of a picture whose strength is known: blur, noise, contrast, blockiness, smears like an autoencoder's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

KINDS: tuple[str, ...] = ("blur", "noise", "contrast", "blocks", "smear", "warp")
MILD, STRONG = 0.4, 0.9


def _blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    radius = max(1, round(2.5 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1, dtype=images.dtype) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).repeat(3, 1, 1, 1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)


def _resized(images: torch.Tensor, factor: float, mode: str) -> torch.Tensor:
    size = images.shape[-1]
    small = max(4, round(size / factor))
    down = F.interpolate(images, size=(small, small), mode="area")
    return F.interpolate(down, size=(size, size), mode=mode)


def _warp(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    size, n = images.shape[-1], len(images)
    shift = torch.randn(n, 2, 9, 9, generator=generator) * (0.02 + 0.08 * strength)
    field = F.interpolate(shift, size=(size, size), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y], -1)[None] + field
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def degrade(images: torch.Tensor, kind: str, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return degraded copies of images (n, 3, H, W) in [0, 1].

    Args:
        kind: one of KINDS.
        strength: 0 (just visible) to 1 (ruined).
        generator: of the random parts (noise and warps).
    """
    if kind == "blur":
        out = _blur(images, 0.5 + 2.3 * strength)
    elif kind == "noise":
        noise = torch.randn(images.shape, generator=generator)
        out = images + noise * (0.03 + 0.22 * strength)
    elif kind == "contrast":
        mean = images.mean((1, 2, 3), keepdim=True)
        out = mean + (images - mean) * (0.85 - 0.7 * strength)
    elif kind == "blocks":
        amount = 0.25 + 0.75 * strength
        out = images + amount * (_resized(images, 2 + 6 * strength, "nearest") - images)
    elif kind == "smear":
        out = _resized(images, 1.5 + 5 * strength, "bilinear")
    elif kind == "warp":
        out = _blur(_warp(images, strength, generator), 0.4 + 0.8 * strength)
    else:
        raise KeyError(kind)
    return out.clamp(0, 1)


def degrade_each(images: torch.Tensor, strengths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Degrade each image by a random kind at its own strength; strength < 0 leaves an image as it is."""
    kinds = torch.randint(len(KINDS), (len(images),), generator=generator)
    out = images.clone()
    for i, (kind, strength) in enumerate(zip(kinds.tolist(), strengths.tolist(), strict=True)):
        if strength >= 0:
            out[i : i + 1] = degrade(images[i : i + 1], KINDS[kind], strength, generator)
    return out
