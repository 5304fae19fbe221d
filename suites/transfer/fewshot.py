"""Probes on a subset of the training images; the test part is never reduced.

Subsets are stratified and nested (a smaller fraction is part of a larger one) and the same for every backbone. C is
chosen inside the subset only: with ten or more images in the smallest class by the toolbox's split, below by stratified
folds; with one image per class nothing is left to validate on and a fixed C is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from suites.transfer.search import ProbeResult, ProbeSettings, Progress, fit_probe
from suites.transfer.splits import Fold, IntArray, nested_subset, toolbox_split, validation_folds


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Features of a trainval part with what splits are made of."""

    dataset: str
    x: npt.NDArray[np.float32]
    """(n, d)."""
    labels: IntArray
    """(n,)."""
    names: tuple[str, ...]
    """(n,) paths; splits depend on them and not on their order."""
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """A probe on a subset."""

    probe: ProbeResult
    subset: IntArray
    """Ascending positions in the trainval part."""
    validation: str
    """How C was chosen: ``split``, ``N folds`` or ``fixed C``."""


def run_few_shot(
    train: TrainingSet,
    test_x: npt.NDArray[np.float32],
    settings: ProbeSettings,
    *,
    seed: int,
    fraction: float | None = None,
    shots: int | None = None,
    progress: Progress | None = None,
) -> FewShotResult:
    """Fit a probe on ``fraction`` of every class, or on ``shots`` images of it; the whole set gives the full probe.

    Args:
        train: The trainval part.
        test_x: (m, d) test features.
        settings: As for the full probe; ``fixed_c`` is used where one image per class is left.
        seed: Seed of subset, split and sampler.
        fraction: Share in (0, 1].
        shots: Images per class; give one of the two.
        progress: Called with the number of C tried and expected.
    """
    subset = nested_subset(
        train.dataset, train.names, train.labels, train.classes, seed, fraction=fraction, shots=shots
    )
    names, labels = [train.names[i] for i in subset], train.labels[subset]
    whole = len(subset) == len(train.labels)
    folds: Sequence[Fold] = ()
    if settings.search == "fixed" or int(np.bincount(labels)[np.unique(labels)].min()) < 2:
        settings, validation = replace(settings, search="fixed"), "fixed C"
    elif whole:
        folds, validation = (toolbox_split(train.dataset, names, labels, train.classes, seed),), "split"
    else:
        folds = validation_folds(train.dataset, names, labels, train.classes, seed)
        validation = "split" if len(folds) == 1 else f"{len(folds)} folds"
    probe = fit_probe(train.x[subset], labels, test_x, folds, settings, seed=seed, progress=progress)
    return FewShotResult(probe, subset, validation)
