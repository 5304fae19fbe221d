"""Density, coverage, precision and recall of images among real ones, from distances between their features (numpy only).

With x_1..x_n real and y_1..y_n from the data set, r_k(x) the distance of x to its k-th nearest other real image, and B the closed ball:

* density = 1/(k n) sum_i sum_j [y_i in B(x_j, r_k(x_j))] and coverage = 1/n sum_j [some y_i in B(x_j, r_k(x_j))]
  (Naeem et al., ICML 2020; k = 5);
* precision = 1/n sum_i [y_i in B(x_j, r_k(x_j)) for some j], and recall the same with x and y exchanged
  (Kynkäänniemi et al., NeurIPS 2019; k = 3).

Both sides have the same n: r_k shrinks as n grows, so that with more images on one side its balls would be smaller, precision fall and
recall rise without any change of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.api import FloatArray

K_BALL = 5
"""Neighbours of density and coverage."""
K_SET = 3
"""Neighbours of precision and recall."""
GRID = 10_000
"""Steps of a unit: features are whole numbers of steps, so that distances are exact and neither block nor order changes a bit."""
_BLOCK = 1000


@dataclass(frozen=True)
class Neighbours:
    """Per-image outcomes; their means are the four metrics."""

    density: FloatArray
    """(n,) of the data set: real balls around the image, divided by k."""
    precision: FloatArray
    """(n,) of the data set: 1 if some real ball holds the image."""
    coverage: FloatArray
    """(n,) of the real images: 1 if the ball holds some image of the data set."""
    recall: FloatArray
    """(n,) of the real images: 1 if some ball of the data set holds the image."""


def unit_features(features: FloatArray) -> FloatArray:
    """Return features (n, d) of length one, as whole numbers of 1/10,000."""
    table = np.asarray(features, dtype=np.float64)
    return np.rint(GRID * table / np.linalg.norm(table, axis=1, keepdims=True))


def neighbours(real: FloatArray, images: FloatArray, k_ball: int = K_BALL, k_set: int = K_SET) -> Neighbours:
    """Compare two equally large samples.

    Args:
        real: (n, d) features of real images.
        images: (n, d) features of the data set's.
        k_ball: Neighbours of density and coverage, below n.
        k_set: Neighbours of precision and recall, below n.
    """
    if len(real) != len(images) or len(real) <= max(k_ball, k_set):
        raise ValueError(
            f"{len(real)} and {len(images)} images: equally many are compared, and more than {max(k_ball, k_set)}"
        )
    balls, sets = radii(real, k_ball), radii(real, k_set)
    own = radii(images, k_set)
    density, precision = np.zeros(len(images)), np.zeros(len(images))
    coverage, recall = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for start in range(0, len(images), _BLOCK):
        part = slice(start, start + _BLOCK)
        apart = squared_distances(images[part], real)
        inside = apart <= balls
        density[part] = inside.sum(axis=1) / k_ball
        precision[part] = (apart <= sets).any(axis=1)
        coverage |= inside.any(axis=0)
        recall |= (apart <= own[part, None]).any(axis=0)
    return Neighbours(density, precision, coverage.astype(float), recall.astype(float))


def radii(features: FloatArray, k: int) -> FloatArray:
    """Return the squared distance of each image to its k-th nearest other: (n,)."""
    found = np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        apart = squared_distances(features[start : start + _BLOCK], features)
        apart[np.arange(len(apart)), start + np.arange(len(apart))] = np.inf
        found[start : start + _BLOCK] = np.partition(apart, k - 1, axis=1)[:, k - 1]
    return found


def squared_distances(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return (n, m) squared Euclidean distances, never below 0."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)
    return np.maximum(squares - 2 * one @ other.T, 0)


def mean_distances(features: FloatArray) -> FloatArray:
    """Return each image's mean cosine distance to the other images of its class: (n,), NaN where it is alone.

    Their mean is the mean pairwise distance of the class.
    """
    if len(features) < 2:
        return np.full(len(features), np.nan)
    table = features / np.linalg.norm(features, axis=1, keepdims=True)
    return np.maximum(0.0, (1 - table @ table.T)).sum(axis=1) / (len(table) - 1)
