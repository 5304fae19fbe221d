"""Checks of estimates, bootstraps and paired tests against closed forms and known values."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from harness.stats.estimate import (
    Estimate,
    bootstrap,
    bootstrap_two_way,
    cluster_sums,
    holm,
    mcnemar_exact,
    mean_over,
    paired,
    percentile_estimate,
    proportion,
    ratio,
    resample_strata,
    resample_two_way,
    undefined,
    wilson,
)


def mean_statistic(totals):
    """Mean of feature 0; feature 1 counts items."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0], sums[:, 1])


def counted(values):
    """Pair each value with a one."""
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.ones(len(values))], axis=1)


def test_wilson_known_interval():
    estimate = wilson(9, 21)
    assert (estimate.value, round(estimate.low, 2), round(estimate.high, 2)) == (9 / 21, 0.24, 0.63)


@pytest.mark.parametrize("k", [0, 30])
def test_wilson_stays_inside_at_the_border(k):
    estimate = wilson(k, 30)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0.05


def test_wilson_of_nothing_is_undefined_and_bad_counts_are_refused():
    assert not wilson(0, 0).defined and wilson(0, 0).reason
    with pytest.raises(ValueError):
        wilson(5, 4)


def test_wilson_covers_at_the_nominal_rate():
    rng, p, n = np.random.default_rng(0), 0.3, 80
    counts = rng.binomial(n, p, size=2000)
    hits = [wilson(int(k), n) for k in counts]
    coverage = np.mean([e.low <= p <= e.high for e in hits])
    assert 0.93 <= coverage <= 0.97


def test_estimate_refuses_nan_reversed_and_silent_undefined():
    for wrong in (
        {"value": math.nan, "low": 0.0, "high": 1.0},
        {"value": None, "low": None, "high": None},
        {"value": 0.5, "low": 0.6, "high": 0.4},
        {"value": 0.5, "low": 0.4, "high": None},
    ):
        with pytest.raises(ValueError):
            Estimate(**wrong, n=1, method="m", population="p")


def test_estimate_round_trips_through_json_and_scales():
    estimate = proportion([True, False, True])
    assert Estimate.from_dict(json.loads(json.dumps(estimate.to_dict()))) == estimate
    with pytest.raises(ValueError):
        Estimate.from_dict(estimate.to_dict() | {"extra": 1})
    scaled = estimate.scaled(-100)
    assert scaled.low == -100 * estimate.high and scaled.value == -100 * estimate.value
    nothing = undefined("no data", population="new images")
    assert nothing.scaled(100) == nothing


def test_bootstrap_is_reproducible_and_independent_of_row_order():
    values = np.random.default_rng(1).normal(size=300)
    first = bootstrap(mean_statistic, [counted(values)], seed=5, population="p")
    again = bootstrap(mean_statistic, [counted(values)], seed=5, population="p")
    shuffled = bootstrap(mean_statistic, [counted(values[::-1])], seed=5, population="p")
    other = bootstrap(mean_statistic, [counted(values)], seed=6, population="p")
    assert first == again
    assert (first.low, first.high) == pytest.approx((shuffled.low, shuffled.high), abs=1e-12)
    assert first.low != other.low


def test_bootstrap_matches_the_binomial_error():
    flags = np.r_[np.ones(300), np.zeros(700)]
    drawn = mean_statistic(resample_strata([counted(flags)], seed=0))
    assert drawn.std() == pytest.approx(math.sqrt(0.3 * 0.7 / 1000), rel=0.05)
    assert drawn.mean() == pytest.approx(0.3, abs=0.001)


def test_strata_keep_their_sizes_and_remove_between_variance():
    low, high = counted(np.zeros(50)), counted(np.ones(150))
    totals = resample_strata([low, high], seed=0, replicates=200)
    assert (totals[:, 0, 1] == 50).all() and (totals[:, 1, 1] == 150).all()
    assert mean_statistic(totals).std() == 0
    estimate = bootstrap(mean_statistic, [low, high], seed=0, population="p")
    assert estimate.value == 0.75 and "degenerate" in estimate.reason


