"""The probe's solver against a slow one, over random problems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.core.errors import UserError
from suites.transfer.objective import Line
from suites.transfer.solver import GAP, TOLERANCE, Fit, Problem

SHAPES = (
    "overlapping", "separable", "duplicated samples", "duplicated features", "constant features", "long-tailed", "no signal",
)  # fmt: skip
COMMON = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Case:
    """A fitting set with a C."""

    x: np.ndarray
    y: np.ndarray
    c: float
    kind: str


@st.composite
def cases(draw):
    """Draw n < d and n > d, two to five classes, C and scales over many decades, and degenerate features."""
    kind = draw(st.sampled_from(SHAPES))
    k, d = draw(st.integers(2, 5)), draw(st.integers(1, 12))
    n = draw(st.integers(k + 1, 30))
    c, scale = 10.0 ** draw(st.floats(-5, 6)), 10.0 ** draw(st.floats(-3, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = rng.permutation(np.append(np.arange(k), rng.integers(0, k, n - k)))
    if kind == "long-tailed":
        y = np.append(np.arange(k), np.zeros(n - k, dtype=np.int64))
    x = rng.normal(size=(n, d)) + (6.0 if kind == "separable" else 0.7) * rng.normal(size=(k, d))[y] + 2
    if kind == "duplicated samples":
        x, y = np.concatenate([x, x]), np.concatenate([y, y])
    if kind == "duplicated features":
        x = np.concatenate([x, x, 2 * x], axis=1)
    if kind == "constant features":
        x[:, draw(st.integers(0, d - 1)) :] = 3.0
    if kind == "no signal":
        x, y = no_signal(x, draw(st.lists(st.integers(1, 3), min_size=k, max_size=k)))
    assume(c * scale**2 <= 1e6)  # beyond it curvatures differ by more than float64 has digits, which is a warning
    return Case(scale * x, y, c, kind)


def no_signal(x, counts):
    """Return every sample in every class, in class k ``counts[k]`` times: the optimum is W = 0 whatever C is."""
    return np.repeat(x, sum(counts), axis=0), np.tile(np.repeat(np.arange(len(counts)), counts), len(x))


def pieces(theta, x, one_hot, lam):
    """Return value, gradient and probabilities of the mean form; the last row of ``theta`` is the bias."""
    z = x @ theta
    z -= (z * one_hot).sum(axis=1, keepdims=True)
    top = z.max(axis=1, keepdims=True)
    odds = np.exp(z - top) * (1 - one_hot)
    rest = odds.sum(axis=1, keepdims=True) + np.expm1(-top)
    wrong = odds / (1 + rest)
    residual = wrong - one_hot * wrong.sum(axis=1, keepdims=True)
    penalty = lam * np.append(np.ones(len(theta) - 1), 0)[:, None] * theta
    value = float((top + np.log1p(rest)).mean() + 0.5 * (penalty * theta).sum())
    return value, x.T @ residual / len(x) + penalty, wrong + one_hot * (1 - wrong.sum(axis=1, keepdims=True))


def penalty(solution):
    """Return (lambda / 2) |W|^2."""
    return 0.5 * solution.lam * float((solution.theta[:-1] ** 2).sum())


def slow(case):
    """Return value and weights of the optimum: Newton's method with the whole Hessian and halved steps."""
    x = np.concatenate([case.x - case.x.mean(axis=0), np.ones((len(case.x), 1))], axis=1)
    labels = np.unique(case.y)
    one_hot = (case.y[:, None] == labels).astype(float)
    lam, k = 1 / (case.c * len(x)), len(labels)
    theta = np.zeros((x.shape[1], k))
    penalty = np.repeat(lam * np.append(np.ones(len(theta) - 1), 0), k)
    for _ in range(300):
        value, gradient, p = pieces(theta, x, one_hot, lam)
        weights = p[:, :, None] * np.eye(k) - p[:, :, None] * p[:, None, :]
        hessian = np.einsum("ni,nkl,nj->ikjl", x, weights, x).reshape(theta.size, -1) / len(x) + np.diag(penalty)
        step = -(np.linalg.pinv(hessian, hermitian=True, rcond=1e-15) @ gradient.ravel()).reshape(theta.shape)
        decrement = -float((step * gradient).sum())
        if decrement <= 1e-13 * value:
            break
        length = 1.0
        while length > 1e-12 and pieces(theta + length * step, x, one_hot, lam)[0] > value - 0.25 * length * decrement:
            length /= 2
        theta = theta + length * step
    return value, theta


@COMMON
@given(cases())
def test_transfer_solver_property_objective(case):
    """Cold or warm, both tolerances: what the gap promises holds, and the tight one is within 1e-6 of the optimum."""
    best, theta = slow(case)
    problem = Problem(case.x, case.y)
    cold = problem.solve(case.c)
    other = [problem.solve(case.c * factor) for factor in (100.0, 0.1)]
    for mode, found in (
        ("reference", cold),
        ("converged", problem.solve(case.c, mode="converged")),
        ("reference", problem.solve(case.c, other)),
        ("converged", problem.solve(case.c, other[:1], mode="converged")),
        ("converged", problem.solve(case.c, [cold], mode="converged")),
    ):
        assert found.converged and found.gradient <= TOLERANCE[mode] and found.gap <= GAP[mode]
        assert found.value <= best + found.gap * penalty(found) + 1e-14
        assert found.value <= best * (1 + GAP[mode]) + 1e-14
        moved = bool(found.theta[:-1].any())
        assert moved or np.abs(theta[:-1]).max() * np.abs(case.x).max() < 1e-6, "the zero classifier, not optimal"


