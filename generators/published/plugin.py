"""``folder:PATH`` and the named imports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from generators.published.mapping import WORDS
from generators.published.questions import BLACK_IMAGES, Question
from harness.api import (
    ClassList,
    Context,
    DataReport,
    DerivedInput,
    Generator,
    GeneratorCard,
    Request,
    Sample,
    Settings,
    UserError,
)

SCANNED_PER_SECOND = 200.0
"""Assumed speed of the scan: images of 512 px read, hashed and decoded by some processors."""
_COUNT = "as published, at most images_per_class of a class; dataset.common_count makes all sources equal"


class ImportSettings(Settings):
    """How a published data set is read and what is done with what the checks find."""

    class_map: str = Field(
        "wnid",
        description="What folders or labels are: wnid, index (sorted wnids), names, or a file of lines 'folder wnid'",
    )
    clip: str = Field(
        "", description="CLIP that names ten images of each class (check 8): a folder or open_clip:NAME@TAG"
    )
    decisions: dict[Question, Literal["keep", "drop"]] = Field(
        default_factory=dict, description="Answers to the questions of the report, e.g. decisions.near-constant=drop"
    )
    documented_total: int = Field(0, description="Number of images its authors give; 0: none")
    documented_classes: int = Field(
        0, description="Length of the class list that documented_total counts (compared with no other); 0: any"
    )
    documented_px: int = Field(0, description="Side of the images in pixels its authors give; 0: none")
    paired: bool = Field(False, description="Whether each image bears the name of the real image it was made from")


class Published(Generator[ImportSettings]):
    """Base of the imports: scan once, check, list."""

    Settings: ClassVar[type[Settings]] = ImportSettings
    sources = ("clip",)
    import_callable_path = "generators.published.work:import_dataset"

    def path_settings(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the CLIP, and the class map where it is a file."""
        return self.sources if values.get("class_map", "wnid") in WORDS else (*self.sources, "class_map")

    def derived_inputs(self, settings: ImportSettings) -> Sequence[DerivedInput]:
        """Return the scan of all images and, with a CLIP, the naming of a few."""
        data = self.data(settings)
        work = "generators.published.scan:{}"
        found = [DerivedInput("scan", "dataset-scan", 2, work.format("scan"), {}, data, per_second=SCANNED_PER_SECOND)]
        if settings.clip:
            told = {"settings": {"clip": settings.clip, "class_map": settings.class_map}}
            found.append(DerivedInput("identity", "dataset-identity", 2, work.format("identity"), told, data))
        return found

    def inspect_data(self, root: Path, settings: ImportSettings, classes: ClassList) -> DataReport:
        """Return layout, counts, and the class folders against the class list."""
        from generators.published.inspect import inspect_published

        return inspect_published(root, settings.class_map, classes)

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Never called: images that exist are imported, not made."""
        raise NotImplementedError("published images are imported")


class Folder(Published):
    """``folder:PATH`` or ``folder:NAME=PATH``: any data set in a published layout."""

    card = GeneratorCard(
        id="folder",
        version=1,
        summary="folder:PATH imports any labelled image data set: class folders, tar or webdataset shards, parquet; "
        "generators.folder.KEY holds for all folders, generators.folder:NAME.KEY for the one of that name.",
        information=(),
        real_pixels_at_training=True,
        real_pixels_at_synthesis=True,
        prompts="unknown",
        count=_COUNT,
        codec="as published",
        licence="that of the images",
        reading="nothing is known about how these images were made; both real-pixel flags are set to be safe",
        default=False,
        modes=("import",),
        real="train",
    )

    def __init__(self, roots: Mapping[str, str] = MappingProxyType({})) -> None:
        self.bound_data = roots

    def bind(self, argument: str) -> Generator:
        """Return the import of one folder; its id bears the folder's name, or the one given."""
        name, _, path = argument.rpartition("=")
        name = name or Path(path).name
        if not name:
            raise UserError(
                "folder: names no folder", f"{argument!r} was given", "write folder:PATH or folder:NAME=PATH"
            )
        bound = Folder({f"folder:{name}": path})
        bound.card = replace(self.card, id=f"folder:{name}", data=(f"folder:{name}",))  # type: ignore[misc]
        return bound

    def missing(self, settings: ImportSettings) -> str:
        """Say that a folder is needed."""
        return "" if self.bound_data else "write folder:PATH"


class RealFakeSettings(ImportSettings):
    """One version of the release."""

    documented_total: int = Field(1_281_167, description="One per real training image")
    documented_classes: int = Field(1000, description="ImageNet-1k")
    documented_px: int = Field(512, description="Side of the images in pixels")
    paired: bool = Field(True, description="Images bear the stem of their real parent")


