"""What in-process scorers share: preprocessing with gradient, safe half precision, staged gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from generators.lbgen.preprocess import preprocess
from generators.lbgen.quality.levels import expected_level

# d(score)/d(pixel) is near the smallest fp16 number; a power of two keeps the backward pass away from it.
FP16_GRADIENT_BOOST = 1024.0


class _ScaleGradient(torch.autograd.Function):
    """Pass a tensor through and multiply its gradient by a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x unchanged; in the backward pass its gradient is multiplied by factor."""
    out: Tensor = _ScaleGradient.apply(x, factor)
    return out


class EncoderScorer:
    """Score images with a frozen encoder that maps normalised pixels to five level logits.

    Args:
        size: Side of the encoder's input in pixels.
        mean: Per-channel mean of the encoder's input.
        std: Per-channel standard deviation of the encoder's input.
        device: Where the encoder lives.
        dtype: Dtype of the encoder's weights.
    """

    def __init__(
        self,
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)
        self.device, self.dtype = device, dtype

    def level_logits(self, pixels: Tensor) -> Tensor:
        """Return (B, 5) logits in the order of the levels for (B, 3, size, size) normalised pixels."""
        raise NotImplementedError

    def score(self, images: Tensor) -> Tensor:
        """Return the expected level of each image; see `QualityScorer.score`."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            # The reference processors pad or crop other shapes; the resize here would squash them.
            raise ValueError(f"quality scorers take square images (B, 3, H, H), got {tuple(images.shape)}")
        wide = torch.promote_types(self.dtype, torch.float32)
        pixels = preprocess(images.to(self.device, wide), self.size, self.mean, self.std)
        boost = FP16_GRADIENT_BOOST if self.dtype == torch.float16 else 1.0
        logits = self.level_logits(scale_gradient(pixels, 1.0 / boost).to(self.dtype))
        return expected_level(scale_gradient(logits.to(wide), boost)).to(images.device)

    def score_and_grad(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and d(sum of scores)/d(images); see `QualityScorer.score_and_grad`."""
        with torch.enable_grad():
            leaf = images.detach().requires_grad_(True)
            scores = self.score(leaf)
            (grad,) = torch.autograd.grad(scores.sum(), leaf)
        return scores.detach(), grad
