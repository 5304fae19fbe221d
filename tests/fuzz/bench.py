"""The bench on which a reader meets damaged files, and what must hold there.

A reader returns, or raises an error that names what is wrong (`UserError`); no other exception leaves it, it ends in time, and it
changes no file.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from tests.fuzz.mutate import damage, damage_json, damage_lines

LIMIT_S = 20.0
"""Seconds after which a reader counts as hanging; the inputs are a few kilobytes."""
Damage = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _text(rng: random.Random, content: bytes, donors: Sequence[bytes]) -> bytes:
    return damage(rng, content, donors, text=True)


FORMS: dict[str, Damage] = {"bytes": damage, "text": _text, "json": damage_json, "lines": damage_lines}


@dataclass(frozen=True)
class Reader:
    """A reader of files from outside, or of files that a run left behind.

    Attributes:
        name: What the report calls it.
        make: Writes something valid below an empty folder, and returns the file that will be damaged.
        read: Reads it, given that file's path.
        form: How the file is damaged: a key of ``FORMS``.
        named: Errors it may raise.
        mend: Makes checksums inside a damaged content fit it, so that what lies behind them is reached.
        settle: The same for checksums in other files.
        dear: Of how many inputs of a plain reader one takes the time.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    form: str = "bytes"
    named: tuple[type[Exception], ...] = (UserError,)
    mend: Callable[[bytes], bytes] = bytes
    settle: Callable[[Path], object] = bool
    dear: int = 1


class Hanging(BaseException):
    """Raised in a reader that does not end."""


class Broken(AssertionError):
    """A reader broke what must hold."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hanging(f"not finished after {LIMIT_S:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """A reader with its valid files below a folder."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "inside").mkdir(parents=True)
        self.file = reader.make(folder / "inside")
        self.valid = self.file.read_bytes()
        reader.read(self.file)  # loads libraries, which takes longer than any input may
        self._donors = [self.valid, *(each.read_bytes() for each in _siblings(self.file))]

    def damaged(self, rng: random.Random) -> bytes:
        """Return a damaged content of the file."""
        content = FORMS[self.reader.form](rng, self.valid, self._donors)
        try:
            return self.reader.mend(content)
        except Exception:  # what cannot be mended is an input all the same
            return content

    def read(self, content: bytes) -> str:
        """Let the reader read a content; return what it said, empty where it returned a value.

        Raises:
            Broken: another exception left it, it did not end, or it changed files.
        """
        self.file.write_bytes(content)
        self.reader.settle(self.file)
        before, said = _tree(self.folder), ""
        try:
            with _limited():
                self.reader.read(self.file)
        except self.reader.named as error:
            said = str(error)
        except (Exception, Hanging) as error:
            raise Broken(f"{self.reader.name}: {type(error).__name__}: {error}") from error
        if (after := _tree(self.folder)) != before:
            raise Broken(f"{self.reader.name}: it wrote {sorted(set(after) ^ set(before))[:3]}")
        return said


def _siblings(file: Path) -> list[Path]:
    found = (each for each in sorted(file.parent.iterdir()) if each.is_file() and each.suffix == file.suffix)
    return [each for each in found if each != file][:3]


def _tree(folder: Path) -> list[tuple[str, int]]:
    """Return name and size of everything below a folder; links are not followed."""
    return [(os.path.join(top, name), os.lstat(os.path.join(top, name)).st_size) for top, folders, files in os.walk(folder)
            for name in (*folders, *files)]  # fmt: skip


def put(folder: Path, name: str, content: str | bytes | Any) -> Path:
    """Write a file below a folder, and the folders it needs; return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
    return path
