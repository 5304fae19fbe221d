"""Choosing the inverse regularisation strength C, refitting, and predicting the test part.

Two searches: ``grid`` (half-decade points on [1e-5, 1e6], then a refinement by a quarter decade; the smallest C wins a tie)
and ``tpe30`` (30 Optuna TPE trials, the first best one wins, the protocol of the t-ReX toolbox that lbGen, CVPR 2025,
reports). Both refit on all samples with the chosen C, not the chosen lambda. Fits start at solutions for neighbouring C;
each of them stops by a bound on its distance from the optimum, or carries a warning, so where it started does not matter.
The setting ``solver`` is the tolerance of the search. The refit always goes to the tolerance ``converged``, and on its way
notes what it would predict at ``reference``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.api import UserError
from suites.transfer.cards import MAX_ITERATIONS
from suites.transfer.solver import (
    Fit,
    FloatArray,
    IntArray,
    Mode,
    Problem,
    Solution,
    Start,
    thread_limit,
)
from suites.transfer.splits import Fold

Search = Literal["grid", "tpe30", "fixed"]
Normalise = Literal["none", "l2", "standardise"]
Progress = Callable[[int, int], None]
"""Called with (points tried, points expected)."""

LOG_RANGE = (-5.0, 6.0)
"""Decimal logarithms of the ends of the search range."""
GRID = tuple(float(10**exponent) for exponent in np.arange(LOG_RANGE[0], LOG_RANGE[1] + 0.25, 0.5))
REFINE_DECADES = 0.25
SMALL = 1e-5
"""Least length and least standard deviation that features are divided by."""
TRIALS = 30
STARTUP_TRIALS = 10
FALLING_POINTS = 4
"""The grid stops after this many points in a row below the best by more than its standard error."""
_END_DECADES = 0.125


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is fitted."""

    search: Search = "grid"
    solver: Mode = "reference"
    one_standard_error: bool = False
    """Take the smallest C within one standard error of the best."""
    fixed_c: float = 1.0
    """C of the search ``fixed``."""
    normalise: Normalise = "none"
    threads: int = 1
    max_iterations: int = MAX_ITERATIONS
    device: str = "cpu"


