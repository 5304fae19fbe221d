"""Compare the probe's accuracy with the optimum, t-ReX's trainer, scikit-learn and DINOv2's conventions.

    OMP_NUM_THREADS=1 python benchmarks/probe_accuracy.py > docs/probe.md     fifteen problems (quarter of an hour of CPU)
    python benchmarks/probe_accuracy.py --problem "n < d, l2" --seeds 1       one of them

Features are synthetic: class centres and correlated noise of half as many dimensions as features, white noise and a positive mean, cut
off at zero like pooled activations; then of unit length (`l2`) or of mean length 30 (`raw`). `sep` is the distance of the centres in units
of the noise. Every seed draws other centres, images and splits; 2,000 test images each.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.transfer.search import ProbeSettings, Search, SearchPoint, _tpe, choose, fit_probe
from suites.transfer.solver import Fit, Problem, Start, thread_limit
from suites.transfer.splits import Fold, toolbox_split, validation_folds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TEST = 2000
RAW_LENGTH = 30.0
DINOV2_GRID = tuple(float(10**power) for power in np.linspace(-6, 5, 45))
SURE = 2.0
"""Standard errors that a difference may lie below zero."""


@dataclass(frozen=True)
class Case:
    """A kind of problem."""

    name: str
    counts: tuple[int, ...]
    """Training images per class."""
    features: int
    l2: bool
    sep: float
    wrong: float = 0.0
    """Share of training labels drawn at random."""
    shots: int = 0
    """Images per class of the fit, where C comes from the whole training part, as in the suite; 0: both are the same."""
    seeds: int = 6


@dataclass(frozen=True)
class Data:
    """A problem: C is chosen on ``x``, ``y``; the fit is on the positions ``kept``."""

    x: npt.NDArray[np.float32]
    y: IntArray
    test_x: npt.NDArray[np.float32]
    test_y: IntArray
    kept: IntArray
    folds: tuple[Fold, ...]
    """What the suites validate on."""
    split: Fold
    """What the other two validate on."""


def tail(classes: int, most: int, least: int) -> tuple[int, ...]:
    """Return class sizes that fall geometrically."""
    return tuple(round(float(size)) for size in np.geomspace(most, least, classes))


CASES = (
    Case("n < d, l2", (10,) * 20, 256, True, 0.45),
    Case("n < d, raw", (10,) * 20, 256, False, 0.45),
    Case("n < d, l2, size of Flowers", (20,) * 100, 2048, True, 0.27, seeds=3),
    Case("n = d, l2", (16,) * 16, 256, True, 0.45),
    Case("n = d, raw", (16,) * 16, 256, False, 0.45),
    Case("n > d, l2", (60,) * 10, 128, True, 0.4),
    Case("n > d, raw", (60,) * 10, 128, False, 0.4),
    Case("n > d, raw, 20 % wrong labels", (60,) * 10, 128, False, 0.6, wrong=0.2),
    Case("long tail 64 to 2, l2", tail(20, 64, 2), 256, True, 0.5),
    Case("long tail 64 to 2, raw", tail(20, 64, 2), 256, False, 0.5),
    Case("1 shot, l2", (16,) * 16, 256, True, 0.7, shots=1),
    Case("2 shots, raw", (2,) * 16, 256, False, 0.7),
    Case("4 shots, l2", (4,) * 16, 256, True, 0.6),
    Case("8 shots, raw", (8,) * 16, 256, False, 0.5),
    Case("16 shots, l2", (16,) * 8, 256, True, 0.45),
)


def make(case: Case, seed: int) -> Data:
    """Return the problem of one seed."""
    rng = np.random.default_rng(seed)
    rank, k = case.features // 2, len(case.counts)
    mix = rng.normal(size=(rank, case.features)) * (1 + np.arange(rank))[:, None] ** -0.5
    centres = case.sep * rng.normal(size=(k, rank))
    mean = np.abs(rng.normal(size=case.features))
    y, test_y = np.repeat(np.arange(k), case.counts), np.arange(TEST) % k
    parts = []
    for labels in (y, test_y):
        x = (centres[labels] + rng.normal(size=(len(labels), rank))) @ mix + 2 * mean
        parts.append(np.maximum(x + 0.3 * rng.normal(size=x.shape), 0))
    length = np.linalg.norm(parts[0], axis=1).mean() / RAW_LENGTH
    x, test_x = (
        (part / (np.linalg.norm(part, axis=1, keepdims=True) if case.l2 else length)).astype(np.float32)
        for part in parts
    )
    y = np.where(rng.random(len(y)) < case.wrong, rng.integers(0, k, len(y)), y)
    names = ("synthetic", [f"{i:06d}" for i in range(len(y))], y, [str(i) for i in range(k)], seed)
    order = np.concatenate([np.flatnonzero(y == label)[: case.shots or None] for label in range(k)])
    return Data(x, y, test_x, test_y, np.sort(order), validation_folds(*names), toolbox_split(*names))


@dataclass
class Result:
    """What one way made of one problem."""

    c: float
    predictions: IntArray
    seconds: float
    fit: Fit | None = None
    points: Sequence[SearchPoint] = field(default_factory=tuple)


def ours(data: Data, search: Search, seed: int) -> Result:
    """Return the suites' probe."""
    started = time.process_time()
    found = fit_probe(data.x, data.y, data.test_x, data.folds, ProbeSettings(search=search), seed=seed)
    if len(data.kept) < len(data.y):
        settings = ProbeSettings(search="fixed", fixed_c=found.c)
        found = fit_probe(data.x[data.kept], data.y[data.kept], data.test_x, (), settings)
    return Result(found.c, found.predictions, time.process_time() - started, found.fit, found.points)


