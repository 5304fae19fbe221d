"""Variants of lbGen: the released code, and the rows of the paper's ablation (table 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from generators.lbgen.plugin import LbGen, LbGenSettings

_SWEEP = "lbgen-ablation"


class ReleasedSettings(LbGenSettings):
    """As lbgen, but for what the released code does otherwise."""

    discriminator_activation: Literal["relu", "leaky_relu"] = Field("leaky_relu", description="As in the released code")
    weight_q: float = Field(0.0, description="Computed and dropped in the released code: not computed here")
    micro_batch: int = Field(4, description="Images of one process: the first so many names are its real texts")
    warmup_passes: int = Field(1, description="Passes that train the discriminator only, with twice the batch")


class LbGenReleased(LbGen):
    """The released code, bug for bug."""

    card = replace(
        LbGen.card,
        id="lbgen-released",
        summary="lbGen as its released code trains it, mistakes included; for comparison with the official repository only.",
        differences=(
            "objective: the paper's L_en + L_in + 0.1 L_q; released: L_en alone is back-propagated, and is the `total` of the log; "
            "L_in is logged beside it",
            "real texts: the paper draws from all other class names; released: always the first B names of the list (B images "
            "of one process: 4, or 8 in the warm-up), because a permutation of range(B) is used as class index",
            "own class: excluded in the paper; released: no check",
            "L_in: the paper compares an image with its own description; released: mean over the whole B x B matrix",
            "discriminator: the paper prints Linear-ReLU-Linear; released: LeakyReLU(0.2), hidden width 3",
            "adversarial form: the paper's min-max saturates; released: non-saturating cross-entropy",
            "discriminator warm-up: not in the paper; released: one pass over the names with twice the batch",
            "discriminator clip at norm 1: stated in the paper; released: inert, its parameter iterator is exhausted",
            "sampler in training: unstated in the paper; released: DDPM, while PNDM makes the data set",
            "policy gradient: the paper prints a score-function formula; released: plain back-propagation through 5 of 50 steps",
            "noise: the released processes share one seed, so all of them draw the same latents and step noise; kept here",
            "checkpoint: the released synthesis loads checkpoint-128, which its training script never writes on 8 processes "
            "(0, 48, 80, 112); here the last update is used",
            "weight symbols and the printed quality score (without its sum over levels) are slips of the paper without effect",
            "class names: the paper's example of an ambiguous word (a bare 'crane') is not in the released list, which says 'crane "
            "bird' and 'construction crane'; that list is used here",
            "base weights: the released scripts name a mirror of the withdrawn original",
            "class list of the fine-tune: fit_classes, as for lbgen; its first B names are the real texts",
            "NOT reproduced: float16 latents, the discriminator under autocast, and one loss scaler for two optimizers (the "
            "fine-tune runs in float32; fit_precision=fp16 has a scaler for the LoRA alone); unseeded synthesis; L_q computed for "
            "nothing; classes that two synthesis processes write at once; resuming that restarts the warm-up",
        ),
    )
    Settings = ReleasedSettings
    variant = "released"
    inherits = "lbgen"
    overrides = ("discriminator_activation", "weight_q", "quality", "micro_batch", "adversarial", "warmup_passes")


class NoEntireSettings(LbGenSettings):
    """Table 4, without L_en."""

    weight_en: float = Field(0.0, description="Weight of the adversarial loss L_en: off")


class NoIndividualSettings(LbGenSettings):
    """Table 4, without L_in."""

    weight_in: float = Field(0.0, description="Weight of the individual cosine loss L_in: off")


class NoQualitySettings(LbGenSettings):
    """Table 4, without L_q."""

    weight_q: float = Field(0.0, description="Weight of the quality loss L_q: off")


class ClipBaseSettings(LbGenSettings):
    """Table 4, with the smaller CLIP."""

    clip: str = Field("open_clip:ViT-B-32-quickgelu@openai", description="CLIP encoder: the base model")


class NoEntire(LbGen):
    """lbGen without the alignment of the entire data set."""

    card = replace(
        LbGen.card, id="lbgen-no-en", summary="Ablation: lbGen without L_en.", groups=(_SWEEP,), default=False
    )
    Settings = NoEntireSettings
    inherits = "lbgen"
    overrides = ("weight_en",)


class NoIndividual(LbGen):
    """lbGen without the individual alignment."""

    card = replace(
        LbGen.card, id="lbgen-no-in", summary="Ablation: lbGen without L_in.", groups=(_SWEEP,), default=False
    )
    Settings = NoIndividualSettings
    inherits = "lbgen"
    overrides = ("weight_in",)


class NoQuality(LbGen):
    """lbGen without the quality loss."""

    card = replace(LbGen.card, id="lbgen-no-q", summary="Ablation: lbGen without L_q.", groups=(_SWEEP,), default=False)
    Settings = NoQualitySettings
    inherits = "lbgen"
    overrides = ("weight_q", "quality")


class ClipBase(LbGen):
    """lbGen with the smaller CLIP."""

    card = replace(
        LbGen.card,
        id="lbgen-clip-base",
        summary="Ablation: lbGen with CLIP base.",
        differences=(
            *LbGen.card.differences,
            "ViT-B/32 is assumed: the paper's table 4 says CLIP-Base, not which patch size",
        ),
        groups=(_SWEEP,),
        default=False,
    )
    Settings = ClipBaseSettings
    inherits = "lbgen"
    overrides = ("clip",)
