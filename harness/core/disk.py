"""What a file system says that cannot write or read, as errors in three parts; and streams that outlive a full disk."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.errors import DiskFailed, ReadOnly, causes

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_BROKEN = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ENXIO", "ENODEV", "EREMOTEIO", "ETIMEDOUT", "EMFILE", "ENFILE", "ENAMETOOLONG",
                 "EISDIR", "ENOTDIR", "ELOOP")
    if hasattr(errno, name)
)  # fmt: skip
_IN_WORDS = re.compile(r"\bos error (\d+)\b")
"""How libraries in Rust put the number of an error."""
_CUT_SHORT = re.compile(r"^\d+ requested and \d+ written$")
"""How numpy reports a file that it could not write whole; it drops the number."""


def explain(place: Path | str, error: BaseException) -> DiskFailed | None:
    """Return the three-part error for a disk that is full, read-only or failing; None for any other error.

    Args:
        place: What was being written or read.
        error: What was raised. A library may raise an error of its own over that of the operating system: of those behind
            it only a full disk counts.
    """
    if isinstance(error, DiskFailed):
        return error
    place = _place(Path(place), error)
    for each in causes(error):
        if (number := _number(each)) in _FULL:
            return DiskFailed(
                f"the disk is full: no space left while writing {place}",
                os.strerror(number) if number else str(each),
                "free some space or choose another place, then run the same command again; finished work is kept",
            )
    number = error.errno if isinstance(error, OSError) else None
    if number in _REFUSED:
        return ReadOnly(
            f"{place} cannot be written or read",
            os.strerror(number or 0),
            "choose another place, or change the permissions; then run the same command again",
        )
    if number in _BROKEN:
        return DiskFailed(
            f"{place} cannot be written or read",
            os.strerror(number or 0),
            "check the path and its file system, then run the same command again; finished work is kept",
        )
    return None


@contextmanager
def disk_errors(place: Path | str) -> Iterator[None]:
    """Turn what a full, read-only or failing disk raises inside the block into a user error; see ``explain``."""
    try:
        yield
    except Exception as error:
        found = explain(place, error)
        if found is None and isinstance(error, FileNotFoundError) and not Path(place).parent.is_dir():
            found = gone(Path(place).parent)
        if found is None or found is error:
            raise
        raise found from error


def gone(folder: Path) -> DiskFailed:
    """Return the error for a folder that was removed while it was written into."""
    return DiskFailed(
        f"the folder {folder} is gone",
        "it was removed, or its file system was unmounted, while this command wrote into it",
        "run the same command again; what is gone with it is made anew",
    )


def _place(place: Path, error: BaseException) -> Path:
    """Return the file that an error names, unless it is the temporary name of what was being written."""
    named = Path(os.fsdecode(name)) if isinstance(name := getattr(error, "filename", None), str | bytes) else place
    return place if named.parent == place.parent else named


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, OSError) and _CUT_SHORT.match(str(error)):
        return errno.ENOSPC
    found = _IN_WORDS.search(str(error))
    return int(found[1]) if found else None


class _Lenient(io.FileIO):
    """A file whose writes never fail: what cannot be written is lost."""

    def write(self, content: object) -> int:
        """Write bytes, or lose them."""
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError:
            return memoryview(content).nbytes  # type: ignore[arg-type]


def lenient(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Return a text stream on a file descriptor for messages: a full disk loses them, and ends nothing."""
    raw = _Lenient(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True, write_through=True)


def flush_output() -> None:
    """Write out standard output now, while an error can still be reported.

    Raises:
        OSError: it cannot be written. What is left of it is dropped.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries again as it ends
        raise
