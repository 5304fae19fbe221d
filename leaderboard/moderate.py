"""Seed spreads of many metrics, each shrunk towards what they have in common (Smyth 2004, the moderated t)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import fmean, variance

from harness.stats.difference import Difference, with_seeds

FEWEST = 4
"""Below this many metrics each one's own spread stands."""
_FLOOR = 1e-3


def shrink_seed_variances(found: Sequence[Difference], runs: Sequence[Hashable]) -> list[Difference]:
    """Return differences whose seed errors borrow strength from each other.

    Runs scatter at least by the noise of single answers, which the test items measure well. So the ratio of the two variances
    is what metrics share: the ratios of all metrics are taken as draws from a scaled inverse chi-square law, fitted by its
    first two moments on the log scale, and each metric's ratio becomes the weighted mean of its own and the common one. The
    weights are degrees of freedom, and they add up.

    Metrics of the same runs rise and fall together: what they have in common is known no better than from that many runs,
    and metrics that look more alike than chance alone would have them are so for that reason.

    Args:
        found: One difference per metric.
        runs: For each, a name of the runs behind it.
    """
    usable = [i for i, d in enumerate(found) if d.se_runs is not None and d.df_seeds and d.se_noise > 0]
    if len(usable) < FEWEST:
        return list(found)
    ratios = {i: max(_FLOOR, ((found[i].se_runs or 0.0) / found[i].se_noise) ** 2) for i in usable}
    dfs = {i: found[i].df_seeds or 1.0 for i in usable}
    common, prior = _fit([ratios[i] for i in usable], [dfs[i] for i in usable])
    apart = {runs[i]: dfs[i] for i in usable}
    prior, moderated = min(prior, sum(apart.values())), list(found)
    for i in usable:
        df = prior + dfs[i]
        ratio = (prior * common + dfs[i] * ratios[i]) / df
        moderated[i] = with_seeds(found[i], found[i].se_noise * math.sqrt(ratio), df)
    return moderated


def _fit(ratios: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """Return the common ratio and the prior degrees of freedom (infinite where the ratios differ by chance alone)."""
    logs = [math.log(r) - digamma(d / 2) + math.log(d / 2) for r, d in zip(ratios, dfs, strict=True)]
    excess = variance(logs) - fmean(trigamma(d / 2) for d in dfs)
    if excess <= 0:
        return math.exp(fmean(logs)), math.inf
    prior = 2 * _inverse_trigamma(excess)
    return math.exp(fmean(logs) + digamma(prior / 2) - math.log(prior / 2)), prior


def digamma(x: float) -> float:
    """Return the derivative of log gamma for x > 0."""
    shift = 0.0
    while x < 6:
        shift, x = shift - 1 / x, x + 1
    return shift + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


def trigamma(x: float) -> float:
    """Return the second derivative of log gamma for x > 0."""
    shift = 0.0
    while x < 6:
        shift, x = shift + 1 / x**2, x + 1
    return shift + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


def _inverse_trigamma(value: float) -> float:
    low, high = 1e-6, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if trigamma(middle) > value else (low, middle)
    return math.sqrt(low * high)
