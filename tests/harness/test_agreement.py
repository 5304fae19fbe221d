"""Error consistency against hand-computed tables; the reach of a test against the noncentral t distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.stats.agreement import error_consistency
from harness.stats.student import reach


def crossed(both: int, first: int, second: int, neither: int) -> np.ndarray:
    """Return right answers of two observers: (items, 2)."""
    return np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0)


def test_kappa_of_two_observers_by_hand() -> None:
    """40 both right, 10 and 20 one of them, 30 both wrong: o = 0.7, c = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = 0.4."""
    found = error_consistency(crossed(40, 10, 20, 30), [(0, 1)], population="new images")
    assert found.value == pytest.approx(0.4) and found.n == 100 and found.method == "bootstrap (item)"
    assert found.low is not None and found.high is not None and found.low < 0.4 < found.high
    # Asymptotic standard error of Cohen's kappa (Fleiss, Cohen and Everitt 1969) for this table.
    o, c, k = 0.7, 0.5, 0.4
    rows, columns = (0.5, 0.5), (0.6, 0.4)
    diagonal = sum(p * (1 - (r + s) * (1 - k)) ** 2 for p, r, s in zip((0.4, 0.3), rows, columns, strict=True))
    crossing = (1 - k) ** 2 * (0.1 * (columns[0] + rows[1]) ** 2 + 0.2 * (columns[1] + rows[0]) ** 2)
    se = math.sqrt((diagonal + crossing - (k - c * (1 - k)) ** 2) / (100 * (1 - c) ** 2))
    assert (found.high - found.low) / 3.92 == pytest.approx(se, rel=0.05) and o == 0.7


def test_kappa_is_one_for_equal_errors_zero_for_independent_ones_and_negative_for_opposite_ones() -> None:
    for table, kappa in ((crossed(70, 0, 0, 30), 1.0), (crossed(25, 25, 25, 25), 0.0), (crossed(0, 50, 50, 0), -1.0)):
        assert error_consistency(table, [(0, 1)], population="").value == pytest.approx(kappa)


def test_the_mean_over_pairs_is_the_mean_of_their_kappas() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((300, 4)) < 0.6) | (rng.random((300, 1)) < 0.2)
    pairs = [(0, 1), (0, 2), (0, 3)]
    alone = [error_consistency(right, [pair], population="", replicates=10).value for pair in pairs]
    together = error_consistency(right, pairs, population="")
    assert together.value == pytest.approx(np.mean([value for value in alone if value is not None]))
    assert together == error_consistency(right[::-1], pairs, population=""), "the order of items does not count"


def test_kappa_is_undefined_where_chance_alone_agrees_everywhere() -> None:
    found = error_consistency(crossed(50, 0, 0, 0), [(0, 1)], population="")
    assert found.value is None and found.reason == "an observer is right, or wrong, on every item"
    assert error_consistency(np.zeros((0, 2)), [(0, 1)], population="").reason == "no items in common"


@pytest.mark.parametrize("df", [1.0, 2.0, 3.0, 6.0, 20.0, 200.0])
def test_the_reach_is_what_the_noncentral_t_distribution_says(df: float) -> None:
    """Power at the reach, integrated over the distribution of the estimated standard error by scipy."""
    limit, size = stats.t.ppf(0.975, df), reach(df)

    def density(s: float) -> float:
        found = stats.norm.cdf(size - limit * s) + stats.norm.cdf(-size - limit * s)
        return float(found * stats.chi.pdf(s * math.sqrt(df), df) * math.sqrt(df))

    power, _ = integrate.quad(density, 0, 1 + 12 / math.sqrt(2 * df), limit=400)
    assert power == pytest.approx(0.8, abs=1e-4)


def test_the_reach_of_a_known_error_is_that_of_the_normal_distribution() -> None:
    assert reach(1e9) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-4)
    assert reach(1.0) > reach(2.0) > reach(10.0) > reach(1e9)
