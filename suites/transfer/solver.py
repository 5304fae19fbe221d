"""Multinomial logistic regression by L-BFGS, for probing.

Objective: C * sum_i CE(softmax(W'x_i + b), y_i) + |W|^2 / 2 with an unpenalised bias, minimised in its mean form
(1/n) sum_i CE_i + (lambda/2) |W|^2 with lambda = 1 / (C n). What makes it fast is exact:

- features are centred by the fitting set's mean, which the free bias undoes;
- with fewer samples than features, samples are replaced by their coordinates in the row space (QR);
- the loss along a search direction needs no new pass over the features: one product X p gives all logits, so the line
  search costs n * K per trial and an iteration two passes over X, whatever the line search does;
- along a path of C, a fit starts where the last two point to (found without a pass over X) and with their curvature.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Mode = Literal["reference", "converged"]
TOLERANCE: dict[Mode, float] = {"reference": 1e-4, "converged": 1e-6}
"""Stop when the largest entry of the mean form's gradient is this small; ``reference`` is scikit-learn's since 1.4."""
MAX_ITERATIONS = 2000
_HISTORY = 10
"""Kept pairs of a cold fit, as in scikit-learn."""
_PATH_HISTORY = 30
"""Kept pairs along a path; each costs d * K, little beside a pass over the features."""
_ARMIJO = 1e-4
_WOLFE = 0.5
_LINE_STEPS = 40
_ROUNDING = 1e-13
_GAP: dict[Mode, float] = {"reference": 1e-6, "converged": 1e-8}
"""Stop when the decrease that the curvature pairs still promise is this share of the objective. A cold ``reference`` fit
stops by its gradient alone, like scikit-learn; along a path, where the gradient is small from the start, both must hold."""
_EXACT = 1e-2
"""Share of the slope that a search along a predicted direction may leave."""

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
    gap: float
    """Decrease that the solver's curvature still promises, as a share of the objective."""
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
        return (
            f"C={self.c:g}: not converged after {self.iterations} iterations "
            f"(max|gradient| {self.gradient:.2g}, objective {self.objective:.10g})"
        )


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
        self.codes = torch.as_tensor(codes, device=device).view(-1, 1)
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
        self, c: float, path: Sequence[Solution] = (), *, mode: Mode = "reference", max_iterations: int = MAX_ITERATIONS
    ) -> Solution:
        """Minimise for one C, from zero or from where the solutions of smaller C point to.

        Args:
            c: Inverse regularisation strength.
            path: Solutions of this problem in the order in which they were found; the last two are used.
            mode: Which tolerance.
            max_iterations: After these the solver stops without having converged.
        """
        lam = 1.0 / (c * self.n)
        if not path:
            point, pairs = _point(self, lam, self.zero, self.product(self.x, self.zero)), _Pairs(maxlen=_HISTORY)
        else:
            point, pairs = _predicted(self, lam, path)
        gap = _GAP[mode] if path or mode == "converged" else float("inf")
        return _lbfgs(self, lam, point, pairs, _Stop(TOLERANCE[mode], gap, max_iterations))

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the matrix product; on a CPU by numpy's BLAS, which is the faster one on many processors."""
        return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b

    def fit(self, c: float, solution: Solution) -> Fit:
        """Return a solution in the coordinates of the raw features."""
        weights, bias = solution.theta[:-1], solution.theta[-1]
        if self.basis is not None:
            weights = self.basis @ weights
        bias = bias - self.mean @ weights
        return Fit(
            c,
            weights.double().cpu().numpy(),
            bias.double().cpu().numpy(),
            self.labels,
            solution.value * c * self.n,
            solution.gradient,
            solution.gap,
            solution.iterations,
            solution.converged,
        )


_Pairs = deque[tuple[torch.Tensor, torch.Tensor, float]]
"""(step, change of the gradient, their product), the newest last."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the solver stopped, in its own coordinates."""

    theta: torch.Tensor
    """(r + 1, K), the bias in the last row."""
    value: float
    """Mean-form objective."""
    gradient: float
    """Largest absolute entry of the mean form's gradient."""
    gap: float
    """Decrease that the curvature pairs still promise, as a share of the objective."""
    iterations: int
    converged: bool
    logits: torch.Tensor
    """(n, K) of the fitting set."""
    lam: float
    pairs: _Pairs

    @property
    def bare(self) -> Solution:
        """Return the solution without its curvature, which takes 60 times its memory."""
        return replace(self, pairs=_Pairs())


@dataclass(frozen=True)
class _Stop:
    """When a solution is good enough, or given up."""

    gradient: float
    gap: float
    iterations: int


@dataclass(eq=False)
class _Point:
    """State at one iterate; ``logits`` are kept so that no pass over the features is repeated."""

    theta: torch.Tensor
    logits: torch.Tensor
    residual: torch.Tensor
    """(n, K) probabilities minus one-hot labels."""
    value: float
    gradient: torch.Tensor


def _loss(problem: Problem, logits: torch.Tensor) -> tuple[float, torch.Tensor]:
    log_p = torch.log_softmax(logits, dim=1)
    return -float(log_p.gather(1, problem.codes).sum()) / problem.n, log_p.exp_()


