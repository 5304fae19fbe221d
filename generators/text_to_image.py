"""``diffusers:SOURCE``: any text-to-image pipeline that diffusers loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, create_model, field_validator

from generators.diffusion.auto import inspect_pipeline
from harness.api import Context, Generator, GeneratorCard, ModelReport, Request, Sample, Settings, local_source

_NAME = "{class_name}"


class DiffusersSettings(Settings):
    """How a pipeline is prompted and sampled. Publish numbers with guidance, steps and size stated: defaults are the pipeline's own."""

    source: str = Field("", description="Pipeline folder (a path or package:PKG/PATH), or hub:OWNER/NAME@COMMIT")
    prompt: str = Field(_NAME, description="Prompt of an image; {class_name} stands for the name of its class")
    negative_prompt: str = Field("", description="Negative prompt; empty: the pipeline's own default, mostly none")
    guidance: float | None = Field(None, ge=0, description="Guidance scale; none: the pipeline's own default")
    sampling_steps: int = Field(0, ge=0, description="Sampling steps; 0: the pipeline's own default")
    size: int = Field(
        0,
        ge=0,
        description="Side in pixels at which images are drawn; 0: the pipeline's own. Then resized to dataset.size_px",
    )
    batch: int = Field(4, ge=1, description="Images of one call")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="Weights and activations on a GPU; a processor computes fp16 as fp32"
    )

    @field_validator("prompt")
    @classmethod
    def _names_the_class(cls, value: str) -> str:
        if _NAME not in value:
            raise ValueError(f"it lacks {_NAME}, so that every class would have the same prompt")
        return value


class Diffusers(Generator[DiffusersSettings]):
    """``diffusers:FOLDER``, ``diffusers:OWNER/NAME@COMMIT`` or ``diffusers:NAME=`` before either."""

    card = GeneratorCard(
        id="diffusers",
        version=1,
        summary="diffusers:FOLDER or diffusers:OWNER/NAME@COMMIT samples any text-to-image pipeline that AutoPipelineForText2Image "
        "of diffusers loads (SD, SDXL, SD3, FLUX, PixArt, ...); generators.diffusers.KEY holds for all, "
        "generators.diffusers:NAME.KEY for the one of that name.",
        information=("class_names",),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        base_model="the pipeline that is named",
        prompts="the setting prompt, by default the class name itself",
        sampler="the pipeline's own, with its defaults for steps, guidance and size unless they are set; no safety checker, no watermark",
        licence="that of the model",
        citation="von Platen et al., Diffusers, 2022; and the paper of the model",
        cost="not known: it depends on the model",
        reading="what the base model itself was trained on is not part of the supervision stated here",
        default=False,
    )
    Settings = DiffusersSettings
    sources = ("source",)

    def bind(self, argument: str) -> Generator:
        """Return the generator of one pipeline; its id bears the folder's or the hub's name, or the one given."""
        name, _, source = argument.rpartition("=")
        location = _located(source)
        name = name or location.removeprefix("hub:").partition("@")[0].rstrip("/").rpartition("/")[2] or "."
        bound = Diffusers()
        bound.card = replace(self.card, id=f"diffusers:{name}", base_model=location)  # type: ignore[misc]
        bound.bound_data = {bound.card.id: location}
        bound.Settings = create_model(  # type: ignore[misc]
            "DiffusersSettings", __base__=DiffusersSettings, source=(str, Field(location))
        )
        return bound

    def missing(self, settings: DiffusersSettings) -> str:
        """Say that a pipeline is needed."""
        return "" if settings.source else "write diffusers:FOLDER or diffusers:OWNER/NAME@COMMIT"

    def inspect_models(self, settings: DiffusersSettings) -> Sequence[ModelReport]:
        """Describe the pipeline, from its configurations and the headers of its files."""
        path = local_source(settings.source)
        if path is None:
            remote = "not on this machine: fetched at the first run and checked then"
            return (ModelReport("source", settings.source, remote),) if settings.source else ()
        found = inspect_pipeline(path)
        return (ModelReport("source", settings.source, found.kind, found.notes),)

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images of a request; an image depends on run seed, class and index only, not on its batch."""
        from generators.diffusion.text_to_image import call_arguments, draw_images, resized

        settings = ctx.settings(DiffusersSettings)
        pipeline = ctx.cached("pipeline", lambda: _load(ctx, settings.precision))
        wanted = {
            "guidance_scale": settings.guidance,
            "num_inference_steps": settings.sampling_steps,
            "height": settings.size,
            "width": settings.size,
            "negative_prompt": settings.negative_prompt,
        }
        arguments = call_arguments(pipeline, wanted)
        negative = arguments.pop("negative_prompt", "")
        if negative:
            arguments["negative_prompt"] = [negative] * settings.batch
        prompt = settings.prompt.replace(_NAME, request.class_name)
        for first in range(request.start, request.stop, settings.batch):
            indices = range(first, min(first + settings.batch, request.stop))
            seeds = [request.seed(index) for index in indices]
            images = draw_images(pipeline, [prompt] * len(seeds), seeds, settings.batch, arguments)
            for index, seed, image in zip(indices, seeds, images, strict=True):
                yield Sample(index, resized(image, request.size_px), prompt, negative, seed)


def _located(source: str) -> str:
    """Return a source as a setting: ``OWNER/NAME[@COMMIT]`` that is no folder is a model of the hub."""
    plain = source.startswith(("hub:", "package:", "/", ".", "~")) or Path(source).exists()
    return source if plain or source.count("/") != 1 else f"hub:{source}"


def _load(ctx: Context, precision: str) -> object:
    import torch

    from generators.diffusion.text_to_image import fetch_pipeline, load_text_to_image

    half = torch.float32 if ctx.device == "cpu" else torch.float16
    dtype = {"fp32": torch.float32, "fp16": half, "bf16": torch.bfloat16}[precision]
    return load_text_to_image(fetch_pipeline(ctx.source("source")), dtype, ctx.device)
