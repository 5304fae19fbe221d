"""The pre-training recipe as data: what the paper prints, with the readings its gaps need.

Defaults are the full-scale recipe (lbGen, CVPR 2025, supplement, pre-training table; its gaps filled from
ConvNeXt, Liu et al., CVPR 2022, whose recipe the authors follow). Stochastic depth is 0.1, the value for
networks of this size; the printed "0.1/0.4/0.5/0.5" are four ConvNeXt sizes. Layer scale does not exist in
these networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.core.errors import UserError
from harness.core.names import did_you_mean
from harness.core.normalisation import KNOWN

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class PretrainSettings:
    """Describe one pre-training run.

    Attributes:
        arch: Name of the architecture (`harness.backbones.models.create`).
        epochs: Passes over the data.
        warmup_epochs: Epochs of linear warm-up from zero.
        batch_size: Images per step over all ranks; an incomplete last batch is dropped.
        lr: Peak learning rate of AdamW (betas 0.9, 0.999, eps 1e-8).
        min_lr: Floor of the cosine.
        weight_decay: On matrices and kernels only; none on one-dimensional parameters, class token,
            positions.
        image_size: Side of the training images in pixels.
        crop_area: Range of the random crop's share of the area.
        randaugment_ops: Operations per image; 0 turns RandAugment off.
        randaugment_magnitude: Mean level, 0 to 10.
        randaugment_std: Standard deviation of the level.
        randaugment_probability: Chance that a drawn operation is applied.
        mixup: Alpha of Mixup; 0 turns it off.
        cutmix: Alpha of CutMix; 0 turns it off.
        mix_probability: Share of batches that are mixed.
        erasing: Chance that a box of an image is erased.
        smoothing: Label smoothing.
        drop_path: Stochastic depth of the last block, rising linearly from 0.
        ema_decay: Decay of the weight average, per step.
        ema_warmup: Let the decay rise as (1 + step) / (10 + step) until it reaches `ema_decay`.
        precision: "fp32", or "bf16" for autocast.
        mean: Normalisation mean per channel, for images in [0, 1].
        std: Normalisation standard deviation per channel.
    """

    arch: str = "resnet50"
    epochs: Annotated[int, Field(ge=1)] = 120
    warmup_epochs: Annotated[float, Field(ge=0)] = 12
    batch_size: Annotated[int, Field(ge=2)] = 2048
    lr: float = 1e-3
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    image_size: int = 224
    crop_area: tuple[float, float] = (0.08, 1.0)
    randaugment_ops: Annotated[int, Field(ge=0, le=16)] = 2
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    randaugment_std: float = 0.5
    randaugment_probability: Share = 0.5
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: Share = 1.0
    erasing: Share = 0.25
    smoothing: Annotated[float, Field(ge=0, le=0.999)] = 0.1
    drop_path: Annotated[float, Field(ge=0, le=0.999)] = 0.1
    ema_decay: Annotated[float, Field(ge=0, le=0.999999)] = 0.9999
    ema_warmup: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    mean: tuple[float, float, float] = KNOWN["imagenet"][0]
    std: tuple[float, float, float] = KNOWN["imagenet"][1]

    def __post_init__(self) -> None:
        for name in ("crop_area", "mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        for wrong, text in (
            (self.warmup_epochs > self.epochs, f"warmup_epochs is {self.warmup_epochs}, epochs {self.epochs}"),
            (self.lr < self.min_lr, f"lr is {self.lr}, its floor min_lr {self.min_lr}"),
            (not 1e-4 <= min(self.crop_area) <= max(self.crop_area) <= 1, f"crop_area is {self.crop_area}"),
        ):
            if wrong:
                raise UserError(
                    f"pretrain settings do not fit together: {text}",
                    "the warm-up is a part of the epochs, min_lr at most lr, crop_area within [0.0001, 1]",
                    "change them in the profile",
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PretrainSettings:
        """Make settings from a profile's table.

        Raises:
            UserError: A key is unknown, or a value is out of its range.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                hint = did_you_mean(key, known)
                raise UserError(
                    f"unknown pretrain setting {key!r}", f"known: {', '.join(known)}", f"{hint}correct the key"
                )
        try:
            # Values stay as they were written: a record shows what the profile says.
            TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"pretrain setting {name} is {first['input']!r}", first["msg"], "change it in the profile or in --set"
            ) from error
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
