"""Estimates with intervals, seeded bootstraps and paired tests (numpy only).

Every metric of the harness is an `Estimate`: a value, its interval, the number of items behind it and the
population to which the interval generalises. Undefined is a reason, never a zero.

All bootstraps here work on *sums*: a statistic is a function of per-stratum feature totals, so a replicate is
one small matrix product, not a new table. Units with identical features are pooled before drawing; apart
from speed this makes the result independent of the order of the rows.

Units: whatever the caller passes in (fractions or points); `scaled` converts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from harness.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
else:
    np, FloatArray = LazyModule("numpy"), Any


Statistic = Callable[[FloatArray], FloatArray]
"""Maps totals of shape (replicates, strata, features) to one value per replicate; NaN where undefined."""

REPLICATES = 10_000
LEVEL = 0.95
_DRAW_LIMIT = 4_000_000  # entries of one multinomial block, about 32 MB


@dataclass(frozen=True)
class Estimate:
    """Hold one number, its interval, its sample size and the population it generalises to.

    Attributes:
        value: The estimate, or None when undefined.
        low: Lower end of the interval, or None when no interval exists.
        high: Upper end of the interval, or None when no interval exists.
        n: Number of items in the denominator.
        method: How the interval was made, e.g. "wilson" or "bootstrap (image)".
        population: What the interval generalises to, e.g. "new images" or "new shape sources".
        reason: Why the value is undefined; for a defined value, a remark on the interval (usually empty).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    population: str
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"Estimate.{name} is {number}: undefined values are None with a reason")
        if self.value is None and not self.reason:
            raise ValueError("an undefined Estimate needs a reason")
        if (self.low is None) != (self.high is None):
            raise ValueError("Estimate: give both ends of the interval or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Estimate: interval ({self.low}, {self.high}) is reversed")

    @property
    def defined(self) -> bool:
        """Tell whether there is a value."""
        return self.value is not None

    def scaled(self, factor: float) -> Estimate:
        """Multiply value and interval, e.g. by 100 to turn fractions into points."""
        ends = [None if end is None else end * factor for end in (self.low, self.high)]
        low, high = ends if factor >= 0 else ends[::-1]
        return replace(self, value=None if self.value is None else self.value * factor, low=low, high=high)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with all fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Estimate:
        """Rebuild an estimate; missing or unknown keys are an error."""
        names = {field.name for field in fields(cls)}
        if set(record) - names or names - {"reason"} - set(record):
            raise ValueError(f"not an Estimate record: keys {sorted(record)}")
        return cls(**record)


def undefined(reason: str, *, population: str, n: int = 0, method: str = "none") -> Estimate:
    """Make the estimate of a quantity that cannot be computed, with the reason."""
    return Estimate(None, None, None, n, method, population, reason)


