"""What generators and suites share: derived inputs, amounts of work, reports on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypeVar  # typing's has no default before Python 3.13

from harness.core.settings import Settings
from harness.store.cells import Resources

S = TypeVar("S", bound=Settings, default=Any)
"""The settings of a generator or suite: ``Generator[MySettings]`` types every hook that is given them."""


@dataclass(frozen=True)
class Workload:
    """How much work a cell is and at which assumed speed; used by ``plan``, part of no identity."""

    count: int
    unit: str
    """What is counted, such as ``updates of 8 images``."""
    per_second: float
    """Assumed speed on one device; the profile's minutes and measured times come before it."""

    @property
    def minutes(self) -> float:
        """Return the expected time."""
        return self.count / self.per_second / 60

    def __str__(self) -> str:
        return f"{self.count:,} {self.unit}"


@dataclass(frozen=True)
class DataReport:
    """What is in the root of a data set; one line of ``doctor``."""

    layout: str
    """Which of the layouts in circulation it is."""
    counts: str
    """Number of images per part, as text."""
    classes: str
    """Which class list, as text."""
    sample: tuple[str, ...] = ()
    """Paths of a few images (``sample_paths``), which ``doctor`` decodes."""
    verified: tuple[str, ...] = ()
    """Files whose hashes are those expected."""
    wrong: tuple[str, ...] = ()
    """Files whose hashes differ, each with what was expected."""
    asked: tuple[str, ...] = ()
    """What a run asks about, each with the setting that answers it."""


@dataclass(frozen=True)
class ModelReport:
    """How a model that a setting names will be read; one line of ``doctor``."""

    setting: str
    location: str
    """The setting's value."""
    layout: str
    """Which of the forms in circulation it is."""
    notes: tuple[str, ...] = ()
    """What differs from the published form, a sentence each: printed by ``plan``, part of the keys of what is made from it, and
    stated in the records."""


@dataclass(frozen=True)
class DerivedInput:
    """Something derived once and shared by evaluations or generators, such as features; made by an extract cell."""

    role: str
    """Name under which it is found in ``ctx.inputs``."""
    name: str
    """Name of the extraction; with ``params``, data and (for evaluations) the backbone its identity."""
    version: int
    callable_path: str
    """``module:function``, called with a Context."""
    params: Mapping[str, Any]
    data: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    per_second: float = 0.0
    """Assumed images per second, if it reads every image; for ``plan``."""
