"""Suite `background-bias`: accuracy lost when the background no longer fits the class, on ImageNet-9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units, classifier
from suites.bias.settings import BiasSettings

if TYPE_CHECKING:
    import pandas as pd


class BackgroundSettings(BiasSettings):
    """Settings of the background suite."""

    variations: tuple[Literal["mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t"], ...] = Field(
        default=("mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t"),
        description="further variations to classify where the archive has them; companions of BG_Gap",
    )


class BackgroundBias(Suite[BackgroundSettings]):
    """Recognise the same foregrounds on backgrounds of their own and of random classes; one row per image."""

    card = SuiteCard(
        id="background-bias",
        version=1,
        summary="Is the background read? The same foregrounds on same-class and on random backgrounds.",
        formula="BG_Gap = 100 * (Acc(Mixed-Same) - Acc(Mixed-Rand)), percentage points; lower is better",
        metrics={
            "BG_Gap": "100 * (mixed_same - mixed_rand), percentage points; read with mixed_same",
            "relative_gap": "(mixed_same - mixed_rand) / mixed_same",
            "original": "accuracy on the original images of ImageNet-9",
            "mixed_same": "accuracy with the background of another image of the same class",
            "mixed_rand": "accuracy with the background of an image of a random class",
            "mixed_next": "accuracy with a background of the next class",
            "only_fg": "accuracy on the foreground alone",
            "no_fg": "accuracy with the foreground blacked out",
            "only_bg_b": "accuracy on the background alone, foreground replaced by a black box",
            "only_bg_t": "accuracy on the background alone, foreground filled with background",
            "paste_cost": "100 * (original - mixed_same), percentage points: what cutting out and pasting costs though the background "
            "still fits",
            "paste_share": "paste_cost / BG_Gap, within [0, 1]: share of BG_Gap's points that the paste cost could explain",
        },
        conventions=(
            "answer: top-1 class over all outputs, looked up in the class map; a class outside it is wrong",
            "all variations show the same foregrounds, joined by key and verified one to one",
            "a model that recognises nothing has gap 0: read it with Mixed-Same and the relative gap",
            "interval: bootstrap over foregrounds within class, both views of a foreground kept together",
            "a head of the nine classes (class ids 00_dog, 01_bird, ... or dog, bird, ...) is used as it is",
            "not ranked below 50 % on Mixed-Same; the relative gap is (MS - MR) / MS",
            "paste_share is a bound: if pasting onto the background of another class costs up to twice what it costs onto one of the "
            "same class, this share of BG_Gap is pasting, not background; undefined where BG_Gap is not positive. Both in the "
            "view 'bias' of the board, never ranked or gated",
            "the background of Mixed-Same always fits: a network that reads it gains there, which lowers the paste cost, below zero "
            "where pasting itself is cheap",
            "restricted=true: BG_Gap@8of9 for ImageNet-100 heads (3,600 of 4,050 foregrounds; no fish)",
        ),
        citation="Xiao et al., ICLR 2021; lbGen, CVPR 2025, Table 3",
        sources=(
            "images: backgrounds_challenge_data.tar.gz of MadryLab/backgrounds_challenge (no licence file; from ILSVRC-2012 "
            "validation images, so every user fetches them); 4,050 images in each variation",
            "class map: MadryLab/backgrounds_challenge; 370 of 1000 classes are mapped",
            "paste cost: the difference of two of the published variations, as Xiao et al. print both; the share is ours",
        ),
        known_disagreements=(
            "lbGen's 8,100 images are 4,050 in each of the two variations; its gaps are not adjusted for accuracy "
            "(76.2 against 46.1 top-1), and its 6.8 against 6.4 is within the noise",
            "Singh et al. (2024) do not normalise the input: their gap of 5.68 for a ResNet-50 is no target",
            "mixed_rand files carry the background names of mixed_next (issue 8 of the data set): only the foreground counts",
            "whippets, Italian greyhounds, gamebirds, domestic cats and amphibians are outside the map, so a whippet "
            "recognised as one is wrong; wild dogs are carnivores here and dogs in FOCUS",
        ),
        baselines=("constant", "uniform"),
        order=720,
        data=("in9",),
        groups=("bias",),
    )
    Settings = BackgroundSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "image": "text",
        "variation": "text",
        "foreground": "text",
        "label": "integer",
        "correct": "flag",
    }
    row_key = ("image",)
    unbounded = ("relative_gap*",)
    data_inspectors: ClassVar[Mapping[str, str]] = {"in9": "suites.bias.inspect:in9"}
    origins: ClassVar[Mapping[str, str]] = {"in9": "github: MadryLab/backgrounds_challenge"}

    def protocol(self, settings: BackgroundSettings) -> str:
        """Say how images reach the network."""
        return f"images as stored; top-1 over all classes{settings.wording()}"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.background import predict_rows
        from suites.bias.cards import In9Card

        card = In9Card.load(ctx.card("in9"))
        settings = ctx.settings(BackgroundSettings)
        others = settings.variations
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data("in9"), card, ctx.progress, settings, others))

    def score(self, rows: pd.DataFrame, item: Item, settings: BackgroundSettings, cards: Mapping[str, Any]) -> Score:
        """Return BG_Gap, its parts and its validity check."""
        from suites.bias.background import score
        from suites.bias.cards import In9Card

        return score(rows, In9Card.load(cards.get("in9")))

    def units(
        self,
        rows: pd.DataFrame,
        item: Item,
        settings: BackgroundSettings,
        cards: Mapping[str, Any],
        names: Sequence[str],
    ) -> tuple[Units, ...]:
        """Return foregrounds for paired comparisons of BG_Gap and of the paste cost."""
        from suites.bias.units import background_units, paste_units

        made = {"BG_Gap": background_units, "paste_cost": paste_units}
        return tuple(made[plain](rows, name) for name in names if (plain := name.partition("@")[0]) in made)
