"""The contract of suites: rows per test item first, metrics as pure functions of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.core.settings import NoSettings, Settings
from harness.plugins.common import DerivedInput
from harness.stats.difference import Units
from harness.store.cells import Resources
from harness.store.records import Check, Metric

if TYPE_CHECKING:
    import pandas as pd

    from harness.plugins.context import Context


@dataclass(frozen=True)
class SuiteCard:
    """What a suite measures; printed by ``describe``."""

    id: str
    version: int
    summary: str
    formula: str
    conventions: tuple[str, ...]
    citation: str
    order: int
    """Position of its columns on the board."""
    data: tuple[str, ...]
    """Names of all data sets it may read; items whose data the profile lacks are listed as not run."""
    baselines: tuple[str, ...] = ()
    """Trivial baselines without a network that it measures: ``constant``, ``uniform``, ``humans``."""
    groups: tuple[str, ...] = ()
    default: bool = True
    subject: Literal["backbone", "dataset"] = "backbone"
    sources: tuple[str, ...] = ()
    """Where each part of the protocol comes from."""
    known_disagreements: tuple[str, ...] = ()
    """What published numbers or descriptions contradict, and which side is taken here."""


@dataclass(frozen=True)
class Item:
    """One evaluation: a data set, perhaps with a fraction or a number of shots, and a probe seed."""

    label: str
    data: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    probe_seed: int = 0
    derived_inputs: tuple[DerivedInput, ...] = ()
    resources: Resources = field(default_factory=Resources)
    checkpoint: bool = True
    """Whether the evaluation itself reads the backbone (false when it works on extracted features only)."""


@dataclass(frozen=True)
class Score:
    """What a suite makes of its rows."""

    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


class Suite(ABC):
    """Base class of suites: rows per test item first, metrics as pure functions of rows."""

    card: ClassVar[SuiteCard]
    Settings: ClassVar[type[Settings]] = NoSettings
    sources: ClassVar[tuple[str, ...]] = ()
    data_inspectors: ClassVar[Mapping[str, str]] = {}
    """Data set name to ``module:function``, called with (name, root, card), that returns a ``DataReport`` or raises a
    ``UserError``; ``doctor`` and every evaluation call it. It reads lists and counts files, and decodes at most a few of them."""
    own_size: ClassVar[bool] = False
    """Whether a checkpoint from outside is measured at its own image size, whatever a setting ``image_size`` says."""
    origins: ClassVar[Mapping[str, str]] = {}
    """Data set name to where it is published, in a few words; ``doctor`` says so of one that is not given."""

    def items(self, settings: Any, arch: str) -> Sequence[Item]:
        """Return the evaluations of one backbone; by default one over all its data sets.

        Raises:
            NotPlanned: this architecture is not measured by this suite; the board shows a dash with the reason.
        """
        return (Item(label=self.card.id, data=self.card.data),)

    def protocol(self, settings: Any) -> str:
        """Return in words what makes numbers comparable besides data and classes: preprocessing, probe mode."""
        return ""

    def cost(self, item: Item, settings: Any, cards: Mapping[str, Any]) -> str:
        """Return what the evaluation of an item will process, in words, where that is worth knowing before a run."""
        return ""

    @abstractmethod
    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per test item."""

    @abstractmethod
    def score(self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return metrics and validity checks; pure: nothing but ``rows`` and the arguments count."""

    def units(
        self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return, for paired comparisons, what resampling needs of the metrics ``names``; pure as ``score``.

        A metric left out can still be compared, as if the other system had been measured on other items.
        """
        return ()


class NotPlanned(Exception):
    """Say why a suite does not measure an architecture."""
