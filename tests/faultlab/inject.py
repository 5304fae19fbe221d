"""Faults at named moments of a run: the n-th operation of one kind on files of one stage, in one of a run's processes.

A hook on Python's audit events sees every operation before it is done. What it does then depends on the fault. One flag in
shared memory says that the fault has happened, to all processes of the run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import shutil
import signal
import struct
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("fit", "synthesise", "copy", "pretrain", "extract", "evaluate")
STAGES = ("store", *KINDS, "board")
"""What the files belong to: the store itself (locks, logs, status), a kind of cell, or the leaderboard."""
EVENTS = {
    "os.rename": "rename",
    "os.mkdir": "mkdir",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "fcntl.flock": "lock",
}
CHANGES = ("write", "rename", "mkdir", "remove")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
YEAR = 365 * 86400.0
_OFD_SETLK, _OFD_SETLKW = 37, 38
"""Commands of Linux' fcntl: locks that end with the open file, as those of flock do."""
HAPPENED, ARRIVED, ENDED = range(3)
PATIENCE = 30.0
TORN = 40
"""Bytes of a file that are written before a process is killed in the middle, or the disk is full."""


@dataclass(frozen=True)
class Moment:
    """The n-th operation (from 1) of one kind on files of one stage, in the ``run`` or in a ``worker``."""

    role: str
    stage: str
    operation: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    ``what`` is ``SIGKILL worker``, ``SIGINT group``, ... (signal and whom it meets), ``torn`` (killed in the middle of a write),
    ``memory``, ``ENOSPC``, ``EDQUOT`` (this operation fails), ``full`` (every write from now on), ``full file`` (in the middle of
    a write), ``EROFS`` (every change from now on), ``gone`` (the store is removed), ``clock`` (set back by a year),
    ``meet`` (this run waits until a second one has come to a lock), ``pass`` (until a second one has ended), or ``late`` (the
    manifests of the stage are not seen before this run has written them itself).
    """

    what: str
    moment: Moment


def stage_of(path: str) -> str:
    """Return the stage of a path below the store."""
    if path.startswith("extract/training-copy"):
        return "copy"
    first = path.partition("/")[0]
    if first in KINDS:
        return first
    return "board" if first.lstrip(".").startswith("leaderboard") else "store"


class Injector:
    """Watches the operations on files of a store in this process and its children."""

    def __init__(self, store: Path, fault: Fault | None, flags: mmap.mmap, record: Path | None, second: bool) -> None:
        self.store, self.fault, self.role, self.second = str(store), fault, "run", second
        self.seen: Counter[Moment] = Counter()
        self.flags = flags
        self.record = _kept_open(record) if record else -1
        self.busy = False

    @property
    def happened(self) -> bool:
        """Whether the fault has happened, in any process."""
        return self.flags[HAPPENED] == 1

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at an audit event."""
        if event == "import" and self.record >= 0:
            os.write(self.record, f"import\t{arguments[0]}\n".encode())
        if self.busy or (event != "open" and event not in EVENTS):
            return
        path, operation = arguments[0], EVENTS.get(event, "")
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            operation = "write" if writes else "read"
        elif operation == "lock" and isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.store + "/"):
            self.busy = True
            try:
                exclusive = event == "open" and bool((arguments[2] or 0) & os.O_EXCL)
                self._operation(os.fsdecode(path)[len(self.store) + 1 :], operation, exclusive)
            finally:
                self.busy = False

    def _operation(self, path: str, operation: str, exclusive: bool) -> None:
        plain = Moment(self.role, stage_of(path), operation, 0)
        self.seen[plain] += 1
        moment = Moment(self.role, plain.stage, operation, self.seen[plain])
        if self.record >= 0:
            os.write(
                self.record,
                f"{self.role}\t{moment.stage}\t{operation}\t{moment.number}\t{path}\t{exclusive:d}\n".encode(),
            )
        if self.second:
            wait_for(self.flags, HAPPENED)
            if self.role == "worker" and operation == "lock":
                self.flags[ARRIVED] = 1
        if self.fault is None:
            return
        if self.fault.what == "late":
            self._see_late(moment, path)
            return
        if not self.happened and moment == self.fault.moment:
            self.flags[HAPPENED] = 1
            self._strike(self.fault.what, f"{self.store}/{path}")
        elif self.happened and self.fault.what in ("full", "EROFS"):
            refuse(self.fault.what, operation, f"{self.store}/{path}")

    def _see_late(self, moment: Moment, path: str) -> None:
        """Do not find the manifests of a stage, as a machine whose file system remembers that they were missing."""
        if moment.stage == self.fault.moment.stage and "manifest.json" in path and not self.flags[ARRIVED]:
            if moment.operation == "read":
                self.flags[HAPPENED] = 1
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self.flags[ARRIVED] = 1

    def _strike(self, what: str, path: str) -> None:
        name, _, whom = what.partition(" ")
        if name in SIGNALS:
            self._signal(signal.Signals[name], whom)
        elif what in ("torn", "full file"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (TORN, resource.RLIM_INFINITY))
            if what == "torn":
                ctypes.CDLL(None).signal(signal.SIGXFSZ, signal.SIG_DFL)
        elif what == "memory":
            raise MemoryError
        elif what in ("ENOSPC", "EDQUOT", "EIO"):
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)), path)
        elif what == "gone":
            os.rename(self.store, self.store + ".removed")
            shutil.rmtree(self.store + ".removed")
        elif what == "clock":
            set_back()
        elif what in ("meet", "pass"):
            wait_for(self.flags, ARRIVED if what == "meet" else ENDED)
        else:
            refuse(what, self.fault.moment.operation if self.fault else "write", path)

    def _signal(self, number: signal.Signals, whom: str) -> None:
        if whom == "group":
            os.killpg(0, number)
        elif whom == "run" and self.role == "worker":
            os.kill(os.getppid(), number)
        else:
            os.kill(os.getpid(), number)
            return
        if self.role == "worker":  # its end follows from that of the run; were it to live on, that would be a finding
            time.sleep(20)


