"""The search for C, the metric with its interval, and few-shot probes."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest

from harness.core.errors import UserError
from harness.stats.estimate import resample_strata
from suites.transfer.fewshot import TrainingSet, run_few_shot
from suites.transfer.metrics import mean_per_class, top1
from suites.transfer.search import (
    GRID,
    ProbeSettings,
    SearchPoint,
    _grid,
    _tpe,
    _Trial,
    at_range_end,
    choose,
    fit_probe,
)
from suites.transfer.solver import Problem
from suites.transfer.splits import Fold, toolbox_split


def blobs(n=240, d=30, k=6, seed=0, spread=0.45, total=None):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(k, d)) * spread
    y = np.arange(n) % k
    return np.maximum(rng.normal(size=(n, d)) + centres[y] + 1, 0).astype(np.float32), y


def split(y, seed=0):
    names = [f"{i:04d}" for i in range(len(y))]
    return (toolbox_split("toy", names, y, [str(i) for i in range(y.max() + 1)], seed),)


def training_set(n=240):
    x, y = blobs(n)
    return TrainingSet("toy", x, y, tuple(f"{i:04d}" for i in range(n)), tuple(str(i) for i in range(6)))


def test_transfer_search_grid_points():
    assert len(GRID) == 23 and GRID[0] == pytest.approx(1e-5) and GRID[-1] == pytest.approx(1e6)
    assert np.allclose(np.diff(np.log10(GRID)), 0.5)


def test_transfer_search_grid_finds_refines_and_refits():
    x, y = blobs()
    tx, ty = blobs(600, seed=1)
    told = []
    found = fit_probe(x, y, tx, split(y), ProbeSettings(), progress=lambda done, total: told.append((done, total)))
    assert found.fit.c == found.c  # C is kept in the refit, not lambda
    coarse = [p for p in found.points if any(abs(p.c / c - 1) < 1e-9 for c in GRID)]
    fine = [p for p in found.points if p not in coarse]
    assert len(fine) == 2 and np.log10(fine[1].c / fine[0].c) == pytest.approx(0.5)
    assert [p.c for p in coarse] == sorted(p.c for p in coarse)
    assert found.c == choose(found.points)
    assert np.mean(found.predictions == ty) > 0.6 and not found.warnings
    assert told == [*((done, 25) for done in range(1, len(coarse) + 1)), (25, 25)]


@pytest.mark.parametrize("mode", ["reference", "converged"])
def test_transfer_search_refit_is_the_optimum(mode):
    """In both modes the refit goes to the tight tolerance, and what `reference` would predict stands beside it."""
    x, y = blobs()
    tx, _ = blobs(50, seed=1)
    found = fit_probe(x, y, tx, split(y), ProbeSettings(solver=mode))
    problem = Problem(x.astype(np.float64), y)
    again = problem.fit(found.c, problem.solve(found.c, mode="converged"))
    assert found.fit.converged and found.fit.gap <= 1e-6 and found.fit.gradient <= 1e-6
    assert found.fit.objective == pytest.approx(again.objective, rel=1e-6)
    assert np.array_equal(again.predict(tx), found.predictions)
    cold = problem.fit(found.c, problem.solve(found.c))
    assert np.mean(found.reference == cold.predict(tx)) > 0.95


@pytest.mark.parametrize("search", ["grid", "tpe30"])
def test_transfer_search_few_images_of_many_dimensions(few_images, search):
    """The reported test accuracy is that of the same C at its optimum, and not far below the validation accuracy."""
    x, y, tx, ty = few_images(0)
    found = fit_probe(x, y, tx, split(y), ProbeSettings(search=search))
    problem = Problem(x, y)
    best = problem.fit(found.c, problem.solve(found.c, mode="converged"))
    accuracy = np.mean(found.predictions == ty)
    assert abs(accuracy - np.mean(best.predict(tx) == ty)) <= 0.002
    assert accuracy > max(point.accuracy for point in found.points) - 0.05
    fixed = fit_probe(x, y, tx, (), ProbeSettings(search="fixed", fixed_c=1e5))
    assert np.mean(fixed.predictions == ty) > 0.95  # stopped by its gradient alone: 0.82


def test_transfer_search_split_without_a_class_still_refits():
    """A distributed validation part may hold all images of a class; the fold's solution is then no start."""
    x, y = blobs(120)
    fold = Fold(np.flatnonzero(y != 5), np.flatnonzero(y == 5))
    found = fit_probe(x, y, x, (fold,), ProbeSettings())
    assert found.fit.converged and set(found.predictions.tolist()) == set(range(6))


