"""Suite `generated-correlation`: which planted correlations do the images themselves carry?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from harness.api import (
    ColumnKind,
    Context,
    Item,
    Metric,
    NotPlanned,
    Score,
    Settings,
    Suite,
    SuiteCard,
    bootstrap,
    load_attribute,
    open_images,
    proportion,
)

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 200


class CorrelationSettings(Settings):
    """Where the measuring function is."""

    measure: str = Field(
        "", description="module:function (images uint8 (n,3,H,W), labels) -> per-image scores per cause"
    )


class GeneratedCorrelation(Suite[CorrelationSettings]):
    """Look at the training images with classifiers of their causes; one row per image."""

    card = SuiteCard(
        id="generated-correlation",
        version=1,
        summary="How strongly do texture and scene follow the class in the training images themselves?",
        formula="rho: least-squares dose of P(cause | class) = rho [cause = partner(class)] + (1 - rho) q(cause), after the "
        "classifiers' confusion is taken out",
        metrics={
            "rho_*": "estimated correlation of the class with one cause, such as texture or scene",
            "named": "share of images whose class a classifier trained on renders names",
        },
        conventions=(
            "attribute classifiers are trained on a balanced world; only worlds whose causes are known can be measured",
            "named: share of images whose class a classifier trained on renders names",
            "interval: bootstrap over images within classes",
        ),
        citation="none: a measure of this harness's embedded world",
        order=50,
        data=(),
        groups=("images",),
        subject="dataset",
    )
    Settings = CorrelationSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "item": "text",
        "label": "integer",
        "texture": "number",
        "scene": "number",
    }
    row_key = ("item",)

    def items(self, settings: CorrelationSettings, arch: str) -> Sequence[Item]:
        """Return the one evaluation of a dataset."""
        if not settings.measure:
            raise NotPlanned("the profile names no function that knows the causes of an image")
        return (Item(self.card.id, ()),)

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image: label and the score of each cause."""
        import numpy as np
        import pandas as pd

        from harness.api import decode_image

        settings = ctx.settings(CorrelationSettings)
        measure = cast(Callable[..., dict[str, Any]], load_attribute(settings.measure))
        source = open_images(ctx)
        parts = []
        for start in range(0, len(source.names), _BATCH):
            indices = range(start, min(start + _BATCH, len(source.names)))
            pictures = [np.asarray(decode_image(source.read(i), source.names[i])) for i in indices]
            labels = np.asarray([source.labels[i] for i in indices])
            scores = measure(np.stack(pictures).transpose(0, 3, 1, 2), labels)
            parts.append(pd.DataFrame({"item": [source.names[i] for i in indices], "label": labels, **scores}))
            ctx.progress(indices.stop, len(source.names), "images")
        return pd.concat(parts, ignore_index=True)

    def score(self, rows: pd.DataFrame, item: Item, settings: CorrelationSettings, cards: Mapping[str, Any]) -> Score:
        """Return the dose of each cause, and how often the class is named."""
        import numpy as np

        def dose(totals: Any) -> Any:
            return (totals[..., 1] / totals[..., 0]).mean(axis=1)

        metrics = []
        for cause in [name for name in rows.columns if name not in ("item", "label", "named")]:
            strata = [
                np.column_stack([np.ones(len(part)), part[cause].to_numpy()])
                for _, part in rows.groupby("label", sort=True)
            ]
            estimate = bootstrap(
                dose, strata, seed=0, population="new images of this generator", method="bootstrap (image)"
            )
            metrics.append(Metric(f"rho_{cause}", estimate, "ratio", "neither"))
        named = proportion(rows["named"].to_numpy() > 0.5, population="new images of this generator")
        return Score((*metrics, Metric("named", named, "fraction", "higher")))
