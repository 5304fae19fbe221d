"""Locks on files: the kernel drops one when its holder dies, however it dies; and whether a file system has them at all."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from harness.core.disk import disk_errors
from harness.core.errors import DiskFailed, UserError

_NONE = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL})
_TAKE = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
FIX = "choose a folder on a local disk or NFS 4 (Lustre: mounted with -o flock); python -m harness doctor checks it"


@contextmanager
def lock(path: Path, *, shared: bool = False, wait: bool = True, remove: bool = False) -> Iterator[None]:
    """Hold a lock on a file.

    Args:
        path: The file; created if it is missing.
        shared: Let others hold it, too, if they share it.
        wait: Wait until it is free.
        remove: Remove the file at the end. Whoever waits for it takes a new one.

    Raises:
        BlockingIOError: someone else holds it, and ``wait`` is false.
        UserError: the file system has no locks.
    """
    stream = _locked(path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):
                path.unlink()
        stream.close()


def _locked(path: Path, how: int) -> TextIO:
    """Return the file under this name, locked. One that its holder removed meanwhile is not it any more."""
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a")
        try:
            fcntl.flock(stream, how)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    return stream
        except OSError as error:
            stream.close()
            if error.errno in _NONE:
                raise UserError(f"no locks in {path.parent}", error.strerror or str(error), FIX) from error
            raise
        stream.close()


def lock_fault(folder: Path) -> str:
    """Return why locks in a folder do not keep a second process out; empty if they do.

    Raises:
        DiskFailed: the folder cannot be written.
    """
    import subprocess

    path = folder / f".lock-check.{os.getpid()}"
    try:
        with lock(path, wait=False):
            command = [sys.executable, "-I", "-S", "-c", _TAKE, str(path)]
            second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except DiskFailed:
        raise
    except UserError as error:
        return error.why
    except BlockingIOError:
        return "a lock that nobody holds cannot be taken"
    finally:
        with suppress(OSError):
            path.unlink()
    return "a second process gets a lock that the first one holds" if second.returncode == 0 else ""
