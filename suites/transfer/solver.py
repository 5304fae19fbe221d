"""Multinomial logistic regression by L-BFGS, for probing.

Objective: C * sum_i CE(softmax(W'x_i + b), y_i) + |W|^2 / 2 with an unpenalised bias, minimised in its mean form
(1/n) sum_i CE_i + (lambda/2) |W|^2 with lambda = 1 / (C n). Three things make it fast, all of them exact:

- features are centred by the fitting set's mean, which the free bias undoes;
- with fewer samples than features, samples are replaced by their coordinates in the row space (QR);
- the loss along a search direction needs no new pass over the features: one product X p gives all logits, so the line
  search costs n * K per trial and an iteration two passes over X, whatever the line search does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Mode = Literal["reference", "converged"]
TOLERANCE: dict[Mode, float] = {"reference": 1e-4, "converged": 1e-6}
"""Stop when the largest entry of the mean form's gradient is this small; ``reference`` is scikit-learn's since 1.4."""
MAX_ITERATIONS = 2000
_HISTORY = 10
_ARMIJO = 1e-4
_WOLFE = 0.5
_LINE_STEPS = 40
_ROUNDING = 1e-13

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted classifier with the evidence that it is one."""

    c: float
    weights: FloatArray
    """(d, K)."""
    bias: FloatArray
    """(K,)."""
    labels: IntArray
    """(K,) label of every column."""
    objective: float
    """C-form objective."""
    gradient: float
    """Largest absolute gradient entry of the mean form, in the solver's coordinates."""
    iterations: int
    converged: bool

    def logits(self, x: npt.ArrayLike) -> FloatArray:
        """Return (n, K) logits of raw features (n, d)."""
        return np.asarray(np.asarray(x, dtype=np.float64) @ self.weights + self.bias)

    def predict(self, x: npt.ArrayLike) -> IntArray:
        """Return (n,) labels; the first of equal logits wins."""
        return np.asarray(self.labels[self.logits(x).argmax(axis=1)])

    def warning(self) -> str:
        """Return a line about missing convergence, or an empty string."""
        if self.converged:
            return ""
        return (f"C={self.c:g}: not converged after {self.iterations} iterations "
                f"(max|gradient| {self.gradient:.2g}, objective {self.objective:.10g})")


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Run the body with exactly ``threads`` BLAS, OpenMP and torch threads."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)


