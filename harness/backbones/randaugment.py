"""RandAugment on batches of uint8 images, every image with operations and strengths of its own.

RandAugment (Cubuk et al., 2020) with the "increasing" operation set and level ranges that timm made standard:
strength grows with the magnitude for every operation. Operations that map grey values become one look-up
table per channel, the geometric ones share one affine resampling, so a batch costs a few tensor operations.
Values equal Pillow's ImageOps and ImageEnhance; geometric operations use torch's cubic kernel (a = -0.75).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from harness.backbones.randomness import POLICY, normals, uniforms

OPERATIONS = (
    "autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "brightness", "contrast",
    "colour", "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
_TABLES = OPERATIONS[:8]
_AFFINE = OPERATIONS[10:]
_MAX_LEVEL = 10.0
_TRANSLATE = 0.45  # of the side, at the highest level


@dataclass(frozen=True)
class Policy:
    """Hold the operations drawn for a batch.

    Attributes:
        operation: (n, layers) int, position in `OPERATIONS`, or -1 where the layer leaves the image alone.
        value: (n, layers) float, the operation's argument.
    """

    operation: np.ndarray
    value: np.ndarray


def draw_policy(
    seed: int,
    epoch: int,
    samples: np.ndarray,
    *,
    layers: int,
    magnitude: float,
    std: float,
    probability: float,
) -> Policy:
    """Draw the operations of each sample; a function of (seed, epoch, sample) only.

    Args:
        seed: Training seed.
        epoch: Epoch number.
        samples: (n,) sample numbers.
        layers: Operations drawn per image.
        magnitude: Mean level, 0 to 10.
        std: Standard deviation of the level.
        probability: Chance that a drawn operation is applied.
    """
    u = uniforms(seed, POLICY, epoch, samples, 5 * layers).reshape(len(samples), layers, 5)
    operation = np.floor(u[..., 0] * len(OPERATIONS)).astype(np.int64)
    level = np.clip(magnitude + std * normals(u[..., 2], u[..., 3]), 0.0, _MAX_LEVEL) / _MAX_LEVEL
    sign = np.where(u[..., 4] < 0.5, -1.0, 1.0)
    value = np.zeros_like(level)
    for number, name in enumerate(OPERATIONS):
        value = np.where(operation == number, _argument(name, level, sign), value)
    return Policy(np.where(u[..., 1] < probability, operation, -1), value)


def apply_policy(images: torch.Tensor, policy: Policy, fill: tuple[int, int, int]) -> torch.Tensor:
    """Apply a policy to (n, 3, H, W) uint8 images; `fill` is the grey value of pixels from outside."""
    for layer in range(policy.operation.shape[1]):
        operation, value = policy.operation[:, layer], policy.value[:, layer]
        for names, function in _GROUPS:
            numbers = [OPERATIONS.index(name) for name in names]
            chosen = np.flatnonzero(np.isin(operation, numbers))
            if len(chosen) == 0:
                continue
            rows = torch.from_numpy(chosen).to(images.device)
            changed = function(images[rows], [OPERATIONS[i] for i in operation[chosen]], value[chosen], fill)
            images = images.index_copy(0, rows, changed)
    return images


def _argument(name: str, level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Turn levels in [0, 1] into the operation's argument (timm's ranges, "increasing" variants)."""
    argument = np.zeros_like(level)  # autocontrast, equalize and invert take none
    if name in ("brightness", "contrast", "colour", "sharpness"):
        argument = np.maximum(0.1, 1.0 + sign * 0.9 * level)  # 1 is no change
    elif name == "rotate":
        argument = sign * 30.0 * level  # degrees
    elif name in ("shear_x", "shear_y"):
        argument = sign * 0.3 * level
    elif name in ("translate_x", "translate_y"):
        argument = sign * _TRANSLATE * level  # of the side
    elif name == "posterize":
        argument = 4.0 - np.floor(4.0 * level)  # bits kept
    elif name == "solarize":
        argument = 256.0 - np.minimum(256.0, np.floor(256.0 * level))  # threshold
    elif name == "solarize_add":
        argument = np.minimum(128.0, np.floor(110.0 * level))
    return np.asarray(argument)


def _by_table(images: torch.Tensor, names: list[str], values: np.ndarray, fill: tuple[int, int, int]) -> torch.Tensor:
    """Apply operations that map grey values, through one 256-entry table per image and channel."""
    n, channels = images.shape[:2]
    tables = torch.empty(n, channels, 256, dtype=torch.float32, device=images.device)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        tables[i] = _table(images[i], name, float(value))
    index = images.flatten(2).long()
    return tables.to(torch.uint8).gather(2, index).view_as(images)


