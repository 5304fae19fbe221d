"""What pairing needs of the bias suites: one row per test item, boiled down to sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.api import FloatArray, Units, flag_units
from suites.bias.background import pair_tables, paste_tables
from suites.bias.cards import CueConflictCard
from suites.bias.context import uncommon_count
from suites.bias.second_reading import reciprocal_ranks, top1_rows
from suites.bias.texture import cue_table


def texture_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return conflict images with (texture answer, shape or texture answer)."""
    table, conflict = cue_table(rows)
    names = tuple(str(name) for name in np.asarray(rows["image"])[conflict])
    features = np.stack([table[:, 1], table.sum(axis=1)], axis=1)
    return Units(metric, "share", names, np.zeros(len(names), dtype=np.int64), features)


SECOND = {
    "top1_shape",
    "top1_texture",
    "top1_neither",
    "TI_all_classes",
    "shape_sensitivity",
    "texture_sensitivity",
    "shape_accuracy",
}
"""Metrics of the second reading that have units."""


def second_units(rows: Mapping[str, Any], card: CueConflictCard, names: Sequence[str]) -> tuple[Units, ...]:
    """Return the units of the second reading: all images for the accuracy by shape, conflict images for the rest."""
    found: dict[str, Units] = {}
    if not {name.partition("@")[0] for name in names} & SECOND:
        return ()
    images = np.asarray(rows["image"]).astype(str)
    shape, texture, answer = (np.asarray(rows[name]) for name in ("shape", "texture", "answer"))
    if "observer" not in rows:
        found["shape_accuracy"] = flag_units("shape_accuracy", images.tolist(), answer == shape)
    if "top1" in rows and "top5" in rows:
        conflict = shape != texture
        chosen = images[conflict].tolist()
        table, _ = cue_table(top1_rows(rows, card))
        sums = {"top1_shape": table[:, 0], "top1_texture": table[:, 1], "top1_neither": 1 - table.sum(axis=1)}
        ranks = reciprocal_ranks(rows, card)[conflict]
        sums |= {"shape_sensitivity": ranks[:, 0], "texture_sensitivity": ranks[:, 1]}
        found |= {name: _mean_units(name, chosen, values) for name, values in sums.items()}
        found["TI_all_classes"] = texture_units(top1_rows(rows, card), "TI_all_classes")
    return tuple(replace(found[plain], metric=name) for name in names if (plain := name.partition("@")[0]) in found)


def _mean_units(metric: str, ids: Sequence[str], values: FloatArray) -> Units:
    """Return the units of a mean of numbers, one an item."""
    features = np.stack([values, np.ones(len(values))], axis=1)
    return Units(metric, "share", tuple(ids), np.zeros(len(ids), dtype=np.int64), features)


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
    return _foreground_units(rows, metric, np.concatenate(pair_tables(rows))[:, [0, 1]])


def paste_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return foregrounds with (Original correct - Mixed-Same correct, 1), in points, one stratum per class."""
    return _foreground_units(rows, metric, np.concatenate(paste_tables(rows))[:, [0, 1]])


def _foreground_units(rows: Mapping[str, Any], metric: str, sides: FloatArray) -> Units:
    variation, foreground = np.asarray(rows["variation"]), np.asarray(rows["foreground"])
    label = np.asarray(rows["label"])[variation == "mixed_same"]
    keys = foreground[variation == "mixed_same"]
    order = np.lexsort((keys, label))  # the order of pair_tables: by class, then by key
    features = np.stack([sides[:, 0] - sides[:, 1], np.ones(len(sides))], axis=1)
    return Units(
        metric, "share", tuple(str(key) for key in keys[order]), label[order].astype(np.int64), features, 100.0
    )
