"""Paired differences: known facts, agreement of bootstrap and linearisation, small files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from harness.core.errors import UserError
from harness.stats.difference import Part, Spread, Units, difference, flag_units, pooled_spread
from harness.stats.estimate import mcnemar_exact
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
    with pytest.raises(ValueError, match="different parts"):
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


def test_repeats_of_one_item_are_averaged() -> None:
    one = flag_units("m", ["a", "b", "a", "b"], [1, 0, 0, 0])
    assert one.ids == ("a", "b") and one.features[:, 0].tolist() == [0.5, 0.0]
