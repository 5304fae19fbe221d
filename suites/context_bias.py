"""Suite `context-bias`: accuracy in uncommon contexts relative to common ones, on FOCUS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suites.api import Context, Item, Score, Suite, SuiteCard, Units, classifier

if TYPE_CHECKING:
    import pandas as pd


class ContextBias(Suite):
    """Recognise objects at an uncommon time, in uncommon weather, at uncommon places; one row per image."""

    card = SuiteCard(
        id="context-bias",
        version=1,
        summary="Are the usual surroundings needed? Accuracy with 1, 2, 3 uncommon attributes against none.",
        formula="CB_k = Acc_k / Acc_0, CB_avg = (CB_1 + CB_2 + CB_3) / 3; higher is better",
        conventions=(
            "correct: the top-1 class over all outputs is one of the accepted classes of the category",
            "k counts uncommon time, uncommon weather and any uncommon location; 'none' is never uncommon",
            "Acc_k is pooled over images; CB_k_standardised removes the different mix of categories",
            "the real set has 21 images at k = 3: CB_avg has a standard error near 5 points, CB_12 near 1.4",
            "interval: bootstrap over images within each partition",
        ),
        citation="FOCUS: Kattakinda and Feizi, ICML 2022; lbGen, CVPR 2025, Table 3",
        order=710,
        data=("focus",),
        groups=("bias",),
    )
    modules = ("suites.bias",)

    def protocol(self, settings: Any) -> str:
        """Say how images reach the network."""
        return "shorter side to the input size (PIL bilinear), centre crop; top-1 over all classes"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.cards import FocusCard
        from suites.bias.context import predict_rows

        card = FocusCard.load(ctx.card("focus"))
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data("focus"), card, ctx.progress))

    def score(self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return CB_avg, its companions and its validity check."""
        from suites.bias.cards import FocusCard
        from suites.bias.context import score

        return score(rows, FocusCard.load(cards.get("focus")))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return images for paired comparisons of CB_avg."""
        from suites.bias.units import context_units

        return tuple(context_units(rows, name) for name in names if name == "CB_avg")