def test_clusters_widen_the_interval_of_correlated_items():
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(60), 20)
    values = rng.normal(size=60)[cluster]
    plain = bootstrap(mean_statistic, [counted(values)], seed=0, population="items")
    grouped = bootstrap(mean_statistic, [counted(values)], clusters=[cluster], seed=0, population="sources")
    assert grouped.value == plain.value and grouped.n == plain.n == 1200
    assert (grouped.high - grouped.low) / (plain.high - plain.low) == pytest.approx(math.sqrt(20), rel=0.15)


def test_two_way_adds_the_variances_of_both_groupings():
    rng = np.random.default_rng(3)
    rows, columns = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    a, b = rng.normal(size=40), rng.normal(size=40)
    items = counted(a[rows] + b[columns])
    drawn = mean_statistic(resample_two_way(items, rows, columns, seed=0))
    assert drawn.std() == pytest.approx(math.sqrt(a.var() / 40 + b.var() / 40), rel=0.1)
    estimate = bootstrap_two_way(mean_statistic, items, rows, columns, seed=0, population="new stimuli")
    assert estimate.low < estimate.value < estimate.high


def test_paired_difference_is_narrower_than_two_independent_samples():
    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=500)
    first, second = (
        difficulty + 0.2 * rng.normal(size=500) > 0,
        difficulty + 0.2 * rng.normal(size=500) > -0.2,
    )
    table = np.hstack([counted(first), counted(second)])
    estimate = bootstrap(paired(mean_statistic), [table], seed=0, population="p")
    assert estimate.value == pytest.approx(second.mean() - first.mean())
    unpaired = math.sqrt(first.var() / 500 + second.var() / 500)
    assert (estimate.high - estimate.low) / 3.92 < 0.7 * unpaired


def test_undefined_replicates_are_counted_or_cost_the_interval():
    rare = bootstrap(lambda t: ratio(t[:, 0, 0], t[:, 0, 1]), [[[1, 1], [0, 0], [0, 0]]], seed=0, population="p")
    assert rare.value == 1 and rare.low is None and "undefined in" in rare.reason
    nothing = bootstrap(lambda t: ratio(t[:, 0, 0], t[:, 0, 0]), [[[0, 1]]], seed=0, population="p")
    assert not nothing.defined
    few = percentile_estimate(0.5, np.r_[np.linspace(0, 1, 999), np.nan], n=1, method="m", population="p")
    assert few.low is not None and few.reason == "undefined in 1 of 1000 resamples"


def test_an_interval_survives_as_many_lost_replicates_as_one_tail_holds():
    """25 of 1000 at 95 % are one tail; with one more the lower end itself could be among the lost."""
    drawn = np.linspace(0, 1, 1000)
    for lost, kept in ((25, True), (26, False)):
        found = percentile_estimate(0.5, np.r_[drawn[lost:], np.full(lost, np.nan)], n=1, method="m", population="p")
        assert (found.low is not None) is kept and f"undefined in {lost} of 1000 resamples" in found.reason


def test_ten_thousand_replicates_of_a_thousand_distinct_items_are_quick():
    values = np.random.default_rng(5).normal(size=1000)
    start = time.process_time()
    bootstrap(mean_statistic, [counted(values)], seed=0, population="p")
    assert time.process_time() - start < 2.0


def test_mean_over_adds_variances_and_refuses_gaps():
    parts = [wilson(50, 100, population="a"), wilson(30, 100, population="b")]
    mean = mean_over(parts)
    assert mean.value == pytest.approx(0.4) and mean.n == 200 and mean.population == "a + b"
    half = math.hypot(*(e.high - e.value for e in parts)) / 2
    assert mean.high == pytest.approx(0.4 + half)
    gap = mean_over([*parts, wilson(0, 0)])
    assert not gap.defined and "1 of 3 parts undefined" in gap.reason
    assert not mean_over([]).defined
    single = Estimate(0.5, None, None, 3, "m", "p", "one repeat: no interval")
    assert mean_over([parts[0], single]).low is None


