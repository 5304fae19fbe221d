"""Paired differences: known facts, agreement of bootstrap and linearisation, small files."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from harness.core.errors import UserError
from harness.stats.difference import (
    Difference,
    Part,
    Spread,
    Units,
    answer_noise,
    difference,
    flag_units,
    joint_error,
    pooled_spread,
    with_seeds,
)
from harness.stats.estimate import mcnemar_exact, resample_strata
from harness.stats.student import quantile, tail
from harness.stats.units_file import pack, unpack


def units(
    features: np.ndarray, strata: np.ndarray | None = None, statistic: str = "share", scale: float = 1.0
) -> Units:
    """Return units with running names."""
    groups = np.zeros(len(features), dtype=np.int64) if strata is None else strata
    names = tuple(f"i{k}" for k in range(len(features)))
    return Units("m", statistic, names, groups, np.asarray(features, dtype=float), scale)  # type: ignore[arg-type]


def se(one: Units) -> float:
    """Return the standard error of a value over its items."""
    return math.sqrt(float((one.contributions() ** 2).sum()))


def counts(*parts: tuple[int, list[float]]) -> np.ndarray:
    """Return so many rows of each kind."""
    return np.concatenate([np.tile(row, (n, 1)) for n, row in parts])


@pytest.mark.parametrize("df", [1, 1.5, 3, 4, 12.3, 31, 100, 5000, 2e5])
def test_student_tail_and_quantile_agree_with_scipy(df: float) -> None:
    for value in (-1.0, 0.0, 0.5, 2.638, 6.0):
        assert tail(value, df) == pytest.approx(student.sf(value, df), abs=1e-7)
    assert quantile(df) == pytest.approx(student.ppf(0.975, df), abs=1e-6)
    assert quantile(1e9, 0.9) == pytest.approx(student.ppf(0.95, 1e9), abs=1e-6)


def test_standard_errors_follow_from_the_stated_counts() -> None:
    ti = units(counts((620, [1, 1]), (169, [0, 1]), (411, [0, 0])))
    assert ti.value() == pytest.approx(0.785805, abs=1e-6) and 100 * se(ti) == pytest.approx(1.45, abs=0.1)
    sizes, right = (14146, 5974, 674, 21), (10248, 2652, 189, 9)
    rows = [counts((k, [1, 1]), (n - k, [0, 1])) for n, k in zip(sizes, right, strict=True)]
    cb = units(np.concatenate(rows), np.repeat(np.arange(4), sizes), "relative")
    assert 100 * cb.value() == pytest.approx(53.048, abs=1e-3) and 100 * se(cb) == pytest.approx(5.0, abs=0.3)


def test_background_gap_errors_by_correlation_of_the_two_views() -> None:
    n, same, rand = 4050, 0.862, 0.789
    nested = units(
        counts((round(n * rand), [0, 1]), (round(n * (same - rand)), [1, 1]), (round(n * (1 - same)), [0, 1])),
        scale=100,
    )
    assert nested.value() == pytest.approx(7.3, abs=0.05) and se(nested) == pytest.approx(0.41, abs=0.01)
    both, one, other = same * rand, same * (1 - rand), (1 - same) * rand
    free = units(
        counts(*((round(n * p), [d, 1]) for p, d in ((both, 0), (one, 1), (other, -1), (1 - both - one - other, 0)))),
        scale=100,
    )
    assert se(free) == pytest.approx(0.84, abs=0.01)


@pytest.mark.parametrize("statistic", ["share", "relative", "mean share"])
def test_bootstrap_and_linearised_error_agree(statistic: str) -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(4), 200)
    bottom = np.ones(800) if statistic != "mean share" else rng.integers(1, 50, 800)
    sides = [units(np.stack([(rng.random(800) < p) * bottom, bottom], axis=1), strata, statistic) for p in (0.7, 0.6)]
    systems = [[[Part("x", side)]] for side in sides]
    drawn, linear = difference(*systems, replicates=4000), difference(*systems, replicates=0)
    assert drawn.value == linear.value == pytest.approx(sides[0].value() - sides[1].value())
    assert drawn.se_items == pytest.approx(linear.se_items, rel=0.06)


def test_linearised_error_of_a_stratified_mean_is_the_survey_formula() -> None:
    """Var = sum of n_h s_h^2 over n^2 with s_h^2 = sum of squares / (n_h - 1): (3 * 1 + 5 * 2.5) / 64."""
    values = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    one = units(np.stack([values, np.ones(8)], axis=1), np.repeat([0, 1], [3, 5]))
    assert se(one) == pytest.approx(math.sqrt((3 * 1.0 + 5 * 2.5) / 64), rel=1e-12)


def test_linearised_error_of_a_ratio_of_strata_is_the_delta_method() -> None:
    """100 (a / b) with a = 6/8, b = 1/2: variance (100 / b)^2 (v_a + (a / b)^2 v_b), v = p (1 - p) / (n - 1)."""
    a, b = counts((6, [1, 1]), (2, [0, 1])), counts((2, [1, 1]), (2, [0, 1]))
    one = units(np.concatenate([b, a]), np.repeat([0, 1], [4, 8]), "relative", scale=100)
    v_a, v_b = 0.75 * 0.25 / 7, 0.5 * 0.5 / 3
    assert one.value() == 150
    assert se(one) == pytest.approx(200 * math.sqrt(v_a + 1.5**2 * v_b), rel=1e-6)


def test_pairing_cancels_what_two_systems_share() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(1000) < 0.6
    second = np.where(rng.random(1000) < 0.05, ~first, first)
    names = [str(i) for i in range(1000)]
    systems = [[[Part("x", flag_units("m", names, side))]] for side in (first, second)]
    found = difference(*systems)
    alone = math.hypot(*(se(system[0][0].units) for system in systems))
    assert found.se_items < alone / 2
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    assert found.p == mcnemar_exact(b, c) and "McNemar" in found.method


def test_only_common_items_count_and_none_is_an_error() -> None:
    first, second = (
        flag_units("m", ["a", "b", "c", "d"], [1, 1, 0, 0]),
        flag_units("m", ["b", "c", "d", "e"], [0, 0, 1, 1]),
    )
    found = difference([[Part("x", first)]], [[Part("x", second)]])
    assert found.n == 3 and found.value == pytest.approx(1 / 3 - 1 / 3)
    with pytest.raises(ValueError, match="no test items in common"):
        difference([[Part("x", first)]], [[Part("x", flag_units("m", ["y", "z"], [0, 1]))]])
    with pytest.raises(ValueError, match="different parts: x, y"):
        difference([[Part("x", first)]], [[Part("y", second)]])


def test_seeds_widen_the_error_by_their_measured_spread() -> None:
    rng, names = np.random.default_rng(2), [str(i) for i in range(500)]
    systems = [
        [[Part("x", flag_units("m", names, rng.random(500) < p))] for p in rates] for rates in ((0.5, 0.6), (0.5, 0.55))
    ]
    values = [np.array([parts[0].units.value() for parts in system]) for system in systems]
    spread = pooled_spread(*values)
    assert spread == Spread(pytest.approx(math.sqrt((values[0].var(ddof=1) + values[1].var(ddof=1)) / 2)), 2)
    found = difference(*systems)
    assert spread is not None and found.se_runs == pytest.approx(spread.sd) and found.se > found.se_items
    # Runs scatter by their seeds and by the noise of single answers, which is in the items' error already.
    assert found.se_seeds == pytest.approx(math.sqrt(spread.sd**2 - found.se_noise**2))
    assert found.se_noise == pytest.approx(found.se_items, rel=0.1), "items of these systems differ by noise alone"
    assert found.high - found.low == pytest.approx(2 * quantile(found.df) * found.se)


def test_packed_units_are_small_and_come_back_exactly() -> None:
    rng, names = np.random.default_rng(3), [f"images/{i:05d}.png" for i in range(2000)]
    given = {f"{i:064d}": (flag_units("m", names, rng.random(2000) < 0.5),) for i in range(20)}
    content = pack(given)
    assert content == pack(dict(reversed(given.items()))) and len(content) < 20 * 400 + 20_000
    for owner, (one,) in unpack(content, "units").items():
        (before,) = given[owner]
        assert one.ids == before.ids and (one.features == before.features).all() and one.statistic == before.statistic
    for damaged in (content[:-40], b"no archive", content[:500] + b"x" + content[501:]):
        with pytest.raises(UserError, match="units is damaged"):
            unpack(damaged, "units")


@pytest.mark.parametrize(
    ("names", "words"), [(["a\nb", "c"], "line feed"), (["", "c"], "empty"), (["a"], "not unique")]
)
def test_names_that_would_come_back_otherwise_are_not_packed(names: list[str], words: str) -> None:
    units = replace(flag_units("m", ["x", "y"], [1, 0]), ids=tuple(names * 2)[:2])
    with pytest.raises(ValueError, match=f"m: .*{words}"):
        pack({"o": (units,)})


def test_units_without_items_come_back() -> None:
    none = Units("m", "share", (), np.zeros(0, np.int64), np.zeros((0, 2)))
    ((found,),) = unpack(pack({"o": (none,)}), "units").values()
    assert found.ids == () and found.features.shape == (0, 2)


def test_repeats_of_one_item_are_averaged() -> None:
    one = flag_units("m", ["a", "b", "a", "b"], [1, 0, 0, 0])
    assert one.ids == ("a", "b") and one.features[:, 0].tolist() == [0.5, 0.0]


def test_flags_keep_their_groups_and_are_sorted_by_name() -> None:
    one = flag_units("m", ["b", "a", "b"], [True, False, False], strata=[2, 1, 2])
    assert (one.metric, one.statistic, one.ids, one.strata.tolist()) == ("m", "share", ("a", "b"), [1, 2])
    assert one.features.tolist() == [[0.0, 1.0], [0.5, 1.0]] and one.strata.dtype == np.int64
    assert flag_units("m", [2, 10], [1, 0]).ids == ("10", "2"), "names are text"  # type: ignore[list-item]


def test_mean_share_averages_the_shares_that_have_a_denominator() -> None:
    """Two classes in two strata: 2/4, 0/0, 3/4 and 1/10."""
    table = np.array([[1, 0, 2, 0], [1, 0, 2, 0], [3, 1, 4, 10]])
    one = units(table, np.array([0, 0, 1]), "mean share", scale=100)
    assert one.value() == pytest.approx(100 * (0.5 + 0.75 + 0.1) / 3)


def test_a_share_of_nothing_is_undefined_and_has_no_error() -> None:
    one = units(np.zeros((3, 2)))
    assert math.isnan(one.value()) and one.contributions().tolist() == [0.0, 0.0, 0.0]


# --- intervals and p-values against scipy -----------------------------------------------------------------------------------

PLAIN = Difference(0.3, 0.3, 0.3, 0.1, None, 99, 1.0, 0.5, 0.5, 100, "m", 99, se_noise=0.05)


@pytest.mark.parametrize(
    ("noise", "runs", "df_seeds", "variance", "df"),
    [
        (0.05, 0.2, 4, 0.01 + 0.04 - 0.0025, 0.0475**2 / (0.1**4 / 99 + 0.2**4 / 4)),
        (0.05, 0.04, 4, 0.01, 0.01**2 / (0.1**4 / 99 + 0.04**4 / 4)),  # the seeds add nothing, their doubt remains
        (0.3, 0.3, 4, 0.01, 4),  # never fewer degrees of freedom than the smaller side has
        (0.05, None, None, 0.01, 99),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_interval_and_p_values_are_student_t_with_welch_satterthwaite_degrees(
    noise: float, runs: float | None, df_seeds: float | None, variance: float, df: float, sign: int
) -> None:
    found = with_seeds(replace(PLAIN, value=sign * 0.3, se_noise=noise), runs, df_seeds)
    t = sign * 0.3 / math.sqrt(variance)
    assert (found.df, found.se) == pytest.approx((df, math.sqrt(variance)))
    assert (found.p_higher, found.p_lower) == pytest.approx((student.sf(t, df), student.cdf(t, df)), abs=1e-7)
    assert found.p == pytest.approx(2 * student.sf(abs(t), df), abs=1e-7)
    half = student.ppf(0.975, df) * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((sign * 0.3 - half, sign * 0.3 + half), abs=1e-6)
    assert (found.se_runs, found.df_seeds) == (runs, df_seeds)
    assert found.se_seeds == (None if runs is None else pytest.approx(math.sqrt(variance - 0.01), abs=1e-9))


@pytest.mark.parametrize(("value", "p", "p_higher"), [(0.0, 1.0, 0.5), (0.5, 0.0, 0.0), (-0.5, 0.0, 1.0)])
def test_without_any_error_the_sign_decides(value: float, p: float, p_higher: float) -> None:
    found = with_seeds(replace(PLAIN, value=value, se_items=0.0, se_noise=0.0), None, None)
    assert (found.low, found.high, found.p, found.p_higher, found.p_lower) == (value, value, p, p_higher, 1 - p_higher)


FIRST = np.array([[1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 1]])
SECOND = np.array([[0, 1, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])


def runs_of(flags: np.ndarray, item_set: str = "x") -> list[list[Part]]:
    """Return a system with one run per row of flags."""
    return [[Part(item_set, flag_units("m", [f"i{k}" for k in range(row.size)], row))] for row in flags]


def test_difference_of_runs_is_that_of_the_textbook() -> None:
    """Two and three runs of six items: paired error of the means over runs, pooled variance of runs, residual variance of items."""
    found = difference(runs_of(FIRST), runs_of(SECOND), replicates=0)
    means = FIRST.mean(axis=0) - SECOND.mean(axis=0)
    assert found.value == pytest.approx(means.mean()) and (found.n, found.df_items, found.df_seeds) == (6, 5, 3)
    assert found.se_items == pytest.approx(means.std(ddof=1) / math.sqrt(6))
    between = math.sqrt(1 / 2 + 1 / 3)
    squares = sum(((flags.mean(axis=1) - flags.mean()) ** 2).sum() for flags in (FIRST, SECOND))
    assert found.se_runs == pytest.approx(math.sqrt(squares / 3) * between)
    rest = [flags - flags.mean(axis=1, keepdims=True) - flags.mean(axis=0) + flags.mean() for flags in (FIRST, SECOND)]
    noise = math.sqrt(sum((each**2).sum() for each in rest) / 3 / 6 / 5)
    assert found.se_noise == pytest.approx(noise * between) and found.method == "paired, linearised + seed spread"
    assert answer_noise(runs_of(FIRST[:1])) == 0.0, "one run tells nothing"
    steady = runs_of(np.tile(SECOND[:1], (3, 1)))
    quiet = difference(runs_of(FIRST), steady, replicates=0)
    own = FIRST - FIRST.mean(axis=1, keepdims=True) - FIRST.mean(axis=0) + FIRST.mean()
    pooled = math.sqrt((own**2).sum() / 3 / 6 / 5)
    assert quiet.se_noise == pytest.approx(pooled * between), "the noise of both systems counts"
    alone = FIRST.mean(axis=0)
    assert joint_error(runs_of(FIRST)) == pytest.approx(alone.std(ddof=1) / math.sqrt(6))


def test_a_spread_measured_elsewhere_stands_for_single_runs() -> None:
    found = difference(runs_of(FIRST[:1]), runs_of(SECOND[:1]), spread=Spread(0.2, 7), replicates=0)
    assert (found.se_runs, found.df_seeds, found.se_noise) == (pytest.approx(0.2 * math.sqrt(2)), 7, 0.0)
    assert pooled_spread(np.array([0.5]), np.array([0.4])) is None
    assert pooled_spread(np.array([0.5, 0.7]), np.array([0.4])) == Spread(pytest.approx(math.sqrt(0.02)), 1)


def test_item_sets_are_independent_and_the_smallest_gives_the_degrees_of_freedom() -> None:
    first, second = ([runs_of(flags[:1])[0] + runs_of(flags[1:2, :4], "y")[0]] for flags in (FIRST, SECOND))
    systems = [[[replace(part, weight=weight) for part, weight in zip(parts, (0.75, 0.25), strict=True)] for parts in each]
               for each in (first, second)]  # fmt: skip
    found = difference(*systems, replicates=0)
    x, y = FIRST[0] - SECOND[0], FIRST[1, :4] - SECOND[1, :4]
    assert found.value == pytest.approx(0.75 * x.mean() + 0.25 * y.mean())
    assert found.se_items == pytest.approx(math.hypot(0.75 * x.std(ddof=1) / 6**0.5, 0.25 * y.std(ddof=1) / 2))
    assert (found.n, found.df_items) == (10, 3)
    two = [[[Part("x", flag_units("m", ["a", "b"], flags))]] for flags in ([0, 1], [0, 0])]
    assert difference(*two, replicates=0).df_items == 1


def test_bootstrap_interval_of_one_run_each_is_that_of_the_normal_law() -> None:
    rng, names = np.random.default_rng(4), [str(i) for i in range(400)]
    first, second = (rng.normal(mean, 1, 400) for mean in (0.1, 0.0))
    systems = [[[Part("x", flag_units("m", names, side))]] for side in (first, second)]
    found, gap = difference(*systems), first - second
    error = gap.std(ddof=1) / 20
    assert found.value == pytest.approx(gap.mean()) and found.se_items == pytest.approx(error, rel=0.02)
    assert (found.low, found.high) == pytest.approx(
        (gap.mean() - 1.96 * error, gap.mean() + 1.96 * error), abs=0.06 * error
    )
    assert found.p == pytest.approx(2 * student.sf(abs(gap.mean()) / found.se_items, 399), abs=1e-7)
    assert found.method == "paired bootstrap" and found.se_seeds is None
    assert difference(*systems, replicates=0).method == "paired, linearised"
    order = np.argsort(names)
    columns = np.stack([first[order], np.ones(400), second[order], np.ones(400)], axis=1)
    (drawn,) = resample_strata([columns], 0).transpose(1, 0, 2)
    means = (drawn[:, 0] - drawn[:, 2]) / 400
    assert found.se_items == pytest.approx(means.std(ddof=1), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-12)


def test_exact_mcnemar_replaces_the_p_value_and_leaves_the_bootstrap_interval() -> None:
    flags = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [100, 60, 30, 210], axis=0).T
    found = difference(runs_of(flags[:1]), runs_of(flags[1:]))
    error = math.sqrt((90 - 30**2 / 400) / 400 / 399)
    assert (found.value, found.p, found.method) == (
        pytest.approx(0.075),
        mcnemar_exact(60, 30),
        "paired bootstrap, exact McNemar",
    )
    assert (found.low, found.high) == pytest.approx((0.075 - 1.96 * error, 0.075 + 1.96 * error), abs=0.06 * error)
    (drawn,) = resample_strata([np.stack([flags[0], np.ones(400), flags[1], np.ones(400)], axis=1)], 0).transpose(
        1, 0, 2
    )
    ends = np.quantile((drawn[:, 0] - drawn[:, 2]) / 400, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-12)
    halves = [[[Part("x", units(np.stack([side, np.full(400, 2.0)], axis=1)))]] for side in flags]
    assert difference(*halves).method == "paired bootstrap", "no share of flags"


def test_equal_values_differ_by_nothing_and_small_ones_by_what_they_do() -> None:
    def system(values: list[float]) -> list[list[Part]]:
        return [[Part("x", flag_units("m", ["a", "b"], values))]]

    assert 0.1 + 0.2 != 0.3 + 0.0
    assert difference(system([0.1, 0.2]), system([0.3, 0.0]), replicates=0).value == 0.0
    assert difference(system([2e-6, 3e-6]), system([1e-6, 1e-6]), replicates=0).value == pytest.approx(1.5e-6)


def test_items_are_paired_by_name_and_must_stand_in_equal_groups() -> None:
    first = flag_units("m", ["a", "b", "c"], [1, 1, 0], strata=[0, 1, 1])
    second = replace(first, ids=("c", "b", "a"), strata=first.strata[::-1], features=first.features[::-1])
    found = difference([[Part("x", first)]], [[Part("x", second)]], replicates=0)
    assert (found.value, found.se_items, found.p) == (0.0, 0.0, 1.0), "the same answers in another order"
    with pytest.raises(ValueError, match="x: the same items stand in different groups"):
        difference([[Part("x", first)]], [[Part("x", replace(second, strata=first.strata))]])
    with pytest.raises(ValueError, match="m: ids, strata and features differ in length"):
        replace(first, ids=("a", "b"))
