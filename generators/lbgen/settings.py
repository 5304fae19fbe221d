"""Hyperparameters of the lbGen recipe; the defaults are the paper's (no torch needed to read them)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.api import Settings, UserError

Precision = Literal["fp32", "bf16", "fp16"]


class FitSettings(Settings):
    """What a user may set of the fine-tune (lbGen, CVPR 2025, tables 7 and 8; what it leaves open is taken from its code)."""

    steps: int = Field(50, description="Denoising steps T of the training sampler (DDPM)")
    trained_steps: int = Field(5, description="Steps K that carry gradient; must divide T")
    latent_jacobian: bool = Field(
        True,
        description="Keep the UNet's Jacobian with respect to its latent input; off: stop-gradient (DRTune, arXiv 2405.00760)",
    )
    rank: int = Field(128, description="LoRA rank; alpha equals it")
    epochs: int = Field(3, description="Shuffled passes over the class names, one image per name")
    batch: int = Field(32, description="Images per update, over all processes")
    micro_batch: int = Field(4, description="Images that go through the reward models and the UNet together")
    warmup_passes: int = Field(1, description="Passes that train the discriminator only, with twice the batch")
    weight_en: float = Field(1.0, description="Weight of the adversarial loss L_en (equation 5)")
    weight_in: float = Field(1.0, description="Weight of the individual cosine loss L_in (equation 6)")
    weight_q: float = Field(0.1, description="Weight of the quality loss L_q")
    adversarial: Literal["non-saturating", "saturating"] = Field(
        "non-saturating", description="Form of the generator's L_en"
    )
    caption: str = Field(
        "photo of {name}",
        description="Text that L_in compares an image with; the diffusion prompt is always the bare name",
    )
    discriminator_width: int = Field(3, description="Hidden width of the discriminator")
    discriminator_activation: Literal["relu", "leaky_relu"] = Field("relu", description="relu is the paper's")
    generator_lr: float = Field(2e-5, description="AdamW learning rate of the LoRA")
    discriminator_lr: float = Field(1e-5, description="AdamW learning rate of the discriminator")
    generator_clip: float = Field(0.1, description="Global gradient norm of the LoRA")
    discriminator_clip: float = Field(1.0, description="Global gradient norm of the discriminator")


class RecipeSettings(FitSettings):
    """All that decides the fine-tune: what a user sets, and what is fixed."""

    guidance: float = 2.0
    generator_betas: tuple[float, float] = (0.9, 0.999)
    discriminator_betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = 0.01
    variant: Literal["paper", "released"] = "paper"
    """``released``: what the released code trains, mistakes included (see ``released.py``)."""
    checkpoint_every: int = 8
    """Optimizer steps between checkpoints."""

    @model_validator(mode="after")
    def _can_be_honoured(self) -> RecipeSettings:
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
        return self

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
