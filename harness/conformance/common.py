"""What the checks of generators and of suites share: planning small, running some cells, doing one again here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import Profile
from harness.run.job import Job, execute
from harness.run.local import LocalExecutor
from harness.run.progress import ProgressReporter, RunSummary
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.data import find_data

WORKERS = 2


def make_plan(selection: Selection) -> Plan:
    """Return the plan of a selection."""
    return Planner(selection).build()


def closure(plan: Plan, cells: Iterable[Cell]) -> frozenset[str]:
    """Return the keys of cells and of everything they need."""
    found: set[str] = set()
    pending = list(cells)
    while pending:
        cell = pending.pop()
        if cell.key not in found:
            found.add(cell.key)
            pending += [plan.cells[key] for key in cell.inputs.values()]
    return frozenset(found)


def run_cells(plan: Plan, keys: frozenset[str], store: Store) -> RunSummary:
    """Do cells with two workers, as a run would."""
    todo = frozenset(key for key in keys if store.state(plan.cells[key]) != "done")
    return LocalExecutor(store, WORKERS, "cpu", ProgressReporter(store, len(todo), quiet=True)).run(plan, todo)


def do_here(
    plan: Plan, cell: Cell, store: Store, shard: str = "", progress: Callable[[int, int, str], None] | None = None
) -> None:
    """Do a cell, or one shard of it, in this process."""
    order = Job(cell, plan.inputs(cell), plan.sources, str(store.root), shard)
    if progress is None:
        execute(order)
    else:
        execute(order, progress)


def borrow(store: Store, lender: Store, cells: Iterable[Cell]) -> None:
    """Make finished artifacts of one store visible in another by links."""
    for cell in cells:
        target = store.folder(cell)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(lender.folder(cell), target_is_directory=True)


def data_roots(profile: Profile) -> dict[str, str]:
    """Return the roots of all data sets of a profile that are there or can be written."""
    found = {name: find_data(name, settings) for name, settings in profile.data.items()}
    return {name: source.root for name, source in found.items() if not isinstance(source, str)}


def sized(profile: Profile, images: int, chunk: int) -> Profile:
    """Return a profile that asks for few images."""
    return profile.model_copy(
        update={"dataset": profile.dataset.model_copy(update={"images_per_class": images, "chunk": chunk})}
    )


def without_data(profile: Profile) -> Profile:
    """Return a profile in which no data set is given."""
    return profile.model_copy(update={"data": {}})


def selection_of(profile: Profile, generators: str, suites: str, base: Selection | None = None) -> Selection:
    """Return a selection of one backbone and one seed."""
    first = next(iter(profile.backbones), "")
    made = Selection(profile, generators, suites, first)
    return made if base is None else replace(base, profile=profile, suites=suites)


def folder_files(folder: Path) -> dict[str, bytes]:
    """Return the content of an artifact's files but for its manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