class Problem:
    """One fitting set, prepared once and solved for any number of C."""

    def __init__(
        self, x: npt.ArrayLike, y: npt.ArrayLike, *, device: str = "cpu", dtype: torch.dtype = torch.float64
    ) -> None:
        """Prepare features (n, d) and labels (n,); labels need not be contiguous."""
        labels, codes = np.unique(np.asarray(y, dtype=np.int64), return_inverse=True)
        self.labels: IntArray = labels
        raw = torch.as_tensor(np.asarray(x), device=device).to(dtype)
        self.n, self.d = raw.shape
        self.mean = raw.mean(dim=0)
        centred = raw - self.mean
        self.basis: torch.Tensor | None = None
        if self.n < self.d:
            self.basis, upper = torch.linalg.qr(centred.T)  # (d, n), (n, n)
            centred = upper.T.contiguous()
        self.x = torch.cat([centred, torch.ones(self.n, 1, device=device, dtype=dtype)], dim=1)
        self.one_hot = torch.nn.functional.one_hot(torch.as_tensor(codes, device=device), len(labels)).to(dtype)

    @property
    def zero(self) -> torch.Tensor:
        """Return the zero start: (r + 1, K) weights in the solver's coordinates with the bias in the last row."""
        return self.x.new_zeros(self.x.shape[1], len(self.labels))

    def project(self, x: npt.ArrayLike) -> torch.Tensor:
        """Return (m, r + 1) solver coordinates of raw features (m, d)."""
        raw = torch.as_tensor(np.asarray(x), device=self.x.device).to(self.x.dtype) - self.mean
        if self.basis is not None:
            raw = raw @ self.basis
        return torch.cat([raw, raw.new_ones(len(raw), 1)], dim=1)

    def solve(
        self, c: float, start: torch.Tensor | None = None, *, mode: Mode = "reference",
        max_iterations: int = MAX_ITERATIONS,
    ) -> Solution:
        """Minimise for one C from ``start`` (zero by default)."""
        return _lbfgs(self, 1.0 / (c * self.n), self.zero if start is None else start, TOLERANCE[mode], max_iterations)

    def fit(self, c: float, solution: Solution) -> Fit:
        """Return a solution in the coordinates of the raw features."""
        weights, bias = solution.theta[:-1], solution.theta[-1]
        if self.basis is not None:
            weights = self.basis @ weights
        bias = bias - self.mean @ weights
        return Fit(c, weights.double().cpu().numpy(), bias.double().cpu().numpy(), self.labels,
                   solution.value * c * self.n, solution.gradient, solution.iterations, solution.converged)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the solver stopped, in its own coordinates."""

    theta: torch.Tensor
    """(r + 1, K), the bias in the last row."""
    value: float
    """Mean-form objective."""
    gradient: float
    iterations: int
    converged: bool


@dataclass(eq=False)
class _Point:
    """State at one iterate; ``logits`` are kept so that no pass over the features is repeated."""

    theta: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor
    value: float
    gradient: torch.Tensor


def _loss(problem: Problem, logits: torch.Tensor) -> tuple[float, torch.Tensor]:
    log_p = torch.log_softmax(logits, dim=1)
    return -float((log_p * problem.one_hot).sum()) / problem.n, log_p.exp()


def _point(problem: Problem, lam: float, theta: torch.Tensor, logits: torch.Tensor) -> _Point:
    loss, probabilities = _loss(problem, logits)
    gradient = problem.x.T @ (probabilities - problem.one_hot) / problem.n
    gradient[:-1] += lam * theta[:-1]
    return _Point(theta, logits, probabilities, loss + 0.5 * lam * float((theta[:-1] ** 2).sum()), gradient)


def _lbfgs(problem: Problem, lam: float, start: torch.Tensor, tolerance: float, max_iterations: int) -> Solution:
    point = _point(problem, lam, start, problem.x @ start)
    pairs: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=_HISTORY)
    iterations = 0
    while True:
        largest = float(point.gradient.abs().max())
        if largest <= tolerance or iterations >= max_iterations:
            break
        direction = _direction(point.gradient, pairs)
        step = _line_search(problem, lam, point, direction)
        if step is None:  # rounding: not even the gradient gives a decrease any more
            if not pairs:
                break
            pairs.clear()
            continue
        length, logits = step
        moved = _point(problem, lam, point.theta + length * direction, logits)
        s, g = (moved.theta - point.theta).flatten(), (moved.gradient - point.gradient).flatten()
        curvature = float(torch.dot(s, g))
        if curvature > 0:
            pairs.append((s, g, curvature))
        point = moved
        iterations += 1
    return Solution(point.theta, point.value, largest, iterations, largest <= tolerance)


def _direction(gradient: torch.Tensor, pairs: deque[tuple[torch.Tensor, torch.Tensor, float]]) -> torch.Tensor:
    """Return minus the inverse-Hessian estimate times the gradient (two-loop recursion)."""
    q = gradient.neg().flatten()
    alphas = []
    for s, g, curvature in reversed(pairs):
        alpha = float(torch.dot(s, q)) / curvature
        q.add_(g, alpha=-alpha)
        alphas.append(alpha)
    if pairs:
        _, g, curvature = pairs[-1]
        q.mul_(curvature / float(torch.dot(g, g)))
    for (s, g, curvature), alpha in zip(pairs, reversed(alphas), strict=True):
        q.add_(s, alpha=alpha - float(torch.dot(g, q)) / curvature)
    return q.view_as(gradient)


def _line_search(
    problem: Problem, lam: float, point: _Point, direction: torch.Tensor
) -> tuple[float, torch.Tensor] | None:
    """Return (step length, logits there) that fulfil the strong Wolfe conditions, or None.

    The loss along the direction is convex with known second derivative, so this is Newton's method on its slope,
    started at the unit step and kept inside the interval where the slope changes sign.
    """
    change = problem.x @ direction
    w, p = point.theta[:-1], direction[:-1]
    ww, wp, pp = (float((a * b).sum()) for a, b in ((w, w), (w, p), (p, p)))
    slope0 = float((point.gradient * direction).sum())
    if slope0 >= 0:
        return None
    low, high, length = 0.0, float("inf"), 1.0
    for _ in range(_LINE_STEPS):
        logits = point.logits + length * change
        loss, probabilities = _loss(problem, logits)
        value = loss + 0.5 * lam * (ww + 2 * length * wp + length**2 * pp)
        slope = float(((probabilities - problem.one_hot) * change).sum()) / problem.n + lam * (wp + length * pp)
        bound = point.value + _ARMIJO * length * slope0 + _ROUNDING * abs(point.value)
        if abs(slope) <= -_WOLFE * slope0 and value <= bound:
            return length, logits
        low, high = (length, high) if slope < 0 else (low, length)
        bend = float((probabilities * change**2).sum() - ((probabilities * change).sum(dim=1) ** 2).sum())
        newton = length - slope / (bend / problem.n + lam * pp)
        inside = low < newton < high
        length = newton if inside else (2 * low if high == float("inf") else 0.5 * (low + high))
        if not low < length < high:
            return None
    return None
