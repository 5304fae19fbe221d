"""Differences of systems measured on the same test items (numpy only).

`Units` are the rows of one metric boiled down to what resampling needs: item names and a few sums per item, with the name
of the statistic of their totals. A suite makes them from its rows, `harness.stats.units_file` makes them small; whoever
compares two systems needs neither the suite nor a model.

Two sources of error are kept apart: test items (paired, resampled together) and seeds. The values of runs scatter for two
reasons, their seeds and the noise of single answers; the latter is in the error of the test items already, so only what the
scatter exceeds it by is the seeds' own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from harness.core.lazy import LazyModule
from harness.stats.estimate import (
    LEVEL,
    REPLICATES,
    FloatArray,
    mcnemar_exact,
    ratio,
    resample_strata,
    totals_of,
)
from harness.stats.student import quantile, tail

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = LazyModule("numpy")

_ROUNDING = 1e-9
"""Relative size below which what is left of equal numbers is rounding."""

StatisticName = Literal["share", "mean share", "relative"]


@dataclass(frozen=True)
class Units:
    """The test items of one metric.

    Attributes:
        metric: Name of the metric in the record.
        statistic: ``share``: sum of feature 0 over sum of feature 1, pooled. ``mean share``: the same per stratum and per
            half of the features (numerators first, denominators second), averaged over those with a denominator.
            ``relative``: feature 0 over feature 1 per stratum, divided by that of stratum 0, averaged over the others.
        ids: (items,) unique names; equal names are the same test item.
        strata: (items,) stratum of each item; sizes of strata are fixed when resampling.
        features: (items, features).
        scale: Factor of the statistic, 100 for points.
    """

    metric: str
    statistic: StatisticName
    ids: tuple[str, ...]
    strata: npt.NDArray[np.int64]
    features: FloatArray
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.strata) == len(self.features):
            raise ValueError(f"{self.metric}: ids, strata and features differ in length")

    def only(self, ids: tuple[str, ...]) -> Units:
        """Return the units of some items, in their order."""
        if ids is self.ids or ids == self.ids:
            return self
        place = {name: i for i, name in enumerate(self.ids)}
        index = [place[name] for name in ids]
        return replace(self, ids=ids, strata=self.strata[index], features=self.features[index])

    @cached_property
    def _levels(self) -> list[int]:
        """Return the strata in order; ``np.unique`` would import ``numpy.ma`` for it, a tenth of a second at every start."""
        return sorted(set(self.strata.tolist()))

    def tables(self) -> list[FloatArray]:
        """Return the features per stratum."""
        if len(self._levels) == 1:
            return [self.features]
        return [self.features[self.strata == value] for value in self._levels]

    def apply(self, totals: FloatArray) -> FloatArray:
        """Return the statistic of totals (replicates, strata, features): (replicates,)."""
        return self.scale * _STATISTICS[self.statistic](totals)

    def value(self) -> float:
        """Return the statistic of the items; NaN where undefined."""
        return self._value

    @cached_property
    def _totals(self) -> FloatArray:
        return totals_of(self.tables())

    @cached_property
    def _value(self) -> float:
        return float(self.apply(self._totals)[0])

    def contributions(self) -> FloatArray:
        """Return each item's first-order share in the error: (items,); their squares sum to the variance.

        This is the infinitesimal jackknife (Efron 1982) with the gradient taken by central differences where it
        has no closed form.
        """
        return self._contributions

    @cached_property
    def _contributions(self) -> FloatArray:
        totals, parts = self._totals, []
        gradient = self._share_gradient(totals[0]) if self.statistic == "share" else self._gradient(totals)
        for table, slope in zip(self.tables(), gradient, strict=True):
            size = len(table)
            centred = table - np.add.reduce(table, axis=0) / size
            parts.append(centred @ slope * math.sqrt(size / max(1, size - 1)))
        if len(parts) == 1:
            return parts[0]
        found = np.zeros(len(self.ids))
        for stratum, part in zip(self._levels, parts, strict=True):
            found[self.strata == stratum] = part
        return found

    @cached_property
    def error(self) -> float:
        """Return the standard error of the value, the root of the summed squares of ``contributions``."""
        return float(np.linalg.norm(self._contributions))

    def _share_gradient(self, totals: FloatArray) -> FloatArray:
        top, bottom = totals.sum(axis=0)
        slopes = [1 / bottom, -top / bottom**2] if bottom else [0.0, 0.0]
        return np.tile(self.scale * np.asarray(slopes), (len(totals), 1))

    def _gradient(self, totals: FloatArray) -> FloatArray:
        gradient, steps = np.zeros(totals.shape[1:]), np.maximum(1e-4 * np.abs(totals[0]), 1e-3)
        for place, feature in np.argwhere(self._moving()):
            up, down, step = totals.copy(), totals.copy(), steps[place, feature]
            up[0, place, feature] += step
            down[0, place, feature] -= step
            gradient[place, feature] = (self.apply(up)[0] - self.apply(down)[0]) / (2 * step)
        return gradient

    def _moving(self) -> npt.NDArray[np.bool_]:
        """Return which features differ between the items of a stratum: (strata, features)."""
        return np.stack([np.ptp(table, axis=0) > 0 for table in self.tables()])


def flag_units(metric: str, ids: Sequence[str], flags: npt.ArrayLike, strata: npt.ArrayLike | None = None) -> Units:
    """Return the units of a share of true flags; several rows of one item (repeats) are averaged first."""
    names, index = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    counts = np.bincount(index)
    means = np.bincount(index, weights=np.asarray(flags, dtype=np.float64)) / counts
    groups = np.zeros(len(names), dtype=np.int64)
    if strata is not None:
        groups[index] = np.asarray(strata, dtype=np.int64)
    features = np.stack([means, np.ones(len(names))], axis=1)
    return Units(metric, "share", tuple(str(name) for name in names), groups, features)


def _share(totals: FloatArray) -> FloatArray:
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0], sums[:, 1])


def _mean_share(totals: FloatArray) -> FloatArray:
    half = totals.shape[-1] // 2
    shares = ratio(totals[..., :half], totals[..., half:]).reshape(len(totals), -1)
    known = np.isfinite(shares)
    return ratio(np.where(known, shares, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _relative(totals: FloatArray) -> FloatArray:
    accuracy = ratio(totals[..., 0], totals[..., 1])
    return np.asarray(ratio(accuracy[:, 1:], accuracy[:, :1]).mean(axis=1))


_STATISTICS = {"share": _share, "mean share": _mean_share, "relative": _relative}


# --- differences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One measurement in a column: which items it is about, and its weight in the column's value."""

    item_set: str
    """Items of equal name in equal item sets are the same; item sets are independent of each other."""
    units: Units
    weight: float = 1.0

    def only(self, ids: tuple[str, ...]) -> Part:
        """Return the part of some items, in their order."""
        units = self.units.only(ids)
        return self if units is self.units else replace(self, units=units)


