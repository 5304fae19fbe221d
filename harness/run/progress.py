"""What a run says while it goes and at its end: progress, failures with log paths, costs, and status.json."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from harness.core.files import write_json
from harness.store.artifacts import Store
from harness.store.cells import KINDS, Cell

_LINE_SECONDS = 10.0
_STATUS_SECONDS = 2.0


@dataclass(frozen=True)
class Failure:
    """A cell that failed, or that could not start because of one."""

    cell: Cell
    what: str
    why: str
    fix: str
    log: str


@dataclass(frozen=True)
class RunSummary:
    """The end of a run."""

    done: int
    failures: tuple[Failure, ...]
    cpu_seconds: Mapping[str, float]
    """By cell kind."""
    wall_seconds: float


@dataclass
class ProgressReporter:
    """Collects events and tells them to a person; a terminal gets one moving line, a file a line now and then."""

    store: Store
    total: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    running: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    finished: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _said: float = 0.0
    _saved: float = 0.0

    def started(self, cell: Cell, shard: str, pid: int) -> None:
        """Note that a task runs."""
        begun = self._entry(cell).get("shards", 0) + 1 + sum(key == cell.key for key, _ in self.running)
        self.running[cell.key, shard] = {
            "name": _name(cell) + (f" shard {begun} of {len(cell.shards)}" if shard else ""),
            "done": 0,
            "total": 0,
            "note": "",
            "pid": pid,
            "since": time.monotonic(),
        }
        self._entry(cell)["state"] = "running"
        self._save()

    def progress(self, cell: Cell, shard: str, done: int, total: int, note: str) -> None:
        """Note how far a task is."""
        if (cell.key, shard) in self.running:
            self.running[cell.key, shard] |= {"done": done, "total": total, "note": note}

    def done(self, cell: Cell, shard: str, seconds: float, cpu_seconds: float) -> None:
        """Note that a task is done."""
        self.running.pop((cell.key, shard), None)
        entry = self._entry(cell)
        entry["cpu_seconds"] = round(entry["cpu_seconds"] + cpu_seconds, 2)
        entry["seconds"] = round(entry["seconds"] + seconds, 2)
        self.cpu[cell.kind] = self.cpu.get(cell.kind, 0.0) + cpu_seconds
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
        self.cpu[cell.kind] = self.cpu.get(cell.kind, 0.0) + cpu_seconds
        log = str(self.store.log(cell))
        self._entry(cell).update(state="failed", reason=error["what"], log=log)
        self.failures.append(Failure(cell, error["what"], error["why"], error["fix"], log))
        self._print(f"FAILED {_name(cell)}: {error['what']}")
        self._save()

    def blocked(self, cell: Cell, by: Cell) -> None:
        """Note a cell that cannot start."""
        reason = f"needs {_name(by)}, which failed"
        self._entry(cell).update(state="blocked", reason=reason)
        self.failures.append(Failure(cell, "not started", reason, "mend that one first", str(self.store.log(by))))

    def note(self, text: str) -> None:
        """Say something at once."""
        self._print(text)

    def tick(self) -> None:
        """Say how things go, if it is time."""
        now = time.monotonic()
        terminal = self.stream.isatty()
        if self.quiet or not self.running or now - self._said < (0.5 if terminal else _LINE_SECONDS):
            return
        self._said = now
        parts = [f"{task['name']} {_share(task)}".strip() for task in list(self.running.values())[:3]]
        lead = f"[{self.finished}/{self.total}] {now - self._begun:.0f} s: "
        if terminal:  # a line that wraps could not be taken back
            width = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r\x1b[K{(lead + '; '.join(parts))[:width]}")
        else:
            self.stream.write(lead + (";\n" + " " * len(lead)).join(parts) + "\n")
        self.stream.flush()

    def finish(self) -> RunSummary:
        """Close the books."""
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
        self._saved = 0.0
        self._save()
        kinds: dict[str, float] = {kind: round(self.cpu[kind], 1) for kind in KINDS if kind in self.cpu}
        return RunSummary(self.finished, tuple(self.failures), kinds, time.monotonic() - self._begun)

    def _entry(self, cell: Cell) -> dict[str, Any]:
        return self.entries.setdefault(
            cell.folder,
            {"kind": cell.kind, "label": cell.label, "state": "waiting", "seconds": 0.0, "cpu_seconds": 0.0},
        )

    def _print(self, text: str) -> None:
        if not self.quiet:
            self.stream.write(("\r\x1b[K" if self.stream.isatty() else "") + text + "\n")
            self.stream.flush()

    def _save(self) -> None:
        now = time.monotonic()
        if now - self._saved < _STATUS_SECONDS:
            return
        self._saved = now
        running = [
            {"task": task["name"], "pid": task["pid"], "done": task["done"], "total": task["total"]}
            for task in self.running.values()
        ]
        write_json(
            self.store.root / "status.json",
            {
                "total": self.total,
                "done": self.finished,
                "failed": len(self.failures),
                "running": running,
                "cells": self.entries,
            },
        )


def _name(cell: Cell) -> str:
    return f"{cell.kind} {cell.label or cell.name}"


def _share(task: Mapping[str, Any]) -> str:
    if not task["total"]:
        return ""
    done, total = task["done"], task["total"]
    seconds = time.monotonic() - task["since"]
    left = f", {seconds * (total - done) / done:.0f} s left" if 0 < done < total and seconds > 2 else ""
    return f"{done}/{total} {task['note']}{left}"
