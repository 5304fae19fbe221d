"""Settings of the re-implementation; the defaults are the published values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.api import Settings


class RealFakeSettings(Settings):
    """Captions and features, the LoRA, the synthesis."""

    base: str = Field("", description="Pipeline folder (a path or package:PKG/PATH) or hub:OWNER/NAME@COMMIT")
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="Weights and activations")
    captioner: str = Field(
        "",
        description="BLIP-2-class captioner (folder or hub:ID@COMMIT), file:PATH of captions, call:module:function, or none",
    )
    clip: str = Field(
        "open_clip:ViT-L-14-quickgelu@openai", description="CLIP of the visual token: a folder or open_clip:NAME@TAG"
    )
    token_scale: float = Field(
        1.0, gt=0, description="Factor on the visual token, for a CLIP whose features are larger than the text's states"
    )
    visual_token: Literal["own", "released"] = Field(
        "own",
        description="CLIP feature at synthesis: own, that of the real image; released, the mixture that the published code makes "
        "of the features of 24 images of a class (an image then depends on its batch); training always takes its own",
    )
    rank: int = Field(4, ge=1, description="LoRA rank; alpha equals it")
    epochs: float = Field(100.0, gt=0, description="Passes over the real images (published script; meant for a subset)")
    batch: int = Field(8, ge=1, description="Images per update; the matching term sums over them")
    lr: float = Field(1e-4, description="AdamW learning rate, constant")
    matching: float = Field(
        0.003, ge=0, description="Weight of the squared batch sum of residuals (0.192 of the mean at 8)"
    )
    fit_threads: int = Field(1, ge=1, description="Processor threads of the fine-tune")
    lora_scale: float = Field(0.5, description="Scale of the LoRA at synthesis")
    sampling_steps: int = Field(30, ge=1, description="Scheduled UniPC steps; strength decides how many are executed")
    strength: float = Field(0.75, gt=0, le=1, description="Share of the schedule that is executed from the real latent")
    guidance: float = Field(2.0, description="Classifier-free guidance scale")


FIT = ("rank", "epochs", "batch", "lr", "matching", "fit_threads")
SHARED = ("base", "precision", "token_scale")
EXTRACTED = ("captioner", "clip")
