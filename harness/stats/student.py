"""Student's t distribution without scipy, for commands that answer at once."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING

from harness.core.lazy import LazyModule
from harness.stats.estimate import LEVEL, normal_quantile

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

POWER = 0.8
_REACH = 40.0  # standard errors beyond which nothing is left of the tail


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Gauss-Legendre quadrature on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    return nodes, weights


def tail(t: float, df: float) -> float:
    """Return P(T > t) of Student's t; the normal one above a million degrees of freedom."""
    if df > 1e6:
        return 1 - NormalDist().cdf(t)
    if t < 0:
        return 1 - tail(-t, df)
    # t = sqrt(df) tan(a) turns the density into a constant times cos(a)^(df - 1).
    start, stop = math.atan(t / math.sqrt(df)), math.atan(math.inf if df < 30 else (t + _REACH) / math.sqrt(df))
    nodes, weights = _rule()
    angles = (stop - start) / 2 * nodes + (stop + start) / 2
    factor = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    return float(factor * (stop - start) / 2 * (weights @ np.cos(angles) ** (df - 1)))


def quantile(df: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t."""
    if df > 1e6:
        return normal_quantile(level)
    if df >= 3:  # Newton from a Cornish-Fisher start
        z = normal_quantile(level)
        t = z + (z**3 + z) / (4 * df)
        factor = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        for _ in range(8):
            t += (tail(t, df) - (1 - level) / 2) / (factor * (1 + t * t / df) ** (-(df + 1) / 2))
        return t
    low, high = 0.0, 1e5
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, df) > (1 - level) / 2 else (low, middle)
    return (low + high) / 2


def reach(df: float, power: float = POWER, level: float = LEVEL) -> float:
    """Return the true difference, in standard errors, that a two-sided t test finds with a probability.

    The standard error is itself estimated, with ``df`` degrees of freedom, so the power is that of the noncentral t distribution.
    """
    return _reach(max(1.0, float(f"{min(df, 1e6):.2g}")), power, level)


@cache
def _reach(df: float, power: float, level: float) -> float:
    limit = quantile(df, level)
    nodes, weights = _rule()
    # The estimated standard error over the true one is within these ends but for nothing that counts.
    start, stop = max(0.0, 1 - 12 / math.sqrt(2 * df)), 1 + 12 / math.sqrt(2 * df)
    s = (stop - start) / 2 * nodes + (stop + start) / 2
    log_density = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2) + (df - 1) * np.log(s) - df * s**2 / 2
    density = ((stop - start) / 2 * weights * np.exp(log_density)).tolist()
    limits, root, erf = (limit * s).tolist(), math.sqrt(2), math.erf

    # P(X < -x) + P(X > x) of a normal X around the size, in plain sums: thousands are asked for
    def lacking(size: float) -> float:
        return power - sum(
            w * (0.5 * (1 + erf((size - x) / root)) + 0.5 * (1 + erf((-size - x) / root)))
            for w, x in zip(density, limits, strict=True)
        )

    last = limit + quantile(df, 2 * power - 1)  # right but for the uncertainty of the error
    size = 1.02 * last
    for _ in range(8):  # secant
        before, now = lacking(last), lacking(size)
        if abs(now) < 1e-9 or before == now:
            break
        last, size = size, size - now * (size - last) / (now - before)
    return size