def normal_quantile(level: float = LEVEL) -> float:
    """Return the two-sided normal quantile of a confidence level, 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(k: int, n: int, *, population: str = "new items", level: float = LEVEL) -> Estimate:
    """Estimate the proportion k / n with the Wilson score interval; undefined for n = 0."""
    k, n = int(k), int(n)
    if not 0 <= k <= max(n, 0):
        raise ValueError(f"wilson: {k} successes of {n}")
    if n == 0:
        return undefined("no items", population=population, method="wilson")
    z = normal_quantile(level)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return Estimate(p, low, high, n, "wilson", population)


def proportion(flags: npt.ArrayLike, *, population: str = "new items", level: float = LEVEL) -> Estimate:
    """Estimate the share of true entries of a boolean array (Wilson interval)."""
    array = np.asarray(flags, dtype=bool)
    return wilson(int(array.sum()), int(array.size), population=population, level=level)


def mean_over(estimates: Sequence[Estimate], *, population: str | None = None) -> Estimate:
    """Average estimates from independent sets with equal weights.

    The interval recovers each set's variance from the distance of its own ends (MOVER; Zou and Donner 2008),
    which keeps the asymmetry of Wilson intervals. Undefined when any part is: an average over fewer sets is
    another quantity.
    """
    if not estimates:
        return undefined("no parts", population=population or "none", method="mean")
    names = sorted({estimate.population for estimate in estimates})
    target = population or " + ".join(names)
    n = sum(estimate.n for estimate in estimates)
    reasons = [estimate.reason for estimate in estimates if estimate.value is None]
    if reasons:
        remark = f"{len(reasons)} of {len(estimates)} parts undefined: {reasons[0]}"
        return undefined(remark, population=target, n=n)
    values = [float(estimate.value) for estimate in estimates if estimate.value is not None]
    mean, method = sum(values) / len(values), f"mean of {len(values)} sets (MOVER)"
    lows = [v - e.low for v, e in zip(values, estimates, strict=True) if e.low is not None]
    highs = [e.high - v for v, e in zip(values, estimates, strict=True) if e.high is not None]
    if len(lows) < len(values):
        return Estimate(mean, None, None, n, method, target, "a part has no interval")
    down, up = math.hypot(*lows) / len(values), math.hypot(*highs) / len(values)
    return Estimate(mean, mean - down, mean + up, n, method, target)


# --- resampling ---------------------------------------------------------------------------------------------


def cluster_sums(items: npt.ArrayLike, clusters: npt.ArrayLike) -> FloatArray:
    """Sum item features (n, features) inside each cluster, ordered by cluster name: (clusters, features)."""
    table = _table(items)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.stack([np.bincount(index, weights=column, minlength=len(names)) for column in table.T], axis=1)


def resample(units: npt.ArrayLike, rng: np.random.Generator, replicates: int = REPLICATES) -> FloatArray:
    """Draw len(units) units with replacement `replicates` times; return totals (replicates, features)."""
    table = _table(units)
    size = len(table)
    if size == 0:
        return np.zeros((replicates, table.shape[1]))
    rows, counts = np.unique(table, axis=0, return_counts=True)
    block = max(1, _DRAW_LIMIT // len(rows))
    totals = np.empty((replicates, table.shape[1]))
    for start in range(0, replicates, block):
        stop = min(replicates, start + block)
        totals[start:stop] = rng.multinomial(size, counts / size, size=stop - start) @ rows
    return totals


def resample_strata(strata: Sequence[npt.ArrayLike], seed: int, replicates: int = REPLICATES) -> FloatArray:
    """Resample every stratum at its own size; return totals (replicates, strata, features)."""
    rng = np.random.default_rng(seed)
    return np.stack([resample(units, rng, replicates) for units in strata], axis=1)


def resample_two_way(
    items: npt.ArrayLike, rows: npt.ArrayLike, columns: npt.ArrayLike, seed: int, replicates: int = REPLICATES
) -> FloatArray:
    """Resample two crossed groupings at once; an item weighs the product of its row's and column's counts.

    The "pigeonhole" bootstrap (Owen 2007); conservative. Returns totals (replicates, 1, features).
    """
    table = _table(items)
    row_names, row = np.unique(np.asarray(rows), return_inverse=True)
    column_names, column = np.unique(np.asarray(columns), return_inverse=True)
    shape = (len(row_names), len(column_names))
    rng = np.random.default_rng(seed)
    row_weights = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=replicates).astype(float)
    column_weights = rng.multinomial(shape[1], np.full(shape[1], 1 / shape[1]), size=replicates)
    totals = np.empty((replicates, 1, table.shape[1]))
    for feature in range(table.shape[1]):
        cells = np.bincount(row * shape[1] + column, weights=table[:, feature], minlength=shape[0] * shape[1])
        totals[:, 0, feature] = ((row_weights @ cells.reshape(shape)) * column_weights).sum(axis=1)
    return totals


def totals_of(strata: Sequence[npt.ArrayLike]) -> FloatArray:
    """Return the observed totals as one replicate: (1, strata, features)."""
    return np.stack([_table(units).sum(axis=0) for units in strata])[None]


def percentile_estimate(
    value: float,
    replicates: FloatArray,
    *,
    n: int,
    method: str,
    population: str,
    level: float = LEVEL,
    undefined_reason: str = "the statistic is undefined for these items",
) -> Estimate:
    """Turn bootstrap replicates into a percentile interval; undefined replicates are dropped and said so."""
    if not math.isfinite(value):
        return undefined(undefined_reason, population=population, n=n, method=method)
    good = replicates[np.isfinite(replicates)]
    lost = replicates.size - good.size
    if lost > replicates.size * (1 - level) / 2:
        remark = f"no interval: undefined in {lost} of {replicates.size} resamples"
        return Estimate(float(value), None, None, n, method, population, remark)
    low, high = np.quantile(good, [0.5 - level / 2, 0.5 + level / 2])
    remark = f"undefined in {lost} of {replicates.size} resamples" if lost else ""
    if low == high:
        remark = "degenerate interval: every resample gives the same value"
    ends = (
        min(float(low), float(value)),
        max(float(high), float(value)),
    )  # a biased statistic may lie outside its resamples
    return Estimate(float(value), *ends, n, method, population, remark)


def bootstrap(
    statistic: Statistic,
    strata: Sequence[npt.ArrayLike],
    *,
    seed: int,
    population: str,
    clusters: Sequence[npt.ArrayLike] | None = None,
    method: str = "bootstrap",
    n: int | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    undefined_reason: str = "the statistic is undefined for these items",
) -> Estimate:
    """Estimate a statistic of feature totals with a seeded percentile bootstrap.

    Args:
        statistic: Function of totals (replicates, strata, features) giving one value per replicate.
        strata: One feature table (items, features) per stratum; sizes stay fixed (one entry: no strata).
        seed: Seed of the resampling; equal seeds and rows give equal bits.
        population: What a resampled unit stands for, e.g. "new images".
        clusters: One array of cluster names per stratum; whole clusters are then resampled.
        method: Name stored in the estimate.
        n: Sample size to report; by default the number of items.
        replicates: Number of resamples.
        level: Confidence level.
        undefined_reason: Why the value is undefined where it is.
    """
    tables = [_table(units) for units in strata]
    value = float(statistic(totals_of(tables))[0])
    units = tables
    if clusters is not None:
        units = [cluster_sums(table, names) for table, names in zip(tables, clusters, strict=True)]
    drawn = statistic(resample_strata(units, seed, replicates))
    size = sum(len(table) for table in tables) if n is None else n
    return percentile_estimate(
        value, drawn, n=size, method=method, population=population, level=level, undefined_reason=undefined_reason
    )


def bootstrap_two_way(
    statistic: Statistic,
    items: npt.ArrayLike,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    *,
    seed: int,
    population: str,
    method: str = "bootstrap (two-way)",
    n: int | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Estimate:
    """Estimate a statistic while resampling two crossed groupings (see `resample_two_way`)."""
    table = _table(items)
    value = float(statistic(totals_of([table]))[0])
    drawn = statistic(resample_two_way(table, rows, columns, seed, replicates))
    size = len(table) if n is None else n
    return percentile_estimate(value, drawn, n=size, method=method, population=population, level=level)


def paired(statistic: Statistic) -> Statistic:
    """Turn a statistic into the difference second - first of two systems measured on the same items.

    The feature table then holds the first system's features followed by the second's (`np.hstack`), so every
    resample keeps the pair together.
    """

    def difference(totals: FloatArray) -> FloatArray:
        half = totals.shape[-1] // 2
        return statistic(totals[..., half:]) - statistic(totals[..., :half])

    return difference


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide elementwise; a zero denominator gives NaN (undefined) without a warning."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0)
    return out


# --- tests --------------------------------------------------------------------------------------------------


def mcnemar_exact(b: int, c: int) -> float:
    """Return the exact two-sided McNemar p-value for b and c discordant pairs; 1 when there are none."""
    n = b + c
    if n == 0:
        return 1.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(min(b, c) + 1)
    log_terms = log_factorial[n] - log_factorial[k] - log_factorial[n - k] - n * math.log(2.0)
    return min(1.0, 2.0 * float(np.exp(log_terms).sum()))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values in the order given."""
    order = sorted(range(len(pvalues)), key=lambda i: pvalues[i])
    adjusted = [0.0] * len(pvalues)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        adjusted[index] = running
    return adjusted


def _table(items: npt.ArrayLike) -> FloatArray:
    """Return features as a float matrix (items, features); a vector is one feature."""
    array = np.asarray(items, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array
