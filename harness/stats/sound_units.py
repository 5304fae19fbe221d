"""Whether units of a metric can be stored and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from harness.core.fields import unfit_name
from harness.core.lazy import LazyModule
from harness.stats.difference import StatisticName, Units

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

STATISTICS = get_args(StatisticName)


def unfit_units(units: Units) -> str:
    """Return why units cannot be stored or compared; empty if they can."""
    if units.statistic not in STATISTICS:
        return f"the statistic is {units.statistic!r}, not one of {', '.join(STATISTICS)}"
    if why := unfit_ids(units.ids):
        return why
    features, strata = np.asarray(units.features), np.asarray(units.strata)
    if features.ndim != 2 or features.dtype.kind not in "fiub" or strata.ndim != 1 or strata.dtype.kind not in "iu":
        return (
            f"features have shape {features.shape} and type {features.dtype}, strata {strata.shape} and {strata.dtype}"
        )
    width = features.shape[1]
    if width != 2 and (units.statistic != "mean share" or width % 2 or not width):
        return f"a {units.statistic} of {width} features (numerators and denominators are expected)"
    if not np.isfinite(features).all() or not math.isfinite(units.scale):
        return "a feature or the scale is not finite"
    return ""


def unfit_ids(ids: Sequence[str]) -> str:
    """Return why the names of some units cannot be theirs; empty if they can."""
    if len(set(ids)) != len(ids):
        return "item names are not unique"
    return next((f"the item name {why}" for why in map(unfit_name, ids) if why), "")