def _kept_open(path: Path) -> int:
    """Return a descriptor for adding to a file that no worker closes."""
    return fcntl.fcntl(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), fcntl.F_DUPFD, 500)


def wait_for(flags: mmap.mmap, which: int) -> None:
    """Wait until the other run has come to some place, or has ended."""
    end = time.monotonic() + PATIENCE
    while not (flags[which] or flags[ENDED]) and time.monotonic() < end:
        time.sleep(0.002)


def refuse(what: str, operation: str, path: str) -> None:
    """Fail as a full or a read-only disk does; one that is full can still remove."""
    if operation in (("write", "mkdir") if what == "full" else CHANGES):
        number = errno.ENOSPC if what == "full" else errno.EROFS
        raise OSError(number, os.strerror(number), path)


def set_back() -> None:
    """Set the clock of this process back by a year."""
    real = time.time
    time.time = lambda: real() - YEAR


def be_host(name: str, unseen: bool = False) -> None:
    """Make this process one of another machine: with a name of its own, and with locks that keep out its own processes only.

    So is a network file system that is mounted with ``local_lock``. Here the other machine's locks are of a kind that does not see
    those of ``flock``; a look from one machine finds no fault with them. ``unseen``: nor does a look at what another one writes, as
    of two runs that begin at the same time.
    """
    import socket

    from harness.run import session

    def flock(stream: Any, how: int) -> None:
        if how & fcntl.LOCK_EX:
            command = _OFD_SETLK if how & fcntl.LOCK_NB else _OFD_SETLKW
            fcntl.fcntl(stream, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))

    fcntl.flock = flock
    session.lock_fault = lambda folder: ""
    if unseen:
        session.other_host = lambda store: ""
    socket.gethostname = lambda: name
