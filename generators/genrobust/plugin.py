"""``genrobust-base`` and ``genrobust-ft`` as plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

from generators.diffusion.base import PICKLED
from generators.diffusion.cost import finetune_amount
from generators.diffusion.models import PICKLED_FILES, base_models, report_base, report_folder
from generators.genrobust.prompts import prompt
from generators.genrobust.settings import FIT, GenRobustFtSettings, GenRobustSettings
from generators.sd15 import load_parts, missing_base, sample
from harness.api import (
    Context,
    Generator,
    GeneratorCard,
    HubModel,
    ModelReport,
    Request,
    Resources,
    Sample,
    Settings,
    Workload,
    hub_models,
    local_source,
)

if TYPE_CHECKING:
    from generators.diffusion.pipeline import DiffusionParts

UNET = "unet.safetensors"
_UNET_MB = 3440.0
_CITATION = "Bansal and Grover, Leaving Reality to Imagination, 2023, arXiv 2302.02503"
_PROMPTS = "one of CLIP's 80 ImageNet templates, drawn per image and filled with the class name; negative prompt empty"
_SAMPLER = "PNDM, 50 steps (51 UNet calls), guidance 7.5, 512 px; safety checker off by default"
_READING = (
    "34 of the 80 templates do not ask for a photograph (sculpture, origami, sketch, ...): about 42 % of the images are "
    "not photographs by construction"
)
S = TypeVar("S", bound=GenRobustSettings)


class GenRobustBase(Generator[S]):
    """Untouched Stable Diffusion 1.5 with varied prompts."""

    card = GeneratorCard(
        id="genrobust-base",
        version=1,
        summary="GenRobust with the base model: Stable Diffusion 1.5, 80 prompt templates, guidance 7.5.",
        information=("class_names", "templates"),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        base_model="Stable Diffusion 1.5",
        prompts=_PROMPTS,
        sampler=_SAMPLER,
        count="1300 of each class (the published script: one per real image; its README: 1300)",
        codec="PNG (published images: JPEG, quality 75)",
        cost="as sd15: about 1.15 A100-seconds an image",
        licence="CreativeML OpenRAIL-M (weights)",
        citation=_CITATION,
        reading=_READING,
        differences=(
            "the safety checker is off (safety_checker=...); the published images were made with it on, so some of them are black",
            "per-image seeds: the published script draws templates and noise unseeded",
            "images are stored as PNG, not as JPEG of quality 75 (make all sources alike with dataset.common_codec)",
        ),
        published_images="genrobust-base-released",
        groups=("genrobust",),
    )
    Settings: ClassVar[type[Settings]] = GenRobustSettings
    sources: ClassVar[tuple[str, ...]] = ("base", "safety_checker")

    def missing(self, settings: S) -> str:
        """Say what the settings lack."""
        return missing_base(self.card.id, settings.base)

    def inspect_models(self, settings: S) -> Sequence[ModelReport]:
        """Describe the base model, and the safety checker where one is named."""
        return (
            *report_base("base", settings.base),
            *report_folder("safety_checker", settings.safety_checker),
        )

    def hub_models(self, settings: S) -> Sequence[HubModel]:
        """Return the base model, and the safety checker where one is named."""
        return (*base_models(settings.base), *hub_models(settings.safety_checker))

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images of a request, each from its own template."""
        yield from _sampled(ctx, ctx.cached("parts", lambda: load_parts(ctx)), request)