@dataclass(frozen=True)
class SearchPoint:
    """One C that was tried."""

    c: float
    correct: int
    total: int
    iterations: int
    gradient: float
    """Largest over the folds."""
    gap: float
    """Largest over the folds; see ``Fit.gap``."""
    converged: bool

    @property
    def accuracy(self) -> float:
        """Return the validation top-1."""
        return self.correct / self.total

    @property
    def standard_error(self) -> float:
        """Return the binomial standard error of the accuracy."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.total)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """A probe: the chosen C with the evidence, the refitted classifier and its test predictions."""

    c: float
    points: tuple[SearchPoint, ...]
    """In the order in which they were tried."""
    fit: Fit
    predictions: IntArray
    """(n_test,)."""
    warnings: tuple[str, ...]
    reference: IntArray
    """(n_test,) predictions where the refit passed the tolerance ``reference``."""


def fit_probe(
    train_x: npt.ArrayLike,
    train_y: npt.ArrayLike,
    test_x: npt.ArrayLike,
    folds: Sequence[Fold],
    settings: ProbeSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeResult:
    """Choose C on the folds, refit on all training samples, predict the test samples.

    Args:
        train_x: (n, d) features of trainval.
        train_y: (n,) labels.
        test_x: (m, d) features; their labels are not seen here.
        folds: One split, or several that are averaged; ignored by the search ``fixed``.
        settings: Search, solver, threads.
        seed: Seed of the TPE sampler.
        progress: Called with the number of C tried and expected.

    Raises:
        UserError: training or test features are not finite, or a fit cannot leave the zero classifier.
    """
    x, y = np.asarray(train_x, dtype=np.float64), np.asarray(train_y, dtype=np.int64)
    test = np.asarray(test_x, dtype=np.float64)
    if not (finite := np.isfinite(test).all(axis=1)).all():
        raise UserError(
            "the probe cannot predict the test set",
            f"test features of {int((~finite).sum())} of {len(test)} images are not finite",
            "check the checkpoint, then extract again",
        )
    with thread_limit(settings.threads):
        points: tuple[SearchPoint, ...] = ()
        c = settings.fixed_c
        trial = None if settings.search == "fixed" else _Trial(x, y, folds, settings)
        if trial:
            report = progress or (lambda done, total: None)
            points = _grid(trial, report) if settings.search == "grid" else _tpe(trial, seed, report)
            c = choose(points, settings.search, settings.one_standard_error)
        scaled, scaled_test = normalised(settings.normalise, x, test)
        problem = Problem(scaled, y, device=settings.device)
        starts = trial.starts(problem, c) if trial else ()
        passed, fit = _refit(problem, c, starts, settings.max_iterations)
        predictions, reference = fit.predict(scaled_test), passed.predict(scaled_test)
    return ProbeResult(c, points, fit, predictions, _warnings(c, points, fit), reference)


def _refit(problem: Problem, c: float, starts: Sequence[Start], max_iterations: int) -> tuple[Fit, Fit]:
    """Return the fits at the tolerances ``reference`` and ``converged``; the second goes on where the first stopped."""
    first = problem.solve(c, starts, max_iterations=max_iterations)
    last = problem.solve(c, [first], mode="converged", max_iterations=max_iterations - first.iterations)
    return problem.fit(c, first), replace(problem.fit(c, last), iterations=first.iterations + last.iterations)


def normalised(how: Normalise, fit_x: FloatArray, other_x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both feature sets normalised; statistics come from the first, which is fitted on.

    ``l2`` divides every vector by its length, ``standardise`` subtracts the mean and divides by the unbiased standard
    deviation of every dimension, both clipped from below at 1e-5. Scaling changes what the penalty penalises.
    """
    if how == "l2":
        fit_x, other_x = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), SMALL) for x in (fit_x, other_x))
    elif how == "standardise":
        mean, spread = fit_x.mean(axis=0), np.maximum(fit_x.std(axis=0, ddof=1), SMALL)
        fit_x, other_x = (fit_x - mean) / spread, (other_x - mean) / spread
    return fit_x, other_x


def choose(points: Sequence[SearchPoint], search: Search = "grid", one_standard_error: bool = False) -> float:
    """Return the C of the best accuracy; of equals, ``tpe30`` takes the first tried, like Optuna, ``grid`` the smallest.

    With ``one_standard_error`` it is the smallest C within one standard error of the best, whatever the search.
    """
    best = max(points, key=lambda point: (point.accuracy, -point.c if search == "grid" else 0.0))
    if not one_standard_error:
        return best.c
    return min(point.c for point in points if point.accuracy >= best.accuracy - best.standard_error)


def at_range_end(c: float) -> bool:
    """Tell whether C lies at an end of the search range."""
    return min(abs(math.log10(c) - end) for end in LOG_RANGE) < _END_DECADES


def _warnings(c: float, points: Sequence[SearchPoint], fit: Fit) -> tuple[str, ...]:
    lines = []
    if points and at_range_end(c):
        lines.append(f"chosen C={c:g} is at an end of the search range 1e-5 to 1e6; the optimum may lie outside")
    unconverged = [point for point in points if not point.converged]
    if unconverged:
        worst = max(unconverged, key=lambda point: point.gap)
        lines.append(
            f"warning: {len(unconverged)} of {len(points)} search points not converged (largest gap {worst.gap:.2g} at "
            f"C={worst.c:g})"
        )
    return tuple(filter(None, [*lines, fit.warning()]))


