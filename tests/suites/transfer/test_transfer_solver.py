"""The probe's solver: known answers, invariants, and when it may stop."""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from harness.core.errors import UserError
from suites.transfer.objective import Line, point_at
from suites.transfer.solver import Fit, Mode, Problem, Start, _warm_start, thread_limit


def fit(x, y, c, mode: Mode = "converged") -> Fit:
    problem = Problem(x, y)
    return problem.fit(c, problem.solve(c, mode=mode))


def objective(found: Fit, x, y) -> float:
    logits = x @ found.weights + found.bias
    loss = (logsumexp(logits, axis=1) - logits[np.arange(len(y)), np.searchsorted(found.labels, y)]).sum()
    return found.c * loss + 0.5 * (found.weights**2).sum()


def toy(n=150, d=20, k=4, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * spread
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    return np.maximum(rng.normal(size=(n, d)) + centres[y] + 1, 0), y


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    test = np.arange(len(x)) % 5 == 0
    return x[~test], y[~test], x[test], y[test]


@pytest.mark.parametrize(
    ("c", "value", "norm", "train", "test"),
    [
        (1e-5, 0.02866292593, 0.0854219, 1253, 309),
        (1e-3, 0.5887574218, 0.735201, 1392, 341),
        (1e-1, 5.756074238, 2.600142, 1436, 348),
        (10, 25.2725653, 6.16271, 1437, 346),
    ],
)
def test_transfer_solver_digits_known_answers(digits, c, value, norm, train, test):
    x, y, tx, ty = digits
    found = fit(x, y, c)
    assert found.converged and found.gradient <= 1e-6
    assert found.objective == pytest.approx(value, rel=1e-6 if c <= 0.1 else 1e-3)
    assert objective(found, x, y) == pytest.approx(found.objective, rel=1e-9)
    assert np.linalg.norm(found.weights) == pytest.approx(norm, rel=1e-3)
    assert abs((found.predict(x) == y).sum() - train) <= 1
    slack = 1 if c < 10 else 2
    assert abs((found.predict(tx) == ty).sum() - test) <= slack
    reference = fit(x, y, c, "reference")
    assert reference.converged and reference.gradient <= 1e-4
    assert abs((reference.predict(tx) == ty).sum() - test) <= 2
    if c <= 0.1:
        assert reference.objective == pytest.approx(value, rel=5e-3)


@pytest.mark.parametrize("shape", [(150, 20), (40, 90)])
def test_transfer_solver_columns_sum_to_zero(shape):
    x, y = toy(*shape)
    found = fit(x, y, 0.1)
    assert np.abs(found.weights.sum(axis=1)).max() < 1e-8
    assert abs(found.bias.sum()) < 1e-8


def test_transfer_solver_rotation_shift_and_relabelling():
    x, y = toy(n=200)
    fresh, _ = toy(n=100, seed=1)
    base = fit(x, y, 0.05)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 20)))[0]
    rotated = fit(x @ rotation, y, 0.05)
    assert np.array_equal(rotated.predict(fresh @ rotation), base.predict(fresh))
    assert rotated.objective == pytest.approx(base.objective, rel=1e-8)
    shifted = fit(x + 37.0, y, 0.05)
    assert np.array_equal(shifted.predict(fresh + 37.0), base.predict(fresh))
    assert np.allclose(shifted.weights, base.weights, atol=1e-4)
    names = np.array([30, 10, 20, 5])
    assert np.array_equal(fit(x, names[y], 0.05).predict(fresh), names[base.predict(fresh)])


def test_transfer_solver_duplicates_and_lambda():
    x, y = toy()
    once, twice = fit(x, y, 0.2), fit(np.vstack([x, x]), np.hstack([y, y]), 0.1)
    assert np.allclose(once.weights, twice.weights, atol=1e-4)
    # lambda = 1/(Cn): the mean form's stationarity in W
    logits = once.logits(x)
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    gradient = x.T @ (p - np.eye(4)[y]) / len(y) + once.weights / (0.2 * len(y))
    assert np.abs(gradient).max() < 1e-4


def test_transfer_solver_tiny_c_predicts_majority():
    x, _ = toy(n=100)
    y = np.array([0] * 20 + [1] * 50 + [2] * 30)
    assert set(fit(x, y, 1e-9).predict(x).tolist()) == {1}


def test_transfer_solver_row_space_is_exact():
    x, y = toy(n=60, d=300)
    fresh, _ = toy(n=50, d=300, seed=3)
    reduced = Problem(x, y)
    assert reduced.x.shape == (60, 61)
    full = Problem(x, y)
    full.basis, full.x = None, full.x.new_tensor(np.hstack([x - x.mean(axis=0), np.ones((60, 1))]))
    a, b = (p.fit(0.01, p.solve(0.01, mode="converged")) for p in (reduced, full))
    assert a.objective == pytest.approx(b.objective, rel=1e-7)
    assert np.allclose(a.weights, b.weights, atol=1e-4)
    assert np.array_equal(a.predict(fresh), b.predict(fresh))
    assert np.allclose((reduced.project(fresh) @ reduced.solve(0.01).theta).numpy().argmax(1), a.predict(fresh))