def _table(image: torch.Tensor, name: str, value: float) -> torch.Tensor:
    """Return the table of one operation for one image: (3, 256) or (256,) float, whole numbers."""
    grey = torch.arange(256, dtype=torch.float32, device=image.device)
    if name == "autocontrast":
        low, high = image.flatten(1).float().aminmax(dim=1, keepdim=True)
        scale = 255.0 / (high - low).clamp(min=1.0)
        return torch.where(high > low, ((grey - low) * scale + 1e-3).floor().clamp(0, 255), grey)
    if name == "equalize":
        return _equalize_table(image)
    if name == "invert":
        return 255.0 - grey
    if name == "posterize":
        step = 2.0 ** (8 - int(value))
        return (grey / step).floor() * step
    if name == "solarize":
        return torch.where(grey < value, grey, 255.0 - grey)
    if name == "solarize_add":
        return torch.where(grey < 128, (grey + value).clamp(max=255.0), grey)
    pivot = _mean_grey(image) if name == "contrast" else grey.new_zeros(())  # brightness blends with black
    return (pivot + value * (grey - pivot)).clamp(0, 255).floor()


def _equalize_table(image: torch.Tensor) -> torch.Tensor:
    """Return the table that spreads each channel's histogram evenly."""
    index = image.flatten(1).long()
    counts = torch.zeros(3, 256, device=image.device).scatter_add_(
        1, index, torch.ones_like(index, dtype=torch.float32)
    )
    last = counts.gather(1, index.amax(1, keepdim=True))
    step = ((index.shape[1] - last) / 255.0).floor()
    table = ((step / 2).floor() + counts.cumsum(1) - counts) / step.clamp(min=1.0)
    same = torch.arange(256, dtype=torch.float32, device=image.device).expand(3, 256)
    return torch.where(step > 0, table.floor().clamp(max=255.0), same)


def _grey(images: torch.Tensor) -> torch.Tensor:
    """Return the ITU-R 601 luma of (..., 3, H, W) uint8 as (..., 1, H, W) int32, as Pillow does."""
    red, green, blue = images.int().unbind(-3)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).unsqueeze(-3)


def _mean_grey(image: torch.Tensor) -> torch.Tensor:
    return (_grey(image).double().mean() + 0.5).floor().float()


def _blend(base: torch.Tensor, images: torch.Tensor, factor: np.ndarray) -> torch.Tensor:
    """Move from `base` through the images (factor 1) and beyond; values are cut off, not rounded."""
    f = torch.as_tensor(factor, dtype=torch.float32, device=images.device)[:, None, None, None]
    return (base + f * (images.float() - base)).clamp(0, 255).to(torch.uint8)


def _colour(images: torch.Tensor, names: list[str], values: np.ndarray, fill: tuple[int, int, int]) -> torch.Tensor:
    """Change saturation: blend with the grey image."""
    return _blend(_grey(images).float(), images, values)


def _sharpness(images: torch.Tensor, names: list[str], values: np.ndarray, fill: tuple[int, int, int]) -> torch.Tensor:
    """Change sharpness: blend with a 3x3 smoothed image whose border is left alone."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device) / 13.0
    kernel[:, :, 1, 1] = 5.0 / 13.0
    smooth = images.float()
    inner = F.conv2d(images.float(), kernel, groups=3)
    smooth[:, :, 1:-1, 1:-1] = (inner + 0.5).floor()
    return _blend(smooth, images, values)


def _by_affine(images: torch.Tensor, names: list[str], values: np.ndarray, fill: tuple[int, int, int]) -> torch.Tensor:
    """Rotate, shear or shift; pixels from outside get the fill."""
    height, width = images.shape[2:]
    maps = np.stack([_matrix(n, float(v), width, height) for n, v in zip(names, values, strict=True)])
    matrix = torch.as_tensor(maps, dtype=torch.float32, device=images.device)
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device) + 0.5
    grid = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([grid[1], grid[0], torch.ones_like(grid[0])], dim=-1)
    places = torch.einsum("hwk,njk->nhwj", points, matrix)  # where each output pixel comes from, in pixels
    size = places.new_tensor([width, height])
    inside = ((places >= 0) & (places < size)).all(-1)[:, None]
    moved = F.grid_sample(
        images.float(), 2 * places / size - 1, mode="bicubic", padding_mode="border", align_corners=False
    )
    paint = moved.new_tensor(fill)[:, None, None]
    return torch.where(inside, moved.round().clamp(0, 255), paint).to(torch.uint8)


def _matrix(name: str, value: float, width: int, height: int) -> np.ndarray:
    """Return the (2, 3) map from output to input pixel coordinates."""
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if name == "rotate":
        angle = -np.deg2rad(value)
        matrix[:, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        centre = np.array([width / 2, height / 2])
        matrix[:, 2] = centre - matrix[:, :2] @ centre
    elif name == "shear_x":
        matrix[0, 1] = value
    elif name == "shear_y":
        matrix[1, 0] = value
    elif name == "translate_x":
        matrix[0, 2] = value * width
    else:
        matrix[1, 2] = value * height
    return matrix


_Operation = Callable[[torch.Tensor, list[str], np.ndarray, tuple[int, int, int]], torch.Tensor]
_GROUPS: tuple[tuple[tuple[str, ...], _Operation], ...] = (
    (_TABLES, _by_table),
    (("colour",), _colour),
    (("sharpness",), _sharpness),
    (_AFFINE, _by_affine),
)
