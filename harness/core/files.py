"""Files that are either whole or absent: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.core.disk import disk_errors, explain
from harness.core.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, its file is synced and renamed to ``path``.

    Raises:
        DiskFailed: the disk is full, read-only or failing. The old content of ``path``, if any, is untouched.
    """
    unique = os.urandom(6).hex()  # processes of two machines may share a number
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling for writing; it gets the name ``path`` when the block ends well.

    Raises:
        DiskFailed: as ``atomic_path``.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        yield stream


def explain_full_disk(path: Path, error: OSError) -> Exception:
    """Return the three-part error for a full, read-only or failing disk, or the error itself when its cause is another."""
    return explain(path, error) or error


def remove_tree(folder: Path) -> None:
    """Remove a folder so that a kill leaves it whole or gone: renamed first, then emptied.

    What a kill left of an earlier removal is removed too.
    """
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, the last one last: none is replaced before all are written, so that a full disk replaces none."""
    with ExitStack() as stack:
        for path, content in reversed(list(contents.items())):
            temporary = stack.enter_context(atomic_path(path))
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())


def read_text(path: Path, fix: str = "restore the file, or make it again") -> str:
    """Return the text of a UTF-8 file.

    Raises:
        UserError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8", f"byte {error.start} cannot be decoded", fix) from error


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, fix: str = "restore the file, or make it again") -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        UserError: it is not UTF-8, not JSON, or no object.
        OSError: it cannot be read.
    """
    try:
        found = parse_json(read_text(path, fix))
    except ValueError as error:
        raise UserError(f"{path} is not JSON", str(error), fix) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object", f"it is a {type(found).__name__}", fix)
    return found


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file with line feeds or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write sorted JSON with a final newline."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return sorted JSON with a final newline."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def truncate_partial_line(path: Path) -> int:
    """Cut a torn last line off a file that grows by lines, and return how many are left; 0 where there is no file."""
    if not path.is_file():
        return 0
    lines = size = 0
    with path.open("rb+") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                lines, size = lines + 1, size + len(line)
        stream.truncate(size)
    return lines
