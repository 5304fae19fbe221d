"""What all executors share: the order in which the cells of a plan are done, and what follows from what becomes of them.

An executor is a subclass that starts tasks and says what has happened to them; the entry-point group ``harness.executors``
makes it known under a name. All state lives in the files of the store, so an executor may end at any time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from harness.core.errors import CorruptArtifact
from harness.core.locks import lock
from harness.core.offline import offline
from harness.core.settings import NoSettings
from harness.core.settings import Settings as SettingsModel
from harness.plan.model import Plan
from harness.run.devices import choose_device
from harness.run.job import Job
from harness.run.join import missing_shards
from harness.run.progress import ProgressReporter, RunSummary
from harness.run.queue import Task, TaskQueue
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.housekeeping import in_use_path

ATTEMPTS = 3
FIRST = float("inf")
"""Rank of inputs that were found damaged during the run: everything waits for them."""
Event = Mapping[str, Any]
"""What has happened to a task: a mapping with ``event`` and

    ``started``     ``pid``, or ``place``: where it runs, in words
    ``progress``    ``done``, ``total``, ``note``
    ``done``        ``cpu_seconds``; ``wall_seconds`` if known
    ``failed``      ``error`` (``what``, ``why``, ``fix``), ``damaged``: whether an input may be, ``cpu_seconds``
    ``died``        ``why``: it ended without an answer, and is tried again, three times in all
