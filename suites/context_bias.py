"""Suite `context-bias`: accuracy in uncommon contexts relative to common ones, on FOCUS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units, classifier
from suites.bias.settings import BiasSettings

if TYPE_CHECKING:
    import pandas as pd


class ContextBias(Suite[BiasSettings]):
    """Recognise objects at an uncommon time, in uncommon weather, at uncommon places; one row per image."""

    card = SuiteCard(
        id="context-bias",
        version=1,
        summary="Are the usual surroundings needed? Accuracy with 1, 2, 3 uncommon attributes against none.",
        formula="CB_k = Acc_k / Acc_0, CB_avg = (CB_1 + CB_2 + CB_3) / 3; higher is better",
        metrics={
            "CB_avg": "(CB_1 + CB_2 + CB_3) / 3; read with Acc_0",
            "CB_1": "Acc_1 / Acc_0",
            "CB_2": "Acc_2 / Acc_0",
            "CB_3": "Acc_3 / Acc_0",
            "CB_12": "(CB_1 + CB_2) / 2",
            "CB_2plus": "accuracy over all images with two or three uncommon attributes, relative to Acc_0",
            "CB_*_standardised": "CB_k with the accuracies at k = 0 weighted by the categories' shares at k",
            "Acc_*": "accuracy over all images with k uncommon attributes, k = 0 to 3",
        },
        conventions=(
            "correct: the top-1 class over all outputs is one of the accepted classes of the category",
            "networks whose inputs have CLIP's normalisation get bicubic instead of bilinear scaling, as in the reference",
            "k counts uncommon time, uncommon weather and any uncommon location; 'none' is never uncommon",
            "Acc_k is pooled over images; CB_k_standardised removes the different mix of categories",
            "the real set has 21 images at k = 3: CB_avg has a standard error near 5 points, CB_12 near 1.4",
            "interval: bootstrap over images within each partition; Wilson for the accuracies Acc_k",
            "not ranked below 20 % Acc_0 or five times chance: a model that always answers car has CB_avg 242 %",
            "restricted=true: CB_1@5of10 and CB_2@5of10 for ImageNet-100 heads; CB_avg stays undefined (6 images in P3)",
            "another release, with another number of rows or with duplicates, needs a card that says so",
        ),
        citation="FOCUS: Kattakinda and Feizi, ICML 2022; lbGen, CVPR 2025, Table 3",
        sources=(
            "images and annotations.db: University of Maryland, linked from priyathamkat/focus; research licence that forbids "
            "passing them on, so every user fetches them; 20,815 images, P0..P3 = 14146 / 5974 / 674 / 21",
            "accepted classes and uncommon attributes: the evaluation script of FOCUS",
        ),
        known_disagreements=(
            "lbGen counts 23,902 images: a superseded release with duplicate files; the current one has 20,815",
            "Singh et al. (2024), whom lbGen follows, report k = 1 and 2 only; k = 3 and the average are lbGen's own",
            "one of the 21 images at k = 3 moves CB_avg by about 2.2 points, half of lbGen's gain of 4.7",
            "the notebook of FOCUS counts rocks as uncommon for birds, its evaluation script does not; this is the script's",
            "printed partitions of 14,144 images at k = 0 lack two rows that plotting code drops as padding",
            "the example list of FOCUS names horse twice and omits dog",
            "published values of one ViT-B were measured with another normalisation than its weights expect",
        ),
        baselines=("constant", "uniform"),
        order=710,
        data=("focus",),
        groups=("bias",),
    )
    Settings = BiasSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "image": "text",
        "category": "text",
        "correct": "flag",
        "chance": "number",
    }
    row_key = ("image",)
    unbounded = ("CB_*",)
    data_inspectors: ClassVar[Mapping[str, str]] = {"focus": "suites.bias.inspect:focus"}
    origins: ClassVar[Mapping[str, str]] = {"focus": "Univ. of Maryland, linked from github: priyathamkat/focus"}

    def protocol(self, settings: BiasSettings) -> str:
        """Say how images reach the network."""
        wording = settings.wording()
        return f"shorter side to the input size (PIL bilinear), centre crop; top-1 over all classes{wording}"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.cards import FocusCard
        from suites.bias.context import predict_rows

        card = FocusCard.load(ctx.card("focus"))
        settings = ctx.settings(BiasSettings)
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data("focus"), card, ctx.progress, settings))

    def score(self, rows: pd.DataFrame, item: Item, settings: BiasSettings, cards: Mapping[str, Any]) -> Score:
        """Return CB_avg, its companions and its validity check."""
        from suites.bias.cards import FocusCard
        from suites.bias.context import score

        return score(rows, FocusCard.load(cards.get("focus")))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: BiasSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return images for paired comparisons of CB_avg, or of CB_1 and CB_2 for restricted heads."""
        from suites.bias.heads import coverage_of
        from suites.bias.units import PARTITIONS, context_units

        defined = [name for name in names if name.partition("@")[0] in PARTITIONS]
        defined = [name for name in defined if name != "CB_avg" or not coverage_of(rows)]
        return tuple(context_units(rows, name) for name in defined)
