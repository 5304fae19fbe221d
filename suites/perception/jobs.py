"""Say what one perception run is: a backbone, a data root, a training fraction and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import NORMALISATIONS
from suites.perception.arches import Arch

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[float, float, float]
Progress = Callable[[int, int, str], None]
"""Called with (iterations done, iterations in all, a note)."""
IMAGENET_MEAN, IMAGENET_STD = NORMALISATIONS["imagenet"]


def silent(done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Job:
    """Hold what varies from run to run; sizes are in the settings, the data set in its card.

    Attributes:
        state: State dict of the classification network, classifier included or not.
        arch: A name of ``arches.ARCHES``.
        root: The data set's folder.
        out: Folder for lists, checkpoints and results; a killed run continues from it.
        seed: Training seed (new layers, order, augmentation).
        fraction: Share of the training pictures.
        subset_seed: Which of the nested subsets.
        weights: Which copy of the backbone's weights this is, and their SHA-256.
        mean: Normalisation the backbone was pre-trained with, for RGB in [0, 1].
        std: The same, standard deviation.
        progress: Called after each iteration.
    """

    state: Mapping[str, Tensor]
    arch: str
    root: Path
    out: Path
    seed: int
    fraction: float = 1.0
    subset_seed: int = 0
    weights: str = ""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    progress: Progress = silent


@dataclass(frozen=True)
class Target:
    """Hold what a network is built for: backbone, class names, normalisation of RGB in [0, 1]."""

    arch: Arch
    classes: tuple[str, ...]
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    @property
    def mean_255(self) -> list[float]:
        """Return the mean for RGB in [0, 255], as the toolboxes take it."""
        return [round(value * 255, 6) for value in self.mean]

    @property
    def std_255(self) -> list[float]:
        """Return the standard deviation for RGB in [0, 255]."""
        return [round(value * 255, 6) for value in self.std]


@dataclass(frozen=True)
class Places:
    """Hold the paths in a config; the defaults are placeholders for hashing."""

    root: str = "<root>"
    backbone: str = "<backbone>"
    train_list: str = "<train_list>"
    results: str = "<results>"
