"""Architectures by name: timm's, and two small relatives of theirs."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.resnet import ResNet

from harness.backbones.small import SMALL
from harness.core.errors import UserError
from harness.core.names import did_you_mean


def create(arch: str, num_classes: int, **kwargs: Any) -> torch.nn.Module:
    """Make an untrained network.

    Args:
        arch: A name of `SMALL` or of timm. The network is never given pre-trained weights.
        num_classes: Outputs; 0 leaves the classifier head out.
        kwargs: Passed to the constructor, such as `drop_path_rate` or `img_size`.

    Raises:
        UserError: There is no such architecture, or it does not take these arguments.
    """
    try:
        if arch in SMALL:
            constructor, fixed = SMALL[arch]
            return constructor(num_classes=num_classes, **{**fixed, **kwargs})
        if arch in timm.list_models():
            model: torch.nn.Module = timm.create_model(arch, pretrained=False, num_classes=num_classes, **kwargs)
            return model
    except (TypeError, AssertionError) as error:
        raise UserError(f"{arch} cannot be built with {kwargs}", str(error), "change these arguments") from error
    raise UserError(
        f"unknown architecture {arch!r}",
        "it is neither a small network of this project nor a timm name",
        f"{did_you_mean(arch, [*SMALL, *timm.list_models()])}timm.list_models() names the others",
    )


def size_arguments(arch: str, image_size: int) -> dict[str, int]:
    """Return the constructor arguments that depend on the image size: transformers fix their token grid."""
    return {"img_size": image_size} if arch.startswith(("vit_", "deit")) else {}


def is_convolutional(model: torch.nn.Module) -> bool:
    """Tell whether the features are a map (n, channels, h, w) rather than tokens."""
    return isinstance(model, ResNet) or not hasattr(model, "num_prefix_tokens")
