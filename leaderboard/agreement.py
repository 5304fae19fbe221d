"""Error consistency of two systems: do they err on the same test items more often than their accuracies alone would have it?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from harness.core.lazy import LazyModule
from harness.stats.agreement import error_consistency
from harness.stats.difference import Units
from harness.stats.estimate import Estimate
from leaderboard.tables import Column, Value
from leaderboard.terms import Terms

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

ANSWERS: Mapping[str, str] = {"in-domain": "top1", "texture-bias": "shape_accuracy"}
"""Suite to the metric whose items are right and wrong answers."""


def agreements(first: Mapping[Column, Value], second: Mapping[Column, Value]) -> dict[tuple[str, Terms], Estimate]:
    """Return by suite and terms the mean kappa over all pairs of a seed of one row and a seed of the other.

    Only where both have the metric on equal terms with its single answers; stores of older versions lack them until rescored.
    """
    found = {}
    for column, value in first.items():
        if column.metric.partition("@")[0] == ANSWERS.get(column.suite):
            other = next((v for c, v in second.items() if (c.suite, c.metric, c.terms) == (column.suite, column.metric, column.terms)),
                         None)  # fmt: skip
            estimate = None if other is None else _kappa(value, other)
            if estimate is not None:
                found[column.suite, column.terms] = estimate
    return found


def _kappa(first: Value, second: Value) -> Estimate | None:
    sides = [_answers(first), _answers(second)]
    if not all(sides):
        return None
    units = [one for side in sides for one in side]
    shared = set(units[0].ids).intersection(*(one.ids for one in units[1:]))
    ids = tuple(name for name in units[0].ids if name in shared)
    right = np.stack([one.only(ids).features[:, 0] for one in units], axis=1)
    pairs = list(product(range(len(sides[0])), range(len(sides[0]), len(units))))
    return error_consistency(right, pairs, population="these weights, new images")


def _answers(value: Value) -> list[Units]:
    """Return right and wrong answers, one for each seed; empty where they are not known one by one."""
    units = [parts[0].units for parts in value.parts if len(parts) == 1]
    plain = [one for one in units if (one.features[:, 1] == 1).all() and np.isin(one.features[:, 0], (0, 1)).all()]
    return plain if plain and len(plain) == len(value.parts) else []
