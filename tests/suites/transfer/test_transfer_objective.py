"""The probe's objective, its line search and its curvature against dense formulas and finite differences."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from suites.transfer import search
from suites.transfer.objective import WOLFE, Line, Point, at_rounding, losses, point_at, with_best_bias
from suites.transfer.search import ProbeSettings, SearchPoint, _Trial, _warnings, at_range_end, normalised
from suites.transfer.solver import Fit, Problem, Start, _direction, _Stop, _warm_start
from suites.transfer.splits import Fold

LAM = 0.03


def data(n=40, d=6, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return rng.normal(size=(n, d)) + rng.normal(size=(k, d))[y], y


@pytest.fixture
def problem():
    return Problem(*data())


@pytest.fixture
def theta(problem):
    return torch.from_numpy(np.random.default_rng(1).normal(size=problem.zero.shape))


def value_of(problem, theta, lam=LAM):
    """Return mean cross-entropy plus penalty the plain way; the bias in the last row is not penalised."""
    z = problem.x.numpy() @ theta.numpy()
    loss = (logsumexp(z, axis=1) - z[np.arange(len(z)), problem.codes[:, 0].numpy()]).mean()
    return loss + 0.5 * lam * float((theta[:-1] ** 2).sum())


def numeric_gradient(problem, theta):
    found = torch.zeros_like(theta)
    for index in np.ndindex(*theta.shape):
        step = torch.zeros_like(theta)
        step[index] = 1e-5
        found[index] = (value_of(problem, theta + step) - value_of(problem, theta - step)) / 2e-5
    return found


def here(problem, theta, lam=LAM):
    return point_at(problem, lam, theta, problem.relative(theta))


def test_losses_and_probabilities_are_the_softmax_without_the_label(problem, theta):
    z = problem.x.numpy() @ theta.numpy()
    p = np.exp(z - logsumexp(z, axis=1, keepdims=True))
    label = problem.codes[:, 0].numpy()
    others = p.copy()
    others[np.arange(len(z)), label] = 0
    loss, odds, wrong = losses(problem, problem.relative(theta))
    assert loss == pytest.approx(-np.log(p[np.arange(len(z)), label]).mean(), rel=1e-12)
    np.testing.assert_allclose(odds, others, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(wrong[:, 0], 1 - p[np.arange(len(z)), label], rtol=1e-10)


def test_a_point_has_the_value_and_the_gradient_of_the_objective(problem, theta):
    point = here(problem, theta)
    assert point.value == pytest.approx(value_of(problem, theta), rel=1e-12)
    np.testing.assert_allclose(point.gradient, numeric_gradient(problem, theta), atol=1e-8)
    assert point.max_gradient == pytest.approx(float(point.gradient.abs().max()))
    ratio = float(point.gradient[:-1].norm() / (LAM * theta[:-1].norm()))
    assert point.gap(LAM) == pytest.approx(ratio**2)
    nothing = Point(problem.zero, point.logits, point.residual, 0.0, torch.zeros_like(theta))
    assert nothing.gap(LAM) == 0.0 and here(problem, problem.zero).gap(LAM) == math.inf


def test_a_line_has_value_slope_and_curvature_of_the_objective(problem, theta):
    way = torch.from_numpy(np.random.default_rng(2).normal(size=theta.shape))
    line = Line(problem, LAM, theta, problem.relative(theta), way, problem.relative(way))
    sign = 1.0 if torch.equal(line.direction, way) else -1.0
    assert line.slope < 0, "a direction that leads uphill is turned round"
    for length in (0.0, 0.7, 2.0):
        at = [value_of(problem, theta + sign * (length + step) * way) for step in (-1e-4, 0.0, 1e-4)]
        value, slope, bend = line.at(length)
        assert value == pytest.approx(at[1], rel=1e-12)
        assert slope == pytest.approx((at[2] - at[0]) / 2e-4, rel=1e-6)
        assert bend == pytest.approx((at[2] - 2 * at[1] + at[0]) / 1e-8, rel=1e-4)
    back = Line(problem, LAM, theta, problem.relative(theta), -way, problem.relative(-way))
    assert torch.equal(back.direction, line.direction) and torch.equal(back.change, line.change)
    assert (back.value, back.slope, back.wp) == pytest.approx((line.value, line.slope, line.wp))
    known = Line(
        problem, LAM, theta, problem.relative(theta), way, problem.relative(way), (line.value, -sign * line.slope)
    )
    assert torch.equal(known.direction, -line.direction), "what is given is believed"


@pytest.mark.parametrize("share", [WOLFE, 1e-2, 1e-8])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_line_search_leaves_the_share_of_the_slope_it_may(problem, theta, share, scale):
    way = -scale * here(problem, theta).gradient
    line = Line(problem, LAM, theta, problem.relative(theta), way, problem.relative(way))
    length = line.search(share)
    value, slope, _ = line.at(length)
    assert abs(slope) <= -share * line.slope and value < line.value


def test_a_line_search_takes_the_unit_step_where_it_may_and_finds_nothing_at_the_optimum(problem, theta):
    way = -1e-3 * here(problem, theta).gradient
    line = Line(problem, LAM, theta, problem.relative(theta), way, problem.relative(way))
    assert abs(line.at(1.0)[1]) <= -0.9999 * line.slope and line.search(0.9999) == 1.0
    level = Line(problem, LAM, theta, problem.relative(theta), 0 * way, 0 * problem.relative(way))
    assert level.slope == 0 and level.search(WOLFE) is None


def test_a_line_search_is_newtons_and_needs_few_trials(problem, theta, monkeypatch):
    way = -30.0 * here(problem, theta).gradient
    line = Line(problem, LAM, theta, problem.relative(theta), way, problem.relative(way))
    trials, at = [], Line.at
    monkeypatch.setattr(Line, "at", lambda self, length: trials.append(length) or at(self, length))
    assert line.search(1e-9) is not None and len(trials) <= 12, "halving would need thirty"


def test_only_what_arithmetic_cannot_see_counts_as_rounding(problem, theta):
    """One entry of the gradient in W decides, the last row of W too; the bias does not."""
    point = here(problem, theta)
    for row, seen in ((0, True), (-2, True), (-1, False)):
        gradient = torch.zeros_like(theta)
        gradient[row, 0] = 1e-3
        nearly = Point(theta, point.logits, point.residual, point.value, gradient)
        assert at_rounding(problem, LAM, nearly) is not seen
    assert at_rounding(problem, LAM, Point(theta, point.logits, point.residual, point.value, 1e-18 * point.gradient))
    unit, gradient = torch.finfo(problem.x.dtype).eps, torch.zeros_like(theta)
    bound = unit * float(problem.x[:, :-1].norm()) * float(point.residual.norm()) / problem.n
    for share, seen in ((0.999, False), (1.001, True)):
        gradient[0, 0] = share * bound
        at_bound = Point(theta, point.logits, point.residual, point.value, gradient)
        assert at_rounding(problem, LAM, at_bound) is not seen
    gradient[0, 0] = 0.5 * bound
    within = Point(theta, point.logits, point.residual, point.value, gradient)
    for excess, seen in ((0.9, False), (1.1, True)):
        lam = (0.5 * bound) ** 2 / (2 * excess * unit * point.value)
        assert at_rounding(problem, lam, within) is not seen, "what a small lambda still allows counts"


def test_the_best_bias_has_no_gradient_and_leaves_the_weights(problem, theta):
    moved = with_best_bias(problem, LAM, here(problem, theta))
    assert float(moved.gradient[-1].abs().max()) < 1e-9 < float(here(problem, theta).gradient[-1].abs().max())
    assert torch.equal(moved.theta[:-1], theta[:-1]) and not torch.equal(moved.theta[-1], theta[-1])
    assert moved.value == pytest.approx(value_of(problem, moved.theta), rel=1e-12)
    assert with_best_bias(problem, LAM, moved) is moved, "where it is the best already nothing is done"


def test_the_direction_is_minus_the_bfgs_inverse_hessian_times_the_gradient():
    """Against the dense recursion H' = (1 - s g' / c) H (1 - g s' / c) + s s' / c from H = c / (g' g) of the newest pair."""
    rng = np.random.default_rng(0)
    hessian = np.diag([1.0, 2.0, 5.0, 9.0, 0.5, 3.0])
    steps = rng.normal(size=(3, 6))
    pairs = [(s, hessian @ s, float(s @ hessian @ s)) for s in steps]
    inverse = np.eye(6) * pairs[-1][2] / float(pairs[-1][1] @ pairs[-1][1])
    for s, g, c in pairs:
        left = np.eye(6) - np.outer(s, g) / c
        inverse = left @ inverse @ left.T + np.outer(s, s) / c
    gradient = rng.normal(size=(2, 3))
    found = _direction(
        torch.from_numpy(gradient), deque((torch.from_numpy(s), torch.from_numpy(g), c) for s, g, c in pairs)
    )
    np.testing.assert_allclose(found, -(inverse @ gradient.ravel()).reshape(2, 3), rtol=1e-10)
    assert torch.equal(_direction(torch.from_numpy(gradient), deque()), -torch.from_numpy(gradient))


def test_a_prediction_is_the_minimum_along_the_path_and_then_along_the_point(problem):
    """Both searches leave at most a hundredth of their slope, and what is found is no worse than either start."""
    starts = [problem.solve(c) for c in (0.1, 1.0)]
    lam = 1 / (10.0 * problem.n)
    point, pairs = _warm_start(problem, lam, starts)
    assert point.value == pytest.approx(value_of(problem, point.theta, lam), rel=1e-10)
    values = [value_of(problem, start.theta, lam) for start in starts]
    assert point.value < min(values) and len(pairs) == len(starts[1].pairs)
    along = float((point.gradient * point.theta).sum())
    last = starts[1].theta
    before = Line(
        problem, lam, last, problem.relative(last), last - starts[0].theta, problem.relative(last - starts[0].theta)
    )
    middle = last + before.search(1e-2) * before.direction
    slope = float((here(problem, middle, lam).gradient * middle).sum())
    assert abs(along) <= 0.0101 * abs(slope) * float(point.theta.norm() / middle.norm())
    only, none = _warm_start(problem, lam, starts[1:])
    assert only.value < values[1] and len(none) == len(pairs)
    moved, _ = _warm_start(problem, lam, [starts[0], Start(starts[1].lam, starts[1].theta)])
    torch.testing.assert_close(moved.theta, point.theta)


def test_solutions_of_another_fitting_set_start_where_they_stand():
    """With fewer samples than features too: the classifier for raw features is the same."""
    x, y = data(40, 6)
    for wide in (x, np.hstack([x, np.random.default_rng(5).normal(size=(40, 60))])):
        first, second = Problem(wide[:20], y[:20]), Problem(wide, y)
        solution = first.solve(1.0)
        start = second.start(3.0, *first.raw(solution))
        assert start.lam == pytest.approx(1 / 120) and start.logits is None
        fit = first.fit(1.0, solution)
        found = (second.x @ start.theta).numpy()
        expected = wide @ fit.weights + fit.bias
        if wide.shape[1] < 40:
            np.testing.assert_allclose(found, expected, atol=1e-9)
        np.testing.assert_allclose(
            (first.project(wide[:20]) @ solution.theta).numpy(), fit.logits(wide[:20]), atol=1e-9
        )
        assert fit.objective == pytest.approx(solution.value * 20) and fit.c == 1.0


@pytest.mark.parametrize(("largest", "gap", "reached"), [(1.0, 1.0, True), (1.01, 1.0, False), (1.0, 1.01, False)])
def test_a_fit_stops_where_both_the_gradient_and_the_gap_allow(problem, theta, monkeypatch, largest, gap, reached):
    monkeypatch.setattr(Point, "max_gradient", largest)
    monkeypatch.setattr(Point, "gap", lambda self, lam: gap * lam / LAM)
    stop = _Stop(1.0, 1.0, 10)
    assert stop.reached(problem, LAM, here(problem, theta)) is reached
    assert stop.gap_at(problem, LAM, here(problem, theta)) == gap


# --- search --------------------------------------------------------------------------------------------------------------


def test_normalisations_use_the_fitting_set_alone_and_never_divide_by_nothing():
    fit, other = np.array([[3.0, 4.0], [0.0, 0.0], [6.0, 4.0]]), np.array([[0.0, 5.0]])
    assert normalised("none", fit, other) == (fit, other)
    l2 = normalised("l2", fit, other)
    np.testing.assert_allclose(l2[0], [[0.6, 0.8], [0.0, 0.0], [6 / 52**0.5, 4 / 52**0.5]])
    assert l2[1].tolist() == [[0.0, 1.0]]
    constant = np.array([[1.0, 7.0], [3.0, 7.0]])
    standard = normalised("standardise", constant, np.array([[2.0 + 2**0.5, 7.0 + 1e-5]]))
    np.testing.assert_allclose(standard[0], [[-1 / 2**0.5, 0.0], [1 / 2**0.5, 0.0]])
    np.testing.assert_allclose(standard[1], [[1.0, 1.0]], rtol=1e-6)


def test_a_search_point_counts_over_all_folds():
    x, y = data(60, 4)
    folds = [Fold(np.arange(0, 40), np.arange(40, 60)), Fold(np.arange(20, 60), np.arange(0, 15))]
    point = _Trial(x, y, folds, ProbeSettings())(0.5)
    correct = iterations = 0
    gradients, gaps = [], []
    for fold in folds:
        problem = Problem(x[fold.fit], y[fold.fit])
        solution = problem.solve(0.5)
        fit = problem.fit(0.5, solution)
        correct += int((fit.predict(x[fold.val]) == y[fold.val]).sum())
        iterations += fit.iterations
        gradients.append(fit.gradient)
        gaps.append(fit.gap)
    assert (point.c, point.correct, point.total, point.iterations) == (0.5, correct, 35, iterations)
    assert (point.gradient, point.gap, point.converged) == (max(gradients), max(gaps), True)
    assert point.accuracy == correct / 35
    assert point.standard_error == pytest.approx((correct / 35 * (1 - correct / 35) / 35) ** 0.5)
    with pytest.raises(ValueError, match="at least one fold"):
        _Trial(x, y, [], ProbeSettings())


def test_warnings_name_the_worst_point_and_the_end_of_the_range():
    def point(c, gap, converged):
        return SearchPoint(c, 1, 2, 1, 0.0, gap, converged)

    fit = Fit(1.0, np.zeros((1, 2)), np.zeros(2), np.arange(2), 0.0, 0.0, 0.0, 3, True)
    assert _warnings(1.0, (point(1.0, 0.0, True),), fit) == ()
    (stuck,) = _warnings(1.0, (point(1.0, 0.5, True), point(2.0, 0.1, False), point(3.0, 0.25, False)), fit)
    assert stuck == "warning: 2 of 3 search points not converged (largest gap 0.25 at C=3)"
    (end,) = _warnings(1e-5, (point(1e-5, 0.0, True),), fit)
    assert end == "chosen C=1e-05 is at an end of the search range 1e-5 to 1e6; the optimum may lie outside"
    assert _warnings(1e-5, (), fit) == (), "a fixed C is no choice"
    assert at_range_end(10**5.9) and at_range_end(10**-4.9) and not at_range_end(10**5.8) and not at_range_end(10**-4.8)


def test_a_bare_start_keeps_the_point_alone(problem):
    found = problem.solve(1.0)
    assert found.logits is not None and len(found.pairs) > 0
    assert (found.bare.logits, len(found.bare.pairs), found.bare.lam) == (None, 0, found.lam)
    assert torch.equal(found.bare.theta, found.theta)


def test_a_search_hands_on_its_seed_and_the_refit_starts_from_the_first_fold(monkeypatch):
    x, y = data(60, 4)
    seeds, starts, solve = [], [], Problem.solve
    monkeypatch.setattr(search, "_tpe", lambda trial, seed, progress: seeds.append(seed) or (trial(0.5),))
    monkeypatch.setattr(
        Problem, "solve", lambda self, c, given=(), **rest: starts.append(len(given)) or solve(self, c, given, **rest)
    )
    fold = Fold(np.arange(0, 40), np.arange(40, 60))
    for options in ({}, {"seed": 7}):
        search.fit_probe(x, y, x, (fold,), ProbeSettings(search="tpe30"), **options)
    assert seeds == [0, 7] and starts == [0, 1, 1] * 2, "the trial, then the refit at either tolerance"
