"""Runs of the command line, forked from a process that has imported everything: a tenth of a second each instead of ten.

A run is a process with a group of its own, and its workers are its children, as always; only their start differs: they are
forked where the product starts a new interpreter. One JSON line asks for one or more runs at once, one line answers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faultlab.inject import ENDED, HAPPENED, Fault, Injector, Moment, be_host

INJECTOR: list[Injector] = []


class Forked:
    """What ``subprocess.Popen`` is to the executor."""

    def __init__(self, pid: int, stdin: io.TextIOWrapper, stdout: io.TextIOWrapper) -> None:
        self.pid, self.stdin, self.stdout, self.returncode = pid, stdin, stdout, None

    def wait(self) -> int:
        """Wait for its end."""
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode or 0

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)


def fork_worker(
    module: Sequence[str], environment: Mapping[str, str], blocked: Collection[signal.Signals] = (signal.SIGINT,)
) -> Forked:
    """Start a worker, as ``harness.run.processes.spawn`` does."""
    from harness.run import worker
    from harness.run.processes import ENVIRONMENT

    assert tuple(module) == ("harness.run.worker",)
    (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(their_in), os.close(their_out)
        return Forked(pid, open(our_in, "w"), open(our_out))
    os.dup2(their_in, 0), os.dup2(their_out, 1)
    os.closerange(3, 256)
    os.environ.update({**ENVIRONMENT, **environment})
    sys.argv, sys.stdin, sys.stdout = ["worker"], stream(0, "r"), stream(1, "w")
    sys.stderr = stream(2, "w")
    if INJECTOR:
        INJECTOR[0].role = "worker"
    leave(worker._main)
    return None


def stream(number: int, mode: str) -> io.TextIOWrapper:
    """Return a standard stream of a forked process."""
    return os.fdopen(number, mode, buffering=1, closefd=False)


def leave(work: Any) -> None:
    """Do some work and end this process as the interpreter would."""
    code = 1
    try:
        code = int(work() or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def start(asked: Mapping[str, Any], flags: mmap.mmap, second: bool) -> int:
    """Start a run; return its process."""
    pid = os.fork()
    if pid:
        return pid
    from harness.cli.main import main
    from harness.run import local

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(os.open(f"{asked['out']}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.closerange(3, 256)
    sys.stdin, sys.stdout = stream(0, "r"), stream(1, "w")
    sys.stderr = sys.__stderr__ = stream(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(asked["cwd"])
    fault = Fault(asked["what"], Moment(*asked["moment"])) if asked.get("what") else None
    record = Path(asked["record"]) if asked.get("record") else None
    INJECTOR[:] = [Injector(Path(asked["store"]), fault, flags, record, second)]
    if asked.get("host"):
        be_host(asked["host"], asked["unseen"])
    sys.addaudithook(INJECTOR[0].hook)
    local.spawn = fork_worker
    sys.argv = ["harness", *asked["argv"]]
    leave(main)
    return 0


def load() -> None:
    """Import what runs import, and let trainings write a checkpoint after every step."""
    import matplotlib.pyplot  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import timm  # noqa: F401

    import harness.cli.main
    import harness.cli.plan
    import harness.cli.summary
    import harness.images.copy
    import harness.plugins.registry
    import harness.run.session
    import harness.run.tasks
    import harness.run.worker  # noqa: F401
    import leaderboard.board  # noqa: F401
    from harness.backbones import train

    os.fsync = lambda descriptor: None  # nothing here survives a power cut, and nothing here is one
    train.Hooks.__init__.__defaults__ = (None, None, 0.0)


def serve() -> None:
    """Answer requests until the input closes."""
    load()
    gc.freeze()  # pages that no collector touches stay shared
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        for name in asked.get("imports", ()):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.freeze()
        flags, end = mmap.mmap(-1, 4096), time.monotonic() + asked["patience"]
        pids = [start(each, flags, number > 0) for number, each in enumerate(asked["runs"])]
        codes = {}
        for number in reversed(range(len(pids))):
            codes[number] = finished(pids[number], end)
            flags[ENDED] = 1
        print(
            json.dumps({"codes": [codes[number] for number in range(len(pids))], "happened": flags[HAPPENED] == 1}),
            flush=True,
        )


def finished(pid: int, end: float) -> int | None:
    """Return how a run ended; None if it had to be ended."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.005)
    limit = time.monotonic() + 10
    while time.monotonic() < limit:  # its workers end with it
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    return None


if __name__ == "__main__":
    serve()
