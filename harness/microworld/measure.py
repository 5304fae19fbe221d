"""What the embedded world can tell about generated images: the planted correlations they carry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import SHAPES
from harness.microworld.towers import PARTNERS, attribute_confusion, predict_attributes

MEASURED = ("texture", "scene")


def correlation_scores(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return per image and cause a score whose mean over the classes' means is the dose rho between class and cause.

    With E the centred expectation of `towers.generated_correlation`, the least-squares slope is a sum over images, so that
    each image has its own share: K E[class, prediction] / sum(E squared) for K classes.

    Args:
        images: (n, 3, 64, 64) uint8.
        labels: (n,) class indices; every class must occur.
    """
    predicted = predict_attributes(images)
    scores: dict[str, NDArray[np.float64]] = {}
    for cause in MEASURED:
        expected = attribute_confusion()[cause][PARTNERS[cause](np.arange(len(SHAPES)))]
        expected = expected - expected.mean(0)
        scores[cause] = len(SHAPES) * expected[labels, predicted[cause]] / (expected**2).sum()
    scores["named"] = (predicted["shape"] == labels).astype(np.float64)
    return scores
