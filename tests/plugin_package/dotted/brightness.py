"""How bright are the training images themselves?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api import Check, Context, Estimate, Item, Metric, Score, Suite, SuiteCard, open_images


class Brightness(Suite):
    """Mean of all pixels, one row per image."""

    card = SuiteCard(
        id="brightness",
        version=1,
        summary="Mean brightness of the training images.",
        formula="mean over images of the mean over pixels, divided by 255",
        conventions=("interval: normal, over images",),
        citation="none: an example",
        order=900,
        data=(),
        default=False,
        subject="dataset",
    )

    def rows(self, ctx: Context) -> Any:
        """Return one row per image."""
        import io

        import numpy as np
        import pandas as pd
        from PIL import Image

        images = open_images(ctx)
        values = [
            float(np.asarray(Image.open(io.BytesIO(images.read(i)))).mean()) / 255 for i in range(len(images.names))
        ]
        return pd.DataFrame({"item": list(images.names), "brightness": values})

    def score(self, rows: Any, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return the mean with its interval."""
        values = rows["brightness"]
        mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
        estimate = Estimate(mean, mean - half, mean + half, len(values), "normal", "new images of this generator")
        seen = Check("not black", mean > 0.01, mean, 0.01, "images that are all black say nothing")
        return Score((Metric("brightness", estimate, better="neither"),), (seen,))