System = Sequence[Sequence[Part]]
"""One entry per seed; the weights of an entry sum to one."""


@dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds, and the degrees of freedom behind it."""

    sd: float
    df: float


@dataclass(frozen=True)
class Difference:
    """A difference first - second, in the metric's unit."""

    value: float
    low: float
    high: float
    se_items: float
    """Of test items and of the noise of single answers."""
    se_seeds: float | None
    """Of seeds beyond the noise of single answers; None where neither system has two seeds and no spread was given."""
    df: float
    p: float
    """Two-sided."""
    p_higher: float
    """One-sided: how easily chance alone makes the first this much higher."""
    p_lower: float
    n: int
    """Common test items."""
    method: str
    df_items: float = 1.0
    df_seeds: float | None = None
    se_runs: float | None = None
    """Of the scatter of runs on these items: seeds and the noise of single answers together."""
    se_noise: float = 0.0
    """The part of ``se_items`` that is noise of single answers; 0 where it was not measured."""

    @property
    def se(self) -> float:
        """Return the standard error, seeds included where they are known."""
        return math.hypot(self.se_items, self.se_seeds or 0.0)


def seed_values(system: System) -> FloatArray:
    """Return the value of each seed."""
    return np.array([sum(part.weight * part.units.value() for part in parts) for parts in system])


