"""Hyperparameters of the lbGen recipe; the defaults are the paper's (no torch needed to read them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.api import UserError

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class RecipeSettings:
    """All settings of the fine-tune (lbGen, CVPR 2025, tables 7 and 8; what it leaves open is taken from its code)."""

    steps: int = 50
    """Denoising steps T of the training sampler."""
    trained_steps: int = 5
    """Steps K that carry gradient; must divide T."""
    guidance: float = 2.0
    latent_jacobian: bool = True
    """Keep the UNet's Jacobian with respect to its latent input; off: stop-gradient (DRTune, arXiv 2405.00760)."""
    rank: int = 128
    """LoRA rank; alpha equals it."""
    epochs: int = 3
    """Shuffled passes over the class names, one image per name."""
    batch: int = 32
    """Images per optimizer step, over all processes."""
    micro_batch: int = 4
    """Images that go through the towers and the UNet together."""
    warmup_passes: int = 1
    """Passes that train the discriminator only, with twice the batch."""
    weight_en: float = 1.0
    """Weight of the adversarial loss L_en."""
    weight_in: float = 1.0
    """Weight of the cosine loss L_in."""
    weight_q: float = 0.1
    """Weight of the quality loss L_q."""
    adversarial: Literal["non-saturating", "saturating"] = "non-saturating"
    caption: str = "photo of {name}"
    """Text that L_in compares an image with; the diffusion prompt is always the bare name."""
    discriminator_width: int = 3
    discriminator_activation: Literal["relu", "leaky_relu"] = "relu"
    generator_lr: float = 2e-5
    generator_betas: tuple[float, float] = (0.9, 0.999)
    generator_clip: float = 0.1
    discriminator_lr: float = 1e-5
    discriminator_betas: tuple[float, float] = (0.0, 0.999)
    discriminator_clip: float = 1.0
    weight_decay: float = 0.01
    variant: Literal["paper", "released"] = "paper"
    """``released``: what the released code trains, mistakes included (see ``released.py``)."""
    checkpoint_every: int = 8
    """Optimizer steps between checkpoints."""

    def __post_init__(self) -> None:
        """Refuse settings that no run could honour."""
        if self.steps < 1 or self.trained_steps < 1 or self.steps % self.trained_steps:
            raise _bad(
                f"{self.trained_steps} trained steps of {self.steps}",
                "trained steps are spread evenly, so their number must divide the number of steps",
                "choose a divisor, such as 5 of 50",
            )
        if self.batch < 1 or self.micro_batch < 1 or self.batch % self.micro_batch:
            raise _bad(
                f"a batch of {self.batch} in micro-batches of {self.micro_batch}",
                "a step is made of whole micro-batches, so that every image has the same weight",
                "choose a micro-batch that divides the batch",
            )
        if min(self.weight_en, self.weight_in, self.weight_q) < 0 or not self.uses_any_loss:
            raise _bad("the loss weights", "they must not be negative, nor all zero", "set at least one to 1")
        if self.variant == "released" and self.weight_en == 0:
            raise _bad("the released variant without L_en", "it trains on nothing else", "leave weight_en at 1")
        if "{name}" not in self.caption:
            raise _bad(f"the caption {self.caption!r}", "it does not contain {name}", "use 'photo of {name}'")
        if min(self.rank, self.epochs, self.discriminator_width, self.checkpoint_every) < 1 or self.warmup_passes < 0:
            raise _bad("a count below its minimum", "ranks, widths, epochs and intervals are at least 1", "raise it")

    @property
    def uses_any_loss(self) -> bool:
        """Return whether any loss term is on."""
        return max(self.weight_en, self.weight_in, self.weight_q) > 0

    @property
    def uses_clip(self) -> bool:
        """Return whether a CLIP encoder is needed."""
        return self.weight_en > 0 or self.weight_in > 0


def _bad(what: str, why: str, fix: str) -> UserError:
    return UserError(f"unusable lbGen settings: {what}", why, fix)
