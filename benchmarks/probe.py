"""Compare the probe's search with scikit-learn's logistic regression: CPU time, objective, accuracy.

    OMP_NUM_THREADS=1 python benchmarks/probe.py     sizes of DTD, Pets and Flowers, 2048 features (minutes)
    python benchmarks/probe.py --quick               small sizes, two seeds (seconds)

Both get the same features (non-negative, of mean norm 60 or of unit length), the same split, the same 23 values of C and one
thread: fit the search part for every C, choose C on the validation part, refit everything with it, predict the test part.
scikit-learn starts every fit from zero, as the protocol does that it comes from; ours is timed along the path of C and from
zero, and its refit goes on to the tolerance `converged`. Objectives are those of the fits on the search part, computed by one
function for both. Where images are fewer than dimensions (Flowers), scikit-learn is faster at large C since it stops early.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.transfer.search import GRID
from suites.transfer.solver import Fit, Problem, Solution, thread_limit

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """Numbers of images and classes."""

    name: str
    fit: int
    val: int
    test: int
    classes: int
    features: int
    norm: float = 60.0
    """Mean length of a feature vector."""
    l2: bool = False
    """Every vector has unit length."""
    wrong: float = 0.25
    """Share of random labels."""
    seeds: int = 2


DTD, PETS = Size("dtd", 3008, 752, 1880, 47, 2048), Size("pets", 2946, 734, 3669, 37, 2048)
FLOWERS = Size("flowers", 1600, 400, 3000, 100, 2048, wrong=0.0)
FLOWERS_L2 = replace(FLOWERS, name="flowers, l2", l2=True)
QUICK = Size("quick", 400, 100, 400, 10, 192)
QUICK_FEW = Size("quick, n < d", 160, 40, 400, 10, 256, l2=True, wrong=0.0)
SIGNAL = 0.8
"""Distance of the classes."""


@dataclass(frozen=True)
class Data:
    """One problem: features of the search, validation and test part with labels."""

    x: tuple[FloatArray, FloatArray, FloatArray]
    y: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Search:
    """What one solver made of a problem."""

    seconds: float
    objectives: tuple[float, ...]
    validation: tuple[float, ...]
    best_c: float
    test: float


def make(size: Size, seed: int) -> Data:
    """Return rectified features: class centres, correlated and independent noise, a common positive mean."""
    rng = np.random.default_rng(seed)
    rank = size.features // 8
    mix = rng.normal(size=(rank, size.features)) * (1 + np.arange(rank))[:, None] ** -0.5
    centres = rng.normal(size=(size.classes, rank)) * 0.8
    mean = np.abs(rng.normal(size=size.features))
    x, y = [], []
    for count in (size.fit, size.val, size.test):
        labels = np.arange(count) % size.classes
        hidden = SIGNAL * centres[labels] + rng.normal(size=(count, rank))
        noise = 1.2 * rng.normal(size=(count, size.features))
        x.append(np.maximum(0.45 * hidden @ mix + noise + mean, 0))
        y.append(np.where(rng.random(count) < size.wrong, rng.integers(0, size.classes, count), labels))
    scale = size.norm / np.linalg.norm(np.concatenate(x), axis=1).mean()
    if size.l2:
        x, scale = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in x], 1.0
    rounded = [(part * scale).astype(np.float32).astype(np.float64) for part in x]
    return Data((rounded[0], rounded[1], rounded[2]), (y[0], y[1], y[2]))


def objective(c: float, weights: FloatArray, bias: FloatArray, x: FloatArray, y: npt.NDArray[np.int64]) -> float:
    """Return C sum CE + |W|^2 / 2 over C n."""
    from scipy.special import logsumexp

    logits = x @ weights + bias
    loss = float((logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean())
    return loss + float((weights**2).sum()) / (2 * c * len(y))


def ours(data: Data, path: bool) -> Search:
    """Search with the harness's solver, along the path of C or from zero for every C."""
    started = time.process_time()
    problem = Problem(data.x[0], data.y[0])
    solutions: list[Solution] = []
    for c in GRID:
        solutions.append(problem.solve(c, solutions[-2:] if path else ()))
    fits = [problem.fit(c, solution) for c, solution in zip(GRID, solutions, strict=True)]
    return _finish(data, started, [(f.weights, f.bias) for f in fits], _refit)


