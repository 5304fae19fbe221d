"""Jobs as files, for executors whose workers share the store's file system and nothing else.

    python -m harness.run.remote FILE.json

A job file holds the messages of some tasks. Whoever runs it works them off, one after another, and adds what happens to
``FILE.events``, a line of JSON each. It may be run again at any time and anywhere: tasks with an answer are not repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.files import parse_json, write_json
from harness.core.locks import lock
from harness.run.executor import Event
from harness.run.processes import LAUNCHER, WORKER, ended, spawn
from harness.run.queue import Task
from harness.store.housekeeping import in_use_path

ANSWERS = ("done", "failed", "died")
PAUSE = ("SIGUSR1", "SIGUSR2", "SIGTERM")
"""Signals on which a remote worker pauses at its next checkpoint."""
_SIGNALS = {signal.SIGINT, *(signal.Signals[name] for name in PAUSE)}
_PROGRESS_SECONDS = 5.0
"""Least time between two lines of progress of one task."""


@dataclass
class JobFile:
    """A job file as the executor sees it: some tasks, and what has been said of them."""

    path: Path
    tasks: Sequence[Task | None]
    """None: a task of another run, of which nothing is said."""
    _answered: set[int] = field(default_factory=set)
    _offset: int = 0

    @staticmethod
    def write(path: Path, tasks: Sequence[Task], message: Callable[[Task], Mapping[str, Any]]) -> JobFile:
        """Write the file of some tasks; what an earlier file of this name has said is forgotten.

        Args:
            path: The file.
            tasks: The tasks, in order.
            message: Returns what a worker is told of a task; called once for all shards of a cell, which differ by their name.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        events_file(path).unlink(missing_ok=True)
        messages: dict[tuple[str, bool], Mapping[str, Any]] = {}
        for task in tasks:
            if (task.cell.key, bool(task.shard)) not in messages:
                messages[task.cell.key, bool(task.shard)] = message(task)
        places = list(messages)
        listed = [[places.index((task.cell.key, bool(task.shard))), task.shard] for task in tasks]
        write_json(path, {"messages": list(messages.values()), "tasks": listed})
        return JobFile(path, tasks)

    @property
    def command(self) -> list[str]:
        """Return the command that runs it on a machine that sees the store and this Python."""
        return [sys.executable, "-m", "harness.run.remote", str(self.path)]

    def events(self) -> Iterator[tuple[Task, Event]]:
        """Yield what has been said since the last call; of every task one answer at most."""
        try:
            with events_file(self.path).open("rb") as stream:
                stream.seek(self._offset)
                lines = stream.read().split(b"\n")
        except FileNotFoundError:
            return
        self._offset += sum(map(len, lines[:-1])) + len(lines) - 1
        for number, event in _parsed(lines[:-1]):
            if number in self._answered or number >= len(self.tasks):
                continue
            if event["event"] in ANSWERS:
                self._answered.add(number)
            if (task := self.tasks[number]) is not None:
                yield task, event

    def lost(self, event: Event) -> Iterator[tuple[Task, Event]]:
        """Yield an event, such as ``died``, for every task without an answer: whoever ran the file has ended."""
        yield from self.events()
        for task in self.unanswered:
            yield task, event
        self._answered |= set(range(len(self.tasks)))

    def ignore(self, number: int) -> None:
        """Say nothing of a task any more."""
        self._answered.add(number)

    @property
    def unanswered(self) -> list[Task]:
        """Return the tasks without an answer so far."""
        return [task for number, task in enumerate(self.tasks) if task is not None and number not in self._answered]


def events_file(path: Path) -> Path:
    """Return where the events of a job file stand."""
    return path.with_suffix(".events")


def _parsed(lines: Sequence[bytes]) -> Iterator[tuple[int, Event]]:
    for line in lines:
        # what fails is the rest of a line whose writer was killed
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            raw = parse_json(line)
            if isinstance(raw["event"], str):
                yield int(raw["task"]), raw


