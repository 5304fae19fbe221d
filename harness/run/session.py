"""Running a selection: plan, look at what is there, do the rest, report."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.core.errors import CorruptArtifact, DiskFailed, UserError
from harness.core.files import write_text
from harness.core.locks import FIX, lock_fault
from harness.core.offline import offline
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.run.devices import choose_device
from harness.run.executors import Launch
from harness.run.progress import ProgressReporter, RunSummary
from harness.run.status import FILE, other_host
from harness.store.artifacts import State, Store
from harness.store.cells import SHOWN_KINDS, Cell
from harness.store.housekeeping import remove_torn

Stale = Literal["stop", "reuse", "redo"]


class PlanRunner(Protocol):
    """What does the cells of a plan."""

    def run(self, plan: Plan, wanted: frozenset[str]) -> RunSummary:
        """Do the wanted cells."""


@dataclass(frozen=True)
class RunPlan:
    """A plan against a store."""

    plan: Plan
    states: dict[str, State]
    wanted: frozenset[str]
    """Keys of the cells to do: what is not done and leads to a measurement that is not done."""

    def count(self, kind: str, state: State | None = None) -> int:
        """Return how many cells of a kind there are, in all or in one state."""
        return sum(
            cell.shown_kind == kind and (state is None or self.states[key] == state)
            for key, cell in self.plan.cells.items()
        )


def plan_run(selection: Selection, store: Store, stale: Stale = "stop") -> RunPlan:
    """Plan a selection and look at which cells are done."""
    plan = Planner(selection, store=store.root).build()
    states = {key: store.state(cell) for key, cell in plan.cells.items()}
    if (rescored := Counter(states.values())["rescore"]) and stale != "reuse":
        plan.note(
            f"the code that scores {rescored} finished evaluations has changed: they are re-scored from their stored rows"
        )
    used = {key for cell in plan.cells.values() for key in cell.inputs.values()}
    todo = {
        key for key in plan.cells if not _usable(states[key], stale) and (key not in used or states[key] == "corrupt")
    }
    todo |= {key for key in plan.cells if stale == "redo" and states[key] == "stale"}
    wanted: set[str] = set()
    pending = list(todo)
    while pending:
        key = pending.pop()
        if key not in wanted:
            wanted.add(key)
            pending += [need for need in plan.cells[key].inputs.values() if not _usable(states[need], stale)]
    return RunPlan(plan, states, frozenset(wanted))


def _usable(state: State, stale: Stale) -> bool:
    return state in ("done", "rescore") or (state == "stale" and stale != "redo")


def run(
    selection: Selection,
    store: Store,
    *,
    stale: Stale = "stop",
    slots: int = 0,
    device: str = "auto",
    quiet: bool = False,
    announce: Callable[[Plan], None] = lambda plan: None,
    executor: Callable[[Store, int, str, ProgressReporter], PlanRunner] | None = None,
) -> tuple[RunPlan, RunSummary | None]:
    """Do what is left of a selection. Returns no report where nothing was left.

    ``announce`` is called with the plan before any work begins; ``executor`` does the work, worker processes by default.

    Raises:
        DataMissing: the process is offline, and a model that is needed is not in the hub's cache.
        UserError: the plan is impossible, or holds stale artifacts and ``stale`` says stop.
    """
    found = plan_run(selection, store, stale)
    announce(found.plan)
    host = other_host(store.root)
    if not host:
        remove_torn(store.root)
    old = [found.plan.cells[key] for key, state in found.states.items() if state == "stale"]
    if old and stale == "stop":
        raise _stale_error(old, store)
    if offline():
        from harness.plan.models import refuse_absent

        refuse_absent(selection, found.plan, found.wanted)
    if found.wanted or "rescore" in found.states.values():
        _prepare(store, quiet, host)
    if stale != "reuse" and (faults := _rescore(found, store)) is not None:
        found = plan_run(selection, store, stale)
        for label, fault in faults.items():
            found.plan.skip(f"re-scoring {label}", fault, asked=True, failed=True)
    for key in sorted(found.wanted):
        if found.states[key] in ("corrupt", "stale"):
            cell = found.plan.cells[key]
            print(f"note: {cell.folder} is {found.states[key]}: moved aside and rebuilt", file=sys.stderr)
            store.discard(cell, salvage=found.states[key] == "corrupt")
    if not found.wanted:
        return found, None
    if executor is None:
        from harness.run.local import LocalExecutor

        executor = LocalExecutor
    choose = executor.choose_device if isinstance(executor, Launch) else choose_device
    device, default_slots = choose(device)
    reporter = ProgressReporter(store, len(found.wanted), quiet=quiet)
    return found, executor(store, slots or default_slots, device, reporter).run(found.plan, found.wanted)


def _rescore(found: RunPlan, store: Store) -> dict[str, str] | None:
    """Make records of stored rows where only the code that scores has changed.

    One whose rows are damaged is moved aside, to be measured again; one whose plugin fails stays as it was.

    Returns:
        Label to fault of those whose plugin failed; None if there was nothing to re-score.
    """
    cells = [found.plan.cells[key] for key, state in found.states.items() if state == "rescore"]
    if not cells:
        return None
    from harness.plugins.border import PluginFailed
    from harness.run.scoring import rescore_artifact

    faults = {}
    for cell in cells:
        try:
            print(f"re-scored {cell.label}: {rescore_artifact(store.root, store.folder(cell))}", file=sys.stderr)
        except CorruptArtifact as error:
            print(f"note: {error.what}: {error.why}: moved aside and rebuilt", file=sys.stderr)
            store.discard(cell)
        except PluginFailed as error:
            faults[cell.label] = error.fault
    return faults


def set_aside_damaged(found: RunPlan, store: Store) -> bool:
    """Move those measurements of a plan aside whose bytes are not what they were sealed with; return whether there were any."""
    damaged = False
    for cell in found.plan.cells.values():
        if cell.kind == "evaluate":
            try:
                store.open(cell).verify()
            except CorruptArtifact as error:
                print(f"note: {error.what}: {error.why}: moved aside and rebuilt", file=sys.stderr)
                store.discard(cell)
                damaged = True
    return damaged


def _prepare(store: Store, quiet: bool, host: str) -> None:
    """Begin to write to a store.

    Args:
        store: The store.
        quiet: Whether to warn of nothing.
        host: Another machine whose run is alive in it although its lock can be taken here; empty: none.

    Raises:
        DiskFailed: it cannot be written.
        UserError: its locks do not work.
    """
    words = "Artifacts of the bias-of-training-data harness; see manifest.json in each folder.\n"
    try:
        write_text(store.root / "README", words)
    except (OSError, DiskFailed) as error:
        why = error.why if isinstance(error, DiskFailed) else str(error)
        fix = "free some space there, change its permissions, or give another folder with --store"
        raise DiskFailed(f"cannot write to the store {store.root}", why, fix) from error
    if fault := lock_fault(store.root):
        raise UserError(
            f"locks do not work in the store {store.root}", f"{fault}; two runs would spoil each other's work", FIX
        )
    if host:
        raise UserError(
            f"a run on {host} works in the store {store.root}, and locks do not keep it apart from this machine",
            f"it renews {FILE}, and the lock that it holds there can be taken here; two runs would spoil each other's work",
            f"wait until it has ended; or {FIX}",
        )
    from harness.core.install import shadowing

    for name in shadowing() if not quiet else ():
        print(f"warning: folder ./{name} shadows the installed package {name!r}", file=sys.stderr)


def _stale_error(old: list[Cell], store: Store) -> UserError:
    kinds = Counter(cell.shown_kind for cell in old)
    shown = ", ".join(f"{kinds[kind]} {kind}" for kind in SHOWN_KINDS if kind in kinds)
    listed = "; ".join(cell.folder for cell in old[:3]) + (" ..." if len(old) > 3 else "")
    return UserError(
        f"{len(old)} artifacts are stale ({shown})",
        f"{_why_stale(old, store)}: {listed}",
        "--stale reuse keeps them, --stale redo rebuilds them",
    )


def _why_stale(old: list[Cell], store: Store) -> str:
    older = sum(store.of_older_rules(cell) for cell in old)
    changed = "the code has changed under the same version number"
    unknown = "an older version made them: whether the code that made them has changed since is unknown"
    if not older:
        return changed
    return unknown if older == len(old) else f"of {len(old) - older} {changed}; of {older} {unknown}"