def _refit(c: float, x: FloatArray, y: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    problem = Problem(x, y)
    fit: Fit = problem.fit(c, problem.solve(c, [problem.solve(c)], mode="converged"))
    return fit.weights, fit.bias


def theirs(data: Data) -> Search:
    """Search with scikit-learn, every fit from zero."""
    started = time.process_time()
    return _finish(data, started, [_sklearn(c, data.x[0], data.y[0]) for c in GRID], _sklearn)


def _sklearn(c: float, x: FloatArray, y: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, solver="lbfgs", tol=1e-4, max_iter=2000).fit(x, y)
    return model.coef_.T, model.intercept_


def _finish(data: Data, started: float, fits: list[tuple[FloatArray, FloatArray]], refit: Any) -> Search:
    """Choose C, refit, predict; stop the clock; then measure what was found."""
    (x, vx, tx), (y, vy, ty) = data.x, data.y
    validation = [float(np.mean((vx @ w + b).argmax(axis=1) == vy)) for w, b in fits]
    best = int(np.argmax(validation))
    weights, bias = refit(GRID[best], np.concatenate([x, vx]), np.concatenate([y, vy]))
    predicted = (tx @ weights + bias).argmax(axis=1)
    seconds = time.process_time() - started
    values = tuple(objective(c, w, b, x, y) for c, (w, b) in zip(GRID, fits, strict=True))
    return Search(seconds, values, tuple(validation), GRID[best], float(np.mean(predicted == ty)))


def compare(size: Size) -> dict[str, Any]:
    """Return CPU seconds, the worst relative objective and test accuracies over seeds."""
    found: dict[str, list[Search]] = {"ours": [], "ours_cold": [], "sklearn": []}
    with thread_limit(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(size.seeds):
            data = make(size, seed)
            found["ours"].append(ours(data, path=True))
            found["ours_cold"].append(ours(data, path=False))
            found["sklearn"].append(theirs(data))
            texts = [
                f"{name} {r[-1].seconds:.1f} s, C {r[-1].best_c:.2g}, {100 * r[-1].test:.2f} %"
                for name, r in found.items()
            ]
            print(f"{size.name} seed {seed}: {'; '.join(texts)}", file=sys.stderr)
    pairs = list(zip(found["ours"], found["sklearn"], strict=True))
    excess = [[a / b - 1 for a, b in zip(one.objectives, other.objectives, strict=True)] for one, other in pairs]
    facts: dict[str, Any] = {"size": size.name, "seeds": size.seeds}
    for name, runs in found.items():
        facts[name] = {
            "cpu_seconds": float(np.mean([run.seconds for run in runs])),
            "best_c": [run.best_c for run in runs],
            "test": [run.test for run in runs],
            "best_validation": [max(run.validation) for run in runs],
        }
    return facts | {
        "speedup": facts["sklearn"]["cpu_seconds"] / facts["ours"]["cpu_seconds"],
        "speedup_cold": facts["sklearn"]["cpu_seconds"] / facts["ours_cold"]["cpu_seconds"],
        "worst_objective_excess": float(np.max(excess)),
        "mean_accuracy_difference": float(np.mean([one.test - other.test for one, other in pairs])),
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the comparison as a page."""
    import sklearn

    lines = [
        "# The probe's search against scikit-learn",
        "",
        (__doc__ or "").split("\n\n")[2].strip(),
        "",
        f"scikit-learn {sklearn.__version__}, {platform.machine()}, one thread; CPU-seconds per search (23 fits and a "
        "refit), means over seeds.",
        "",
        "| size | seeds | scikit-learn, cold | ours, cold | ours, path | speed-up cold | speed-up path "
        "| worst objective, ours over theirs | test accuracy, ours − theirs (points) | best C | test accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mine = row["ours"]
        lines.append(
            f"| {row['size']} | {row['seeds']} | {row['sklearn']['cpu_seconds']:.1f} | {row['ours_cold']['cpu_seconds']:.1f} "
            f"| {mine['cpu_seconds']:.1f} | {row['speedup_cold']:.1f} | {row['speedup']:.1f} "
            f"| {row['worst_objective_excess']:+.1e} | {100 * row['mean_accuracy_difference']:+.2f} "
            f"| {', '.join(f'{c:.2g}' for c in mine['best_c'])} | {100 * float(np.mean(mine['test'])):.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args()
    rows = [compare(size) for size in ((QUICK, QUICK_FEW) if options.quick else (DTD, PETS, FLOWERS, FLOWERS_L2))]
    print(json.dumps(rows, indent=1) if options.json else to_markdown(rows))


if __name__ == "__main__":
    main()
