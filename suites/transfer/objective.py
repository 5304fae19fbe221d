"""The probe's objective at a point and along a line.

Logits are kept relative to the label's (that column is zero): then the loss is log1p of the other classes' odds, and it,
its slope and its curvature keep their relative precision where the classes are separated and all of them are tiny.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

WOLFE = 0.5
"""Share of the slope that a line search may leave."""
_LINE_STEPS = 100
_LINE_GROWTH = 10.0
_ROUNDING = 1e-13
_BIAS_STEPS = 20
_BIAS_WARM_WOLFE = 1e-10
"""Share of the mean absolute residual that the bias's gradient may keep."""


class Data(Protocol):
    """Features and labels of a fitting set."""

    n: int
    x: torch.Tensor
    """(n, r + 1), the last column ones."""
    codes: torch.Tensor
    """(n, 1) class of every sample."""

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the matrix product."""
        ...

    def relative(self, theta: torch.Tensor) -> torch.Tensor:
        """Return (n, K) logits relative to the label's."""
        ...


@dataclass(eq=False)
class Point:
    """State at one iterate; ``logits`` are kept so that no pass over the features is repeated."""

    theta: torch.Tensor
    """(r + 1, K), the bias in the last row."""
    logits: torch.Tensor
    """(n, K), relative to the label's."""
    residual: torch.Tensor
    """(n, K) probabilities minus one-hot labels."""
    value: float
    gradient: torch.Tensor

    @property
    def max_gradient(self) -> float:
        """Return the largest absolute entry of the gradient."""
        return float(self.gradient.abs().max())

    def gap(self, lam: float) -> float:
        """Return (|G| / (lambda |W|))^2: the bound on the excess over the optimum as a share of the penalty.

        It holds once the bias is at its optimum. It is infinite at W = 0 unless the gradient is exactly zero.
        """
        rest, penalty = float(self.gradient[:-1].norm()), lam * float(self.theta[:-1].norm())
        if rest == 0.0:
            return 0.0
        return (rest / penalty) ** 2 if penalty else float("inf")


