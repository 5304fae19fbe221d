"""Settings of the two GenRobust generators; the defaults are the published values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from generators.sd15 import SamplerSettings


class GenRobustSettings(SamplerSettings):
    """Synthesis: the pipeline's defaults, with a template per image."""

    guidance: float = Field(7.5, description="Classifier-free guidance scale (the pipeline's default)")
    prompts: Literal["clip80", "photo", "name"] = Field(
        "clip80",
        description="clip80: one of CLIP's 80 templates per image; photo: 'a photo of a NAME'; name: the bare name",
    )
    safety_checker: str = Field(
        "none",
        description="none, or Stable Diffusion's safety checker (a folder or hub:ID@COMMIT): flagged images turn black",
    )


class GenRobustFtSettings(GenRobustSettings):
    """The same, after a fine-tune of the whole UNet or with weights that were published."""

    weights: str = Field("", description="Fine-tuned pipeline (folder or hub:OWNER/NAME@COMMIT); empty: fine-tune here")
    caption: str = Field("{name}", description="Training caption; that of the published run is not known")
    epochs: float = Field(1.0, gt=0, description="Passes over the real images")
    batch: int = Field(20, ge=1, description="Images per update (published: 1 per GPU, 4 accumulated, GPUs unknown)")
    micro_batch: int = Field(4, ge=1, description="Images that go through the UNet together")
    lr: float = Field(1e-6, description="First AdamW learning rate of a cosine without warm-up")
    schedule: Literal["official", "to-zero"] = Field(
        "official",
        description="Where the cosine ends: official, at 0.854 of lr (mean 0.950), as the published script steps it once per "
        "four micro-steps over a horizon counted in micro-steps; to-zero: at zero (mean 0.5)",
    )
    fit_threads: int = Field(1, ge=1, description="Processor threads of the fine-tune")


FIT = ("caption", "epochs", "batch", "micro_batch", "lr", "schedule", "fit_threads")