def sklearn_fit(x: npt.NDArray[np.float32], y: IntArray, c: float) -> Any:
    """Return the classifier of t-ReX's trainer: raw float32 features, tolerance 1e-4, 2000 iterations, from zero."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, solver="lbfgs", tol=1e-4, max_iter=2000).fit(x, y)


def trex(data: Data, seed: int) -> Result:
    """Return the probe of t-ReX: 30 TPE trials on its split, the first best, then a fit of everything."""
    started = time.process_time()
    fit, val = data.split.fit, data.split.val

    def trial(c: float) -> SearchPoint:
        right = sklearn_fit(data.x[fit], data.y[fit], c).predict(data.x[val]) == data.y[val]
        return SearchPoint(c, int(right.sum()), len(val), 0, 0.0, 0.0, True)

    c = choose(_tpe(trial, seed, lambda done, total: None), "tpe30")
    predictions = sklearn_fit(data.x[data.kept], data.y[data.kept], c).predict(data.test_x)
    return Result(c, predictions, time.process_time() - started)


def at_equal_c(data: Data, c: float) -> Result:
    """Return one fit of scikit-learn."""
    started = time.process_time()
    predictions = sklearn_fit(data.x[data.kept], data.y[data.kept], c).predict(data.test_x)
    return Result(c, predictions, time.process_time() - started)


def dinov2(data: Data) -> Result:
    """Return the probe of DINOv2's conventions: 45 values of C, float64, features as they are, fits at the optimum."""
    started = time.process_time()
    fit, val = data.split.fit, data.split.val
    problem = Problem(data.x[fit], data.y[fit])
    val_x, accuracy, path = problem.project(data.x[val]), [], []
    for c in DINOV2_GRID:
        path = [*(start.bare for start in path[-1:]), problem.solve(c, path, mode="converged")]
        columns = problem.product(val_x, path[-1].theta).numpy().argmax(axis=1)
        accuracy.append(np.mean(problem.labels[columns] == data.y[val]))
    c = DINOV2_GRID[int(np.argmax(accuracy))]
    whole = Problem(data.x[data.kept], data.y[data.kept])
    last: Start = whole.solve(c)
    predictions = whole.fit(c, whole.solve(c, [last], mode="converged")).predict(data.test_x)
    return Result(c, predictions, time.process_time() - started)