def losses(data: Data, logits: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return the mean cross-entropy, (n, K) probabilities with zero at the label, and (n, 1) their sums."""
    top = logits.amax(dim=1, keepdim=True)
    odds = (logits - top).exp_().scatter_(1, data.codes, 0.0)
    others = odds.sum(dim=1, keepdim=True)
    rest = others + torch.expm1(-top)  # what 1 is added to, so that nothing is lost where the label is certain
    total = rest + 1
    return float((top + rest.log1p()).sum()) / data.n, odds.div_(total), others.div_(total)


def point_at(data: Data, lam: float, theta: torch.Tensor, logits: torch.Tensor) -> Point:
    """Return value and gradient for known logits; one product over the features."""
    loss, residual, wrong = losses(data, logits)
    residual.scatter_(1, data.codes, -wrong)
    gradient = data.product(data.x.T, residual) / data.n
    gradient[:-1] += lam * theta[:-1]
    return Point(theta, logits, residual, loss + 0.5 * lam * float((theta[:-1] ** 2).sum()), gradient)


def at_rounding(data: Data, lam: float, point: Point) -> bool:
    """Tell whether the arithmetic can find nothing more to gain.

    The gradient in W is then within the rounding error of the product that it comes from, and the excess over the optimum
    that it still allows is within the rounding error of the value.
    """
    unit = torch.finfo(data.x.dtype).eps
    rest = float(point.gradient[:-1].norm())
    if rest**2 / (2 * lam) > unit * point.value:
        return False
    return rest <= unit * float(data.x[:, :-1].norm()) * float(point.residual.norm()) / data.n


def with_best_bias(data: Data, lam: float, point: Point) -> Point:
    """Return the point with its bias at the optimum for its weights (Newton's method; n K^2 per step)."""
    theta, logits, residual = point.theta, point.logits, point.residual
    for _ in range(_BIAS_STEPS):
        gradient = residual.mean(dim=0)
        if float(gradient.abs().max()) <= _BIAS_WARM_WOLFE * float(residual.abs().mean()):
            break
        others = residual.scatter(1, data.codes, 0.0)
        p = others.scatter(1, data.codes, 1 - others.sum(dim=1, keepdim=True))
        hessian = torch.diag(p.mean(dim=0)) - data.product(p.T, p) / data.n
        step = torch.zeros_like(theta)
        step[-1] = -torch.linalg.pinv(hessian, hermitian=True) @ gradient
        line = Line(data, lam, theta, logits, step, (step[-1] - step[-1][data.codes]))
        length = line.search(WOLFE)
        if length is None:
            break
        theta, logits = theta + length * line.direction, logits + length * line.change
        _, residual, wrong = losses(data, logits)
        residual.scatter_(1, data.codes, -wrong)
    return point if theta is point.theta else point_at(data, lam, theta, logits)


class Line:
    """The objective along a line, of which every point costs n * K."""

    def __init__(
        self,
        data: Data,
        lam: float,
        theta: torch.Tensor,
        logits: torch.Tensor,
        direction: torch.Tensor,
        change: torch.Tensor,
        start: tuple[float, float] | None = None,
    ) -> None:
        """Take the line through ``theta``; ``start`` is (value, slope) there, if known.

        A direction that leads uphill is turned round.
        """
        self.data, self.lam, self.logits = data, lam, logits
        w, p = theta[:-1], direction[:-1]
        self.ww, self.wp, self.pp = (float((a * b).sum()) for a, b in ((w, w), (w, p), (p, p)))
        self.direction, self.change = direction, change
        self.value, self.slope = self.at(0.0)[:2] if start is None else start
        if self.slope > 0:
            self.direction, self.change = -direction, -change
            self.wp, self.slope = -self.wp, -self.slope

    def at(self, length: float) -> tuple[float, float, float]:
        """Return value, slope and second derivative."""
        n, lam = self.data.n, self.lam
        loss, p, _ = losses(self.data, self.logits + length * self.change)
        value = loss + 0.5 * lam * (self.ww + 2 * length * self.wp + length**2 * self.pp)
        weighted = p.mul_(self.change)  # the label's change is zero, so that its probability is not needed
        mean = weighted.sum(dim=1)
        curvature = (float(torch.dot(weighted.flatten(), self.change.flatten())) - float(torch.dot(mean, mean))) / n
        return value, float(mean.sum()) / n + lam * (self.wp + length * self.pp), curvature + lam * self.pp

    def search(self, wolfe: float) -> float | None:
        """Return a step length > 0 that leaves at most ``wolfe`` of the slope and does not raise the value.

        The objective along the line is convex with known derivatives, so this is Newton's method on its slope, started at
        the unit step. Every rejected trial becomes an end of the interval that holds the minimum (the sign of its slope
        says which), and the next trial lies strictly inside: no trial repeats. Left of the minimum the value falls all the
        way, so the slope alone decides there.

        If the interval shrinks to neighbouring numbers, or after 100 trials, the result is the lower end: the value is lower
        there than at the start, but more than ``wolfe`` of the slope may be left.

        Args:
            wolfe: Largest share of the slope at the start that may be left, in (0, 1).

        Returns:
            The length in units of ``direction``, or None if no trial lies left of the minimum, or if the line starts flat:
            then rounding hides every decrease.
        """
        low, high, length = 0.0, float("inf"), 1.0
        for _ in range(_LINE_STEPS if self.slope < 0 else 0):
            value, slope, curvature = self.at(length)
            rises = not (slope < 0)  # an overflow counts as too far
            if abs(slope) <= -wolfe * self.slope and (not rises or value <= self.value + _ROUNDING * abs(self.value)):
                return length
            low, high = (low, length) if rises else (length, high)
            newton = length - slope / curvature if curvature > 0 else float("inf")
            if high == float("inf"):
                length = min(newton, _LINE_GROWTH * low)
            else:
                length = newton if low < newton < high else 0.5 * (low + high)
            if not low < length < high:
                break
        return low or None