@pytest.mark.parametrize(("b", "c", "expected"), [(0, 0, 1.0), (1, 9, 22 / 1024), (5, 5, 1.0), (0, 5, 2 / 32)])
def test_mcnemar_exact_known_values(b, c, expected):
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-12)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_exact_of_large_counts_agrees_with_scipy():
    from scipy.stats import binomtest

    assert mcnemar_exact(2000, 2200) == pytest.approx(binomtest(2000, 4200).pvalue, rel=1e-8)


def test_holm_steps_down_in_the_given_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- known values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "level"), [(0, 7, 0.95), (3, 7, 0.95), (7, 7, 0.95), (40, 300, 0.95), (40, 300, 0.8)]
)
def test_wilson_is_scipys(k, n, level):
    from scipy.stats import binomtest

    theirs = binomtest(k, n).proportion_ci(level, "wilson")
    ours = wilson(k, n, level=level, population="new images")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.value, ours.n, ours.method, ours.population, ours.reason) == (k / n, n, "wilson", "new images", "")
    assert proportion([True] * k + [False] * (n - k), level=level, population="new images") == ours


def test_undefined_estimates_keep_what_is_known_of_them():
    nothing = wilson(0, 0, population="new images")
    assert (nothing.n, nothing.method, nothing.population) == (0, "wilson", "new images")
    for wrong in ((-1, 4), (1, 0)):
        with pytest.raises(ValueError, match="successes of"):
            wilson(*wrong)
    none = undefined("why", population="p")
    assert (none.value, none.low, none.high, none.n, none.method, none.reason) == (None, None, None, 0, "none", "why")
    found = percentile_estimate(math.nan, np.ones(3), n=4, method="m", population="p", undefined_reason="why")
    assert (found.value, found.n, found.method, found.population, found.reason) == (None, 4, "m", "p", "why")


def test_an_estimate_may_be_a_point_and_its_remark_may_be_left_out_of_a_record():
    point = Estimate(0.5, 0.5, 0.5, 1, "m", "p")
    record = point.to_dict()
    del record["reason"]
    assert Estimate.from_dict(record) == point and point.defined
    del record["n"]
    with pytest.raises(ValueError, match="not an Estimate record"):
        Estimate.from_dict(record)
    for name in ("low", "high"):
        with pytest.raises(ValueError, match=name):
            Estimate(**{"value": 0.5, "low": 0.5, "high": 0.5, name: math.inf}, n=1, method="m", population="p")
    assert (Estimate(0.5, 0.25, 1.0, 1, "m", "p").scaled(0).high, point.scaled(2).value) == (0, 1.0)


def test_mean_over_keeps_the_asymmetry_of_its_parts():
    """MOVER: each end is the root of the squared distances of the parts' own ends, over their number."""
    found = mean_over([Estimate(0.2, 0.1, 0.4, 10, "m", "p"), Estimate(0.6, 0.5, 0.65, 20, "m", "p")])
    assert (found.value, found.n, found.population, found.method) == (
        pytest.approx(0.4),
        30,
        "p",
        "mean of 2 sets (MOVER)",
    )
    assert found.low == pytest.approx(0.4 - math.hypot(0.1, 0.1) / 2)
    assert found.high == pytest.approx(0.4 + math.hypot(0.2, 0.05) / 2) and found.reason == ""
    other = mean_over(
        [Estimate(0.2, 0.1, 0.4, 10, "m", "p"), Estimate(0.6, None, None, 20, "m", "q")], population="both"
    )
    assert (other.value, other.n, other.population) == (
        pytest.approx(0.4),
        30,
        "both",
    ) and "no interval" in other.reason
    gone = mean_over([undefined("x", population="p", n=3), Estimate(0.6, 0.5, 0.7, 20, "m", "q")])
    assert (gone.value, gone.n, gone.population, gone.reason) == (None, 23, "p + q", "1 of 2 parts undefined: x")
    assert (mean_over([]).population, mean_over([], population="p").population, mean_over([]).method) == (
        "none",
        "p",
        "mean",
    )