def optimum(data: Data, fit: Fit) -> tuple[IntArray, float]:
    """Return the predictions of SciPy's L-BFGS-B, which goes on from a fit, and the fit's excess over its objective."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    x = data.x[data.kept].astype(np.float64)
    mean, y = x.mean(axis=0), np.searchsorted(fit.labels, data.y[data.kept])
    basis = np.linalg.qr((x - mean).T)[0] if len(x) < x.shape[1] else np.eye(x.shape[1])
    inner, n, k = (x - mean) @ basis, len(x), len(fit.labels)
    lam, hot = 1 / (fit.c * n), np.eye(k)[y]

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        theta = flat.reshape(-1, k)
        log_p = log_softmax(inner @ theta[:-1] + theta[-1], axis=1)
        rest = (np.exp(log_p) - hot) / n
        gradient = np.vstack([inner.T @ rest + lam * theta[:-1], rest.sum(axis=0)])
        loss = -float(log_p[np.arange(n), y].mean()) + 0.5 * lam * float((theta[:-1] ** 2).sum())
        return loss / scale, gradient.ravel() / scale

    scale = 1.0
    start = np.vstack([basis.T @ fit.weights, fit.bias + mean @ fit.weights]).ravel()
    scale = value(start)[0]  # so that the stopping rules are relative
    found = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 30, "maxiter": 500, "maxfun": 2000, "gtol": 1e-10, "ftol": 1e-13},
    )
    theta = found.x.reshape(-1, k)
    logits = (data.test_x.astype(np.float64) - mean) @ (basis @ theta[:-1]) + theta[-1]
    return fit.labels[logits.argmax(axis=1)], 1 - float(found.fun)


@dataclass
class Row:
    """One problem over its seeds; accuracies and differences in points."""

    case: Case
    results: dict[str, list[Result]]
    right: dict[str, list[npt.NDArray[np.bool_]]]
    gap: float
    excess: float

    def mean(self, name: str) -> float:
        """Return the mean accuracy."""
        return 100 * float(np.mean(self.right[name]))

    def seconds(self, name: str) -> float:
        """Return mean CPU-seconds."""
        return float(np.mean([result.seconds for result in self.results[name]]))

    def off(self, name: str) -> float:
        """Return the largest difference from the optimum of the same C over the seeds."""
        pairs = zip(self.right[name], self.right[f"{name} optimum"], strict=True)
        return 100 * max(abs(float(a.mean() - b.mean())) for a, b in pairs)

    def over(self, name: str, other: str) -> tuple[float, float]:
        """Return the mean difference, and its standard error over images and seeds."""
        pairs = [a.astype(int) - b for a, b in zip(self.right[name], self.right[other], strict=True)]
        means = [float(pair.mean()) for pair in pairs]
        images = float(np.sqrt(np.mean([pair.var() for pair in pairs]) / np.size(pairs)))
        seeds = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
        return 100 * float(np.mean(means)), 100 * max(images, seeds)


def compare(case: Case, seeds: int) -> Row:
    """Measure one problem."""
    results: dict[str, list[Result]] = {}
    right: dict[str, list[npt.NDArray[np.bool_]]] = {}
    gaps, excesses = [], []
    for seed in range(seeds):
        data = make(case, seed)
        ways: dict[str, Callable[[], Result]] = {
            "grid": partial(ours, data, "grid", seed),
            "tpe30": partial(ours, data, "tpe30", seed),
            "t-ReX": partial(trex, data, seed),
            "DINOv2": partial(dinov2, data),
        }
        found = {name: way() for name, way in ways.items()}
        found["scikit-learn"] = at_equal_c(data, found["grid"].c)
        for name in ("grid", "tpe30"):
            fit = found[name].fit
            assert fit is not None
            best, excess = optimum(data, fit)
            right.setdefault(f"{name} optimum", []).append(best == data.test_y)
            gaps.append(fit.gap)
            excesses.append(excess)
        for name, result in found.items():
            results.setdefault(name, []).append(result)
            right.setdefault(name, []).append(result.predictions == data.test_y)
        text = ", ".join(f"{n} {100 * np.mean(r[-1]):.1f}" for n, r in right.items())
        print(f"{case.name} seed {seed}: {text}; {found['grid'].seconds:.1f} s", file=sys.stderr, flush=True)
    return Row(case, results, right, max(gaps), max(excesses))


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the comparison."""
    lines = [
        "| problem | n, d, K | seeds | grid | optimum | tpe30 | optimum | t-ReX | scikit-learn | DINOv2 | grid − t-ReX | tpe30 − t-ReX "
        "| largest gap | measured excess | CPU-s: grid | tpe30 | t-ReX | one scikit-learn fit | DINOv2 |",
        "|" + "---|" * 19,
    ]
    for row in rows:
        n = len(row.case.counts) * row.case.shots or sum(row.case.counts)
        accuracy = [
            row.mean(name)
            for name in ("grid", "grid optimum", "tpe30", "tpe30 optimum", "t-ReX", "scikit-learn", "DINOv2")
        ]
        differences = ["{:+.2f} ± {:.2f}".format(*row.over(name, "t-ReX")) for name in ("grid", "tpe30")]
        seconds = [f"{row.seconds(name):.2f}" for name in ("grid", "tpe30", "t-ReX", "scikit-learn", "DINOv2")]
        size = [f"{n}, {row.case.features}, {len(row.case.counts)}", str(len(row.results["grid"]))]
        cells = [row.case.name, *size, *(f"{a:.2f}" for a in accuracy)]
        lines.append("| " + " | ".join([*cells, *differences, f"{row.gap:.0e}", f"{row.excess:.0e}", *seconds]) + " |")
    return lines


