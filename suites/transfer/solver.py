"""Multinomial logistic regression by L-BFGS, for probing.

Objective: C * sum_i CE(softmax(W'x_i + b), y_i) + |W|^2 / 2 with an unpenalised bias, minimised in its mean form
(1/n) sum_i CE_i + (lambda/2) |W|^2 with lambda = 1 / (C n). What makes it fast is exact:

- features are centred by the fitting set's mean, which the free bias undoes;
- with fewer samples than features, samples are replaced by their coordinates in the row space (QR);
- the loss along a search direction needs no new pass over the features: one product X p gives all logits, so the line
  search costs n * K per trial and an iteration two passes over X, whatever the line search does;
- a fit may start where solutions for other C point to (found without a pass over X), with their curvature.

It stops by a bound, not by an estimate. With the bias at its optimum the objective is lambda-strongly convex in W: a
gradient G in W proves |W - W*| <= |G| / lambda, and that the objective exceeds its optimum by |G|^2 / (2 lambda) at most.
The *gap* is this bound divided by the penalty (lambda/2) |W|^2: (|G| / (lambda |W|))^2, the square of the bound on the
distance from the optimum relative to |W|. It is a share of the penalty, not of the objective, of which the excess is a
smaller share. It holds whatever the start, and does not depend on the scale of the features.

If the features say nothing about the classes, the optimum is W = 0. Penalty, excess and what the fit gains over the zero
classifier then vanish together, and no share of one of them can be reached. The gap of such a fit is 0 once float64 can
find nothing more to gain (``at_rounding``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from harness.api import UserError
from suites.transfer.cards import MAX_ITERATIONS
from suites.transfer.objective import WOLFE, Line, Point, at_rounding, point_at, with_best_bias

Mode = Literal["reference", "converged"]
TOLERANCE: dict[Mode, float] = {"reference": 1e-4, "converged": 1e-6}
"""Largest entry of the mean form's gradient with which a fit may stop. ``reference`` is scikit-learn's threshold since 1.4,
in other coordinates: here the features are centred."""
GAP: dict[Mode, float] = {"reference": 1e-4, "converged": 1e-6}
"""Largest gap with which a fit may stop: the weights are within 1 %, or 0.1 %, of their length from the optimum."""
_HISTORY = 10
"""Stored pairs of a cold fit, as in scikit-learn."""
_WARM_HISTORY = 30
"""Stored pairs of a fit with a start; each costs d * K, little beside a pass over the features."""
_WARM_WOLFE = 1e-2
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
    """Bound on what the objective exceeds its optimum by, as a share of the penalty |W|^2 / 2; 0 if float64 finds nothing
    more to gain."""
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
            f"warning: C={self.c:g}: not converged after {self.iterations} iterations (max|gradient| {self.gradient:.2g}, "
            f"gap {self.gap:.2g}, objective {self.objective:.10g})"
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


_Pairs = deque[tuple[torch.Tensor, torch.Tensor, float]]
"""(step, change of the gradient, their product), the newest last."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where a fit may start: a point near a solution, in the solver's coordinates."""

    lam: float
    theta: torch.Tensor
    """(r + 1, K), the bias in the last row."""
    logits: torch.Tensor | None = None
    """(n, K) of the fitting set, relative to the label's; None costs one product over the features."""
    pairs: _Pairs = field(default_factory=deque)

    @property
    def bare(self) -> Start:
        """Return the point alone; the curvature takes 60 times its memory."""
        return replace(self, logits=None, pairs=deque())


@dataclass(frozen=True, eq=False)
class Solution(Start):
    """Where the solver stopped."""

    value: float = float("nan")
    """Mean-form objective."""
    gradient: float = float("inf")
    """Largest absolute entry of the mean form's gradient."""
    gap: float = float("inf")
    """Bound on what ``value`` exceeds the optimum by, as a share of the penalty; see ``Fit.gap``."""
    iterations: int = 0
    converged: bool = False


