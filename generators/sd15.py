"""Vanilla Stable Diffusion 1.5: lbGen's synthesis without its fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from generators.diffusion.models import base_models, report_base
from harness.api import Context, Generator, GeneratorCard, HubModel, ModelReport, Request, Sample, Settings

if TYPE_CHECKING:
    from generators.diffusion.pipeline import DiffusionParts


class SamplerSettings(Settings):
    """How images are sampled (lbGen, CVPR 2025, table 7 and appendix D)."""

    base: str = Field(
        "",
        description="Pipeline folder or single-file checkpoint (a path or package:PKG/PATH), or hub:OWNER/NAME@COMMIT",
    )
    scheduler: Literal["pndm", "ddpm"] = Field(
        "pndm", description="Sampler of the synthesis; ddpm is that of lbGen's training"
    )
    sampling_steps: int = Field(50, ge=1, description="Requested steps; PNDM makes one more UNet call")
    guidance: float = Field(2.0, description="Classifier-free guidance scale")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="Weights and activations of the synthesis on a GPU; a processor computes fp16 as fp32"
    )


class SD15(Generator[SamplerSettings]):
    """Bare class name, PNDM 50, guidance 2.0, no negative prompt, no safety checker."""

    card = GeneratorCard(
        id="sd15",
        version=1,
        summary="Vanilla Stable Diffusion 1.5 from bare class names.",
        information=("class_names",),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        base_model="Stable Diffusion 1.5",
        prompts="the class name itself; negative prompt empty",
        sampler="PNDM, 50 steps (51 UNet calls), guidance 2.0, 512 px",
        licence="CreativeML OpenRAIL-M (weights)",
        count="1300 of each class (the profile's images_per_class)",
        cost="1.15 A100-seconds an image: 416 A100-hours for 1.3 million (lbGen, CVPR 2025)",
        citation="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022; settings: lbGen, "
        "CVPR 2025, table 7",
        differences=("per-image seeds: the paper's synthesis is unseeded",),
    )
    Settings = SamplerSettings
    sources = ("base",)

    def missing(self, settings: SamplerSettings) -> str:
        """Say what the settings lack."""
        return missing_base(self.card.id, settings.base)

    def inspect_models(self, settings: SamplerSettings) -> Sequence[ModelReport]:
        """Describe the base model."""
        return tuple(report_base("base", settings.base))

    def hub_models(self, settings: SamplerSettings) -> Sequence[HubModel]:
        """Return the base model, without the files of its repository that are not read."""
        return base_models(settings.base)

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images of a request; an image depends on run seed, class and index only."""
        parts = ctx.cached("parts", lambda: load_parts(ctx))
        yield from sample(ctx, parts, request)


def load_parts(ctx: Context, field: str = "base", *, pickled: bool = False) -> DiffusionParts:
    """Load the pipeline that a setting of a cell names (``base``) on the worker's device.

    Half precision is for GPUs: processors emulate it, at thirty times the time of float32 for fewer digits, and use float32.
    """
    import torch

    from generators.diffusion.pipeline import load_pipeline

    base = ctx.source(field)
    name, _, revision = base.removeprefix("hub:").partition("@") if base.startswith("hub:") else (base, "", "")
    half = torch.float32 if ctx.device == "cpu" else torch.float16
    dtype = {"fp32": torch.float32, "fp16": half, "bf16": torch.bfloat16}[
        ctx.params["settings"].get("precision", "fp32")
    ]
    return load_pipeline(name, revision=revision or None, dtype=dtype, device=ctx.device, pickled=pickled)


def missing_base(generator: str, base: str) -> str:
    """Say that there is no base model, or nothing."""
    return "" if base else f"no base model: --set generators.{generator}.base=/path/to/stable-diffusion-v1-5"


def sample(
    ctx: Context, parts: DiffusionParts, request: Request, prompt_of: Callable[[int], str] | None = None
) -> Iterator[Sample]:
    """Sample one request with a loaded pipeline, from noise and text: shared by all generators that do so.

    Args:
        ctx: The synthesis cell; its settings hold those of ``SamplerSettings``.
        parts: The pipeline, weights of a fit already in it.
        request: What to make.
        prompt_of: Prompt of an image by its index; by default the bare class name. The negative prompt is empty.
    """
    import torch

    from generators.diffusion.pipeline import encode_prompts
    from generators.diffusion.sampling import MICRO_BATCH, image_noise, sample_images

    settings = ctx.params["settings"]
    uncond = encode_prompts(parts, [""])[0]
    for first in range(request.start, request.stop, MICRO_BATCH):
        indices = range(first, min(first + MICRO_BATCH, request.stop))
        seeds = [request.seed(index) for index in indices]
        prompts = [prompt_of(index) if prompt_of else request.class_name for index in indices]
        images = sample_images(
            parts,
            encode_prompts(parts, prompts),
            uncond,
            torch.stack([image_noise(seed, parts.latent_shape) for seed in seeds]),
            steps=settings["sampling_steps"],
            guidance=settings["guidance"],
            scheduler=settings["scheduler"],
            step_seeds=[request.seed(index, "steps") for index in indices],
        )
        for index, seed, prompt, image in zip(indices, seeds, prompts, images, strict=True):
            yield Sample(index, image, prompt=prompt, seed=seed)
