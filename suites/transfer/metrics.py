"""Accuracies as pure functions of rows: one row per test image and probe seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.api import Estimate, bootstrap, ratio, undefined, wilson

POPULATION = "new test images"
_REPLICATES = 2000

FloatArray = npt.NDArray[np.float64]


def top1(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, items: npt.ArrayLike | None = None, *, seed: int = 0
) -> Estimate:
    """Return the share of correct predictions.

    With one row per image the interval is Wilson's. With several (probe seeds) the value is the mean over all rows and
    the interval resamples images with all their rows, since the seeds share them.

    Args:
        labels: (rows,) true labels.
        predicted: (rows,) predicted labels.
        items: (rows,) image names; None when every row is another image.
        seed: Seed of the resampling.
    """
    correct = np.asarray(labels) == np.asarray(predicted)
    if correct.size == 0:
        return undefined("no test images", population=POPULATION)
    if items is None or len(np.unique(np.asarray(items))) == correct.size:
        return wilson(int(correct.sum()), correct.size, population=POPULATION)
    features = np.stack([correct, np.ones_like(correct)], axis=1)
    return bootstrap(
        _share,
        [features],
        seed=seed,
        population=POPULATION,
        clusters=[np.asarray(items)],
        method="bootstrap (image)",
        n=len(np.unique(np.asarray(items))),
        replicates=_REPLICATES,
    )


def mean_per_class(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, items: npt.ArrayLike | None = None, *, seed: int = 0
) -> Estimate:
    """Return the mean over classes of the share of correct predictions (recall).

    The toolbox stores this number under a key that looks like mean average precision. Images are resampled within their
    class.
    """
    truth = np.asarray(labels)
    correct = truth == np.asarray(predicted)
    if correct.size == 0:
        return undefined("no test images", population=POPULATION)
    names = np.arange(correct.size) if items is None else np.asarray(items)
    members = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    features = np.stack([correct, np.ones_like(correct)], axis=1)
    return bootstrap(
        _mean_share,
        [features[index] for index in members],
        seed=seed,
        population=POPULATION,
        clusters=[names[index] for index in members],
        method="bootstrap (image within class)",
        n=len(np.unique(names)),
        replicates=_REPLICATES,
    )


def _share(totals: FloatArray) -> FloatArray:
    return ratio(totals[:, 0, 0], totals[:, 0, 1])


def _mean_share(totals: FloatArray) -> FloatArray:
    return np.asarray(ratio(totals[..., 0], totals[..., 1]).mean(axis=1))