@COMMON
@given(cases(), st.integers(1, 6))
def test_transfer_solver_property_the_bound_holds_wherever_a_fit_stops(case, iterations):
    """Also where it is given up early: the excess is at most the gap's share of the penalty, and only then converged."""
    best, _ = slow(case)
    problem = Problem(case.x, case.y)
    for mode in ("reference", "converged"):
        found = problem.solve(case.c, mode=mode, max_iterations=iterations)
        assert found.value <= best + found.gap * penalty(found) + 1e-14
        assert found.converged == (found.gap <= GAP[mode] and found.gradient <= TOLERANCE[mode])


@pytest.mark.parametrize("c", [1e-300, 1e-9, 1e-5, 1.0, 1e6])
@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (4, 2, 1)])
def test_transfer_solver_optimum_at_zero_is_converged(c, counts):
    """No share of the penalty can be reached where rounding is all that is left; the fit is at its optimum all the same."""
    x, y = no_signal(np.random.default_rng(0).normal(size=(30, 8)), counts)
    problem = Problem(x, y)
    for mode in ("reference", "converged"):
        found = problem.solve(c, mode=mode)
        assert found.converged and found.gap <= GAP[mode] and np.abs(found.theta[:-1].numpy()).max() < 1e-12
        assert problem.fit(c, found).warning() == ""
        share = np.exp(found.theta[-1].numpy())
        assert np.allclose(share / share.sum(), np.array(counts) / sum(counts))


def test_transfer_solver_unfinished_near_zero_is_not_converged(monkeypatch):
    """A signal of a millionth, a gradient whose rounding proves nothing, and a step that is never taken."""
    rng = np.random.default_rng(0)
    x, y = no_signal(rng.normal(size=(30, 8)), (1, 1, 1, 1))
    weak = Problem(x + 1e-6 * rng.normal(size=(4, 8))[y], y)
    early, found = weak.solve(1e6, max_iterations=1), weak.solve(1e6)
    assert not early.converged and early.gap > 1 and penalty(early) < 1e-9 * early.value
    assert found.converged and 0 < found.gap <= GAP["reference"]
    large = Problem(1e7 * x, y).solve(1e6)  # rounding of the gradient allows an excess that the value would show
    assert not large.converged and large.gap > 1
    monkeypatch.setattr(Line, "search", lambda self, wolfe: None)
    with pytest.raises(UserError, match="zero classifier"):
        Problem(1e-9 * (x + rng.normal(size=(4, 8))[y]), y).solve(1.0)


@COMMON
@given(cases(), st.integers(0, 2**32 - 1))
def test_transfer_solver_property_predictions_do_not_depend_on_coordinates(case, seed):
    """Permuted, shifted features and permuted samples: the same logits, to what the gap allows."""
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(case.x.shape[1]), rng.permutation(len(case.x))
    shift = rng.normal(size=case.x.shape[1]) * np.abs(case.x).max()

    def fitted(x, y) -> Fit:
        problem = Problem(x, y)
        return problem.fit(case.c, problem.solve(case.c, mode="converged"))

    base = fitted(case.x, case.y)
    expected = centred(base.logits(case.x))
    reach = np.linalg.norm(case.x - case.x.mean(axis=0), axis=1).max() * np.linalg.norm(base.weights)
    allowed = 8e-3 * reach + 1e-6  # either fit's weights are within 1e-3 of their length; the bias follows
    for logits in (
        fitted(case.x[:, order], case.y).logits(case.x[:, order]),
        fitted(case.x + shift, case.y).logits(case.x + shift),
        fitted(case.x[rows], case.y[rows]).logits(case.x),
    ):
        logits = centred(logits)
        assert np.abs(logits - expected).max() <= allowed
        sure = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 2 * allowed
        assert np.array_equal(logits.argmax(axis=1)[sure], expected.argmax(axis=1)[sure])


def centred(logits):
    """Return logits that do not depend on what all classes share."""
    return logits - logits.mean(axis=1, keepdims=True)


@COMMON
@given(cases(), st.floats(-8, 8), st.sampled_from([0.5, 1e-2, 1e-6]), st.integers(0, 2**32 - 1))
def test_transfer_solver_property_line_search_never_fails(case, exponent, share, seed):
    """From any point, along any direction of any length."""
    problem, rng = Problem(case.x, case.y), np.random.default_rng(seed)
    theta = problem.zero + problem.zero.new_tensor(rng.normal(size=problem.zero.shape))
    direction = 10.0**exponent * theta.new_tensor(rng.normal(size=theta.shape))
    lam = 1 / (case.c * len(case.x))
    line = Line(problem, lam, theta, problem.relative(theta), direction, problem.relative(direction))
    assume(line.slope < 0)
    length = line.search(share)
    assert length is not None
    value, slope, _ = line.at(length)
    assert value <= line.value * (1 + 1e-12)
    assert abs(slope) <= -share * line.slope or length * abs(slope) <= 1e-12 * value