def test_transfer_solver_path_finds_the_same_optimum(digits):
    """From the last two solutions: the same optimum in a fraction of the iterations."""
    x, y, tx, _ = digits
    problem = Problem(x, y)
    path = []
    for exponent in np.arange(-3, -1.6, 0.5):
        path.append(problem.solve(10.0**exponent, path))
    warm, cold = problem.solve(3e-2, path, mode="converged"), problem.solve(3e-2, mode="converged")
    assert warm.converged and warm.value == pytest.approx(cold.value, rel=1e-7)
    assert problem.solve(3e-2, path).iterations < 0.8 * problem.solve(3e-2).iterations
    descending = problem.solve(3e-5, path[::-1])  # a start may lie on either side
    assert descending.converged and descending.value == pytest.approx(problem.solve(3e-5).value, rel=1e-4)
    assert np.mean(problem.fit(3e-2, warm).predict(tx) == problem.fit(3e-2, cold).predict(tx)) > 0.99


def test_transfer_solver_carries_the_curvature_of_one_lambda_to_another_exactly():
    """Pairs (step, change of the gradient) under a new lambda are those that the new objective has at the same points.

    Only the weights are penalised: their change of the gradient grows by (new - old) * step, that of the bias stays.
    """
    x, y = toy()
    problem, rng = Problem(x, y), np.random.default_rng(3)
    points = [problem.zero + 0.1 * problem.zero.new_tensor(rng.normal(size=problem.zero.shape)) for _ in range(4)]

    def pairs(lam: float):
        gradients = [point_at(problem, lam, theta, problem.relative(theta)).gradient for theta in points]
        steps = [(b - a).flatten() for a, b in pairwise(points)]
        changes = [(b - a).flatten() for a, b in pairwise(gradients)]
        return [(s, g, float(s @ g)) for s, g in zip(steps, changes, strict=True)]

    for old, new in ((0.2, 0.03), (0.03, 0.2)):
        start = Start(old, points[-1], pairs=deque(pairs(old)))
        _, carried = _warm_start(problem, new, [start])
        for (s, g, curvature), (step, change, product) in zip(carried, pairs(new), strict=True):
            assert np.array_equal(s, step)
            np.testing.assert_allclose(g, change, rtol=1e-9, atol=1e-12)
            assert curvature == pytest.approx(product, rel=1e-9)


EXPONENTS = np.arange(-5, 1.1)


def test_transfer_solver_certificate(digits):
    """Cold or warm, a fit stops by the gradient and by a bound on its excess over the optimum, and the bound holds."""
    x, y, _, _ = digits
    problem, path = Problem(x, y), []
    for exponent in EXPONENTS:
        path.append(problem.solve(10.0**exponent, path))
    cold = [problem.solve(10.0**exponent) for exponent in EXPONENTS[::3]]
    for exponent, found in [*zip(EXPONENTS, path, strict=True), *zip(EXPONENTS[::3], cold, strict=True)]:
        best = problem.solve(10.0**exponent, [found], mode="converged")
        assert found.converged and found.gradient <= 1e-4 and found.gap <= 1e-4
        assert best.converged and best.gradient <= 1e-6 and best.gap <= 1e-6
        assert 0 <= found.value / best.value - 1 <= found.gap, exponent


@pytest.mark.parametrize("seed", range(3))
def test_transfer_solver_small_gradient_is_not_the_optimum(few_images, seed):
    """With fewer images than dimensions the gradient is below its threshold long before the accuracy is there."""
    x, y, tx, ty = few_images(seed)
    problem = Problem(x, y)
    early = problem.solve(1e4, max_iterations=20)
    assert early.gradient <= 1e-4 and early.gap > 0.1 and not early.converged
    found = problem.solve(1e4)
    best = problem.solve(1e4, [found], mode="converged")
    accuracy = [np.mean(problem.fit(1e4, s).predict(tx) == ty) for s in (early, found, best)]
    assert found.converged and abs(accuracy[1] - accuracy[2]) <= 0.005
    assert accuracy[2] - accuracy[0] > 0.02


