"""Hold every number of the two frozen recipes; a profile shrinks them, the defaults are recipe ``sgd-2x``.

Values of mmdet's ``mask-rcnn_r50_fpn_2x_coco`` and mmsegmentation's ``upernet_r50_4xb4-160k_ade20k-512x512``
with a plain ResNet instead of V1c. A recipe sets what it changes; keys given explicitly win over it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.api import Settings

BASE_BATCH = 16
SMALL = 0.2
RecipeName = Literal["sgd-2x", "sgd-1x", "adamw-1x"]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]

_ADAMW = {"optimizer": "AdamW", "weight_decay": 0.05, "decay_norms": False}
_SHORT = {"epochs": 12, "milestones": (8, 11)}
_COCO: dict[str, dict[str, Any]] = {
    "sgd-2x": {},
    "sgd-1x": _SHORT,
    "adamw-1x": {**_SHORT, **_ADAMW, "lr": 2e-4},
}
_ADE: dict[str, dict[str, Any]] = {
    "sgd-2x": {},
    "sgd-1x": {"iterations": 80_000, "checkpoint_iterations": 8_000},
    "adamw-1x": {**_ADAMW, "lr": 1e-4, "warmup_iterations": 1500, "poly_power": 1.0, "lr_end": 0.0},
}


class _Common(Settings):
    """What both runs share: which subsets, how often, how the rows are resampled."""

    recipe: RecipeName = "sgd-2x"
    fractions: tuple[Fraction, ...] = (1.0, 0.5, 0.2, 0.1)
    subset_seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Of the nested training subsets; the same for all backbones. Each is a run of its own at fractions below 1."""
    constant: Literal["epochs", "iterations"] = "epochs"
    """What stays as it is at small fractions: with "epochs" they also get fewer updates, as in the paper."""
    small_fraction_seeds: Count = 3
    """Training seeds at fractions up to 0.2, where single runs say little."""
    backbone_lr: float = 1.0
    """Multiplies the rate of the backbone's weights; 1 in all recipes."""
    replicates: Count = 1000
    """Most images, or groups of images, that the jackknife leaves out in turn."""
    workers: int = 12

    def seeds_for(self, fraction: float) -> int:
        """Return the number of training seeds at a fraction."""
        return self.small_fraction_seeds if fraction <= SMALL else 1

    def subsets_for(self, fraction: float) -> tuple[int, ...]:
        """Return the subset seeds at a fraction; all pictures are one subset."""
        return self.subset_seeds if fraction < 1 else self.subset_seeds[:1]


class CocoSettings(_Common):
    """Size one Mask R-CNN run. Lengths are pixels, schedules epochs unless named otherwise.

    ``lr`` is for a batch of 16 and is scaled linearly with the batch.
    """

    image_long: Count = 1333
    image_short: Count = 800
    min_side: Count = 32
    batch_size: Count = 16
    epochs: Count = 24
    milestones: tuple[int, ...] = (16, 22)
    warmup_iterations: int = 500
    checkpoint_epochs: Count = 1
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    lr: float = 0.02
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay_norms: bool = True
    frozen_stages: int = 1
    norm_eval: bool = True
    fpn_channels: Count = 256
    anchor_scale: Count = 8
    rpn_samples: Count = 256
    rpn_pre_nms_train: Count = 2000
    rpn_pre_nms_test: Count = 1000
    proposals: Count = 1000
    roi_samples: Count = 512
    fc_channels: Count = 1024
    mask_convs: Count = 4
    mask_channels: Count = 256
    detections: Annotated[int, Field(ge=1, le=100)] = 100

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, given: Any) -> Any:
        return _with_recipe(_COCO, given)

    def at(self, fraction: float) -> CocoSettings:
        """Return the settings of a run on this fraction: with constant iterations its epochs become more."""
        if self.constant == "epochs":
            return self
        longer = {name: round(getattr(self, name) / fraction) for name in ("epochs", "checkpoint_epochs")}
        steps = tuple(round(step / fraction) for step in self.milestones)
        return self.model_copy(update={**longer, "milestones": steps})


class AdeSettings(_Common):
    """Size one UperNet run; ``iterations`` is the count at fraction 1, scaled to keep the epochs constant."""

    image_long: Count = 2048
    image_short: Count = 512
    crop: Count = 512
    scale_low: float = 0.5
    scale_high: float = 2.0
    distortion: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Strength of the photometric distortion; 1 is the toolbox's own."""
    batch_size: Annotated[int, Field(ge=2)] = 16
    iterations: Count = 160_000
    warmup_iterations: int = 0
    poly_power: float = 0.9
    lr_end: float = 1e-4
    checkpoint_iterations: Count = 16_000
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    lr: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    decay_norms: bool = True
    head_channels: Count = 512
    auxiliary_channels: Count = 256

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, given: Any) -> Any:
        return _with_recipe(_ADE, given)

    def total_iterations(self, fraction: float) -> int:
        """Return the iterations of a run on this fraction, at least one."""
        return self._scaled(self.iterations, fraction)

    def checkpoint_interval(self, fraction: float) -> int:
        """Return the iterations between checkpoints of a run on this fraction, at least one."""
        return self._scaled(self.checkpoint_iterations, fraction)

    def _scaled(self, count: int, fraction: float) -> int:
        return max(1, round(count * fraction)) if self.constant == "epochs" else count


def _with_recipe(table: dict[str, dict[str, Any]], given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {**table.get(given.get("recipe", "sgd-2x"), {}), **given}
