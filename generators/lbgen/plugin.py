"""lbGen as a plugin: the paper's fine-tune as a fit, and vanilla synthesis with the LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from generators.diffusion.models import CONFIG, OPEN_CLIP, base_models, report_base, report_folder
from generators.lbgen.schedule import update_counts
from generators.lbgen.settings import FitSettings, Precision, RecipeSettings
from generators.sd15 import SamplerSettings, load_parts, missing_base, sample
from harness.api import (
    ClassList,
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
    load_classes,
)

if TYPE_CHECKING:
    import torch

    from generators.diffusion.pipeline import DiffusionParts
    from generators.lbgen.encoders import RewardModels

LORA = "pytorch_lora_weights.safetensors"
TRAINED_PER_SECOND = 0.14
"""Images a second that the fine-tune samples and learns from: one hour on 8 A100 (lbGen, CVPR 2025) for three passes and
a warm-up over 1000 names, in FP16; float32 is slower."""
LORA_MB = 0.8
"""Megabytes per rank of a LoRA on the attention of Stable Diffusion 1.5, float32."""


class LbGenSettings(FitSettings, SamplerSettings):
    """Synthesis as for sd15; the fine-tune's hyperparameters with the paper's values (tables 7 and 8)."""

    clip: str = Field(
        "open_clip:ViT-L-14-quickgelu@openai",
        description="CLIP encoder: a local open_clip folder or open_clip:NAME@TAG",
    )
    quality: str = Field("none", description="Quality scorer: none, open-clip:SOURCE or q-align:SOURCE (the paper's)")
    fit_classes: str = Field(
        "imagenet1k",
        description="Class list whose names the fine-tune learns from (a shipped name or a file); the paper's 1000 also where "
        "fewer classes are synthesised",
    )
    fit_precision: Precision = Field(
        "fp32",
        description="Number format of the fine-tune: fp32, bf16, or fp16 with a loss scale, as the paper trains; a processor "
        "computes fp16 as fp32",
    )
    fit_threads: int = Field(1, ge=1, description="Processor threads of the fine-tune")
    fit_devices: int = Field(1, ge=1, description="Devices of the fine-tune (torchrun)")
    training_guidance: float = Field(2.0, description="Guidance while training")

    @model_validator(mode="after")
    def _can_be_honoured(self) -> LbGenSettings:
        """Refuse while planning what the recipe would refuse hours later."""
        recipe_settings(self.model_dump())
        return self


_FIT = tuple(name for name in LbGenSettings.model_fields if name not in SamplerSettings.model_fields)


class LbGen(Generator[LbGenSettings]):
    """The published method (not the released code, which trains another loss)."""

    card = GeneratorCard(
        id="lbgen",
        version=2,
        summary="Stable Diffusion 1.5 with a LoRA tuned by bi-level semantic alignment and a quality loss (lbGen, CVPR 2025).",
        information=("class_names", "reward_models"),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        base_model="Stable Diffusion 1.5 + LoRA on UNet attention",
        prompts="the class name itself; negative prompt empty",
        adapter="LoRA of rank 128 on all attention, at scale 1: fused in float32, beside the weights in half precision",
        sampler="PNDM, 50 steps (51 UNet calls), guidance 2.0, 512 px",
        count="1300 of each class (the profile's images_per_class)",
        cost="1 h of fine-tune in FP16 and 52 h of synthesis on 8 A100 for 1.3 million images (lbGen, CVPR 2025); the default "
        "float32 fine-tune is slower",
        modes=("train+regenerate",),
        licence="CreativeML OpenRAIL-M (weights)",
        citation="Low-Biased General Annotated Dataset Generation, CVPR 2025, arXiv 2412.10831",
        differences=(
            "L_en is the non-saturating form by default (the printed min-max vanishes when the discriminator wins)",
            "class list of the fine-tune: fit_classes, by default the 1000 ImageNet names (96 LoRA updates), also where only 100 "
            "classes are synthesised",
            "the fine-tune runs in float32 by default (fit_precision); the paper trains in FP16. With fp16 latents, sampler, LoRA "
            "and discriminator stay in float32, and the LoRA has a loss scale: an update whose gradients overflow is skipped",
            "noise tracks: start latents and step noise are independent for every image (derived from seed, step and sample), the "
            "choice of trained steps is shared by the images of an update; the paper's code shares one seed between processes, so "
            "the 32 images of an update have 4 noise tracks. Synthesis is seeded per image",
            "what the paper leaves open is taken from its released code: discriminator warm-up, DDPM in training, weight decay 0.01",
            "gradients by the staged adjoint: equal to back-propagation to rounding, memory of one UNet graph",
            "the quality scorer must be named: the paper's is q-align:FOLDER; open-clip:SOURCE (five-level prompts) is a deviation",
            "Q-ALIGN's question: 'How would you rate the quality of this image?', answered 'The quality of the image is', as in its "
            "evaluation code; the `score` method of the published model, which lbGen's code calls, asks for 'The image of the "
            "quality is' (its template is filled in the wrong order)",
        ),
    )
    Settings: ClassVar[type[Settings]] = LbGenSettings
    variant: ClassVar[Literal["paper", "released"]] = "paper"
    sources = ("base", "clip", "quality")
    fit_fields = _FIT
    shared_fields = ("base",)

    def missing(self, settings: LbGenSettings) -> str:
        """Say what the settings lack: a base model, or a quality scorer for a quality loss that counts."""
        if settings.weight_q > 0 and settings.quality == "none":
            return (
                f"weight_q is {settings.weight_q:g} without a quality scorer: --set generators.{self.card.id}.quality=q-align:FOLDER, "
                "or weight_q=0"
            )
        return missing_base(self.card.id, settings.base)

    def inspect_models(self, settings: LbGenSettings) -> Sequence[ModelReport]:
        """Describe the base model and the folders of the reward models."""
        reports = [*report_base("base", settings.base)]
        if settings.weight_en > 0 or settings.weight_in > 0:
            reports += report_folder("clip", settings.clip, OPEN_CLIP)
        if settings.weight_q > 0:
            config = OPEN_CLIP if settings.quality.startswith("open-clip:") else CONFIG
            reports += report_folder("quality", settings.quality, config)
        return reports

    def hub_models(self, settings: LbGenSettings) -> Sequence[HubModel]:
        """Return the base model and the reward models whose weight is not zero."""
        clip = hub_models(settings.clip) if settings.weight_en > 0 or settings.weight_in > 0 else ()
        return (*base_models(settings.base), *clip, *(hub_models(settings.quality) if settings.weight_q > 0 else ()))

    def fit_classes(self, settings: LbGenSettings, classes: ClassList) -> ClassList:
        """Return the list that ``fit_classes`` names, whatever classes are synthesised."""
        return load_classes(settings.fit_classes)

    def fit_resources(self, settings: LbGenSettings) -> Resources:
        """Return the threads and devices of the fine-tune."""
        return Resources(threads=settings.fit_threads, devices=settings.fit_devices, disk_mb=LORA_MB * settings.rank)

    def fit_workload(self, settings: LbGenSettings, classes: int, images: int) -> Workload:
        """Return how many images are sampled while the LoRA trains, and its updates; real images are not read."""
        warmups, updates = update_counts(recipe_settings(settings.model_dump(), self.variant), classes)
        unit = f"images sampled in training for {updates} LoRA updates of {settings.batch}"
        count = (2 * warmups + updates) * settings.batch
        return Workload(count, unit, TRAINED_PER_SECOND * settings.fit_devices)

    def fit(self, ctx: Context) -> None:
        """Fine-tune the LoRA; resumes from its last checkpoint."""
        from generators.lbgen.distributed import SingleProcess, TorchDistributed
        from generators.lbgen.precision import fit_dtype, in_precision
        from generators.lbgen.trainer import train
        from harness.api import join_ranks

        recipe = recipe_settings(ctx.params["settings"], self.variant)
        dtype = fit_dtype(ctx.params["settings"]["fit_precision"], ctx.device.partition(":")[0])
        with join_ranks(ctx.device.partition(":")[0]) as ranks:
            train(
                in_precision(load_parts(ctx), dtype),
                recipe,
                load_reward_models(ctx, recipe, dtype),
                ctx.classes.names,
                out_dir=ctx.out,
                checkpoint_dir=ctx.scratch / "lbgen",
                seed=ctx.seed("lbgen"),
                progress=ctx.progress,
                comm=TorchDistributed() if ranks.world > 1 else SingleProcess(),
            )

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images of a request with the LoRA in the UNet."""
        yield from sample(ctx, ctx.cached("tuned", lambda: _tuned(ctx)), request)


