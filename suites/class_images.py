"""Images with labels in the order of a class list, as readers of validation sets return them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class ClassImages:
    """Images with labels in the order of a class list."""

    root: Path
    layout: str
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """(n,) position in the class list."""
    outside: int
    """Images left out because their class is not in the list."""
    read: Callable[[str], bytes] | None = None
    """Returns the encoded bytes of a path; None: the paths are files below the root."""
