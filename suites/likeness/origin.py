"""The dataset-origin classifier: can images be distinguished from real ones? (Liu and He 2024, A decade's battle on dataset bias)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.api import FloatArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTY = 0.1
"""Inverse strength of the squared penalty, on standardised features."""


def origin_correct(real: FloatArray, images: FloatArray) -> NDArray[np.bool_]:
    """Return whether the origin of each held-out image is recognised: (2 n,), the real ones first.

    A logistic regression on standardised features is trained on one half and judged on the other, and the other way round. The halves
    are every second image, so both hold the origins equally often, and the classes to one image.

    Args:
        real: (n, d) features, class by class; n is 2 at least.
        images: (n, d) features, with the same classes in the same places.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    half = np.tile(np.arange(len(real)) % 2, 2)
    table, truth = np.concatenate([real, images]), np.repeat([0, 1], len(real))
    correct = np.zeros(len(table), dtype=bool)
    for held_out in (0, 1):
        seen, unseen = half != held_out, half == held_out
        scaler = StandardScaler().fit(table[seen])
        model = LogisticRegression(C=PENALTY, max_iter=1000).fit(scaler.transform(table[seen]), truth[seen])
        correct[unseen] = model.predict(scaler.transform(table[unseen])) == truth[unseen]
    return correct
