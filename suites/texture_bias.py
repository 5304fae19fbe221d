"""Suite `texture-bias`: texture inclination on cue-conflict images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units, classifier
from suites.bias.settings import TextureSettings

if TYPE_CHECKING:
    import pandas as pd


class TextureBias(Suite[TextureSettings]):
    """Answer cue-conflict images by shape or by texture; one row per image."""

    card = SuiteCard(
        id="texture-bias",
        version=1,
        summary="Shape or texture? Images with the shape of one category and the texture of another.",
        formula="TI = t / (s + t); s, t: conflict images answered by shape, by texture; lower is better",
        metrics={
            "TI": "texture inclination, t / (s + t); read with cue_coverage and same_category_accuracy",
            "TI_two_way": "TI with an interval for new stimuli: sources of shapes and of textures are resampled together",
            "TI_shape_sources": "TI with an interval for new sources of shapes",
            "shape_bias": "s / (s + t) = 1 - TI",
            "texture_rate": "t / n, over all n conflict images",
            "shape_rate": "s / n",
            "neither_rate": "share of conflict images answered by neither cue",
            "cue_coverage": "(s + t) / n: share of conflict images answered by one of the two cues",
            "same_category_accuracy": "accuracy on the images whose shape and texture agree",
            "top1_shape": "share of conflict images whose top-1 over all classes is a class of the shape's category",
            "top1_texture": "share of conflict images whose top-1 over all classes is a class of the texture's category",
            "top1_neither": "share of conflict images whose top-1 over all classes is in neither category",
            "TI_all_classes": "top1_texture / (top1_shape + top1_texture): TI without the forced choice",
            "shape_sensitivity": "mean over conflict images of 1 / rank of the best class of the shape's category among all "
            "classes, 0 beyond rank 5",
            "texture_sensitivity": "the same of the texture's category",
            "shape_accuracy": "share of all images, 1280 of the public set, answered with the shape's category",
            "error_consistency": "mean Cohen's kappa of right (the shape's category) and wrong answers with each of ten people, "
            "all images: (o - c) / (1 - c), o: share on which both are right or both wrong, c = pq + (1 - p)(1 - q)",
        },
        conventions=(
            "answer: category with the largest mean probability over its member classes; forced choice",
            "images whose shape and texture agree are left out of TI and give the same-category accuracy",
            "pooled over images, not averaged over categories",
            "the paper prints no formula for TI; t / n is kept as texture_rate",
            "interval: bootstrap over images; TI_shape_sources resamples the sources of the shapes, TI_two_way those of "
            "shapes and textures together (the honest figure for new stimuli)",
            "the effective sample is s + t, not 1200; the difference of two models on the same images has a smaller error",
            "not ranked below 40 % cue coverage or 50 % same-category accuracy: an untrained network has TI 34.9",
            "images are used as stored; a network of another input size gets them scaled, which is noted. resize=256: shorter "
            "side to 256, centre crop, in columns of its own",
            "a head of other classes than the thousand of ImageNet says so, with its classes per category",
            "restricted=true: images with both cues covered, as TI@7of16 for ImageNet-100 heads (210 conflict images)",
            "second reading, in the view 'bias' of the board: sensitivities are absolute, so two networks of equal TI can differ; "
            "ranks are counted to 5, what rows keep; never ranked or gated",
            "error consistency: 0 for independent errors, 1 for the same ones, 0.33 between people; needs the public stimuli; the "
            "interval resamples images, the people are always these ten. compare gives that of two networks",
        ),
        citation="Geirhos et al., ICLR 2019; lbGen, CVPR 2025, Table 3",
        sources=(
            "answers over all classes, absolute sensitivities: Kim et al. 2026, arXiv 2603.10834 (mean reciprocal rank, on stimuli "
            "of their own); error consistency: Geirhos, Meding and Wichmann, NeurIPS 2020",
            "stimuli: cue-conflict.tar.gz of bethgelab/model-vs-human v0.1, or stimuli/style-transfer-preprocessed-512 of "
            "rgeirhos/texture-vs-shape (CC BY 4.0); 1280 files, 1200 with conflicting cues",
            "class map and answers of ten people: bethgelab/model-vs-human (MIT)",
        ),
        known_disagreements=(
            "lbGen prints TI 60.9 for a ResNet-50 on real data; ten public recipes give 79.0-87.2 for t / (s + t) and "
            "50.5-64.2 for t / 1200, while its ViT-S (67.0) fits the first reading only: agreement is not expected",
            "lbGen's text says 1200 images, its data table 1280: 80 images have the same category twice",
            "the 2019 publication aggregates probabilities otherwise: ResNet-50 shape bias 22.1 there, 21.4 by the mean",
            "Singh et al. (2024) group per-category values by the predicted category, others by the shape",
            "resizing to 256 and cropping 224 moves shape bias by about a point, a wrong normalisation by about three",
            "the same weights differ by 1-2 images between machines and library versions",
        ),
        baselines=("constant", "uniform", "humans"),
        order=700,
        data=("cue-conflict",),
        groups=("bias",),
    )
    Settings = TextureSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "image": "text",
        "shape": "text",
        "texture": "text",
        "answer": "text",
    }
    row_key = ("image",)
    data_inspectors: ClassVar[Mapping[str, str]] = {"cue-conflict": "suites.bias.inspect:cue_conflict"}
    origins: ClassVar[Mapping[str, str]] = {"cue-conflict": "github: bethgelab/model-vs-human, release v0.1"}

    def protocol(self, settings: TextureSettings) -> str:
        """Say how images reach the network."""
        return f"{settings.geometry()}; mean-probability rule{settings.wording()}"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.cards import CueConflictCard
        from suites.bias.people import answer_rows
        from suites.bias.texture import predict_rows

        card, root = CueConflictCard.load(ctx.card("cue-conflict")), ctx.data("cue-conflict")
        model = classifier(ctx)
        if model.identity == "baseline:humans":
            return pd.DataFrame(answer_rows(root, card))
        return pd.DataFrame(predict_rows(model, root, card, ctx.progress, ctx.settings(TextureSettings)))

    def score(self, rows: pd.DataFrame, item: Item, settings: TextureSettings, cards: Mapping[str, Any]) -> Score:
        """Return TI, its companions and its validity checks."""
        from suites.bias.cards import CueConflictCard
        from suites.bias.second_reading import second_reading
        from suites.bias.texture import score

        card = CueConflictCard.load(cards.get("cue-conflict"))
        return score(rows, card, further=second_reading(rows, card))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: TextureSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return conflict images for paired comparisons of TI, and all images for those of the second reading."""
        from suites.bias.cards import CueConflictCard
        from suites.bias.units import second_units, texture_units

        card = CueConflictCard.load(cards.get("cue-conflict"))
        ti = tuple(texture_units(rows, name) for name in names if name.partition("@")[0] == "TI")
        return ti + second_units(rows, card, names)