def _tuned(ctx: Context) -> DiffusionParts:
    from generators.diffusion.lora_io import apply_lora, load_lora

    return apply_lora(load_parts(ctx), load_lora(ctx.inputs["weights"].path(LORA)))


def recipe_settings(values: dict[str, Any], variant: Literal["paper", "released"] = "paper") -> RecipeSettings:
    """Return the recipe among a fit cell's settings."""
    own = {name: values[name] for name in FitSettings.model_fields if name in values}
    return RecipeSettings(guidance=values["training_guidance"], variant=variant, **own)


def load_reward_models(ctx: Context, recipe: RecipeSettings, dtype: torch.dtype) -> RewardModels:
    """Load the reward models whose weight is not zero, their weights in ``dtype``; a zero-weight encoder is never loaded."""
    from generators.lbgen.encoders import RewardModels, load_named_encoder

    clip = quality = None
    if recipe.uses_clip:
        clip = load_named_encoder(ctx.source("clip"), ctx.device, dtype)
    if recipe.weight_q > 0:
        from generators.lbgen.quality.load import load_quality

        spec = str(ctx.params["settings"]["quality"])
        kind, _, _ = spec.partition(":")
        folder = ctx.source("quality")
        path_settings = (
            spec if folder == spec else f"{kind}:local-dir:{folder}" if kind == "open-clip" else f"{kind}:{folder}"
        )
        quality = load_quality(path_settings, ctx.device, dtype)
    return RewardModels(clip, quality)