def test_transfer_search_is_reproducible():
    x, y = blobs(120)
    tx, _ = blobs(40, seed=1)
    for search in ("grid", "tpe30"):
        a, b = (fit_probe(x, y, tx, split(y), ProbeSettings(search=search), seed=7) for _ in range(2))
        assert a.points == b.points and a.c == b.c
        assert np.array_equal(a.predictions, b.predictions)


def test_transfer_search_tpe_sequence():
    x, y = blobs(120)
    runs = [fit_probe(x, y, x, split(y), ProbeSettings(search="tpe30"), seed=seed) for seed in (1, 2)]
    for run in runs:
        assert len(run.points) == 30 and all(1e-5 <= p.c <= 1e6 for p in run.points)
    assert [p.c for p in runs[0].points] != [p.c for p in runs[1].points]


def test_transfer_search_tpe_golden_sequence():
    """Ten random C, then what the installed sampler makes of a toy objective that is best at C = 50."""
    golden = [11.4492, 616.064, 0.0158472, 4.1601, 66438, 72314.3, 0.000240679, 0.00190402, 3.68247e-05, 0.706168,
              133.557, 158.312, 765.887, 426.891, 0.134248, 60.4469]  # fmt: skip

    def trial(c):
        correct = round(1000 - 40 * (np.log10(c) - 1.7) ** 2)
        return SearchPoint(c, correct, 1000, 1, 0.0, 0.0, True)

    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        found = [point.c for point in _tpe(trial, 3, lambda done, total: told.append((done, total)))]
    assert told == [(done, 30) for done in range(1, 31)]
    assert len(found) == 30 and found[: len(golden)] == pytest.approx(golden, rel=1e-5)


def test_transfer_search_ties_and_one_standard_error():
    def point(c, correct):
        return SearchPoint(c, correct, 100, 1, 0.0, 0.0, True)

    points = [point(10.0, 80), point(0.1, 80), point(1.0, 79), point(0.01, 76), point(0.001, 70)]
    assert choose(points) == 0.1
    assert choose(points, "tpe30") == 10.0  # Optuna's best trial is the first of equals
    for search in ("grid", "tpe30"):
        assert choose(points, search, one_standard_error=True) == 0.01  # se = 4 points, 76 is within it


def test_transfer_search_tpe_takes_the_trial_that_optuna_calls_best(monkeypatch):
    import optuna

    studies, create = [], optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **keywords: studies.append(create(**keywords)) or studies[-1])
    x, y = blobs(120)
    found = fit_probe(x, y, x[:5], split(y), ProbeSettings(search="tpe30"), seed=5)
    best = max(point.accuracy for point in found.points)
    ties = [point.c for point in found.points if point.accuracy == best]
    assert len(ties) > 1 and found.c == studies[0].best_params["C"] == ties[0] != min(ties)


def test_transfer_search_range_end_warning():
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    x = np.where(y == 1, 1.0, -1.0)[:, None] * 1e-7 + rng.normal(size=(100, 1)) * 1e-9
    x = np.vstack([x, [[5.0]], [[5.0]]])  # two wrong outliers keep small C from separating the rest
    y = np.append(y, [0, 0])
    fold = Fold(np.arange(0, 102), np.arange(0, 100))
    found = fit_probe(x, y, x[:10], (fold,), replace(ProbeSettings(), max_iterations=200))
    assert at_range_end(found.c)
    assert any("end of the search range" in line for line in found.warnings)
    assert at_range_end(1e-5) and at_range_end(1e6) and not at_range_end(1e-4)


def test_transfer_search_shuffled_labels_are_at_chance():
    x, y = blobs(300)
    tx, ty = blobs(1200, seed=1)
    shuffled = np.random.default_rng(3).permutation(y)
    found = fit_probe(x, shuffled, tx, split(shuffled), ProbeSettings())
    assert abs(np.mean(found.predictions == ty) - 1 / 6) < 0.06


def scripted(accuracy):
    """Stand for the fits: validation accuracy as a function of log10 C."""
    return lambda c: SearchPoint(c, round(1000 * accuracy(np.log10(c))), 1000, 1, 0.0, 0.0, True)


def test_transfer_search_early_stop():
    points = _grid(scripted(lambda e: 0.9 - 0.1 * abs(e + 2)), lambda done, total: None)
    tried = [round(np.log10(p.c), 6) for p in points]
    assert tried == [-5.0, -4.5, -4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, -2.25, -1.75]
    flat = scripted(lambda e: 0.8 if e < -1 else 0.795)  # within the standard error: not falling, no stop
    points = _grid(flat, lambda done, total: None)
    assert len(points) == 24 and choose(points) == pytest.approx(1e-5)  # the refinement stays inside the range


