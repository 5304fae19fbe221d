"""Hold every number of the two frozen recipes; a profile shrinks them, the defaults are recipe ``sgd-2x``.

Values of mmdet's ``mask-rcnn_r50_fpn_2x_coco`` and mmsegmentation's ``upernet_r50_4xb4-160k_ade20k-512x512`` with
a plain ResNet instead of V1c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.errors import UserError
from suites.perception.cards import AdeCard, CocoCard

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
BASE_BATCH = 16
RECIPES = ("sgd-2x", "sgd-1x", "adamw-1x")


@dataclass(frozen=True)
class Optimizer:
    """Choose the optimizer; ``lr`` is for a batch of 16 and is scaled linearly with the batch."""

    kind: str = "SGD"
    lr: float = 0.02
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    decay_norms: bool = True


@dataclass(frozen=True)
class CocoSettings:
    """Size one Mask R-CNN run. Lengths are pixels, schedules epochs unless named otherwise."""

    recipe: str = "sgd-2x"
    card: CocoCard = field(default_factory=CocoCard)
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    fraction: float = 1.0
    subset_seed: int = 0
    image_long: int = 1333
    image_short: int = 800
    min_side: int = 32
    batch_size: int = 16
    workers: int = 12
    epochs: int = 24
    milestones: tuple[int, ...] = (16, 22)
    warmup_iterations: int = 500
    checkpoint_epochs: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    frozen_stages: int = 1
    norm_eval: bool = True
    fpn_channels: int = 256
    anchor_scale: int = 8
    rpn_samples: int = 256
    rpn_pre_nms_train: int = 2000
    rpn_pre_nms_test: int = 1000
    proposals: int = 1000
    roi_samples: int = 512
    fc_channels: int = 1024
    mask_convs: int = 4
    mask_channels: int = 256
    detections: int = 100


@dataclass(frozen=True)
class AdeSettings:
    """Size one UperNet run; ``iterations`` is the count at fraction 1, scaled to keep the epochs constant."""

    recipe: str = "sgd-2x"
    card: AdeCard = field(default_factory=AdeCard)
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    fraction: float = 1.0
    subset_seed: int = 0
    image_long: int = 2048
    image_short: int = 512
    crop: int = 512
    scale_low: float = 0.5
    scale_high: float = 2.0
    batch_size: int = 16
    workers: int = 12
    iterations: int = 160_000
    warmup_iterations: int = 0
    poly_power: float = 0.9
    lr_end: float = 1e-4
    checkpoint_iterations: int = 16_000
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=0.01, weight_decay=5e-4))
    head_channels: int = 512
    auxiliary_channels: int = 256

    @property
    def total_iterations(self) -> int:
        """Iterations of this run: the full count scaled by the fraction, at least one."""
        return max(1, round(self.iterations * self.fraction))


def coco_recipe(name: str) -> CocoSettings:
    """Return the COCO settings of one of ``RECIPES``."""
    base = CocoSettings(recipe=_known(name))
    if name == "sgd-2x":
        return base
    short = replace(base, epochs=12, milestones=(8, 11))
    if name == "sgd-1x":
        return short
    return replace(short, optimizer=Optimizer("AdamW", lr=2e-4, weight_decay=0.05, decay_norms=False))


def ade_recipe(name: str) -> AdeSettings:
    """Return the ADE20K settings of one of ``RECIPES``."""
    base = AdeSettings(recipe=_known(name))
    if name == "sgd-2x":
        return base
    if name == "sgd-1x":
        return replace(base, iterations=80_000, checkpoint_iterations=8_000)
    adamw = Optimizer("AdamW", lr=1e-4, weight_decay=0.05, decay_norms=False)
    return replace(base, optimizer=adamw, warmup_iterations=1500, poly_power=1.0, lr_end=0.0)


def _known(name: str) -> str:
    if name not in RECIPES:
        raise UserError(
            f"unknown perception recipe '{name}'", f"known: {', '.join(RECIPES)}", "choose one of them"
        )
    return name
