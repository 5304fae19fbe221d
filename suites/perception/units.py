"""What pairing needs of the perception suites: one row per validation image, boiled down to sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.api import Units
from suites.perception.metrics import arrange_coco, left_out

if TYPE_CHECKING:
    import pandas as pd

GROUPS = 200
"""With more images than this the jackknife leaves out groups of images instead of single ones."""


def coco_units(rows: pd.DataFrame, kind: str, metric: str) -> Units:
    """Return jackknife pseudo-values of AP, one per image or group of images; their mean stands for AP.

    AP is no function of sums over images, so pairing works on the pseudo-values n AP - (n - 1) AP without the image
    (Tukey 1958), shifted so that their mean is AP itself.
    """
    arranged = arrange_coco(rows, kind)
    labels, found = left_out(arranged.summary, [str(image) for image in sorted(set(rows["image_id"]))], GROUPS)
    whole, without, count = arranged.summary()["AP"], found["AP"], len(labels)
    pseudo = np.nan_to_num(count * whole - (count - 1) * without, nan=whole)
    pseudo += whole - pseudo.mean()
    features = np.stack([pseudo, np.ones(count)], axis=1)
    return Units(metric, "share", labels, np.zeros(count, dtype=np.int64), features)


def ade_units(rows: pd.DataFrame, metric: str) -> Units:
    """Return images with the intersection and then the union of every class, in pixels."""
    table = rows.pivot(index="stem", columns="class_index", values=["intersection", "union"])
    features = np.hstack([table[name].to_numpy(np.float64) for name in ("intersection", "union")])
    names = tuple(str(stem) for stem in table.index)
    return Units(metric, "mean share", names, np.zeros(len(names), dtype=np.int64), features)
