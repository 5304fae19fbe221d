"""The training augmentation, on batches: crop, flip, RandAugment, normalise, erase, mix.

Order and constants follow the ConvNeXt recipe (transfer protocol, "Augmentation and evaluation"). What is
drawn for an image is a function of (seed, epoch, sample number); what is drawn for a batch, of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from harness.backbones.randaugment import apply_policy, draw_policy
from harness.backbones.randomness import CROP, ERASE, MIX, derive, uniforms
from harness.backbones.recipe import PretrainSettings

_TRIES = 10  # of a crop or a box before it is given up
_NOISE = 1 << 18


class Augment:
    """Turn uint8 training images into a float batch with soft targets.

    Args:
        settings: The recipe.
        num_classes: Number of classes.
        seed: Training seed.
        device: Where the batch is made.
        cropped: Whether images come cropped and mirrored already, at the training resolution.
    """

    def __init__(
        self, settings: PretrainSettings, num_classes: int, seed: int, device: torch.device, *, cropped: bool = False
    ) -> None:
        self.settings, self.num_classes, self.seed, self.device = settings, num_classes, seed, device
        self._cropped = cropped
        self._mean = torch.tensor(settings.mean, device=device)[:, None, None]
        self._std = torch.tensor(settings.std, device=device)[:, None, None]
        red, green, blue = (round(255 * value) for value in settings.mean)
        self._fill = (red, green, blue)
        # One table of normals; each erased box reads it from a place of its own.
        noise = np.random.Generator(np.random.Philox(key=derive(seed, ERASE, 0))).standard_normal(_NOISE)
        self._noise = torch.as_tensor(noise, dtype=torch.float32, device=device)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, samples: np.ndarray, epoch: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one batch.

        Args:
            images: (n, H, H, 3) uint8.
            labels: (n,) class numbers.
            samples: (n,) sample numbers in the data set.
            epoch: Epoch number.
            step: Optimiser step; Mixup and CutMix draw from it.

        Returns:
            (n, 3, S, S) float32 normalised images and (n, num_classes) float32 targets that sum to one.
        """
        batch = torch.from_numpy(images).to(self.device, non_blocking=True)
        x = self.pixels(batch, samples, epoch)
        x = self._erase((x.float() / 255 - self._mean) / self._std, samples, epoch)
        targets = torch.from_numpy(labels).to(self.device, non_blocking=True)
        return self._mix(x, smooth_targets(targets, self.num_classes, self.settings.smoothing), step)

    def pixels(self, batch: torch.Tensor, samples: np.ndarray, epoch: int) -> torch.Tensor:
        """Crop, resize, flip and RandAugment (n, H, H, 3) uint8 images; return (n, 3, S, S) uint8."""
        s = self.settings
        if self._cropped:
            x = batch.permute(0, 3, 1, 2).contiguous()
        else:
            sides = np.full(len(samples), batch.shape[1])
            x = crop_resize(batch, draw_crops(self.seed, epoch, samples, sides, sides, s.crop_area), s.image_size)
        if s.randaugment_ops == 0:
            return x
        policy = draw_policy(
            self.seed,
            epoch,
            samples,
            layers=s.randaugment_ops,
            magnitude=s.randaugment_magnitude,
            std=s.randaugment_std,
            probability=s.randaugment_probability,
        )
        return apply_policy(x, policy, self._fill)

    def _erase(self, x: torch.Tensor, samples: np.ndarray, epoch: int) -> torch.Tensor:
        """Fill one random box of some images with normal noise, drawn for each pixel and channel."""
        size = x.shape[2]
        boxes, places = draw_boxes(self.seed, epoch, samples, size, self.settings.erasing)
        for i in np.flatnonzero(boxes[:, 2] > 0):
            top, left, height, width = (int(v) for v in boxes[i])
            count = 3 * height * width
            place = (int(places[i] * _NOISE) + torch.arange(count, device=self.device)) % _NOISE
            noise = self._noise[place]
            x[i, :, top : top + height, left : left + width] = noise.view(3, height, width)
        return x

    def _mix(self, x: torch.Tensor, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix each image with its mirror partner in the batch, by Mixup or by CutMix, one ratio per batch."""
        kind, ratio, box = draw_mix(self.seed, step, x.shape[2], self.settings)
        if kind == "mixup":
            x = x * ratio + x.flip(0) * (1 - ratio)
        elif kind == "cutmix":
            top, bottom, left, right = box
            x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        if kind != "none":
            targets = targets * ratio + targets.flip(0) * (1 - ratio)
        return x, targets


@dataclass(frozen=True)
class Crops:
    """Hold one crop per image: (n,) top, left, height and width in pixels, and whether it is mirrored."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    mirrored: np.ndarray


def draw_crops(
    seed: int, epoch: int, samples: np.ndarray, heights: np.ndarray, widths: np.ndarray, area: tuple[float, float]
) -> Crops:
    """Draw random resized crops: share of the area in `area`, aspect 3/4 to 4/3; half of them are mirrored.

    As torchvision's RandomResizedCrop, but for where the random numbers come from: ten tries, then the largest centred
    crop of an allowed aspect.

    Args:
        seed: Training seed.
        epoch: Epoch number.
        samples: (n,) sample numbers.
        heights: (n,) heights of the images in pixels.
        widths: (n,) widths.
        area: Range of the crop's share of the area.
    """
    u = uniforms(seed, CROP, epoch, samples, 2 * _TRIES + 3)
    share = area[0] + (area[1] - area[0]) * u[:, :_TRIES]
    aspect = np.exp((2 * u[:, _TRIES : 2 * _TRIES] - 1) * np.log(4 / 3))
    side = np.sqrt(heights * widths)[:, None]
    width, height, fits = _first_fit(np.sqrt(share * aspect) * side, np.sqrt(share / aspect) * side, widths, heights)
    width = np.where(fits, width, np.minimum(widths, np.rint(heights * 4 / 3))).astype(np.int64)
    height = np.where(fits, height, np.minimum(heights, np.rint(widths * 4 / 3))).astype(np.int64)
    top = np.where(fits, np.floor(u[:, -3] * (heights - height + 1)), (heights - height) // 2).astype(np.int64)
    left = np.where(fits, np.floor(u[:, -2] * (widths - width + 1)), (widths - width) // 2).astype(np.int64)
    return Crops(top, left, height, width, u[:, -1] < 0.5)


def draw_boxes(
    seed: int, epoch: int, samples: np.ndarray, size: int, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw erasing boxes: area 2 to 33 %, aspect ratio 0.3 to 1/0.3.

    Returns:
        (n, 4) top, left, height, width, all zero where nothing is erased, and (n,) uniforms for the noise.
    """
    u = uniforms(seed, ERASE, epoch, samples, 2 * _TRIES + 4)
    area = (0.02 + (1 / 3 - 0.02) * u[:, :_TRIES]) * size * size
    aspect = np.exp((2 * u[:, _TRIES : 2 * _TRIES] - 1) * np.log(1 / 0.3))
    width, height, fits = _first_fit(np.sqrt(area / aspect), np.sqrt(area * aspect), size - 1, size - 1)
    top = np.floor(u[:, -4] * (size - height + 1)).astype(np.int64)
    left = np.floor(u[:, -3] * (size - width + 1)).astype(np.int64)
    chosen = (u[:, -2] < probability) & fits
    return np.stack([top, left, height, width], axis=1) * chosen[:, None], u[:, -1]


def draw_mix(
    seed: int, step: int, size: int, settings: PretrainSettings
) -> tuple[str, float, tuple[int, int, int, int]]:
    """Draw what a batch is mixed by.

    Returns:
        "mixup", "cutmix" or "none"; the share that stays of the own image; and CutMix's box
        (top, bottom, left, right). The box is cut at the border and the share corrected for it.
    """
    g = np.random.Generator(np.random.Philox(key=derive(seed, MIX, step)))
    applied, switch, y, x = g.random(4)
    kinds = [kind for kind, alpha in (("cutmix", settings.cutmix), ("mixup", settings.mixup)) if alpha > 0]
    if not kinds or applied >= settings.mix_probability:
        return "none", 1.0, (0, 0, 0, 0)
    kind = kinds[int(switch * len(kinds))]
    alpha = settings.cutmix if kind == "cutmix" else settings.mixup
    ratio = float(g.beta(alpha, alpha))
    if kind == "mixup":
        return kind, ratio, (0, 0, 0, 0)
    half = int(size * np.sqrt(1 - ratio)) // 2
    cy, cx = int(y * size), int(x * size)
    top, bottom, left, right = (
        max(cy - half, 0),
        min(cy + half, size),
        max(cx - half, 0),
        min(cx + half, size),
    )
    return kind, 1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right)


def smooth_targets(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """Return one-hot targets with the share `smoothing` spread evenly over all classes: (n, num_classes)."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def crop_resize(batch: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Cut a crop from each (n, H, H, 3) uint8 image and resize it to (n, 3, size, size) uint8.

    Bicubic (a = -0.5) with antialiasing, as Pillow resizes: two batched matrix products, one per axis.
    """
    n, side = batch.shape[:2]
    device = batch.device
    rows = _resize_matrix(crops.top, crops.height, side, size, device)
    columns = _resize_matrix(crops.left, crops.width, side, size, device)
    mirrored = torch.from_numpy(crops.mirrored).to(device)[:, None, None]
    columns = torch.where(mirrored, columns.flip(1), columns)
    tall = torch.bmm(rows, batch.reshape(n, side, side * 3).float())  # (n, size, side * 3)
    tall = tall.view(n, size, side, 3).permute(0, 3, 1, 2).reshape(n, 3 * size, side)
    wide = torch.bmm(tall, columns.transpose(1, 2))
    return wide.view(n, 3, size, size).round_().clamp_(0, 255).to(torch.uint8)


def _first_fit(
    width: np.ndarray, height: np.ndarray, widest: np.ndarray | int, highest: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the first of the (n, tries) rounded sizes that fits, each limit one number or (n,); 0 where none does."""
    width, height = np.rint(width).astype(np.int64), np.rint(height).astype(np.int64)
    fits = (width >= 1) & (height >= 1)
    fits &= (width <= np.reshape(widest, (-1, 1))) & (height <= np.reshape(highest, (-1, 1)))
    row, first, found = np.arange(len(width)), fits.argmax(1), np.asarray(fits.any(1))
    return width[row, first] * found, height[row, first] * found, found


def _resize_matrix(start: np.ndarray, length: np.ndarray, side: int, size: int, device: torch.device) -> torch.Tensor:
    """Return (n, size, side) weights that resample [start, start + length) of an axis to `size` points."""
    begin = torch.as_tensor(start, dtype=torch.float32, device=device)[:, None, None]
    extent = torch.as_tensor(length, dtype=torch.float32, device=device)[:, None, None]
    step = extent / size
    stretch = step.clamp(min=1.0)  # the kernel widens when the image shrinks
    centre = begin + (torch.arange(size, device=device)[None, :, None] + 0.5) * step
    pixel = torch.arange(side, device=device)[None, None] + 0.5
    distance = ((pixel - centre) / stretch).abs_()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = torch.where(distance < 1, near, far)
    outside = (distance >= 2) | (pixel < begin) | (pixel > begin + extent)
    weight = weight.masked_fill_(outside, 0.0)
    return weight / weight.sum(2, keepdim=True)
