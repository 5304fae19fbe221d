"""The local executor: long-lived workers, one per slot, process the cells of a plan in dependency order."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.core.settings import Settings
from harness.run.executor import Event, Executor
from harness.run.processes import LAUNCHER, WORKER, ended, spawn
from harness.run.progress import ProgressReporter
from harness.run.queue import Task
from harness.store.artifacts import Store
from harness.store.cells import Cell, Resources


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
    unread: bytes = b""
    """The beginning of a line that has not been received completely."""


class LocalExecutor(Executor):
    """Runs a plan on this machine; ``slots`` is the number of workers."""

    def __init__(
        self, store: Store, slots: int, device: str, board: ProgressReporter, settings: Settings | None = None
    ) -> None:
        super().__init__(store, slots, device, board, settings)
        self.processors = len(os.sched_getaffinity(0))
        self.selector = selectors.DefaultSelector()
        self.workers: list[Worker] = []

    def has_room(self, cell: Cell) -> bool:
        """Return whether enough workers and threads are free; a task that needs more than there are runs alone."""
        needs = cell.resources
        running = [worker.task.cell.resources for worker in self.workers if worker.task]
        slots = self.slots - sum(map(_slots, running))
        threads = max(self.processors, self.slots) - sum(each.threads * _slots(each) for each in running)
        return not running or (_slots(needs) <= slots and needs.threads * _slots(needs) <= threads)

    def start(self, task: Task) -> None:
        """Give a task to a worker."""
        message = self.message(task)
        if task.cell.resources.devices > 1:
            worker = self._launcher(task.cell.resources)
        else:
            worker = self._free_worker(fresh=task.cell.resources.isolated)
        with contextlib.suppress(BrokenPipeError):  # a worker that died meanwhile is noticed by its closed pipe
            assert worker.process.stdin is not None
            worker.process.stdin.write(json.dumps(message) + "\n")
            worker.process.stdin.flush()
        worker.task = task
        self._handle(task, {"event": "started", "pid": worker.process.pid})

    def events(self) -> Iterator[tuple[Task, Event]]:
        """Yield what workers have said."""
        for event, _ in self.selector.select(timeout=1.0):
            yield from self._read_messages(event.data)

    def stop(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self._end(worker)
        self.selector.close()

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
        return self._spawn(slot, WORKER, environment)

    def _launcher(self, resources: Resources) -> Worker:
        """Start what does one job on several devices; its folder goes with it."""
        folder = Path(tempfile.mkdtemp(prefix="harness-"))
        command = [*LAUNCHER, str(folder), str(resources.devices)]
        worker = self._spawn(self.slots + len(self.workers), command, {"OMP_NUM_THREADS": str(resources.threads)})
        worker.folder = folder
        return worker

    def _spawn(self, slot: int, command: Sequence[str], environment: Mapping[str, str]) -> Worker:
        process = spawn(command, environment)
        assert process.stdout is not None
        worker = Worker(slot, process, process.stdout, used=True)
        self.workers.append(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _visible(self) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",") if visible else [str(number) for number in range(self.slots)]

    def _read_messages(self, worker: Worker) -> Iterator[tuple[Task, Event]]:
        """Read all messages of a worker; the pipe is read below Python's buffers, which would hide lines from select."""
        received = os.read(worker.pipe.fileno(), 2**16)
        if not received:
            yield from self._worker_exited(worker)
            return
        *lines, worker.unread = (worker.unread + received).split(b"\n")
        for line in lines:
            event, task = json.loads(line), worker.task
            if task is None:
                continue
            if event["event"] in ("done", "failed", "died"):
                worker.task = None
                if task.cell.resources.isolated or worker.folder is not None:
                    self._end(worker)
            yield task, event

    def _worker_exited(self, worker: Worker) -> Iterator[tuple[Task, Event]]:
        """Handle a closed pipe: a worker died."""
        code, task = worker.process.wait(), worker.task
        self._end(worker)
        if task is not None:
            yield task, {"event": "died", "why": ended(code)}

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


def _slots(resources: Resources) -> int:
    """Number of workers that a task occupies: one, or as many as it has devices."""
    return max(1, resources.devices)
