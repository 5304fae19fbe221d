"""Remaining time of a run: expected times of its cells, corrected by the times measured so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.store.cells import KINDS, Cell


@dataclass
class Running:
    """A task that a worker is doing."""

    cell: Cell
    name: str
    pid: int
    began: float
    """On the monotonic clock, in seconds."""
    since: float
    """Unix time."""
    done: int = 0
    total: int = 0
    note: str = ""
    place: str = ""
    """Where it runs, in words, if it is no process of this machine."""

    def seconds_left(self) -> float | None:
        """Estimate from the steps done so far, in seconds; None before there is anything to go by."""
        seconds = time.monotonic() - self.began
        return seconds * (self.total - self.done) / self.done if 0 < self.done < self.total and seconds > 2 else None


class Workload:
    """The cells of a run, and how much of each is done.

    The expectation of a cell is what its profile states. What has finished corrects it: by the ratio of measured to expected
    time of the cells of its kind, or of all cells as long as none of its kind has finished.
    """

    def __init__(self, cells: Sequence[Cell] = (), slots: int = 1) -> None:
        """Take the cells to do, and the number of workers."""
        self._cells = {cell.key: cell for cell in cells}
        self._slots = max(1, slots)
        self._shards: dict[str, int] = {}
        self._done: set[str] = set()
        self._dropped: set[str] = set()
        self._measured: dict[str, float] = {}
        self._expected: dict[str, float] = {}

    def resumed(self, cell: Cell, shards: int) -> None:
        """Note that some shards of a cell were there before."""
        self._shards[cell.key] = shards

    def finished(self, cell: Cell, shard: str, seconds: float) -> None:
        """Note that a cell or one of its shards took some wall seconds."""
        if cell.key not in self._cells:  # an input that is rebuilt on the way
            return
        if shard or not cell.shards:
            self._measured[cell.kind] = self._measured.get(cell.kind, 0.0) + seconds
            self._expected[cell.kind] = self._expected.get(cell.kind, 0.0) + cell.resources.minutes * 60
        if shard:
            self._shards[cell.key] = self._shards.get(cell.key, 0) + 1
        else:
            self._done.add(cell.key)

    def dropped(self, cell: Cell) -> None:
        """Note that a cell failed or cannot start."""
        if cell.key in self._cells:
            self._dropped.add(cell.key)

    def kinds(self) -> dict[str, dict[str, int]]:
        """By kind, in the order of a run: cells in all (``total``), ``done`` and ``failed``, where there are any."""
        found: dict[str, dict[str, int]] = {}
        for kind in KINDS:
            keys = {key for key, cell in self._cells.items() if cell.kind == kind}
            if keys:
                found[kind] = {
                    "total": len(keys),
                    "done": len(keys & self._done),
                    "failed": len(keys & self._dropped),
                }
        return found

    def seconds_left(self, running: Mapping[str, float], longest: Sequence[float]) -> float | None:
        """Estimated wall seconds until the run ends; None if nothing is known of its cells.

        Args:
            running: Key of a cell to the done share of its running task, in [0, 1].
            longest: Estimated seconds left of running tasks; the run cannot end before any of them.
        """
        if not self._cells:
            return None
        left = 0.0
        for key in self._cells.keys() - self._done - self._dropped:
            cell = self._cells[key]
            parts = max(len(cell.shards), 1)
            open_parts = max(0.0, parts - self._shards.get(key, 0) - running.get(key, 0.0))
            left += open_parts * cell.resources.minutes * 60 * self._ratio(cell.kind)
        return max([left / self._slots, *longest])

    def _ratio(self, kind: str) -> float:
        """Measured over expected time of a kind, or of everything while that kind has no measurement."""
        kinds = [kind] if self._expected.get(kind) else list(self._expected)
        expected = sum(self._expected[each] for each in kinds)
        return sum(self._measured[each] for each in kinds) / expected if expected else 1.0
