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