"""


@dataclass
class _State:
    waiting: dict[str, set[str]] = field(default_factory=dict)
    shards: dict[str, set[str]] = field(default_factory=dict)
    began: dict[tuple[str, str], float] = field(default_factory=dict)
    """Tasks that were started and have not ended."""
    attempts: dict[tuple[str, str], int] = field(default_factory=dict)


class Executor(ABC):
    """Does the cells of a plan.

    Args:
        store: Where artifacts are written.
        slots: Number of tasks that may run at once.
        device: ``cpu`` or ``cuda``.
        board: Where progress is reported.
        settings: The table of the profile that bears the executor's name, as an instance of ``Settings``; None: its defaults.
    """

    Settings: ClassVar[type[SettingsModel]] = NoSettings

    def __init__(
        self, store: Store, slots: int, device: str, board: ProgressReporter, settings: SettingsModel | None = None
    ) -> None:
        self.store, self.slots, self.device, self.board = store, slots, device, board
        self.settings = settings or self.Settings()

    @abstractmethod
    def has_room(self, cell: Cell) -> bool:
        """Return whether a task of a cell can be started now. Where nothing runs it must be, whatever the task needs."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Start a task; ``message`` is what a worker needs to know of it."""

    @abstractmethod
    def events(self) -> Iterable[tuple[Task, Event]]:
        """Wait for at most a second, and yield what has happened to started tasks."""

    def stop(self) -> None:
        """Release everything; called once, however the run ends."""
        return

    def interrupted(self) -> None:
        """Decide what becomes of the tasks that run, after Ctrl-C and before ``stop``."""
        return

    @classmethod
    def choose_device(cls, asked: str, settings: SettingsModel) -> tuple[str, int]:
        """Return device and number of slots for ``--device``: ``auto``, ``cpu`` or ``cuda``. Default: those of this machine."""
        return choose_device(asked)

    @classmethod
    def requests(cls, cells: Sequence[Cell], device: str, slots: int, settings: SettingsModel) -> list[dict[str, Any]]:
        """Return what would be asked for to do these cells: rows of a table, for ``plan``."""
        return []

    @classmethod
    def remaining(cls, store: Path) -> list[str]:
        """Return what goes on in a store whether or not a command waits for it: lines for ``status``."""
        return []

    def message(self, task: Task) -> dict[str, Any]:
        """Return what a worker is told of a task: plain JSON values."""
        job = Job(
            task.cell,
            self.plan.inputs(task.cell),
            self.plan.sources_of(task.cell),
            str(self.store.root),
            task.shard,
            self.device,
        )
        return {"job": job.to_dict(), "log": str(self.store.log(task.cell)), "offline": offline()}

    def run(self, plan: Plan, wanted: frozenset[str]) -> RunSummary:
        """Process the wanted cells of a plan; a failed cell stops only the cells that depend on it."""
        self.plan, self.rank_of = plan, _ranks(plan, wanted)
        self.state = _State()
        self.ready = TaskQueue(lambda key: self.rank_of.get(key, FIRST))
        for key in wanted:
            cell = plan.cells[key]
            self.state.waiting[key] = {need for need in cell.inputs.values() if need in wanted}
        for key in [key for key, needs in self.state.waiting.items() if not needs]:
            self._release(plan.cells[key])
        self.board.begin(
            [plan.cells[key] for key in plan.cells if key in wanted],
            [plan.cells[key] for key in plan.cells if key not in wanted],
            self.slots,
        )
        try:
            with lock(in_use_path(self.store.root), shared=True):
                self._work()
        except BaseException as error:
            self.board.interrupt()
            if isinstance(error, KeyboardInterrupt):
                self.interrupted()
            raise
        finally:
            self.stop()
        return self.board.finish()

    def _work(self) -> None:
        while self.ready or self.state.began:
            self._start_ready()
            for task, event in self.events():
                self._handle(task, event)
            self.board.tick()

    def _release(self, cell: Cell) -> None:
        """Queue the tasks of a cell: the shards it lacks first, the cell itself after the last of them."""
        self.state.waiting.pop(cell.key, None)
        missing = missing_shards(self.store.folder(cell), cell)
        self.state.shards[cell.key] = set(missing)
        self.ready.add(cell, missing)
        self.board.resumed(cell, len(cell.shards) - len(missing))

    def _start_ready(self) -> None:
        for task in self.ready.take(self.has_room):
            self.state.attempts[task.id] = self.state.attempts.get(task.id, 0) + 1
            self.state.began[task.id] = time.monotonic()
            self.start(task)

    def _handle(self, task: Task, event: Event) -> None:
        name = event["event"]
        if task.id not in self.state.began:  # one that was given up
            return
        if name == "started":
            self.state.began[task.id] = time.monotonic()
            self.board.started(task.cell, task.shard, event.get("pid", 0), event.get("place", ""))
        elif name == "progress":
            self.board.progress(task.cell, task.shard, event["done"], event["total"], event["note"])
        elif name in ("done", "failed", "died"):
            since = time.monotonic() - self.state.began.pop(task.id)
            seconds = event.get("wall_seconds", since)
            if name == "died":
                self._died(task, event["why"])
            else:
                self._finish_task(task, event, seconds)

    def _died(self, task: Task, cause: str) -> None:
        """Try a task again whose worker died, unless it has died too often."""
        if self.state.attempts[task.id] < ATTEMPTS:
            self.board.note(f"{task.name}: its worker died ({cause}); trying again")
            self.ready.add_first(task)
            return
        error = {
            "what": f"the worker died {ATTEMPTS} times",
            "why": cause,
            "fix": "check the log and the memory of this machine, then run the same command again",
        }
        self._finish_task(task, {"event": "failed", "damaged": False, "cpu_seconds": 0.0, "error": error}, 0.0)

    def _finish_task(self, task: Task, event: Event, seconds: float) -> None:
        cell = task.cell
        if event["event"] == "failed":
            if event["damaged"] and self._remake_inputs(task):
                return
            self.board.failed(cell, task.shard, event["error"], event["cpu_seconds"])
            self._block(cell)
            return
        self.board.done(cell, task.shard, seconds, event["cpu_seconds"])
        if task.shard:
            left = self.state.shards[cell.key]
            left.discard(task.shard)
            if not left:
                self.ready.add_first(Task(cell))
            return
        for key, needs in list(self.state.waiting.items()):
            needs.discard(cell.key)
            if not needs:
                self._release(self.plan.cells[key])

    def _remake_inputs(self, task: Task) -> bool:
        """Move damaged inputs of a task aside and rebuild them; returns whether there were any."""
        if self.state.attempts[task.id] >= ATTEMPTS:
            return False
        damaged = []
        for cell in self.plan.inputs(task.cell).values():
            try:
                self.store.open(cell).verify()
            except CorruptArtifact as error:
                self.board.note(f"{error.what}: {error.why}; moved aside, will be rebuilt")
                self.store.discard(cell, salvage=True)
                damaged.append(cell)
        if damaged:
            self.state.waiting[task.cell.key] = {cell.key for cell in damaged}
            for cell in damaged:
                self._release(cell)
        return bool(damaged)

    def _block(self, cell: Cell) -> None:
        self.ready.drop(cell)
        for key, needs in list(self.state.waiting.items()):
            if cell.key in needs and key in self.state.waiting:  # one that it needs, too, may have blocked it meanwhile
                del self.state.waiting[key]
                self.board.blocked(self.plan.cells[key], cell)
                self._block(self.plan.cells[key])


def _ranks(plan: Plan, wanted: Collection[str]) -> dict[str, float]:
    """Minutes of the longest path from each wanted cell to the end of the plan; the longest is started first."""
    ranks: dict[str, float] = {}
    users: dict[str, list[str]] = {}
    for key in wanted:
        for need in plan.cells[key].inputs.values():
            users.setdefault(need, []).append(key)
    for key in reversed(list(_ordered(plan, wanted))):
        cell = plan.cells[key]
        ranks[key] = cell.resources.minutes * max(len(cell.shards), 1) + max(
            (ranks[user] for user in users.get(key, ())), default=0.0
        )
    return ranks


def _ordered(plan: Plan, wanted: Collection[str]) -> Iterator[str]:
    return (key for key in plan.cells if key in wanted)
