"""The discriminator between CLIP features of images and of class names."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Linear, activation, Linear on features as they come (not normalised); returns one logit, high for images.

    Args:
        dim: Width of the features: 768 for CLIP ViT-L/14.
        width: Hidden width; 3 is the only known value.
        activation: ``relu`` (the paper) or ``leaky_relu`` with slope 0.2 (the released code).
        seed: Seed of PyTorch's default initialisation.
    """

    def __init__(
        self, dim: int, width: int = 3, activation: Literal["relu", "leaky_relu"] = "relu", seed: int = 0
    ) -> None:
        super().__init__()
        kind = nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(dim, width), kind, nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, 1) logits of (N, dim) features."""
        return self.layers(features)