def test_percentile_ends_of_even_replicates():
    drawn = np.linspace(0, 1, 1001)
    found = percentile_estimate(0.4, drawn, n=7, method="m", population="p")
    assert (found.value, found.low, found.high) == (0.4, pytest.approx(0.025), pytest.approx(0.975))
    assert (found.n, found.method, found.population, found.reason) == (7, "m", "p", "")
    half = percentile_estimate(0.4, drawn, n=7, method="m", population="p", level=0.5)
    assert (half.low, half.high) == (pytest.approx(0.25), pytest.approx(0.75))
    same = percentile_estimate(0.4, np.full(10, 0.4), n=7, method="m", population="p")
    assert same.low == same.high == 0.4 and "degenerate" in same.reason


def test_cluster_sums_add_rows_of_equal_names_in_the_order_of_names():
    found = cluster_sums([[1, 10], [2, 20], [4, 40]], ["b", "a", "b"])
    assert found.tolist() == [[2.0, 20.0], [5.0, 50.0]]
    assert cluster_sums([1, 2, 4], ["b", "a", "b"]).tolist() == [[2.0], [5.0]]


def test_resampling_draws_as_many_units_as_there_are_whatever_the_block(monkeypatch):
    from harness.stats import estimate

    table = counted(np.arange(5.0))
    drawn = resample_strata([table, np.zeros((0, 2))], seed=3, replicates=7)
    assert drawn.shape == (7, 2, 2) and (drawn[:, 0, 1] == 5).all() and (drawn[:, 1] == 0).all()
    monkeypatch.setattr(estimate, "_DRAW_LIMIT", 10)  # two replicates a block
    assert (resample_strata([table, np.zeros((0, 2))], seed=3, replicates=7) == drawn).all()
    assert np.isnan(ratio(drawn[:, 1, 0], drawn[:, 1, 1])).all()


def test_resampling_two_ways_draws_rows_and_columns_by_themselves():
    """With one row the columns alone vary: the total is that of the drawn columns."""
    totals = resample_two_way(counted([1.0, 2.0, 4.0]), ["r"] * 3, ["a", "b", "c"], seed=0, replicates=500)
    assert totals.shape == (500, 1, 2) and (totals[..., 1] == 3).all()
    assert set(totals[:, 0, 0]) == {3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0}
    lone = resample_two_way(counted([1.0, 2.0]), ["r", "s"], ["a", "b"], seed=0, replicates=500)
    # Rows (2, 0), (1, 1), (0, 2) times columns likewise: an item weighs the product.
    assert {tuple(row) for row in lone[:, 0].tolist()} == {
        (4.0, 4.0),
        (8.0, 4.0),
        (2.0, 2.0),
        (4.0, 2.0),
        (3.0, 2.0),
        (0.0, 0.0),
    }


def test_bootstraps_report_items_and_take_the_level():
    values = np.random.default_rng(1).normal(size=200)
    plain = bootstrap(mean_statistic, [counted(values)], seed=5, population="p")
    assert (plain.n, plain.method, plain.population, plain.value) == (
        200,
        "bootstrap",
        "p",
        pytest.approx(values.mean()),
    )
    error = values.std() / math.sqrt(200)
    assert (plain.low, plain.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error
    )
    half = bootstrap(mean_statistic, [counted(values)], seed=5, population="p", level=0.5, n=3, method="m")
    assert (half.n, half.method) == (3, "m") and half.high - half.low == pytest.approx(2 * 0.6745 * error, rel=0.05)
    cross = [np.repeat(np.arange(20), 10), np.tile(np.arange(10), 20)]
    two = bootstrap_two_way(mean_statistic, counted(values), *cross, seed=5, population="p")
    assert (two.n, two.method, two.population) == (200, "bootstrap (two-way)", "p")
    narrow = bootstrap_two_way(mean_statistic, counted(values), *cross, seed=5, population="p", level=0.5, n=3)
    assert narrow.n == 3 and narrow.high - narrow.low < 0.5 * (two.high - two.low)


def test_ratios_broadcast_and_are_undefined_over_nothing():
    found = ratio(np.array([1.0]), np.array([2.0, 0.0, -4.0]))
    assert found[[0, 2]].tolist() == [0.5, -0.25] and np.isnan(found[1])
