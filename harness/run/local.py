"""The local executor: long-lived workers, one per slot, process the cells of a plan in dependency order."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.core.errors import CorruptArtifact
from harness.core.locks import lock
from harness.plan.model import Plan
from harness.run.job import Job
from harness.run.join import missing_shards
from harness.run.progress import ProgressReporter, RunSummary
from harness.run.queue import Task, TaskQueue
from harness.store.artifacts import Store
from harness.store.cells import Cell, Resources
from harness.store.housekeeping import in_use_path

ATTEMPTS = 3
FIRST = float("inf")
"""Rank of inputs that were found damaged during the run: everything waits for them."""
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


@dataclass
class Worker:
    """A process and its current task."""

    slot: int
    process: subprocess.Popen[str]
    pipe: IO[str]
    task: Task | None = None
    folder: Path | None = None
    """Temporary files of a job on several devices, whose launcher does this one job."""
    used: bool = False
    started: float = 0.0
    unread: bytes = b""
    """The beginning of a line that has not been received completely."""


@dataclass
class _State:
    waiting: dict[str, set[str]] = field(default_factory=dict)
    shards: dict[str, set[str]] = field(default_factory=dict)
    attempts: dict[tuple[str, str], int] = field(default_factory=dict)


class LocalExecutor:
    """Runs a plan on this machine.

    Args:
        store: Where artifacts are written.
        slots: Number of workers.
        device: ``cpu`` or ``cuda``.
        board: Where progress is reported.
    """

    def __init__(self, store: Store, slots: int, device: str, board: ProgressReporter) -> None:
        self.store, self.slots, self.device, self.board = store, slots, device, board
        self.processors = len(os.sched_getaffinity(0))
        self.selector = selectors.DefaultSelector()
        self.workers: list[Worker] = []

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
        except BaseException:
            self.board.interrupt()
            raise
        finally:
            self._stop()
        return self.board.finish()

    def _work(self) -> None:
        while self.ready or any(worker.task for worker in self.workers):
            self._start()
            for event, _ in self.selector.select(timeout=1.0):
                self._read_messages(event.data)
            self.board.tick()

    def _release(self, cell: Cell) -> None:
        """Queue the tasks of a cell: the shards it lacks first, the cell itself after the last of them."""
        self.state.waiting.pop(cell.key, None)
        missing = missing_shards(self.store.folder(cell), cell)
        self.state.shards[cell.key] = set(missing)
        self.ready.add(cell, missing)
        self.board.resumed(cell, len(cell.shards) - len(missing))

    def _start(self) -> None:
        running = [worker.task.cell.resources for worker in self.workers if worker.task]
        free_slots = self.slots - sum(_slots(resources) for resources in running)
        free_threads = max(self.processors, self.slots) - sum(
            resources.threads * _slots(resources) for resources in running
        )

        def fits(cell: Cell) -> bool:
            slots = _slots(cell.resources)
            return not running or (slots <= free_slots and cell.resources.threads * slots <= free_threads)

        for task in self.ready.take(fits):
            self._dispatch(task)
            needs = task.cell.resources
            running.append(needs)
            free_slots -= _slots(needs)
            free_threads -= needs.threads * _slots(needs)

    def _dispatch(self, task: Task) -> None:
        job = Job(
            task.cell,
            self.plan.inputs(task.cell),
            self.plan.sources_of(task.cell),
            str(self.store.root),
            task.shard,
            self.device,
        )
        message = {"job": job.to_dict(), "log": str(self.store.log(task.cell))}
        self.state.attempts[task.id] = self.state.attempts.get(task.id, 0) + 1
        if task.cell.resources.devices > 1:
            worker = self._launcher(task.cell.resources)
        else:
            worker = self._free_worker(fresh=task.cell.resources.isolated)
        with contextlib.suppress(BrokenPipeError):  # a worker that died meanwhile is noticed by its closed pipe
            assert worker.process.stdin is not None
            worker.process.stdin.write(json.dumps(message) + "\n")
            worker.process.stdin.flush()
        worker.task, worker.started = task, time.monotonic()
        self.board.started(task.cell, task.shard, worker.process.pid)

    def _free_worker(self, fresh: bool) -> Worker:
        for worker in self.workers:
            if worker.task is None and not (fresh and worker.used):
                worker.used = True
                return worker
        idle = [worker for worker in self.workers if worker.task is None]
        if len(self.workers) >= self.slots and idle:
            self._end(idle[0])
        slot = min(set(range(self.slots + len(self.workers) + 1)) - {worker.slot for worker in self.workers})
        environment = {}
        if self.device.startswith("cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = self._visible()[slot % self.slots]
        return self._spawn(slot, ["harness.run.worker"], environment)

    def _launcher(self, resources: Resources) -> Worker:
        """Start what does one job on several devices; its folder goes with it."""
        folder = Path(tempfile.mkdtemp(prefix="harness-"))
        command = ["harness.run.launch", str(folder), str(resources.devices)]
        worker = self._spawn(self.slots + len(self.workers), command, {"OMP_NUM_THREADS": str(resources.threads)})
        worker.folder = folder
        return worker

    def _spawn(self, slot: int, command: Sequence[str], environment: Mapping[str, str]) -> Worker:
        with _interrupts_blocked():
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **_ENVIRONMENT, **environment},
            )
        assert process.stdout is not None
        worker = Worker(slot, process, process.stdout, used=True)
        self.workers.append(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _visible(self) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",") if visible else [str(number) for number in range(self.slots)]

    def _read_messages(self, worker: Worker) -> None:
        """Read all messages of a worker; the pipe is read below Python's buffers, which would hide lines from select."""
        received = os.read(worker.pipe.fileno(), 2**16)
        if not received:
            self._worker_exited(worker)
            return
        *lines, worker.unread = (worker.unread + received).split(b"\n")
        for line in lines:
            self._handle(worker, json.loads(line))

    def _handle(self, worker: Worker, answer: Mapping[str, Any]) -> None:
        task = worker.task
        if task is None:
            return
        if answer["event"] == "progress":
            self.board.progress(task.cell, task.shard, answer["done"], answer["total"], answer["note"])
        elif answer["event"] in ("done", "failed", "died"):
            worker.task = None
            if task.cell.resources.isolated or worker.folder is not None:
                self._end(worker)
            if answer["event"] == "died":
                self._died(task, answer["why"])
            else:
                self._finish_task(task, answer, time.monotonic() - worker.started)

    def _worker_exited(self, worker: Worker) -> None:
        """Handle a closed pipe: a worker died."""
        code, task = worker.process.wait(), worker.task
        self._end(worker)
        if task is not None:
            self._died(task, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

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

    def _finish_task(self, task: Task, answer: Mapping[str, Any], seconds: float) -> None:
        cell = task.cell
        if answer["event"] == "failed":
            if answer["damaged"] and self._remake_inputs(task):
                return
            self.board.failed(cell, task.shard, answer["error"], answer["cpu_seconds"])
            self._block(cell)
            return
        self.board.done(cell, task.shard, seconds, answer["cpu_seconds"])
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
            if cell.key in needs:
                del self.state.waiting[key]
                self.board.blocked(self.plan.cells[key], cell)
                self._block(self.plan.cells[key])

    def _end(self, worker: Worker) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(worker.pipe)
        if worker in self.workers:
            self.workers.remove(worker)
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()
        worker.pipe.close()
        if worker.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()  # ends ranks, which share it
        if worker.folder is not None:
            shutil.rmtree(worker.folder, ignore_errors=True)

    def _stop(self) -> None:
        for worker in list(self.workers):
            self._end(worker)
        self.selector.close()


def _slots(resources: Resources) -> int:
    """Number of workers that a task occupies: one, or as many as it has devices."""
    return max(1, resources.devices)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, which a process started meanwhile inherits: Ctrl-C reaches the whole process group, and must not print the
    traceback of every worker. A worker ends when its standard input closes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ranks(plan: Plan, wanted: frozenset[str]) -> dict[str, float]:
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


def _ordered(plan: Plan, wanted: frozenset[str]) -> Iterator[str]:
    return (key for key in plan.cells if key in wanted)