class Problem:
    """One fitting set, prepared once and solved for any number of C."""

    def __init__(
        self, x: npt.ArrayLike, y: npt.ArrayLike, *, device: str = "cpu", dtype: torch.dtype = torch.float64
    ) -> None:
        """Prepare features (n, d) and labels (n,); labels need not be contiguous.

        Raises:
            UserError: features are not finite.
        """
        labels, codes, counts = np.unique(np.asarray(y, dtype=np.int64), return_inverse=True, return_counts=True)
        self.labels: IntArray = labels
        raw = torch.as_tensor(np.asarray(x), device=device).to(dtype)
        self.n, self.d = raw.shape
        self.mean = raw.mean(dim=0)
        if not bool(torch.isfinite(self.mean).all()):
            raise UserError(
                "the probe cannot be fitted",
                "training features are not finite",
                "check the checkpoint, then extract again",
            )
        centred = raw - self.mean
        self.basis: torch.Tensor | None = None
        if self.n < self.d:
            self.basis, upper = torch.linalg.qr(centred.T)  # (d, n), (n, n)
            centred = upper.T.contiguous()
        self.x = torch.cat([centred, torch.ones(self.n, 1, device=device, dtype=dtype)], dim=1)
        self.codes = torch.as_tensor(codes, device=device).view(-1, 1)
        prior = torch.as_tensor(np.log(counts / self.n), device=device).to(dtype)
        self.prior = prior - prior.mean()
        """(K,) bias that is best while the weights are zero."""

    @property
    def zero(self) -> torch.Tensor:
        """Return the zero start: (r + 1, K) weights in the solver's coordinates with the best bias in the last row."""
        theta = self.x.new_zeros(self.x.shape[1], len(self.labels))
        theta[-1] = self.prior
        return theta

    def project(self, x: npt.ArrayLike) -> torch.Tensor:
        """Return (m, r + 1) solver coordinates of raw features (m, d)."""
        raw = torch.as_tensor(np.asarray(x), device=self.x.device).to(self.x.dtype) - self.mean
        if self.basis is not None:
            raw = raw @ self.basis
        return torch.cat([raw, raw.new_ones(len(raw), 1)], dim=1)

    def solve(
        self, c: float, starts: Sequence[Start] = (), *, mode: Mode = "reference", max_iterations: int = MAX_ITERATIONS
    ) -> Solution:
        """Minimise for one C, from zero or from where solutions for other C point to.

        Args:
            c: Inverse regularisation strength.
            starts: Solutions of this problem, the nearest C last; the last two are used.
            mode: Which tolerance.
            max_iterations: After these the fit is given up: ``converged`` is false.

        Raises:
            UserError: the solver could not leave the zero classifier, which is not the optimum.
        """
        lam = 1.0 / (float(c) * self.n)
        if not starts:
            point, pairs = point_at(self, lam, self.zero, self.relative(self.zero)), _Pairs(maxlen=_HISTORY)
        else:
            point, pairs = _warm_start(self, lam, starts)
        return _lbfgs(self, lam, point, pairs, _Stop(TOLERANCE[mode], GAP[mode], max_iterations))

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the matrix product; on a CPU by numpy's BLAS, which is the faster one on many processors."""
        return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b

    def relative(self, theta: torch.Tensor) -> torch.Tensor:
        """Return (n, K) logits of the fitting set relative to the label's."""
        logits = self.product(self.x, theta)
        return logits.sub_(logits.gather(1, self.codes))

    def raw(self, start: Start) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (d, K) weights and (K,) bias for raw features."""
        weights = start.theta[:-1] if self.basis is None else self.basis @ start.theta[:-1]
        return weights, start.theta[-1] - self.mean @ weights

    def start(self, c: float, weights: torch.Tensor, bias: torch.Tensor) -> Start:
        """Return a start at another problem's classifier for raw features, found for ``c``."""
        inner = weights if self.basis is None else self.basis.T @ weights
        return Start(1.0 / (c * self.n), torch.cat([inner, (bias + self.mean @ weights)[None]]))

    def fit(self, c: float, solution: Solution) -> Fit:
        """Return a solution in the coordinates of the raw features."""
        weights, bias = (part.double().cpu().numpy() for part in self.raw(solution))
        return Fit(
            c,
            weights,
            bias,
            self.labels,
            solution.value * c * self.n,
            solution.gradient,
            solution.gap,
            solution.iterations,
            solution.converged,
        )


