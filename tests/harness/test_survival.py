"""What injected faults have shown (tests/test_faults.py), each alone and fast."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core.disk import disk_errors
from harness.core.errors import DiskFailed, UserError
from harness.core.files import atomic_path, write_text
from harness.core.locks import lock
from harness.core.memory import OutOfMemory, explain_memory
from harness.plan.model import Plan
from harness.plugins.border import code_errors
from harness.run.executor import Event, Executor
from harness.run.job import Job, execute
from harness.run.progress import ProgressReporter
from harness.run.queue import Task
from harness.run.status import FILE, other_host
from harness.run.worker import describe
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.housekeeping import in_use, in_use_path, remove_torn


class Failing(Executor):
    """Fails every task."""

    def has_room(self, cell: Cell) -> bool:
        return True

    def start(self, task: Task) -> None:
        self.task = task

    def events(self) -> Iterator[tuple[Task, Event]]:
        error = {"what": "no", "why": "", "fix": ""}
        yield self.task, {"event": "failed", "damaged": False, "cpu_seconds": 0.0, "error": error}


def test_a_failure_blocks_a_cell_that_needs_it_on_two_paths_once(tmp_path: Path) -> None:
    plan, store = Plan(), Store(tmp_path)
    first = plan.add(Cell("pretrain", "a", 1, {}))
    middle = plan.add(Cell("extract", "b", 1, {}, {"checkpoint": first.key}))
    plan.add(Cell("evaluate", "c", 1, {}, {"checkpoint": first.key, "features": middle.key}))
    found = Failing(store, 1, "cpu", ProgressReporter(store, 3, quiet=True)).run(plan, frozenset(plan.cells))
    assert sorted(failure.what for failure in found.failures) == ["no", "not started", "not started"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_said_in_three_parts_and_is_no_bug_of_a_plugin(error: Exception) -> None:
    assert describe(error)["what"] == "out of memory" and "batch size" in describe(error)["fix"]
    with pytest.raises(type(error)), code_errors("generator 'x'", ("plugin",)):
        raise error
    assert isinstance(explain_memory(error), OutOfMemory) and explain_memory(RuntimeError("a bug")) is None


def remove_the_store(ctx: Any) -> None:
    """Write one file, lose the store, and write another one."""
    write_text(ctx.out / "first", "1")
    shutil.rmtree(ctx.out.parent.parent)
    write_text(ctx.out / "second", "2")


def write_into_nothing(ctx: Any) -> None:
    """Lose the store before the only file is written."""
    shutil.rmtree(ctx.out.parent.parent)
    (ctx.out / "file").write_text("x")


@pytest.mark.parametrize("work", ["remove_the_store", "write_into_nothing"])
def test_a_cell_whose_folder_was_removed_meanwhile_is_not_sealed(tmp_path: Path, work: str) -> None:
    store = Store(tmp_path / "s")
    cell = Cell("fit", "x", 1, {}, callable_path=f"tests.harness.test_survival:{work}")
    with pytest.raises(DiskFailed, match="is gone"):
        execute(Job(cell, {}, {}, str(store.root)))
    assert store.state(cell) in ("missing", "partial")


def test_a_file_whose_folder_was_removed_is_an_error_in_three_parts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(DiskFailed, match="folder is gone"), atomic_path(folder / "file") as temporary:
        shutil.rmtree(folder)
        temporary.write_text("x")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "x"):
        (tmp_path / "nothing").read_text()


def finish_elsewhere(ctx: Any) -> None:
    """Be overtaken by a run on another machine, which seals the cell and so removes temporary files."""
    write_text(ctx.out / "weights", "w")
    Store(ctx.out.parent.parent).seal(ctx.cell, {})
    raise FileNotFoundError(2, "No such file or directory", ".weights.tmp")


def test_a_cell_that_another_machine_has_finished_meanwhile_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = Cell("fit", "x", 1, {}, callable_path="tests.harness.test_survival:finish_elsewhere")
    execute(Job(cell, {}, {}, str(tmp_path)))
    assert store.state(cell) == "done"


def test_a_cell_is_not_joined_and_sealed_while_another_run_makes_one_of_its_shards(tmp_path: Path) -> None:
    cell = Cell("fit", "x", 1, {}, callable_path="tests.harness.test_survival:make", shards=("s",))
    sealed = threading.Event()

    def seal() -> None:
        execute(Job(cell, {}, {}, str(tmp_path)))
        sealed.set()

    with (
        lock(tmp_path / "locks" / f"{cell.key[:16]}.lock", shared=True),
        lock(tmp_path / "locks" / f"{cell.key[:16]}s.lock"),
    ):
        thread = threading.Thread(target=seal)
        thread.start()
        assert not sealed.wait(0.3)
    thread.join()
    assert Store(tmp_path).state(cell) == "done"
    execute(Job(cell, {}, {}, str(tmp_path), shard="s"))


def make(ctx: Any, shard: str = "") -> None:
    """Do nothing."""


def test_temporary_files_beside_the_artifacts_go_unless_a_run_is_active(tmp_path: Path) -> None:
    torn = tmp_path / ".leaderboard.csv.0123456789ab.tmp"
    torn.write_text("half")
    with lock(in_use_path(tmp_path), shared=True):
        remove_torn(tmp_path)
        assert torn.exists()
    remove_torn(tmp_path)
    assert not torn.exists()


def test_a_store_whose_lock_cannot_be_opened_is_not_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock(in_use_path(tmp_path)):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    assert not in_use(tmp_path)


def status(host: str, updated: float, state: str = "running") -> str:
    """Return the content of a status file."""
    facts = {
        "schema": 2,
        "total": 1,
        "done": 0,
        "failed": 0,
        "cells": {},
        "state": state,
        "host": host,
        "updated": updated,
    }
    return json.dumps(facts | {"pid": 1, "process_start": None})


def test_a_run_of_another_machine_that_still_writes_is_seen(tmp_path: Path) -> None:
    now = time.time()
    (tmp_path / FILE).write_text(status("elsewhere", now))
    later = threading.Timer(0.5, (tmp_path / FILE).write_text, (status("elsewhere", now + 5),))
    later.start()
    assert other_host(tmp_path, patience=20) == "elsewhere"
    later.join()
    assert other_host(tmp_path, patience=0.5) == "", "it has died"
    for text in (
        status(socket.gethostname(), now),
        status("elsewhere", now, "finished"),
        status("elsewhere", now - 999),
    ):
        (tmp_path / FILE).write_text(text)
        began = time.monotonic()
        assert other_host(tmp_path) == "" and time.monotonic() - began < 1
    (tmp_path / FILE).write_text(status("elsewhere", now))
    with lock(in_use_path(tmp_path), shared=True):  # its lock is seen here: locks hold, and each waits for the other
        assert other_host(tmp_path) == ""


def test_an_error_of_the_user_is_not_taken_for_a_lack_of_memory() -> None:
    assert describe(UserError("a", "b", "c"))["what"] == "a"
