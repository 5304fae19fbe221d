"""Files that exist whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain_full_disk(path: Path, error: OSError) -> UserError | OSError:
    """Return the three-part error for a full disk, or the error itself when its cause is another."""
    if error.errno not in _FULL:
        return error
    return UserError(
        f"no space left while writing {path}",
        error.strerror or "the disk or the quota is full",
        "free some space (or choose another store) and start the same command again; finished work is kept",
    )


def sync_folder(folder: Path) -> None:
    """Make a rename inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling for writing; sync it and rename it to `path` when the block ends well.

    Raises:
        UserError: The disk is full. The old content of `path`, if any, is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain_full_disk(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
