"""The tasks of a run that may start: cells and their shards, the longest path first."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.store.cells import Cell


@dataclass(frozen=True)
class Task:
    """A cell, or one of its shards."""

    cell: Cell
    shard: str = ""

    @property
    def id(self) -> tuple[str, str]:
        """Task id."""
        return self.cell.key, self.shard

    @property
    def name(self) -> str:
        """Display name."""
        return f"{self.cell.shown_kind} {self.cell.label}" + (f" {self.shard}" if self.shard else "")


@dataclass
class TaskQueue:
    """Tasks by cell. Tasks of one cell need the same resources, so one look at a cell tells about all its shards.

    Cells of equal rank stay apart: a worker that changes its cell with every shard loads a model for each.
    """

    rank: Callable[[str], float]
    """Of a cell's key; the highest comes first."""
    _first: deque[Task] = field(default_factory=deque)
    """Tasks that go before all others, the latest first."""
    _tasks: dict[str, deque[Task]] = field(default_factory=dict)
    _order: list[tuple[float, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether a task waits."""
        return bool(self._first or self._order)

    def add(self, cell: Cell, shards: Sequence[str] = ()) -> None:
        """Add the shards of a cell, or the cell itself where none are given."""
        self.drop(cell)
        self._tasks[cell.key] = deque([Task(cell, shard) for shard in sorted(shards)] or [Task(cell)])
        insort(self._order, (-self.rank(cell.key), cell.key))

    def add_first(self, task: Task) -> None:
        """Add a task before all others: one that is tried again, or that ends its cell."""
        self._first.appendleft(task)

    def drop(self, cell: Cell) -> None:
        """Forget the tasks of a cell."""
        self._first = deque(task for task in self._first if task.cell.key != cell.key)
        self._forget(cell.key)

    def take(self, fits: Callable[[Cell], bool]) -> Iterator[Task]:
        """Take out, in order, every task whose cell fits when its turn comes."""
        for task in list(self._first):
            if fits(task.cell):
                self._first.remove(task)
                yield task
        for _, key in list(self._order):
            tasks = self._tasks[key]
            while tasks and fits(tasks[0].cell):
                yield tasks.popleft()
            if not tasks:
                self._forget(key)

    def _forget(self, key: str) -> None:
        if self._tasks.pop(key, None) is not None:
            self._order = [entry for entry in self._order if entry[1] != key]
