"""``realfake-reimpl``: RealFake trained and generated from its description."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generators.diffusion.cost import finetune_amount
from generators.diffusion.models import OPEN_CLIP, base_models, report_base, report_folder
from generators.realfake.settings import EXTRACTED, FIT, SHARED, RealFakeSettings
from generators.sd15 import load_parts, missing_base
from harness.api import (
    Context,
    DerivedInput,
    Generator,
    GeneratorCard,
    HubModel,
    ModelReport,
    Request,
    Resources,
    Sample,
    Workload,
    hub_models,
)

CAPTIONS_PER_SECOND = 3.0
"""Assumed speed of a BLIP-2 of 2.7 B parameters that captions image by image, greedily, on one A100."""
FEATURES_PER_SECOND = 40.0
"""Assumed speed of CLIP ViT-L/14 image by image, decoding included."""


class RealFakeReimpl(Generator[RealFakeSettings]):
    """LoRA by distribution matching, then img2img from every real image under its caption and a CLIP feature."""

    card = GeneratorCard(
        id="realfake-reimpl",
        version=2,
        summary="RealFake re-implemented: a LoRA tuned on real images, synthesis from each real image's own latent.",
        information=("class_names", "captions", "real_images", "real_features"),
        real_pixels_at_training=True,
        real_pixels_at_synthesis=True,
        base_model="Stable Diffusion 1.5",
        adapter="LoRA of rank 4 on all attention, used at scale 0.5",
        prompts="'photo of NAME, CAPTION, best quality'; negative: distorted, unrealistic, blurry, out of frame, cropped, "
        "deformed; class names differ in 7 strings",
        sampler="img2img from the real image at strength 0.75, UniPC 30 steps (22 executed), guidance 2.0, 512 px; a CLIP feature "
        "in the last text position of the conditional half: the real image's own (visual_token=own)",
        count="one per real image; a class with fewer real images than images_per_class begins a second pass",
        codec="PNG (published images: JPEG, quality 75)",
        cost="22 UNet calls an image instead of 51, plus captions and CLIP features of all real images",
        licence="CreativeML OpenRAIL-M (base weights); images derive from the real ones",
        citation="Yuan et al., Real-Fake: Effective Training Data Synthesis Through Distribution Matching, ICLR 2024, "
        "arXiv 2310.10402",
        reading=(
            "its in-domain accuracy is near real because every image is a real training image, noised to 75 % and denoised "
            "under that image's own caption and, with visual_token=own, its own CLIP feature (the published images: a mixture of "
            "those of its batch): composition is inherited, not generated"
        ),
        differences=(
            "the release cannot generate: its patched pipeline, captions and LoRA weights are not published; this follows its "
            "description and its trainer",
            "all real images are trained on; the release silently takes a random half",
            "the visual token is the image's own CLIP feature in training and synthesis; the published synthesis (not its training) "
            "stacks the features of a batch along the wrong axis, so that each of 24 images gets 32 dimensions of all 24, "
            "interleaved. visual_token=released reproduces this for runs of 24 images of a class, of which an image then depends",
            "the unconditional half keeps its text in the last position (the release does not say)",
            "UniPC with evenly spaced time steps, ending at sigma 0.029, as its pipeline's defaults were (today's ends at zero)",
            "noise, time steps, crops and order are derived from the run's seed; the published synthesis is unseeded",
            "the LoRA trains under bfloat16 autocast where weights are in half precision (published: fp16 with a loss scaler)",
            "images are stored as PNG, not as JPEG of quality 75",
        ),
        published_images="realfake",
        data=("train",),
        modes=("train+regenerate",),
    )
    Settings = RealFakeSettings
    sources = ("base", "clip", "captioner")
    fit_fields = FIT
    shared_fields = SHARED

    def missing(self, settings: RealFakeSettings) -> str:
        """Say what the settings lack."""
        if not settings.captioner:
            return (
                f"no captioner: --set generators.{self.card.id}.captioner=FOLDER of a BLIP-2-class model, "
                "hub:ID@COMMIT, file:captions.jsonl, or none"
            )
        return missing_base(self.card.id, settings.base)

    def inspect_models(self, settings: RealFakeSettings) -> Sequence[ModelReport]:
        """Describe the base model and the folders of CLIP and the captioner."""
        return (
            *report_base("base", settings.base),
            *report_folder("clip", settings.clip, OPEN_CLIP),
            *report_folder("captioner", settings.captioner),
        )

    def hub_models(self, settings: RealFakeSettings) -> Sequence[HubModel]:
        """Return the base model, CLIP and the captioner."""
        return (*base_models(settings.base), *hub_models(settings.clip), *hub_models(settings.captioner))

    def derived_inputs(self, settings: RealFakeSettings) -> Sequence[DerivedInput]:
        """Return captions and CLIP features of the real images, made once for all seeds."""
        values = {name: getattr(settings, name) for name in EXTRACTED}
        captioner, clip = ({"settings": {name: values[name]}} for name in EXTRACTED)
        speed = 0.0 if settings.captioner.startswith(("none", "file:", "call:")) else CAPTIONS_PER_SECOND
        work, data = "generators.realfake.{}", self.card.data
        return (
            DerivedInput(
                "captions", "captions", 1, work.format("captions:write_captions"), captioner, data, per_second=speed
            ),
            DerivedInput(
                "features",
                "clip-features",
                1,
                work.format("features:write_features"),
                clip,
                data,
                per_second=FEATURES_PER_SECOND,
            ),
        )

    def fit_resources(self, settings: RealFakeSettings) -> Resources:
        """Return the threads of the fine-tune."""
        return Resources(threads=settings.fit_threads, disk_mb=4.0)

    def fit_workload(self, settings: RealFakeSettings, classes: int, images: int) -> Workload:
        """Return the updates of the LoRA."""
        return finetune_amount(settings.epochs, images, settings.batch)

    def fit(self, ctx: Context) -> None:
        """Train the LoRA; resumes from its last checkpoint."""
        from generators.realfake.train import train_lora

        train_lora(ctx, load_parts(ctx), ctx.settings(RealFakeSettings))

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield one image for each real image of the request."""
        from generators.realfake.synthesis import load_material, make_images

        yield from make_images(ctx, ctx.cached("material", lambda: load_material(ctx)), request)
