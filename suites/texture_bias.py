"""Suite `texture-bias`: texture inclination on cue-conflict images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suites.api import Context, Item, Score, Suite, SuiteCard, Units, classifier

if TYPE_CHECKING:
    import pandas as pd


class TextureBias(Suite):
    """Answer cue-conflict images by shape or by texture; one row per image."""

    card = SuiteCard(
        id="texture-bias",
        version=1,
        summary="Shape or texture? Images with the shape of one category and the texture of another.",
        formula="TI = t / (s + t); s, t: conflict images answered by shape, by texture; lower is better",
        conventions=(
            "answer: category with the largest mean probability over its member classes; forced choice",
            "images whose shape and texture agree are left out of TI and give the same-category accuracy",
            "pooled over images, not averaged over categories",
            "the paper prints no formula for TI; t / n is kept as texture_rate",
            "interval: bootstrap over images; TI_shape_sources resamples the sources of the shapes",
        ),
        citation="Geirhos et al., ICLR 2019; lbGen, CVPR 2025, Table 3",
        order=700,
        data=("cue-conflict",),
        groups=("bias",),
    )
    modules = ("suites.bias",)

    def protocol(self, settings: Any) -> str:
        """Say how images reach the network."""
        return "images as stored; mean-probability rule"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.cards import CueConflictCard
        from suites.bias.texture import predict_rows

        card = CueConflictCard.load(ctx.card("cue-conflict"))
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data("cue-conflict"), card, ctx.progress))

    def score(self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return TI, its companions and its validity checks."""
        from suites.bias.cards import CueConflictCard
        from suites.bias.texture import score

        return score(rows, CueConflictCard.load(cards.get("cue-conflict")))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return conflict images for paired comparisons of TI."""
        from suites.bias.units import texture_units

        return tuple(texture_units(rows, name) for name in names if name == "TI")