class GenRobustFt(GenRobustBase[GenRobustFtSettings]):
    """The whole UNet fine-tuned on real images with class-name captions."""

    card = GeneratorCard(
        id="genrobust-ft",
        version=2,
        summary="GenRobust with the fine-tuned model: the whole UNet trained on real images, then as genrobust-base.",
        information=("class_names", "templates", "real_images"),
        real_pixels_at_training=True,
        real_pixels_at_synthesis=False,
        base_model="Stable Diffusion 1.5",
        adapter="none: the whole UNet is trained (or taken from published weights)",
        prompts=_PROMPTS + " (assumed: the published synthesis of this variant is not documented)",
        sampler=_SAMPLER,
        count="1300 of each class",
        codec="PNG (published images: JPEG)",
        cost="one epoch of ImageNet-1k: about 64,000 updates of 20 images; synthesis as sd15",
        licence="CreativeML OpenRAIL-M (base weights); the published fine-tuned weights are tagged MIT",
        citation=_CITATION,
        reading="the UNet has seen every real training image. " + _READING,
        differences=(
            "prompt policy at synthesis assumed: that of genrobust-base",
            "training caption assumed: the bare class name",
            "learning rate as the published script runs (schedule=official): its cosine takes one step per four micro-steps over a "
            "horizon counted in micro-steps, so that from 1e-6 it ends at 0.85e-6 (mean 0.95e-6); schedule=to-zero ends at zero",
            "AdamW in float32 (published: 8-bit AdamW, bfloat16); one process, micro-batches accumulated",
            "noise, time steps, flips and order are derived from the run's seed; the published run is unseeded",
            "the safety checker is off; images are stored as PNG",
        ),
        published_images="genrobust-ft-released",
        groups=("genrobust",),
        data=("train",),
        modes=("train+regenerate", "regenerate"),
    )
    Settings = GenRobustFtSettings
    sources = ("base", "weights", "safety_checker")
    fit_fields = FIT
    shared_fields = ("base", "precision")

    def data(self, settings: GenRobustFtSettings) -> tuple[str, ...]:
        """Return the real images, which published weights make unnecessary."""
        return () if settings.weights else self.card.data

    def fits(self, settings: GenRobustFtSettings) -> bool:
        """Return whether the UNet is to be trained here."""
        return not settings.weights

    def missing(self, settings: GenRobustFtSettings) -> str:
        """Say what the settings lack."""
        return "" if settings.weights else missing_base(self.card.id, settings.base)

    def inspect_models(self, settings: GenRobustFtSettings) -> Sequence[ModelReport]:
        """Describe the base model, or the pipeline in its place; published ones hold pickles."""
        if not settings.weights:
            return super().inspect_models(settings)
        published = [
            replace(each, notes=tuple(n for n in each.notes if not n.startswith(PICKLED)))
            for each in report_base("weights", settings.weights)
        ]
        return (*published, *report_folder("safety_checker", settings.safety_checker))

    def hub_models(self, settings: GenRobustFtSettings) -> Sequence[HubModel]:
        """Return the base model, or the pipeline in its place, and the safety checker where one is named."""
        if not settings.weights:
            return super().hub_models(settings)
        return (*base_models(settings.weights, PICKLED_FILES), *hub_models(settings.safety_checker))

    def fit_resources(self, settings: GenRobustFtSettings) -> Resources:
        """Return the threads of the fine-tune, and the disk its UNet takes."""
        return Resources(threads=settings.fit_threads, disk_mb=_unet_mb(settings.base))

    def fit_workload(self, settings: GenRobustFtSettings, classes: int, images: int) -> Workload:
        """Return the updates of the UNet."""
        return finetune_amount(settings.epochs, images, settings.batch)

    def fit(self, ctx: Context) -> None:
        """Train the UNet; resumes from its last checkpoint."""
        from generators.genrobust.train import train_unet

        train_unet(ctx, load_parts(ctx), ctx.settings(GenRobustFtSettings), UNET)

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images of a request with the fine-tuned UNet."""
        yield from _sampled(ctx, ctx.cached("tuned", lambda: _tuned(ctx)), request)


def _unet_mb(base: str) -> float:
    """Return the size of a base model's UNet in MB; that of Stable Diffusion 1.5 where it is not at hand."""
    folder = local_source(base)
    files = list((folder / "unet").glob("*.safetensors")) if folder else []
    return sum(file.stat().st_size for file in files) / 1e6 if files else _UNET_MB


def _sampled(ctx: Context, parts: DiffusionParts, request: Request) -> Iterator[Sample]:
    """Sample with a template per image, and blacken what a safety checker flags, where one is named."""
    policy = ctx.params["settings"]["prompts"]
    made = sample(ctx, parts, request, lambda index: prompt(request, index, policy))
    if ctx.params["settings"]["safety_checker"] == "none":
        yield from made
        return
    from generators.diffusion.safety import SafetyChecker

    checker = ctx.cached("safety", lambda: SafetyChecker(ctx.source("safety_checker"), ctx.device))
    for each in made:
        yield replace(each, image=checker(each.image))


def _tuned(ctx: Context) -> DiffusionParts:
    from generators.genrobust.train import with_unet

    if ctx.params["settings"]["weights"]:
        return load_parts(ctx, "weights", pickled=True)
    return with_unet(load_parts(ctx), ctx.inputs["weights"].path(UNET))