def _point(problem: Problem, lam: float, theta: torch.Tensor, logits: torch.Tensor) -> _Point:
    loss, probabilities = _loss(problem, logits)
    residual = probabilities - problem.one_hot
    gradient = problem.product(problem.x.T, residual) / problem.n
    gradient[:-1] += lam * theta[:-1]
    return _Point(theta, logits, residual, loss + 0.5 * lam * float((theta[:-1] ** 2).sum()), gradient)


def _predicted(problem: Problem, lam: float, path: Sequence[Solution]) -> tuple[_Point, _Pairs]:
    """Return where the path points to, with the curvature of its last solution under the new lambda.

    The new objective is minimised along the last change and then along the solution itself: with separable data and
    little regularisation the weights mostly grow. Logits of both are known, so neither search passes over the features.
    """
    last = path[-1]
    theta, logits = last.theta, last.logits
    lines = [(theta - path[-2].theta, logits - path[-2].logits)] if len(path) > 1 else []
    for direction, change in [*lines, (None, None)]:
        line = _Line(
            problem, lam, theta, logits, theta if direction is None else direction, logits if change is None else change
        )
        length = line.search(_EXACT)
        if length is not None:
            theta, logits = theta + length * line.direction, logits + length * line.change
    shift = lam - last.lam
    pairs = _Pairs(maxlen=_PATH_HISTORY)
    for s, g, curvature in last.pairs:
        steps = s.view_as(theta).clone()
        steps[-1] = 0
        pairs.append((s, g + shift * steps.flatten(), curvature + shift * float((steps**2).sum())))
    return _point(problem, lam, theta, logits), pairs


def _lbfgs(problem: Problem, lam: float, point: _Point, pairs: _Pairs, stop: _Stop) -> Solution:
    iterations = 0
    while True:
        largest = float(point.gradient.abs().max())
        direction = _direction(point.gradient, pairs)
        gap = -0.5 * float((point.gradient * direction).sum()) / point.value if pairs and point.value else 0.0
        converged = largest <= stop.gradient and gap <= stop.gap
        if converged or iterations >= stop.iterations:
            break
        start = (point.value, float((point.gradient * direction).sum()))
        line = _Line(problem, lam, point.theta, point.logits, direction, problem.product(problem.x, direction), start)
        length = line.search(_WOLFE)
        if length is None:  # rounding: not even the gradient gives a decrease any more
            if not pairs:
                break
            pairs.clear()
            continue
        moved = _point(problem, lam, point.theta + length * line.direction, point.logits + length * line.change)
        s, g = (moved.theta - point.theta).flatten(), (moved.gradient - point.gradient).flatten()
        curvature = float(torch.dot(s, g))
        if curvature > 0:
            pairs.append((s, g, curvature))
        point = moved
        iterations += 1
    return Solution(point.theta, point.value, largest, gap, iterations, converged, point.logits, lam, pairs)


def _direction(gradient: torch.Tensor, pairs: _Pairs) -> torch.Tensor:
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


class _Line:
    """The objective along a line, of which every point costs n * K."""

    def __init__(
        self,
        problem: Problem,
        lam: float,
        theta: torch.Tensor,
        logits: torch.Tensor,
        direction: torch.Tensor,
        change: torch.Tensor,
        start: tuple[float, float] | None = None,
    ) -> None:
        """Take the line through ``theta``; ``start`` is (value, slope) there, where they are known."""
        self.problem, self.lam, self.logits = problem, lam, logits
        w, p = theta[:-1], direction[:-1]
        self.ww, self.wp, self.pp = (float((a * b).sum()) for a, b in ((w, w), (w, p), (p, p)))
        self.direction, self.change = direction, change
        self.right = float(change.gather(1, problem.codes).sum())
        self.value, self.slope = self.at(0.0)[:2] if start is None else start
        if self.slope > 0:
            self.direction, self.change = -direction, -change
            self.wp, self.slope, self.right = -self.wp, -self.slope, -self.right

    def at(self, length: float) -> tuple[float, float, float]:
        """Return value, slope and second derivative."""
        n, lam = self.problem.n, self.lam
        loss, probabilities = _loss(self.problem, self.logits + length * self.change)
        value = loss + 0.5 * lam * (self.ww + 2 * length * self.wp + length**2 * self.pp)
        weighted = probabilities.mul_(self.change)
        mean = weighted.sum(dim=1)
        slope = (float(mean.sum()) - self.right) / n
        bend = (float(torch.dot(weighted.flatten(), self.change.flatten())) - float(torch.dot(mean, mean))) / n
        return value, slope + lam * (self.wp + length * self.pp), bend + lam * self.pp

    def search(self, wolfe: float) -> float | None:
        """Return a step length that fulfils the strong Wolfe conditions, or None.

        The objective along the line is convex with known second derivative, so this is Newton's method on its slope,
        started at the unit step and kept inside the interval where the slope changes sign.
        """
        if self.slope >= 0:
            return None
        low, high, length = 0.0, float("inf"), 1.0
        for _ in range(_LINE_STEPS):
            value, slope, bend = self.at(length)
            bound = self.value + _ARMIJO * length * self.slope + _ROUNDING * abs(self.value)
            if abs(slope) <= -wolfe * self.slope and value <= bound:
                return length
            low, high = (length, high) if slope < 0 else (low, length)
            newton = length - slope / bend if bend > 0 else float("inf")
            inside = low < newton < high
            length = newton if inside else (2 * low if high == float("inf") else 0.5 * (low + high))
            if not low < length < high:
                return None
        return None
