"""What plans are made of: what is asked for, what is measured, the cells, and what is not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones import baseline as baselines
from harness.backbones.preprocessing import Preprocessing
from harness.core.classes import ClassList
from harness.plan.profile import Profile
from harness.store.cells import Cell
from harness.store.data import DataSource

if TYPE_CHECKING:
    from harness.backbones.loaded import CodeSource


@dataclass(frozen=True)
class ExternalCheckpoint:
    """Weights from outside, evaluated without generator or pre-training."""

    path: Path
    arch: str
    classes: str
    feed: Preprocessing = field(default_factory=Preprocessing)
    """How images reach it."""
    weights: str | None = None
    """``raw`` or ``ema``; None takes the average where the file keeps one, else what there is."""
    baseline: baselines.Baseline | None = None
    """A trivial baseline instead of a file."""
    notes: tuple[str, ...] = ()
    """What was chosen for the user, with its origin; printed."""
    warnings: tuple[str, ...] = ()
    """What contradicts the network's own statement; printed, and kept in every record."""
    name: str = ""
    """What the board calls it, without the digits of its hash; empty: the file's name."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments that a ``config.json`` beside the weights states."""
    features_only: bool = False
    """Whether the file has no classifier head."""
    head: Path | None = None
    """File of a linear head that was trained on the network's features."""
    identity: str = ""
    """Of a model that lives in this process instead of a file: what stands for it in keys. It gives logits only."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the function that made such a model says of it; part of keys and records."""
    source: CodeSource | None = None
    """The function by which a worker makes such a model again; None: only this process holds it."""


@dataclass(frozen=True)
class Selection:
    """What the user asked for."""

    profile: Profile
    generators: str = ""
    suites: str = "all"
    backbones: str = ""
    seeds: int = 1
    vary: str = ""
    external: ExternalCheckpoint | None = None


@dataclass(frozen=True)
class NotRun:
    """Something of the selection that is not in the plan."""

    what: str
    reason: str
    asked: bool
    """Whether the user named it; then the run ends with exit code 4."""
    failed: bool = False
    """Whether the code of a plugin failed while it was planned; then the run ends with exit code 1."""


@dataclass(frozen=True)
class PlannedSubject:
    """A backbone, trained by us or from outside, ready to be measured."""

    cell: Cell
    generator: str
    arch: str
    generator_seed: int
    train_seed: int
    information: tuple[str, ...]
    classes: ClassList
    recipe: str
    baseline: str = ""
    """Kind of a trivial baseline; empty for a trained network."""
    image_size: int = 0
    """Side of its inputs in pixels, of a checkpoint from outside; 0 where the profile decides."""
    logits_only: bool = False
    """Whether it gives logits and nothing else: neither features nor weights."""
    features_only: bool = False
    """Whether it has no classifier head, and so gives no logits."""


@dataclass
class Plan:
    """The cells in an order in which every input comes first."""

    cells: dict[str, Cell] = field(default_factory=dict)
    sources: dict[str, DataSource] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is run otherwise than the words of the selection say."""
    warnings: list[str] = field(default_factory=list)
    """What may make the numbers wrong."""

    def add(self, cell: Cell) -> Cell:
        """Add a cell once; equal keys are one cell."""
        return self.cells.setdefault(cell.key, cell)

    def inputs(self, cell: Cell) -> dict[str, Cell]:
        """Return the cells whose artifacts a cell reads."""
        return {role: self.cells[key] for role, key in cell.inputs.items()}

    def sources_of(self, cell: Cell) -> dict[str, DataSource]:
        """Return the data sets a cell may open: its own and those an imported dataset among its inputs points to."""
        return {name: self.sources[name] for one in (cell, *self.inputs(cell).values()) for name in one.data}

    def skip(self, what: str, reason: str, asked: bool, *, failed: bool = False) -> None:
        """Note something that is not run, once."""
        entry = NotRun(what, reason, asked, failed)
        if entry not in self.not_run:
            self.not_run.append(entry)

    def note(self, text: str) -> None:
        """Note that something is run otherwise, once."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        """Note what may make the numbers wrong, once."""
        if text not in self.warnings:
            self.warnings.append(text)