def answers(path: Path) -> dict[int, Event]:
    """Return the answers that stand in the events of a job file, by the number of the task."""
    with contextlib.suppress(FileNotFoundError):
        lines = events_file(path).read_bytes().split(b"\n")
        return {number: event for number, event in _parsed(lines) if event["event"] in ANSWERS}
    return {}


class Runner:
    """Works off a job file in worker processes of its own."""

    def __init__(self, path: Path, place: str = "", patience: float = 60.0) -> None:
        """Take a job file.

        Args:
            path: The file.
            place: Where this runs, in words.
            patience: Seconds that a task has to reach a checkpoint once it shall pause.
        """
        self.path, self.place, self.patience = path, place or f"pid {os.getpid()} on {socket.gethostname()}", patience
        self.pausing, self.finished = threading.Event(), threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._spoke = 0.0

    def run(self) -> None:
        """Do every task that has no answer, unless asked to pause."""
        try:
            self._run()
        finally:
            self.finished.set()

    def _run(self) -> None:
        file = parse_json(self.path.read_text(encoding="utf-8"))
        known = answers(self.path)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # of this thread: workers inherit it, see ``pause_on``
        with events_file(self.path).open("a", encoding="utf-8") as self._events:
            self._events.write("\n")  # ends a line that a kill has cut
            for number, (index, shard) in enumerate(file["tasks"]):
                message = file["messages"][index]
                if self.pausing.is_set():
                    break
                if number not in known or known[number]["event"] == "died":
                    job = {**message["job"], "shard": shard}
                    with lock(in_use_path(Path(job["store"])), shared=True):
                        self._do(number, {**message, "job": job, "pause_on": PAUSE})
            self._end()

    def pause(self) -> None:
        """Ask the present task to pause at its next checkpoint; where it finds none in time, its process is killed."""
        if not self.pausing.is_set():
            self.pausing.set()
            timer = threading.Timer(self.patience, self._kill)
            timer.daemon = True
            timer.start()
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGUSR1)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _do(self, number: int, message: Mapping[str, Any]) -> None:
        resources = message["job"]["cell"]["resources"]
        folder = tempfile.mkdtemp(prefix="harness-") if resources["devices"] > 1 else ""
        if folder:
            self._end()
            command = (*LAUNCHER, folder, str(resources["devices"]))
            self._process = spawn(command, {"OMP_NUM_THREADS": str(resources["threads"])}, _SIGNALS)
        elif self._process is None or resources["isolated"]:
            self._end()
            self._process = spawn(WORKER, {}, _SIGNALS)
        self._say(number, {"event": "started", "place": self.place})
        answer = self._ask(self._process, message, number)
        if answer is not None:
            self._say(number, answer)
        if folder or resources["isolated"] or answer is None or answer["event"] == "died":
            self._end()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def _ask(self, process: subprocess.Popen[str] | None, message: Mapping[str, Any], number: int) -> Event | None:
        """Return the answer of a process to a task; None if it paused."""
        assert process is not None and process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            event = parse_json(line)
            if event["event"] == "paused":
                return None
            if event["event"] in ANSWERS:
                return dict(event)
            if event["event"] == "progress" and time.monotonic() - self._spoke > _PROGRESS_SECONDS:
                self._spoke = time.monotonic()
                self._say(number, event)
        code = process.wait()
        if self.pausing.is_set():
            return None
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return {"event": "died", "why": ended(code), "signal": max(0, -code), "peak_mb": round(peak)}

    def _say(self, number: int, event: Event) -> None:
        self._events.write(json.dumps({"task": number, **event}) + "\n")
        self._events.flush()

    def _end(self) -> None:
        """End the worker, if there is one; standard input closes, which also ends the ranks of a launcher."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()


def work(runner: Runner) -> None:
    """Run a job file in a thread, so that signals reach this one; SIGTERM pauses it."""
    signal.signal(signal.SIGTERM, lambda *_: runner.pause())
    threading.Thread(target=runner.run, name="jobs", daemon=True).start()
    while not runner.finished.wait(0.5):
        pass


if __name__ == "__main__":
    work(Runner(Path(sys.argv[1])))
