"""Are confidences right, and do they order images by how safe the answer is? Pure functions of (confidence, correct).

Calibration error: root mean square over bins of equal count of (mean confidence - accuracy), debiased: the square of each bin's
difference is the mean product over pairs of different images (a U-statistic), so noise does not add to it (Kumar, Liang and Ma,
NeurIPS 2019). The interval inverts the normal test of the squared error, whose variance has a part that remains for a calibrated
network and a part that grows with the error (the two regimes of Sun et al. 2024, arXiv 2408.08998).

Selective prediction (Geifman and El-Yaniv, NeurIPS 2017): images are answered by falling confidence. Errors by the infinitesimal
jackknife, so they hold for any number of images without resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.api import Estimate, student_quantile, undefined, wilson

POPULATION = "new test images"
BINS = 15
PER_BIN = 20
"""Fewest images of a bin: there are fewer bins where fifteen would have less."""
COVERAGE = 0.8
FEWEST = 2 * PER_BIN
_WINDOW = 0.05
_Z = student_quantile(1e9)

FloatArray = npt.NDArray[np.float64]


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Estimate:
    """Estimate the debiased top-label calibration error, a fraction; images of equal confidence share a bin."""
    c, gap = _sorted(confidence, correct)
    method = f"debiased over {_bins(len(c))} bins, test inversion"
    if len(c) < FEWEST:
        return undefined(f"fewer than {FEWEST} test images", population=POPULATION, n=len(c), method=method)
    place = np.unique(_middle_rank(c) * _bins(len(c)) // len(c), return_inverse=True)[1]
    count = np.bincount(place).astype(float)
    mean = np.bincount(place, gap) / count
    variance = np.maximum(0.0, np.bincount(place, gap**2) - count * mean**2) / np.maximum(1.0, count - 1)
    kept = count > 1
    count, mean, variance = count[kept], mean[kept], variance[kept]
    weight = count / count.sum()
    squared = float((weight * (mean**2 - variance / count)).sum())
    noise = float((weight**2 * 2 * variance**2 / (count * (count - 1))).sum())
    noise += float((weight * (mean**2 - (weight * mean**2).sum()) ** 2).sum()) / len(c)
    growth = 4 * float((weight**2 * mean**2 * variance / count).sum()) / max(1e-12, float((weight * mean**2).sum()))
    middle, half = squared + _Z**2 * growth / 2, _half(squared, noise, growth)
    low, value, high = (math.sqrt(max(0.0, x)) for x in (middle - half, squared, middle + half))
    return Estimate(value, low, high, len(c), method, POPULATION)


def _half(squared: float, noise: float, growth: float) -> float:
    """Return half the interval of t from (squared - t)^2 <= z^2 (noise + growth t)."""
    return math.sqrt(max(0.0, _Z**4 * growth**2 / 4 + _Z**2 * (growth * squared + noise)))


def overconfidence(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Estimate:
    """Estimate mean confidence minus accuracy, a fraction; negative where the network is too modest."""
    _, gap = _sorted(confidence, correct)
    if len(gap) < 2:
        return undefined("fewer than two test images", population=POPULATION, n=len(gap), method="Student's t")
    half = student_quantile(len(gap) - 1) * float(gap.std(ddof=1)) / math.sqrt(len(gap))
    value = float(gap.mean())
    return Estimate(value, value - half, value + half, len(gap), "Student's t", POPULATION)


@dataclass(frozen=True)
class Selective:
    """A number about selective answers with what each image contributes.

    Attributes:
        estimate: The number, a fraction.
        pseudo: (images,) pseudo-value of each image in the order given: the number plus the image's first-order influence. Their
            mean is the number.
    """

    estimate: Estimate
    pseudo: FloatArray


def area_under_risk_coverage(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Selective:
    """Estimate the mean, over thresholds at the confidence of each image, of the error among images at least as confident."""
    c, wrong, order = _falling(confidence, correct)
    n = len(c)
    if not n:
        return Selective(undefined("no test images", population=POPULATION), np.zeros(0))
    last = np.searchsorted(-c, -c, side="right")  # images at least as confident: (n,)
    risk = np.cumsum(wrong)[last - 1] / last
    value = float(risk.mean())
    # An image moves its own threshold's risk, and that of every threshold at or below its confidence.
    below = _from_below(1 / last, c), _from_below(risk / last, c)
    influence = risk - value + wrong * below[0] - below[1]
    se = float(influence.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    method = "infinitesimal jackknife, log scale"
    if not value or not se:
        found = replace(wilson(int(wrong.sum()), n, population=POPULATION), value=value)
    else:
        factor = math.exp(_Z * se / value)
        found = Estimate(value, value / factor, min(1.0, value * factor), n, method, POPULATION)
    return Selective(found, _back(value + influence, order))


def _from_below(terms: FloatArray, c: FloatArray) -> FloatArray:
    """Return for each image the sum of terms over images of at most its confidence; both by falling confidence."""
    sums = np.cumsum(terms[::-1])[::-1]
    return np.asarray(sums[np.searchsorted(-c, -c, side="left")])


def accuracy_at(confidence: npt.ArrayLike, correct: npt.ArrayLike, coverage: float = COVERAGE) -> Selective:
    """Estimate the accuracy among the most confident share of images; those tied at the threshold are answered, too."""
    c, wrong, order = _falling(confidence, correct)
    n, right = len(c), 1 - wrong
    if not n:
        return Selective(undefined("no test images", population=POPULATION), np.zeros(0))
    kept = c >= c[math.ceil(coverage * n) - 1]
    count, share = int(kept.sum()), float(kept.mean())
    value = float(right[kept].mean())
    reach = max(1, round(_WINDOW * n))
    edge = float(right[max(0, count - reach) : count + reach].mean())  # accuracy at the threshold, which moves
    influence = (kept * (right - value) + (edge - value) * (share - kept)) / share
    se = float(influence.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if value in (0.0, 1.0) or not se:
        return Selective(wilson(int(right[kept].sum()), count, population=POPULATION), _back(value + influence, order))
    effective = max(1.0, value * (1 - value) / se**2)  # Wilson's interval of as many images as give this error
    found = wilson_share(value, effective)
    estimate = Estimate(value, *found, count, "Wilson, infinitesimal jackknife", POPULATION)
    return Selective(estimate, _back(value + influence, order))


def wilson_share(p: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of n images, which need not be whole."""
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def _bins(n: int) -> int:
    return max(1, min(BINS, n // PER_BIN))


def _sorted(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return confidences, rising, and confidence minus correctness; equal confidences in an order of their own values."""
    c, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    order = np.lexsort((y, c))
    return c[order], (c - y)[order]


def _falling(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    c, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    order = np.lexsort((y, -c))
    return c[order], 1 - y[order], order


def _back(values: FloatArray, order: npt.NDArray[np.int64]) -> FloatArray:
    found = np.empty_like(values)
    found[order] = values
    return found


def _middle_rank(rising: FloatArray) -> FloatArray:
    """Return the middle of the ranks that equal values share, from 0 to n: (n,)."""
    first, last = np.searchsorted(rising, rising, "left"), np.searchsorted(rising, rising, "right")
    return np.asarray((first + last) / 2)