class RealFake(Published):
    """The published RealFake data set, exactly one version."""

    card = GeneratorCard(
        id="realfake",
        version=1,
        summary="RealFake as published (one version); where its folder is not given, realfake-reimpl stands in.",
        information=("class_names", "captions", "real_images", "real_features"),
        real_pixels_at_training=True,
        real_pixels_at_synthesis=True,
        base_model="Stable Diffusion 1.5",
        adapter="LoRA of rank 4 on all attention, used at scale 0.5",
        prompts="'photo of NAME, CAPTION, best quality' with a negative prompt; class names differ in 7 strings",
        sampler="img2img from the real image at strength 0.75, UniPC 30 (22 executed), guidance 2.0, 512 px",
        count=f"one per real training image, 1,281,167 in a version; {_COUNT}",
        codec="JPEG, quality 75",
        licence="MIT (images)",
        citation="Yuan et al., Real-Fake: Effective Training Data Synthesis Through Distribution Matching, ICLR 2024",
        reading=(
            "its top-1 on ImageNet's validation set (about 70 % for a ResNet50) is near real because every image is a real "
            "training image, noised to 75 % and denoised again under that image's own caption and a CLIP feature, by a model "
            "tuned on real images: the composition of ImageNet is inherited, not generated. (The feature is not its own: the "
            "published code mixes those of up to 24 images of its class.) Text-only generators reach 43-46 %"
        ),
        differences=("which of the published versions lbGen's table 1 used is not stated; one version is imported",),
        groups=("published",),
        data=("realfake",),
        modes=("import",),
        fallback="realfake-reimpl",
        real="train",
    )
    Settings = RealFakeSettings


class GenRobustReleasedSettings(ImportSettings):
    """The public folders."""

    documented_total: int = Field(1_300_000, description="1000 classes of 1300, by the release's README")
    documented_classes: int = Field(1000, description="ImageNet-1k")
    documented_px: int = Field(512, description="Side of the images in pixels")


_GENROBUST = GeneratorCard(
    id="genrobust-base-released",
    version=1,
    summary="GenRobust's published images of the base model (Base-Generated-ImageNet-1K).",
    information=("class_names", "templates"),
    real_pixels_at_training=False,
    real_pixels_at_synthesis=False,
    base_model="Stable Diffusion 1.5",
    prompts="CLIP's 80 ImageNet templates",
    sampler="PNDM 50, guidance 7.5, 512 px; safety checker on: flagged images are black",
    count=f"1300 of each class by the README; {_COUNT}",
    codec="JPEG, quality 75",
    licence="not stated for the images",
    citation="Bansal and Grover, Leaving Reality to Imagination, 2023, arXiv 2302.02503",
    reading=f"near-constant images: {BLACK_IMAGES}",
    groups=("published",),
    default=False,
    data=("genrobust-base",),
    modes=("import",),
    real="train",
)


class GenRobustBaseReleased(Published):
    """The first of GenRobust's two public folders."""

    card = _GENROBUST
    Settings = GenRobustReleasedSettings


class GenRobustFtReleased(Published):
    """The second of GenRobust's two public folders."""

    card = replace(
        _GENROBUST,
        id="genrobust-ft-released",
        summary="GenRobust's published images of the fine-tuned model (Finetuned-Generated-ImageNet-1K).",
        information=("class_names", "templates", "real_images"),
        real_pixels_at_training=True,
        adapter="none: the whole UNet was trained on real images",
        prompts="assumed: CLIP's 80 ImageNet templates, as for the base model",
        sampler="assumed, as for the base model: PNDM 50, guidance 7.5, safety checker on (flagged images are black); 512 px",
        codec="JPEG; quality 75 is assumed",
        differences=(
            "the published synthesis of this variant is not documented: prompts, sampler, guidance, safety checker and quality of "
            "the JPEGs are assumed to be those of the base model's images, and so are the templates among its information",
        ),
        data=("genrobust-ft",),
    )
    Settings = GenRobustReleasedSettings


class LookAlike(Published):
    """A third party's images from Stable Diffusion 1.5."""

    card = GeneratorCard(
        id="imagenet-gen-sd15",
        version=1,
        summary="A third party's SD1.5 images of the 1000 classes (webdataset shards); not the sd15 of lbGen's tables.",
        information=("class_names",),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        base_model="Stable Diffusion 1.5",
        prompts="its authors' own, not the bare class names of sd15",
        count=f"1300 of each class; {_COUNT}",
        codec="as published",
        licence="OpenRAIL",
        citation="hub data set ek826/imagenet-gen-sd1.5, cited to arXiv 2307.01898",
        reading="prompts and guidance are not those of sd15: fit to exercise a whole run, never to be reported as sd15",
        groups=("published",),
        default=False,
        data=("imagenet-gen-sd15",),
        modes=("import",),
        real="train",
    )
    Settings = GenRobustReleasedSettings