def test_transfer_search_starts_at_the_two_nearest(monkeypatch):
    """Only the newest solution keeps its curvature; the nearest one is the last start."""
    seen, solve = [], Problem.solve

    def spy(self, c, starts=(), **keywords):
        seen.append([(round(1 / (s.lam * self.n), 9), len(s.pairs) > 0) for s in starts])
        return solve(self, c, starts, **keywords)

    monkeypatch.setattr(Problem, "solve", spy)
    x, y = blobs(120)
    trial = _Trial(x.astype(np.float64), y, split(y), ProbeSettings())
    for c in (1e-3, 1.0, 1e-2, 1e-1):
        trial(c)
    assert seen == [[], [(1e-3, True)], [(1.0, True), (1e-3, False)], [(1.0, False), (1e-2, True)]]


def test_transfer_search_not_converged_is_said():
    x, y = blobs(120)
    found = fit_probe(x, y, x[:5], split(y), ProbeSettings(max_iterations=2))
    assert any("search points not converged" in line for line in found.warnings)
    assert any(line.startswith("warning: C=") and "not converged" in line for line in found.warnings)
    assert not found.fit.converged and found.fit.iterations <= 2


def test_transfer_search_iteration_limit_does_not_change_what_has_converged():
    x, y = blobs(120)
    tx, _ = blobs(40, seed=1)
    usual = fit_probe(x, y, tx, split(y), ProbeSettings())
    needed = max(usual.fit.iterations, *(point.iterations for point in usual.points))
    low = fit_probe(x, y, tx, split(y), ProbeSettings(max_iterations=needed + 1))
    assert needed < 500 and usual.fit.converged and not usual.warnings and not low.warnings
    assert low.points == usual.points and np.array_equal(low.fit.weights, usual.fit.weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_transfer_search_features_that_are_not_finite_are_an_error(value):
    """The message says which features: those of the training set or of the test set."""
    x, y = blobs(60)
    spoilt = x.copy()
    spoilt[[3, 7], 2] = value
    for settings in (ProbeSettings(search="fixed"), ProbeSettings(search="fixed", normalise="l2"), ProbeSettings()):
        with pytest.raises(UserError, match=r"test features of 2 of 60 images are not finite") as caught:
            fit_probe(x, y, spoilt, split(y), settings)
        assert "check the checkpoint" in caught.value.fix
        with np.errstate(invalid="ignore"), pytest.raises(UserError, match="training features are not finite"):
            fit_probe(spoilt, y, x, split(y), settings)


def test_transfer_search_reference_and_converged_agree():
    x, y = blobs(400)
    tx, ty = blobs(1000, seed=1)
    accuracy = [
        np.mean(fit_probe(x, y, tx, split(y), ProbeSettings(solver=mode)).predictions == ty)
        for mode in ("reference", "converged")
    ]
    assert abs(accuracy[0] - accuracy[1]) <= 0.005


def test_transfer_search_speed():
    """The small problem (n = 500, d = 256, K = 10) takes well under a second; the bound allows a busy machine."""
    x, y = blobs(500, d=256, k=10, spread=0.2)
    tx, _ = blobs(500, d=256, k=10, seed=1, spread=0.2)
    fit_probe(x[:60], y[:60], tx, split(y[:60]), ProbeSettings())
    started = time.process_time()
    fit_probe(x, y, tx, split(y), ProbeSettings())
    assert time.process_time() - started < 2.0


def test_transfer_metric_two_class_toy():
    labels, predicted = [0] * 9 + [1], [0] * 10
    assert top1(labels, predicted).value == pytest.approx(0.9)
    assert mean_per_class(labels, predicted).value == pytest.approx(0.5)
    assert top1([], []).value is None and mean_per_class([], []).reason
    three = mean_per_class([0] * 5 + [1] * 3 + [2] * 2, [0] * 5 + [1, 0, 0] + [0, 0])
    assert three.value == pytest.approx((1 + 1 / 3 + 0) / 3)
    right = np.array([1, 0, 0])  # the only class with an error: 2,000 draws of its three images
    drawn = resample_strata([np.ones((5, 2)), np.stack([right, np.ones(3)], axis=1), np.eye(2)[[1, 1]]], 0, 2000)
    expected = np.quantile(((drawn[..., 0] / drawn[..., 1]).mean(axis=1)), [0.025, 0.975])
    assert (three.low, three.high) == pytest.approx(expected, abs=1e-12)


def test_transfer_metric_intervals_and_seeds():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    predicted = np.where(rng.random(200) < 0.7, labels, (labels + 1) % 5)
    single = top1(labels, predicted, np.arange(200))
    assert single.method == "wilson" and single.n == 200 and single.low < single.value < single.high
    items = np.tile([f"i{i}" for i in range(200)], 3)
    triple = top1(np.tile(labels, 3), np.tile(predicted, 3), items)
    assert triple.value == pytest.approx(single.value) and triple.n == 200
    assert (triple.high - triple.low) == pytest.approx(single.high - single.low, rel=0.15)  # copies bring no certainty
    order = rng.permutation(600)
    again = top1(np.tile(labels, 3)[order], np.tile(predicted, 3)[order], items[order])
    assert again == triple
    per_class = mean_per_class(np.tile(labels, 3), np.tile(predicted, 3), items)
    assert per_class.value == pytest.approx(single.value) and per_class.n == 200
    assert per_class.low < per_class.value < per_class.high


def test_transfer_few_shot_whole_set_is_the_full_run():
    train = training_set()
    tx, _ = blobs(90, seed=1)
    full = fit_probe(train.x, train.labels, tx, split(train.labels, seed=4), ProbeSettings(), seed=4)
    few = run_few_shot(train, tx, ProbeSettings(), seed=4, fraction=1.0)
    assert few.validation == "split" and len(few.subset) == 240
    assert few.probe.c == full.c and np.array_equal(few.probe.fit.weights, full.fit.weights)
    assert np.array_equal(few.probe.predictions, full.predictions)


def test_transfer_few_shot_validation_rules():
    train = training_set()  # 40 per class
    tx, ty = blobs(300, seed=1)
    expected = {0.5: "split", 0.2: "5 folds", 0.05: "2 folds"}
    accuracy = {}
    for fraction, validation in expected.items():
        few = run_few_shot(train, tx, ProbeSettings(), seed=0, fraction=fraction)
        assert few.validation == validation and len(few.probe.predictions) == 300
        accuracy[fraction] = np.mean(few.probe.predictions == ty)
    assert accuracy[0.5] > accuracy[0.05]
    one = run_few_shot(train, tx, ProbeSettings(fixed_c=0.03), seed=0, shots=1)
    assert one.validation == "fixed C" and one.probe.c == 0.03 and len(one.subset) == 6 and one.probe.points == ()
    fixed = run_few_shot(train, tx, ProbeSettings(search="fixed", fixed_c=0.1), seed=0, fraction=0.2)
    assert fixed.validation == "fixed C" and fixed.probe.c == 0.1


def test_transfer_few_shot_never_sees_the_rest():
    """Spoiling every image outside the subset changes nothing."""
    train = training_set()
    tx, _ = blobs(60, seed=1)
    few = run_few_shot(train, tx, ProbeSettings(), seed=2, fraction=0.2)
    spoilt = train.x.copy()
    rest = np.setdiff1d(np.arange(240), few.subset)
    spoilt[rest] = 1e6
    again = run_few_shot(replace(train, x=spoilt), tx, ProbeSettings(), seed=2, fraction=0.2)
    assert again.probe.c == few.probe.c and np.array_equal(again.probe.predictions, few.probe.predictions)


def test_transfer_metrics_say_how_and_for_whom():
    labels, predicted = np.array([0] * 60 + [1] * 40), np.array([0] * 45 + [1] * 15 + [1] * 10 + [0] * 30)
    single = top1(labels, predicted)
    assert (single.value, single.n, single.method, single.population) == (0.55, 100, "wilson", "new test images")
    nothing, none = top1([], []), mean_per_class([], [])
    assert (
        nothing.reason == none.reason == "no test images" and nothing.population == none.population == "new test images"
    )
    mean = mean_per_class(labels, predicted)
    assert (mean.value, mean.n, mean.population) == (pytest.approx((0.75 + 0.25) / 2), 100, "new test images")
    assert mean.method == "bootstrap (image within class)"
    error = np.sqrt(0.75 * 0.25 / 60 + 0.25 * 0.75 / 40) / 2
    assert (mean.low, mean.high) == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=0.15 * error)
    twice = top1(np.tile(labels, 2), np.tile(predicted, 2), np.tile(np.arange(100), 2), seed=3)
    assert (twice.n, twice.method, twice.population) == (100, "bootstrap (image)", "new test images")
    error = np.sqrt(0.55 * 0.45 / 100)
    assert (twice.low, twice.high) == pytest.approx((0.55 - 1.96 * error, 0.55 + 1.96 * error), abs=0.15 * error)
    other = top1(np.tile(labels, 2), np.tile(predicted, 2), np.tile(np.arange(100), 2), seed=4)
    copied = mean_per_class(np.tile(labels, 2), np.tile(predicted, 2), np.tile(np.arange(100), 2), seed=3)
    assert (other.low, other.high) != (twice.low, twice.high) and copied.n == 100
    assert (copied.low, copied.high) == pytest.approx((mean.low, mean.high), abs=0.02), "copies bring no certainty"
