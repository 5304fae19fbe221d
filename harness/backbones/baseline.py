"""Trivial baselines: subjects without training, beside which every score must be read.

``constant`` always answers one class, ``uniform`` any class by chance, ``untrained`` is a network with its first random
weights, ``humans`` are the recorded answers of people (a suite brings them). The first two answer through logits like any
classifier; what they answer depends on nothing but the class list and the pixels of one image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.errors import UserError
from harness.core.names import did_you_mean

if TYPE_CHECKING:
    import torch


PREFIX = "baseline:"
KINDS = ("constant", "uniform", "untrained", "humans")
FILE = "baseline.json"
VERSION = 1


@dataclass(frozen=True)
class Baseline:
    """What the user asked for: ``baseline:constant:n02086240``."""

    kind: str
    class_id: str = ""
    """The one answer of ``constant``."""

    @property
    def name(self) -> str:
        """Return it as it is written on the command line and on the board."""
        return f"{PREFIX}{self.kind}" + (f":{self.class_id}" if self.class_id else "")


def parse_baseline(text: str, classes: Sequence[str]) -> Baseline:
    """Parse ``baseline:KIND`` or ``baseline:constant:CLASS``; without a class the first of the list is answered.

    Raises:
        UserError: no such baseline or class.
    """
    kind, _, class_id = text.removeprefix(PREFIX).partition(":")
    if kind not in KINDS:
        raise UserError(
            f"unknown baseline {kind!r}",
            f"there are {', '.join(KINDS)}",
            f"{did_you_mean(kind, KINDS)}e.g. {PREFIX}constant",
        )
    if kind != "constant" and class_id:
        raise UserError(f"baseline {kind} takes no class", f"got {class_id!r}", f"write {PREFIX}{kind}")
    if kind == "constant" and (class_id or classes[0]) not in classes:
        raise UserError(
            f"{class_id!r} is not in the class list",
            f"it has {len(classes)} ids such as {classes[0]}",
            f"{did_you_mean(class_id, classes)}name an id of the list",
        )
    return Baseline(kind, (class_id or classes[0]) if kind == "constant" else "")


class BaselineClassifier:
    """Answer like a network of the given classes, at any image size.

    Attributes:
        classes: Ordered class ids of the logits.
        identity: Name of the baseline.
        image_size: 0, any.
        interpolation: Of no consequence.
    """

    image_size, interpolation = 0, "bilinear"

    def __init__(self, baseline: Baseline, classes: Sequence[str]) -> None:
        self.baseline, self.classes = baseline, tuple(classes)
        self.identity = baseline.name

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of images (B, 3, H, W) in [0, 1]: one class ahead, or noise drawn from the pixels' hash.

        Raises:
            UserError: people give no logits.
        """
        import numpy as np
        import torch

        if self.baseline.kind == "constant":
            logits = torch.zeros(len(images), len(self.classes))
            logits[:, self.classes.index(self.baseline.class_id)] = 1.0
            return logits
        if self.baseline.kind != "uniform":
            raise UserError(
                f"{self.identity} cannot classify images", "it has recorded answers only", "use texture-bias"
            )
        pixels = (images * 255).round().to(torch.uint8).cpu().numpy()
        seeds = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") for image in pixels]
        draws = [np.random.default_rng(seed).standard_normal(len(self.classes)) for seed in seeds]
        return torch.from_numpy(np.stack(draws)).float()