class _Trial:
    """Fits every fold for one C after another."""

    def __init__(self, x: npt.NDArray[np.float64], y: IntArray, folds: Sequence[Fold], settings: ProbeSettings) -> None:
        if not folds:
            raise ValueError("a search needs at least one fold")
        self.settings = settings
        parts = [normalised(settings.normalise, x[fold.fit], x[fold.val]) for fold in folds]
        self.problems = [
            Problem(fit_x, y[fold.fit], device=settings.device) for (fit_x, _), fold in zip(parts, folds, strict=True)
        ]
        self.val_x = [problem.project(val_x) for problem, (_, val_x) in zip(self.problems, parts, strict=True)]
        self.val_y = [y[fold.val] for fold in folds]

        self.solved: list[tuple[float, list[Start]]] = []
        """(C, start per fold), the newest last; it alone keeps logits and curvature."""

    def __call__(self, c: float) -> SearchPoint:
        """Return the point of one C; every fold starts where the two nearest solved C point to."""
        order = sorted(self.solved, key=lambda one: -abs(math.log(one[0] / c)))[-2:]
        solutions: list[Solution] = []
        correct = 0
        for i, problem in enumerate(self.problems):
            solution = problem.solve(
                c,
                [starts[i] for _, starts in order],
                mode=self.settings.solver,
                max_iterations=self.settings.max_iterations,
            )
            columns = problem.product(self.val_x[i], solution.theta).cpu().numpy().argmax(axis=1)
            correct += int((problem.labels[columns] == self.val_y[i]).sum())
            solutions.append(solution)
        self.solved = [(other, [start.bare for start in starts]) for other, starts in self.solved]
        self.solved.append((c, list(solutions)))
        return SearchPoint(
            c,
            correct,
            sum(len(labels) for labels in self.val_y),
            sum(s.iterations for s in solutions),
            max(s.gradient for s in solutions),
            max(s.gap for s in solutions),
            all(s.converged for s in solutions),
        )

    def starts(self, problem: Problem, c: float) -> Sequence[Start]:
        """Return the first fold's solution for ``c`` as a start for a problem with more samples, if the classes agree."""
        fold = self.problems[0]
        if not np.array_equal(fold.labels, problem.labels):
            return ()
        return (problem.start(c, *fold.raw(dict(self.solved)[c][0])),)


def _grid(trial: Callable[[float], SearchPoint], progress: Progress) -> tuple[SearchPoint, ...]:
    points: list[SearchPoint] = []
    falling = 0
    for c in GRID:
        best = max(points, key=lambda p: p.accuracy, default=None)
        points.append(trial(c))
        progress(len(points), len(GRID) + 2)
        low = best is not None and points[-1].accuracy < best.accuracy - best.standard_error
        falling = falling + 1 if low else 0
        if falling >= FALLING_POINTS:
            break
    centre = choose(points)
    for step in (-REFINE_DECADES, REFINE_DECADES):
        c = centre * 10**step
        if LOG_RANGE[0] <= math.log10(c) <= LOG_RANGE[1]:
            points.append(trial(c))
    progress(len(GRID) + 2, len(GRID) + 2)
    return tuple(points)


def _tpe(trial: Callable[[float], SearchPoint], seed: int, progress: Progress) -> tuple[SearchPoint, ...]:
    """Run the toolbox's search: univariate TPE, ten random start-up trials, one trial after the other.

    Every argument that library versions have defaulted differently is given. Not given are ``gamma`` (the best tenth of the
    trials, 25 at most), ``weights`` (equal below 25 trials, then a ramp for the oldest), ``prior_weight`` (1),
    ``consider_prior`` (yes), ``consider_magic_clip`` (yes) and ``consider_endpoints`` (no): their defaults have been the same
    since 3.6, the oldest accepted version, and Optuna 5 deprecates the arguments themselves (removal is announced for 6).
    """
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points: list[SearchPoint] = []

    def objective(optuna_trial: optuna.Trial) -> float:
        c = optuna_trial.suggest_float("C", 10 ** LOG_RANGE[0], 10 ** LOG_RANGE[1], step=None, log=True)
        points.append(trial(c))
        progress(len(points), TRIALS)
        return points[-1].accuracy

    sampler = optuna.samplers.TPESampler(
        n_startup_trials=STARTUP_TRIALS,
        n_ei_candidates=24,
        seed=seed,
        multivariate=False,
        group=False,
        constant_liar=False,
        constraints_func=None,
    )
    try:
        study = optuna.create_study(
            storage=None,
            sampler=sampler,
            pruner=optuna.pruners.NopPruner(),
            study_name="probe",
            direction="maximize",
            load_if_exists=False,
        )
        study.optimize(
            objective, n_trials=TRIALS, timeout=None, n_jobs=1, catch=(), gc_after_trial=False, show_progress_bar=False
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return tuple(points)
