"""Which values differ by more than chance, and the tie groups of a column."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence, Sized
from itertools import combinations
from statistics import median
from typing import Protocol, TypeVar

from harness.stats.difference import Difference, Part, Spread, difference
from harness.stats.estimate import LEVEL, Estimate, normal_quantile
from harness.stats.student import quantile, reach, tail

Key = TypeVar("Key", bound=Hashable)


class Measured(Protocol):
    """What telling two values apart asks of each (``tables.Value``)."""

    @property
    def estimate(self) -> Estimate: ...

    @property
    def parts(self) -> tuple[tuple[Part, ...], ...]: ...

    @property
    def seeds(self) -> Sized: ...

    @property
    def spread(self) -> Spread | None: ...


def significantly_different(first: Measured, second: Measured) -> bool:
    """Return whether two values differ by more than chance: 95 %, paired where both have units, seed spread included."""
    found = _apart(first, second)
    return found is not None and found.p < 1 - LEVEL


def resolution(values: Sequence[Measured]) -> float | None:
    """Return the smallest true difference of two values that the test of ``significantly_different`` finds in four of five cases.

    A pair's standard error times what its degrees of freedom need for a power of 80 % at two-sided 5 %; the median over the pairs
    with most seeds, since others show less and their errors say little. A smaller difference is lost in the noise of
    these items and seeds. None without a pair that has an error.
    """
    found: dict[int, list[float]] = {}
    for first, second in combinations(values, 2):
        apart = _apart(first, second)
        if apart is not None and apart.se:
            found.setdefault(len(first.seeds) + len(second.seeds), []).append(reach(apart.df) * apart.se)
    return median(found[max(found)]) if found else None


def _apart(first: Measured, second: Measured) -> Difference | None:
    """Return the difference of two values, paired where both have units; None where one is undefined or has no interval."""
    if first.estimate.value is None or second.estimate.value is None:
        return None
    if first.parts and second.parts:
        try:
            return difference(first.parts, second.parts, replicates=0)
        except ValueError:  # no common items: fall back to the intervals
            pass
    return unpaired(first, second)


def unpaired(first: Measured, second: Measured) -> Difference | None:
    """Return the difference as if the systems had been measured on different items, or None without intervals.

    A system of one seed is assumed to vary like the other, as in a paired difference.
    """
    a, b = first.estimate, second.estimate
    if None in (a.low, a.high, b.low, b.high) or a.value is None or b.value is None:
        return None
    squares = sum(((e.high or 0.0) - (e.low or 0.0)) ** 2 for e in (a, b)) / (2 * normal_quantile()) ** 2
    spreads = [value.spread for value in (first, second) if value.spread]
    df = sum(spread.df for spread in spreads)
    pooled = sum(spread.df * spread.sd**2 for spread in spreads) / df if df else 0.0
    scatter = pooled * sum(1 / max(1, len(value.seeds)) for value in (first, second))
    d, se = a.value - b.value, math.sqrt(squares + scatter)
    half = (quantile(df) if df else normal_quantile()) * se
    upper = tail(d / se, df or 1e9) if se else (0.5 if d == 0 else float(d < 0))
    p = 2 * min(upper, 1 - upper)
    return Difference(d, d - half, d + half, math.sqrt(squares), math.sqrt(scatter) if df else None, df or 1e9, p, upper, 1 - upper,
                      min(a.n, b.n), "unpaired: the test items differ or were not stored")  # fmt: skip


def tie_groups(values: Mapping[Key, Measured], higher: bool) -> dict[Key, int]:
    """Return the tie group of each key: 1 holds the best value and all that are not significantly different from it.

    Args:
        values: Values that are defined and valid.
        higher: Whether the highest is the best.
    """
    if len(values) < 2:
        return {}
    sign = 1 if higher else -1
    rest = sorted(values, key=lambda key: -sign * (values[key].estimate.value or 0.0))
    groups: dict[Key, int] = {}
    number = 0
    while rest:
        number += 1
        last = max(
            i for i, key in enumerate(rest) if i == 0 or not significantly_different(values[rest[0]], values[key])
        )
        groups |= dict.fromkeys(rest[: last + 1], number)  # whatever lies between two tied rows is tied with them
        rest = rest[last + 1 :]
    return groups