def verdict(rows: Sequence[Row]) -> list[str]:
    """Return what the table shows, checked line by line."""
    off = {(row.case.name, name): row.off(name) for row in rows for name in ("grid", "tpe30")}
    below = [
        f"{row.case.name}, {name}: {row.over(name, 't-ReX')[0]:+.2f}"
        for row in rows
        for name in ("grid", "tpe30")
        if row.over(name, "t-ReX")[0] < -SURE * row.over(name, "t-ReX")[1]
    ]
    mean = {name: float(np.mean([row.over(name, "t-ReX")[0] for row in rows])) for name in ("grid", "tpe30")}
    ties = [(*row.over("grid", "tpe30"), row.case.name) for row in rows]
    far = [f"{name}, {search}: {value:.2f}" for (name, search), value in off.items() if value > 0.2 + 1e-9]
    return [
        f"* Largest difference between the reported accuracy and the optimum's at the same C, over all problems, seeds and both "
        f"searches: {max(off.values()):.2f} points; above 0.2: {'; '.join(far) or 'none'}.",
        f"* Below t-ReX by more than {SURE:g} standard errors: {'; '.join(below) or 'none'}. Mean over the problems: grid "
        f"{mean['grid']:+.2f}, tpe30 {mean['tpe30']:+.2f} points.",
        f"* grid against tpe30, mean over the problems {np.mean([tie[0] for tie in ties]):+.2f}; furthest below: "
        + ", ".join(f"{name} {value:+.2f} ± {error:.2f}" for value, error, name in sorted(ties)[:3])
        + ". A validation part of few images prefers many C alike: grid then takes the smallest, tpe30 the first.",
        f"* The measured excess over the optimum is at most the gap in {sum(row.excess <= row.gap + 1e-9 for row in rows)} of {len(rows)}.",
    ]


TEXT = """\
Generated by `benchmarks/probe_accuracy.py`; {facts}.

{about}

* *grid*, *tpe30*: the suites' probe with its default settings; C chosen as in the suites (a 20 % split, folds below ten images per class).
* *optimum*: the same C, where SciPy's L-BFGS-B (float64, relative tolerance 1e-13) ends that goes on from the refit.
* *t-ReX*: scikit-learn's L-BFGS on the float32 features as they are, from zero, tolerance 1e-4, 2000 iterations; 30 TPE trials with the
  sampler's settings of `tpe30`, on a 20 % split per class; the first best trial; a fit of everything with its C.
* *scikit-learn*: the same trainer, once, with the C that *grid* chose.
* *DINOv2*: its conventions for logistic regression: 45 values of C from 1e-6 to 1e5, float64, features not normalised any further, the
  first best on the validation part, then a fit of both parts. It runs cuML to a tolerance of 1e-12 or 1000 iterations, the optimum for all
  that matters here; without a GPU the fits are made by our solver (tolerance `converged`), so its CPU-seconds are not cuML's.
* *gap*: bound on the excess of the objective over its optimum that the solver itself proves, as a share of the penalty |W|²/2;
  *measured excess*: what SciPy found, as a share of the whole objective, which is the smaller share.
* ±: one standard error of the paired difference, the larger of that over test images and that over seeds; what differs between the
  searches is mostly the C that a small validation part happens to prefer.
"""


def processor() -> str:
    """Return the processor's name."""
    cpus = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
        if cpus.is_file()
        else []
    )
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def page(rows: Sequence[Row]) -> str:
    """Return the whole page."""
    import scipy
    import sklearn
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    facts = (
        f"{date.today()}, commit {commit.strip() or 'unknown'}, Python {platform.python_version()},\nNumPy {np.__version__}, SciPy "
        f"{scipy.__version__}, scikit-learn {sklearn.__version__}, PyTorch {torch.__version__}, {processor()},\none thread. Means over "
        "seeds, in per cent and points"
    )
    about = (__doc__ or "").split("\n\n")[2].strip()
    text = TEXT.format(facts=facts, about=about)
    return "\n".join(["# Is the probe right?", "", text, *table(rows), "", *verdict(rows)]) + "\n"


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--problem", action="append", choices=[case.name for case in CASES], help="only this one (repeat)"
    )
    parser.add_argument("--seeds", type=int, default=6, help="at most so many")
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.problem or case.name in options.problem]
    with thread_limit(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [compare(case, min(case.seeds, options.seeds)) for case in chosen]
    print(page(rows), end="")


if __name__ == "__main__":
    main()