@dataclass(frozen=True)
class _Stop:
    """When a solution is good enough, or given up."""

    gradient: float
    gap: float
    iterations: int

    def gap_at(self, problem: Problem, lam: float, point: Point) -> float:
        gap = point.gap(lam)
        return 0.0 if gap > self.gap and at_rounding(problem, lam, point) else gap

    def reached(self, problem: Problem, lam: float, point: Point) -> bool:
        return point.max_gradient <= self.gradient and self.gap_at(problem, lam, point) <= self.gap


def _warm_start(problem: Problem, lam: float, starts: Sequence[Start]) -> tuple[Point, _Pairs]:
    """Return where the starts point to, with the curvature of the last one under the new lambda.

    The new objective is minimised along the difference of the last two and then along the point itself: with separable
    data and little regularisation the weights mostly grow. Logits of both are known, so neither search passes over the
    features.
    """
    last = starts[-1]
    theta, logits = last.theta, _logits(problem, last)
    lines = [(theta - start.theta, logits - _logits(problem, start)) for start in starts[-2:-1]]
    for direction, change in [*lines, (None, None)]:
        line = Line(
            problem, lam, theta, logits, theta if direction is None else direction, logits if change is None else change
        )
        length = line.search(_WARM_WOLFE)
        if length is not None:
            theta, logits = theta + length * line.direction, logits + length * line.change
    shift = lam - last.lam
    pairs = _Pairs(maxlen=_WARM_HISTORY)
    for s, g, curvature in last.pairs:
        steps = s.view_as(theta).clone()
        steps[-1] = 0
        pairs.append((s, g + shift * steps.flatten(), curvature + shift * float((steps**2).sum())))
    return point_at(problem, lam, theta, logits), pairs


def _logits(problem: Problem, start: Start) -> torch.Tensor:
    return problem.relative(start.theta) if start.logits is None else start.logits


def _lbfgs(problem: Problem, lam: float, point: Point, pairs: _Pairs, stop: _Stop) -> Solution:
    iterations = 0
    while iterations < stop.iterations:
        if stop.reached(problem, lam, point):
            point = with_best_bias(problem, lam, point)
            if stop.reached(problem, lam, point):
                break
        moved = _step(problem, lam, point, pairs)
        if moved is None:  # rounding: not even the gradient gives a decrease any more
            if not pairs:
                break
            pairs.clear()
            continue
        s, g = (moved.theta - point.theta).flatten(), (moved.gradient - point.gradient).flatten()
        curvature = float(torch.dot(s, g))
        if curvature > 0:
            pairs.append((s, g, curvature))
        point = moved
        iterations += 1
    point = with_best_bias(problem, lam, point)
    gap = stop.gap_at(problem, lam, point)
    if not bool(point.theta[:-1].any()) and gap > 0:
        raise UserError(
            "the probe could not leave the zero classifier",
            f"C n = {1 / lam:g}, max|gradient| {point.max_gradient:g}, no step lowers the objective",
            "check the scale of the features, or normalise them",
        )
    converged = stop.reached(problem, lam, point)
    return Solution(lam, point.theta, point.logits, pairs, point.value, point.max_gradient, gap, iterations, converged)


def _step(problem: Problem, lam: float, point: Point, pairs: _Pairs) -> Point | None:
    """Return the next iterate, or None where the line search finds nothing."""
    direction = _direction(point.gradient, pairs)
    start = (point.value, float((point.gradient * direction).sum()))
    line = Line(problem, lam, point.theta, point.logits, direction, problem.relative(direction), start)
    length = line.search(WOLFE)
    if length is None:
        return None
    return point_at(problem, lam, point.theta + length * line.direction, point.logits + length * line.change)


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
