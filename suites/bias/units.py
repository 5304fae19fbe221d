"""What pairing needs of the bias suites: one row per test item, boiled down to sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.api import Units
from suites.bias.background import pair_tables
from suites.bias.context import uncommon_count
from suites.bias.texture import cue_table


def texture_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return conflict images with (texture answer, shape or texture answer)."""
    table, conflict = cue_table(rows)
    names = tuple(str(name) for name in np.asarray(rows["image"])[conflict])
    features = np.stack([table[:, 1], table.sum(axis=1)], axis=1)
    return Units(metric, "share", names, np.zeros(len(names), dtype=np.int64), features)


PARTITIONS = {"CB_avg": (0, 1, 2, 3), "CB_1": (0, 1), "CB_2": (0, 2)}
"""Numbers of uncommon attributes that a metric of FOCUS uses."""


def context_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return images with (correct, 1), one stratum per number of uncommon attributes that the metric uses."""
    k = uncommon_count(rows)
    used = np.isin(k, PARTITIONS[metric.partition("@")[0]])
    correct = np.asarray(rows["correct"], dtype=np.float64)[used]
    names = tuple(str(name) for name in np.asarray(rows["image"])[used])
    return Units(metric, "relative", names, k[used], np.stack([correct, np.ones(len(correct))], axis=1))


def background_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return foregrounds with (Mixed-Same correct - Mixed-Rand correct, 1), in points, one stratum per class."""
    variation, foreground = np.asarray(rows["variation"]), np.asarray(rows["foreground"])
    label = np.asarray(rows["label"])[variation == "mixed_same"]
    keys = foreground[variation == "mixed_same"]
    order = np.lexsort((keys, label))  # the order of pair_tables: by class, then by key
    table = np.concatenate(pair_tables(rows))
    features = np.stack([table[:, 0] - table[:, 1], table[:, 2]], axis=1)
    return Units(
        metric, "share", tuple(str(key) for key in keys[order]), label[order].astype(np.int64), features, 100.0
    )
