"""Error consistency: do two observers err on the same items more often than their accuracies alone would have it?

Cohen's kappa of right and wrong answers (Geirhos, Meding and Wichmann, NeurIPS 2020). With accuracies p and q, two independent
observers agree (both right or both wrong) on a share c = p q + (1 - p)(1 - q) of the items; with the observed share o,
kappa = (o - c) / (1 - c): 0 for independent errors, 1 for the same ones. Undefined where c = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.lazy import LazyModule
from harness.stats.estimate import REPLICATES, Estimate, bootstrap, ratio, undefined

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.stats.estimate import FloatArray, Statistic
else:
    np, FloatArray = LazyModule("numpy"), Any

METHOD = "bootstrap (item)"


def error_consistency(
    right: npt.ArrayLike,
    pairs: Sequence[tuple[int, int]],
    *,
    population: str,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """Estimate the mean kappa over pairs of observers; items are resampled with the answers of all observers.

    Args:
        right: (items, observers) whether an observer answered an item correctly.
        pairs: Pairs of observers, as columns of ``right``.
        population: What the interval generalises to; the observers are always these.
        seed: Seed of the bootstrap.
        replicates: Number of resamples.
    """
    table = np.asarray(right, dtype=np.float64)
    if not len(table) or not pairs:
        return undefined("no items in common", population=population, method=METHOD)
    both = np.stack([table[:, i] * table[:, j] for i, j in pairs], axis=1)
    features = np.hstack([np.ones((len(table), 1)), table, both])
    return bootstrap(
        _mean_kappa(table.shape[1], pairs), [features], seed=seed, population=population, method=METHOD, n=len(table),
        replicates=replicates, undefined_reason="an observer is right, or wrong, on every item",
    )  # fmt: skip


def _mean_kappa(observers: int, pairs: Sequence[tuple[int, int]]) -> Statistic:
    first, second = (list(side) for side in zip(*pairs, strict=True))

    def statistic(totals: FloatArray) -> FloatArray:
        sums = totals.sum(axis=1)
        share = sums[:, 1:] / sums[:, :1]
        p, q, both = share[:, first], share[:, second], share[:, observers:]
        expected = p * q + (1 - p) * (1 - q)
        observed = 1 - p - q + 2 * both
        return np.asarray(ratio(observed - expected, 1 - expected).mean(axis=1))

    return statistic
