"""Suite `background-bias`: accuracy lost when the background no longer fits the class, on ImageNet-9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suites.api import Context, Item, Score, Suite, SuiteCard, Units, classifier

if TYPE_CHECKING:
    import pandas as pd


class BackgroundBias(Suite):
    """Recognise the same foregrounds on backgrounds of their own and of random classes; one row per image."""

    card = SuiteCard(
        id="background-bias",
        version=1,
        summary="Is the background read? The same foregrounds on same-class and on random backgrounds.",
        formula="BG_Gap = 100 * (Acc(Mixed-Same) - Acc(Mixed-Rand)), percentage points; lower is better",
        conventions=(
            "answer: top-1 class over all outputs, looked up in the class map; a class outside it is wrong",
            "all variations show the same foregrounds, joined by key and verified one to one",
            "a model that recognises nothing has gap 0: read it with Mixed-Same and the relative gap",
            "interval: bootstrap over foregrounds within class, both views of a foreground kept together",
        ),
        citation="Xiao et al., ICLR 2021; lbGen, CVPR 2025, Table 3",
        order=720,
        data=("in9",),
        groups=("bias",),
    )
    modules = ("suites.bias",)

    def protocol(self, settings: Any) -> str:
        """Say how images reach the network."""
        return "images as stored; top-1 over all classes"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.background import predict_rows
        from suites.bias.cards import In9Card

        card = In9Card.load(ctx.card("in9"))
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data("in9"), card, ctx.progress))

    def score(self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return BG_Gap, its parts and its validity check."""
        from suites.bias.background import score
        from suites.bias.cards import In9Card

        return score(rows, In9Card.load(cards.get("in9")))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return foregrounds for paired comparisons of BG_Gap."""
        from suites.bias.units import background_units

        return tuple(background_units(rows, name) for name in names if name == "BG_Gap")
