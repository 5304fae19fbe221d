"""Progress of a run: on a terminal, in lines of a log, and in status.json; and its summary at the end."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from harness.core.errors import DiskFailed
from harness.core.files import write_json
from harness.core.names import plain
from harness.run.remaining import Running, Workload
from harness.run.status import FILE, HEARTBEAT, SCHEMA, State, process_start
from harness.store.artifacts import Store
from harness.store.cells import SHOWN_KINDS, Cell

if TYPE_CHECKING:
    from harness.run.display import Display

_LINE_SECONDS = 10.0
_FRAME_SECONDS = 0.25
_STATUS_SECONDS = 2.0
_LINE_TASKS = 3


@dataclass(frozen=True)
class Failure:
    """A cell that failed, or that could not start because another one did."""

    cell: Cell
    what: str
    why: str
    fix: str
    log: str


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run."""

    done: int
    failures: tuple[Failure, ...]
    cpu_seconds: Mapping[str, float]
    """By cell kind."""
    wall_seconds: float
    unsaved: DiskFailed | None = None
    """Why status.json does not state this outcome."""


@dataclass
class ProgressReporter:
    """Collects the events of a run and reports them: a live display on a terminal, a line now and then in a file."""

    store: Store
    total: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    executor: str = ""
    """Name of what does the work, if it is not this machine's workers."""
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    running: dict[tuple[str, str], Running] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    finished: int = 0
    workload: Workload = field(default_factory=Workload)
    _writes: tuple[str, ...] = ()
    _reads: tuple[str, ...] = ()
    _began: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.time)
    _printed: float = 0.0
    _saved: float = 0.0
    _display: Display | None = None
    _unsaved: DiskFailed | None = None

    def begin(self, cells: Sequence[Cell], reads: Sequence[Cell], slots: int) -> None:
        """Announce the work.

        Args:
            cells: Cells to do.
            reads: Finished cells that they may read.
            slots: Number of workers.
        """
        self.workload = Workload(cells, slots)
        self._writes = tuple(sorted(cell.folder for cell in cells))
        self._reads = tuple(sorted(cell.folder for cell in reads))
        if self._display is None and not self.quiet and _animates(self.stream):
            from harness.run.display import Display

            self._display = Display(self.stream)
        self._save("running", at_once=True)

    def resumed(self, cell: Cell, shards: int) -> None:
        """Note that some shards of a cell were there before."""
        if shards:
            self._entry(cell)["shards"] = shards
            self.workload.resumed(cell, shards)

    def started(self, cell: Cell, shard: str, pid: int, place: str = "") -> None:
        """Note that a task runs, as a process of this machine or at a place described in words."""
        begun = self._entry(cell).get("shards", 0) + 1 + sum(key == cell.key for key, _ in self.running)
        name = _name(cell) + (f" shard {begun} of {len(cell.shards)}" if shard else "")
        self.running[cell.key, shard] = Running(cell, name, pid, time.monotonic(), time.time(), place=place)
        self._entry(cell)["state"] = "running"
        self._save()

    def progress(self, cell: Cell, shard: str, done: int, total: int, note: str) -> None:
        """Note how far a task is."""
        if task := self.running.get((cell.key, shard)):
            task.done, task.total, task.note = done, total, note

    def done(self, cell: Cell, shard: str, seconds: float, cpu_seconds: float) -> None:
        """Note that a task is done."""
        self.running.pop((cell.key, shard), None)
        entry = self._entry(cell)
        entry["cpu_seconds"] = round(entry["cpu_seconds"] + cpu_seconds, 2)
        entry["seconds"] = round(entry["seconds"] + seconds, 2)
        self.cpu[cell.shown_kind] = self.cpu.get(cell.shown_kind, 0.0) + cpu_seconds
        self.workload.finished(cell, shard, seconds)
        if shard:
            entry["shards"] = entry.get("shards", 0) + 1
        else:
            entry["state"] = "done"
            self.finished += 1
            if entry["seconds"] > 2.0 or self.finished == self.total:
                self._print(f"[{self.finished}/{self.total}] {_name(cell)}  {entry['seconds']:.1f} s")
        self._save()

    def failed(self, cell: Cell, shard: str, error: Mapping[str, str], cpu_seconds: float) -> None:
        """Note a failure."""
        self.running.pop((cell.key, shard), None)
        self.cpu[cell.shown_kind] = self.cpu.get(cell.shown_kind, 0.0) + cpu_seconds
        self.workload.dropped(cell)
        log = str(self.store.log(cell))
        self._entry(cell).update(state="failed", reason=error["what"], log=log)
        self.failures.append(Failure(cell, error["what"], error["why"], error["fix"], log))
        self._print(f"FAILED {_name(cell)}: {error['what']}")
        self._save()

    def blocked(self, cell: Cell, by: Cell) -> None:
        """Note a cell that cannot start."""
        reason, log = f"needs {_name(by)}, which failed", str(self.store.log(by))
        self.workload.dropped(cell)
        self._entry(cell).update(state="blocked", reason=reason, log=log)
        self.failures.append(Failure(cell, "not started", reason, "fix that failure first", log))

    def note(self, text: str) -> None:
        """Print a line at once."""
        self._print(text)

    def tick(self) -> None:
        """Update status.json and the display if it is time: at most every 5 s, and every 10 s in a log file."""
        now = time.monotonic()
        if now - self._saved >= HEARTBEAT:
            self._save()
        if self._display is not None:
            if now - self._printed < _FRAME_SECONDS:
                return
            self._printed = now
            self._display.update(
                list(self.running.values()), self.finished, self.total, now - self._began, self._left()
            )
        elif not self.quiet and self.running and now - self._printed >= _LINE_SECONDS:
            self._printed = now
            parts = [f"{task.name} {_steps(task)}".strip() for task in list(self.running.values())[:_LINE_TASKS]]
            lead = f"[{self.finished}/{self.total}] {now - self._began:.0f} s: "
            self.stream.write(lead + (";\n" + " " * len(lead)).join(parts) + "\n")
            self.stream.flush()

    def finish(self) -> RunSummary:
        """Write the final status and return the summary."""
        self._close("finished")
        kinds: dict[str, float] = {kind: round(self.cpu[kind], 1) for kind in SHOWN_KINDS if kind in self.cpu}
        seconds = time.monotonic() - self._began
        return RunSummary(self.finished, tuple(self.failures), kinds, seconds, self._unsaved)

    def interrupt(self) -> None:
        """Write the status of a run that ends before its time, and clear the display."""
        self._close("interrupted")

    def _close(self, state: State) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None
        self._save(state, at_once=True)

    def _left(self) -> float | None:
        return self.workload.seconds_left(
            {task.cell.key: task.done / task.total for task in self.running.values() if task.total},
            [left for task in self.running.values() if (left := task.seconds_left()) is not None],
        )

    def _entry(self, cell: Cell) -> dict[str, Any]:
        return self.entries.setdefault(
            cell.folder,
            {"kind": cell.shown_kind, "label": cell.label, "state": "waiting", "seconds": 0.0, "cpu_seconds": 0.0},
        )

    def _print(self, text: str) -> None:
        text = plain(text)
        if self._display is not None:
            self._display.print(text)
        elif not self.quiet:
            self.stream.write(text + "\n")
            self.stream.flush()

    def _save(self, state: State = "running", at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._saved < _STATUS_SECONDS:
            return
        self._saved = now
        try:
            write_json(self.store.root / FILE, self._facts(state, now))
            self._unsaved = None
        except DiskFailed as error:  # cells that are done stay done, and those that run may still be written
            if self._unsaved is None:
                self._print(f"{error}\n  note: the run goes on, and status does not show it")
            self._unsaved = error

    def _facts(self, state: State, now: float) -> dict[str, Any]:
        left = self._left() if state == "running" else None
        return {
            "schema": SCHEMA,
            "state": state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": process_start(os.getpid()),
            "started": round(self._since, 3),
            "updated": round(time.time(), 3),
            "seconds": round(now - self._began, 1),
            "executor": self.executor,
            "seconds_left": None if left is None else round(left, 1),
            "total": self.total,
            "done": self.finished,
            "failed": len(self.failures),
            "kinds": self.workload.kinds(),
            "running": [self._running(task) for task in self.running.values()] if state == "running" else [],
            "cells": self.entries,
            "writes": self._writes,
            "reads": self._reads,
        }

    def _running(self, task: Running) -> dict[str, Any]:
        left = task.seconds_left()
        return {
            "task": task.name,
            "pid": task.pid,
            "place": task.place,
            "since": round(task.since, 3),
            "done": task.done,
            "total": task.total,
            "note": task.note,
            "seconds_left": None if left is None else round(left, 1),
            "log": str(self.store.log(task.cell)),
        }


def _animates(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def _name(cell: Cell) -> str:
    return f"{cell.shown_kind} {cell.label or cell.name}"


def _steps(task: Running) -> str:
    if not task.total:
        return ""
    left = task.seconds_left()
    return f"{task.done}/{task.total} {task.note}" + (f", {left:.0f} s left" if left is not None else "")