def pooled_spread(*systems: FloatArray) -> Spread | None:
    """Return the standard deviation of values within systems, or None without two seeds of any."""
    df = sum(len(values) - 1 for values in systems)
    if df < 1:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in systems)
    return Spread(math.sqrt(squares / df), df)


def difference(
    first: System, second: System, *, spread: Spread | None = None, replicates: int = REPLICATES, seed: int = 0
) -> Difference:
    """Compare two systems on their common test items.

    Every test item is resampled once for all seeds of both systems, so whatever they share cancels. Where seeds vary,
    what their spread exceeds the noise of single answers by is added. Exact McNemar where each side is one seed's share
    of true flags.

    Args:
        first: One list of parts per seed.
        second: The same for the other system.
        spread: A spread measured elsewhere; by default that of these seeds.
        replicates: Bootstrap replicates; 0 for the linearised error (infinitesimal jackknife) alone.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: the systems have no items in common, or are about different item_sets.
    """
    first, second = _on_common_items(first, second)
    values = seed_values(first), seed_values(second)
    value = float(values[0].mean() - values[1].mean())
    if abs(value) < _ROUNDING * float(np.abs(values[0]).max()):
        value = 0.0
    item_sets = _spaces(((first, 1.0), (second, -1.0)))
    drawn = _replicates(item_sets, replicates, seed) if replicates else None
    se_items = _linear_error(item_sets) if drawn is None else float(np.nanstd(drawn, ddof=1))
    used = spread or pooled_spread(*values)
    n = sum(len(parts[0][0].ids) for parts in item_sets.values())
    df_items = max(1.0, min(len(parts[0][0].ids) for parts in item_sets.values()) - 1.0)
    method = "paired bootstrap" if drawn is not None else "paired, linearised"
    plain = Difference(value, value, value, se_items, None, df_items, 1.0, 0.5, 0.5, n, method, df_items)
    if used is not None:
        runs = math.sqrt(1 / len(first) + 1 / len(second))
        plain = replace(plain, method=f"{method} + seed spread", se_noise=answer_noise(first, second) * runs)
        return with_seeds(plain, used.sd * runs, used.df)
    found = with_seeds(plain, None, None)
    if drawn is None:
        return found
    low, high = (float(end) for end in np.nanquantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    exact = _mcnemar(first, second)
    if exact is not None:
        return replace(found, low=low, high=high, p=exact, method=f"{method}, exact McNemar")
    return replace(found, low=low, high=high)


def with_seeds(found: Difference, se_runs: float | None, df_seeds: float | None) -> Difference:
    """Return the difference with interval and p-values for another scatter of runs.

    The variance is that of the items plus what the runs' exceeds the noise of single answers by, at least nothing. The
    degrees of freedom (Welch-Satterthwaite) carry the uncertainty of the whole scatter even where nothing is left.
    """
    df, extra = found.df_items, 0.0
    if se_runs and df_seeds:
        extra = max(0.0, se_runs**2 - found.se_noise**2)
        variance = found.se_items**2 + extra
        df = variance**2 / (found.se_items**4 / found.df_items + se_runs**4 / df_seeds)
        df = max(df, min(found.df_items, df_seeds))
    se = math.sqrt(found.se_items**2 + extra)
    upper = tail(found.value / se, df) if se > 0 else (0.5 if found.value == 0 else float(found.value < 0))
    half = quantile(df) * se
    return replace(
        found,
        low=found.value - half,
        high=found.value + half,
        se_seeds=None if se_runs is None else math.sqrt(extra),
        df=df,
        p=min(1.0, 2 * min(upper, 1 - upper)),
        p_higher=upper,
        p_lower=1 - upper,
        df_seeds=df_seeds,
        se_runs=se_runs,
    )


def answer_noise(*systems: System) -> float:
    """Return the standard deviation of a run's value that the noise of single answers causes; 0 where no seeds repeat.

    It is what an item's share in the value varies by from seed to seed of one system. Shares are centred over the items, so
    what a seed does to all of them is not in it.
    """
    squares, df = 0.0, 0
    for system in systems:
        df += len(system) - 1
        for terms in zip(*(_by_space(parts) for parts in system), strict=True):
            shares = np.stack(terms)
            squares += float(((shares - shares.mean(axis=0)) ** 2).sum())
    return math.sqrt(squares / df) if df else 0.0


def _by_space(parts: Sequence[Part]) -> list[FloatArray]:
    """Return the items' shares in a run's value, space by space in the order of their names."""
    item_sets = _spaces((([parts], 1.0),))
    return [_joint(item_sets[space]) for space in sorted(item_sets)]


def joint_error(system: System) -> float:
    """Return the standard error of the mean over seeds, for new test items and these weights.

    Raises:
        ValueError: the seeds have no items in common.
    """
    return _linear_error(_spaces(((_on_common_items(system)[0], 1.0),)))


def _spaces(systems: Sequence[tuple[System, float]]) -> dict[str, list[tuple[Units, float]]]:
    """Return, by space, all units with their coefficient in the signed sum of the systems' means."""
    found: dict[str, list[tuple[Units, float]]] = {}
    for system, sign in systems:
        for part in (part for parts in system for part in parts):
            found.setdefault(part.item_set, []).append((part.units, sign * part.weight / len(system)))
    return found


def _on_common_items(*systems: System) -> list[System]:
    """Return the systems on the items that all their seeds share.

    Raises:
        ValueError: there are none, the systems are about different item sets, or items stand in different strata.
    """
    groups: dict[str, list[Units]] = {}
    for part in (part for system in systems for parts in system for part in parts):
        groups.setdefault(part.item_set, []).append(part.units)
    lacking = {
        name for system in systems for name in groups.keys() - {part.item_set for parts in system for part in parts}
    }
    if lacking:
        raise ValueError(f"measured on different parts: {', '.join(sorted(lacking))}")
    kept: dict[str, tuple[str, ...]] = {}
    for space, units in groups.items():
        ids = units[0].ids
        if any(one.ids is not ids and one.ids != ids for one in units):
            shared = set(ids).intersection(*(one.ids for one in units[1:]))
            ids = tuple(name for name in ids if name in shared)
        if len(ids) < 2:
            raise ValueError(f"{space}: no test items in common")
        strata, *others = {id(found): found for found in (one.only(ids).strata for one in units)}.values()
        if any((other != strata).any() for other in others):
            raise ValueError(f"{space}: the same items stand in different groups")
        kept[space] = ids

    return [[[part.only(kept[part.item_set]) for part in parts] for parts in system] for system in systems]


def _replicates(item_sets: Mapping[str, list[tuple[Units, float]]], replicates: int, seed: int) -> FloatArray:
    drawn = np.zeros(replicates)
    for number, space in enumerate(sorted(item_sets)):
        terms = item_sets[space]
        joined = np.hstack([units.features for units, _ in terms])
        strata = terms[0][0].strata
        totals = resample_strata([joined[strata == value] for value in np.unique(strata)], seed + number, replicates)
        start = 0
        for units, coefficient in terms:
            stop = start + units.features.shape[1]
            drawn += coefficient * units.apply(totals[..., start:stop])
            start = stop
    return drawn


def _linear_error(item_sets: Mapping[str, list[tuple[Units, float]]]) -> float:
    error = math.sqrt(sum(float((_joint(terms) ** 2).sum()) for terms in item_sets.values()))
    alone = max(abs(coefficient) * units.error for terms in item_sets.values() for units, coefficient in terms)
    return error if error > _ROUNDING * alone else 0.0


def _joint(terms: Sequence[tuple[Units, float]]) -> FloatArray:
    """Return the items' shares in the signed sum of some units: (items,)."""
    (units, coefficient), *others = terms
    found = coefficient * units.contributions()
    for units, coefficient in others:
        found += coefficient * units.contributions()
    return found


def _mcnemar(first: System, second: System) -> float | None:
    """Return the exact p where both sides are one seed's plain share of flags, else None."""
    sides = []
    for system in (first, second):
        if len(system) != 1 or len(system[0]) != 1:
            return None
        units = system[0][0].units
        if (
            units.statistic != "share"
            or (units.features[:, 1] != 1).any()
            or not np.isin(units.features[:, 0], (0, 1)).all()
        ):
            return None
        sides.append(units.features[:, 0])
    return mcnemar_exact(int((sides[0] > sides[1]).sum()), int((sides[0] < sides[1]).sum()))