def test_transfer_solver_line_search_cannot_cycle():
    """A kink beside a long slope: at the unit step the value has not fallen in proportion, yet the minimum lies beyond."""
    problem = Problem(np.array([[1e5], [-1e5], [0.1], [-0.1]]), np.array([1, 0, 1, 0]))
    direction = problem.zero
    direction[0, 1] = 1.0
    line = Line(problem, 1e-9, problem.zero, problem.relative(problem.zero), direction, problem.relative(direction))
    assert line.slope < -1e4
    for share in (0.5, 1e-2, 1e-7):
        length = line.search(share)
        assert length is not None and length > 0
        value, slope, _ = line.at(length)
        assert value <= line.value and abs(slope) <= -share * line.slope


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_transfer_solver_line_search_finds_the_minimum_at_any_scale(scale):
    x, y = toy(n=40, d=5)
    problem = Problem(x, y)
    start, lam = problem.zero, 1e-3
    direction = -scale * point_at(problem, lam, start, problem.relative(start)).gradient
    line = Line(problem, lam, start, problem.relative(start), direction, problem.relative(direction))
    length = line.search(1e-6)
    assert length is not None and abs(line.at(length)[1]) <= -1e-6 * line.slope


def test_transfer_solver_stuck_at_zero_is_an_error(monkeypatch):
    x, y = toy()
    monkeypatch.setattr(Line, "search", lambda self, wolfe: None)
    with pytest.raises(UserError, match="zero classifier") as caught:
        Problem(x, y).solve(2.0)
    assert "C n = 300, max|gradient| " in caught.value.why and "scale of the features" in caught.value.fix
    nothing = Problem(np.ones((6, 3)), np.array([0, 0, 0, 1, 1, 2]))
    found = nothing.solve(1.0)  # no feature says anything: the class frequencies are the optimum
    assert found.converged and found.gap == 0
    share = np.exp(found.theta[-1].numpy())
    assert np.allclose(share / share.sum(), [1 / 2, 1 / 3, 1 / 6])


def test_transfer_solver_features_that_are_not_finite_are_an_error():
    x, y = toy()
    x[3, 2] = np.nan
    with pytest.raises(UserError, match="not finite"):
        Problem(x, y)


def test_transfer_solver_separated_classes_keep_their_precision():
    """Where every residual is about 1e-12, loss and gradient are still right to many digits."""
    x, y = np.array([[-1.0], [-1.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    problem = Problem(x, y)
    theta = problem.zero
    theta[0] = theta.new_tensor([-14.0, 14.0])
    here = point_at(problem, 0.0, theta, problem.relative(theta))
    exact = np.mean(np.log1p(np.exp(-28 * np.abs(x))))
    assert here.value == pytest.approx(exact, rel=1e-12, abs=0)
    assert float(here.gradient[0, 0]) == pytest.approx(
        np.mean(np.abs(x) / (1 + np.exp(28 * np.abs(x)))), rel=1e-12, abs=0
    )


def test_transfer_solver_missing_convergence_is_said(digits):
    x, y, _, _ = digits
    problem = Problem(x, y)
    found = problem.fit(1.0, problem.solve(1.0, max_iterations=5))
    assert not found.converged and found.iterations == 5
    assert "warning: C=1: not converged after 5 iterations" in found.warning() and "gap" in found.warning()
    assert fit(x, y, 1e-3).warning() == ""


def test_transfer_solver_large_features_and_constant_columns():
    x, y = toy(n=120, d=30)
    x = np.hstack([x * 1e3, np.zeros((120, 2))])
    found = fit(x, y, 1e-6)
    assert found.converged and np.isfinite(found.weights).all() and (found.weights[-2:] == 0).all()


def test_transfer_solver_gap_labels_and_repeatability():
    x, y = toy()
    a, b = fit(x, y * 3 + 1, 0.1), fit(x, y * 3 + 1, 0.1)
    assert set(a.predict(x).tolist()) <= {1, 4, 7, 10}
    assert np.array_equal(a.weights, b.weights)


def test_transfer_solver_threads_are_set_and_restored():
    import torch

    before = torch.get_num_threads()
    with thread_limit(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_transfer_solver_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y = toy(n=300, d=40, spread=0.4)
    fresh, _ = toy(n=200, d=40, seed=5, spread=0.4)
    for c in (1e-3, 1e-1):
        other = LogisticRegression(C=c, tol=1e-9, max_iter=20000).fit(x, y)
        ours = fit(x, y, c)
        theirs = Fit(c, other.coef_.T, other.intercept_, ours.labels, 0.0, 0.0, 0.0, 0, True)
        assert objective(ours, x, y) <= objective(theirs, x, y) * (1 + 1e-7)
        assert np.array_equal(ours.predict(fresh), other.predict(fresh))


def test_transfer_solver_speed_is_not_lost(digits):
    """A path of 23 values of C takes a fraction of a second here; the bound is ten times that."""
    x, y, _, _ = digits
    started = time.process_time()
    with thread_limit(1):
        problem, path = Problem(x, y), []
        for exponent in np.arange(-5, 6.1, 0.5):
            path.append(problem.solve(10**exponent, path))
    assert time.process_time() - started < 10
