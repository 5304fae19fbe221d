"""Two small relatives of timm's networks for 64-pixel images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.layers import HybridEmbed
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer


def _residual_embed(embed_dim: int, **kwargs: Any) -> HybridEmbed:
    """Embed patches of 16x16 pixels by a small residual network, as the R+ViT hybrids do.

    Without it a transformer of this size learns colours from a thousand images, but no shapes.
    """
    half = embed_dim // 2

    def block(before: int, after: int) -> BasicBlock:
        shortcut = torch.nn.Sequential(
            torch.nn.Conv2d(before, after, 1, stride=2, bias=False), torch.nn.BatchNorm2d(after)
        )
        return BasicBlock(before, after, stride=2, downsample=shortcut)

    stem: list[torch.nn.Module] = []
    for before, after, stride in ((3, 32, 2), (32, 32, 1)):
        convolution = torch.nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        stem += [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU(inplace=True)]
    kwargs["patch_size"] = 1  # of the residual network's output
    body = torch.nn.Sequential(*stem, block(32, half), block(half, embed_dim), block(embed_dim, embed_dim))
    return HybridEmbed(body, embed_dim=embed_dim, **kwargs)


# resnet10: one basic block per stage behind a deep stem whose max-pool is a strided convolution.
# vit_pico: 16 tokens and a class token, two transformer blocks, behind three residual blocks.
SMALL: Mapping[str, tuple[Callable[..., torch.nn.Module], Mapping[str, Any]]] = {
    "resnet10": (
        ResNet,
        {
            "block": BasicBlock,
            "layers": [1, 1, 1, 1],
            "channels": (32, 64, 128, 256),
            "stem_width": 32,
            "stem_type": "deep",
            "replace_stem_pool": True,
        },
    ),
    "vit_pico": (
        VisionTransformer,
        {
            "img_size": 64,
            "patch_size": 16,
            "embed_dim": 128,
            "depth": 2,
            "num_heads": 4,
            "embed_layer": _residual_embed,
        },
    ),
}
