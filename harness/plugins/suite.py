"""The contract of suites: rows per test item first, metrics as pure functions of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from harness.core.hub import HubModel, hub_models
from harness.core.settings import NoSettings, Settings
from harness.plugins.common import DerivedInput, S
from harness.stats.difference import Units
from harness.store.cells import Resources
from harness.store.records import Check, Metric

if TYPE_CHECKING:
    import pandas as pd

    from harness.plugins.context import Context


ColumnKind = Literal["text", "integer", "number", "flag", "list"]
"""Kind of a column of rows: strings, integers, integers or floats (NaN allowed), booleans, arrays or lists."""


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
    metrics: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Name of each metric in its records to its formula or meaning, for ``describe NAME``; ``*`` in a name stands for any
    letters, as in ``Acc_*``."""


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
    """Metrics, validity checks (a failed one keeps the value out of rankings) and notes for the page."""

    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


class Suite(ABC, Generic[S]):
    """Base class of suites: rows per test item first, metrics as pure functions of rows."""

    card: ClassVar[SuiteCard]
    Settings: ClassVar[type[Settings]] = NoSettings
    sources: ClassVar[tuple[str, ...]] = ()
    data_inspectors: ClassVar[Mapping[str, str]] = {}
    """Data set name to ``module:function``, called with (name, root, card), that returns a ``DataReport`` or raises a
    ``UserError``; ``doctor`` and every evaluation call it. It reads lists and counts files, and decodes at most a few of them."""
    layout_checks: ClassVar[Mapping[str, str]] = {}
    """Data set name to ``module:function``, called with (name, root, card) while a run is planned, that raises a ``UserError``
    where the data set cannot be read, whatever head is measured. It lists files and opens no picture."""
    columns: ClassVar[Mapping[str, ColumnKind]] = {}
    """Columns that ``rows`` must return, with their kinds; it may return more."""
    row_key: ClassVar[tuple[str, ...]] = ()
    """Columns that together tell two rows apart; empty: all columns."""
    unbounded: ClassVar[tuple[str, ...]] = ()
    """Names of metrics in fractions or points that may leave the range of their unit, [0, 1] or [-100, 100], because they are
    quotients; ``*`` stands for any letters."""
    precision: ClassVar[str] = ""
    """What the suite computes in if that is not the checkpoint's own precision; the record states it."""
    own_size: ClassVar[bool] = False
    """Whether a checkpoint from outside is measured at its own image size, whatever a setting ``image_size`` says."""
    origins: ClassVar[Mapping[str, str]] = {}
    """Data set name to where it is published, in a few words; ``doctor`` says so of one that is not given."""

    def items(self, settings: S, arch: str) -> Sequence[Item]:
        """Return the evaluations of one backbone; by default one over all its data sets.

        Each becomes one cell and one record. No two may have the same label and probe seed.

        Raises:
            NotPlanned: this architecture is not measured by this suite; the board shows a dash with the reason.
        """
        return (Item(label=self.card.id, data=self.card.data),)

    def hub_models(self, settings: S) -> Sequence[HubModel]:
        """Return the models of the Hugging Face hub that the evaluations read; see ``Generator.hub_models``.

        Raises:
            UserError: one of them is not on the hub.
        """
        return [model for name in self.sources for model in hub_models(str(getattr(settings, name)))]

    def protocol(self, settings: S) -> str:
        """Return what else makes numbers comparable besides data and classes, as text: preprocessing, probe mode."""
        return ""

    def cost(self, item: Item, settings: S, cards: Mapping[str, Any]) -> str:
        """Return what the evaluation of an item will process, as text for ``plan``; empty: nothing is shown."""
        return ""

    @abstractmethod
    def rows(self, ctx: Context) -> pd.DataFrame:
        """Measure, and return one row per test item: what each item's outcome was, not yet any metric.

        Runs in a worker on ``ctx.device``; random numbers come from ``ctx.seed(...)`` only.

        Returns:
            A DataFrame that parquet can hold: unique string column names; strings, integers, floats, booleans or lists of
            these. It has the ``columns`` that the suite declares. No two rows agree in ``row_key`` (without one: in all
            columns). The order of the rows is decided by data and settings alone, never by time, batch or worker, since equal
            rows are stored as equal bytes. The index is dropped. A column that names the item (``item``, ``image``) is what
            ``units`` pairs by.

        Raises:
            DataMissing: a data set is not where it was looked for (exit code 4).
            UserError: a data set is not as expected. Any other exception is reported as a failure of this suite.
        """

    @abstractmethod
    def score(self, rows: pd.DataFrame, item: Item, settings: S, cards: Mapping[str, Any]) -> Score:
        """Return metrics and validity checks.

        A pure function of its arguments, since stored rows are scored again whenever a formula changes: no device, no files, and
        no order of the rows (``check`` shuffles them). Resampling may draw random numbers from a generator with a fixed seed.

        Args:
            rows: What ``rows`` returned, as read back from parquet.
            item: The item; ``label``, ``data``, ``params`` and ``probe_seed`` are set, the rest is at its defaults.
            settings: The cell's settings.
            cards: Name of every data set of the item to its card (JSON object); empty for the public data set.

        Returns:
            Metrics with names of their own; values are in the metric's unit (fractions, not percent), and never NaN: a value that
            is not defined is ``undefined(reason, ...)``.
        """

    def units(
        self, rows: pd.DataFrame, item: Item, settings: S, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return the per-item data of metrics, for paired comparisons; pure as ``score``.

        Args:
            rows: As for ``score``.
            item: As for ``score``.
            settings: As for ``score``.
            cards: As for ``score``.
            names: Names of the metrics that are compared: those with the role ``primary`` or ``secondary``, or a ``group``.

        Returns:
            Units of some or all of them (``flag_units`` for a share). Item names within a metric's units are unique. A metric
            without units is compared as if the two systems had been measured on different items.
        """
        return ()


class NotPlanned(Exception):
    """Raise it in ``Suite.items``: the suite does not measure this architecture, for the reason given."""
