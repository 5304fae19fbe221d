"""Notice which data sets a piece of work reads, whether it asks for them or opens their files itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_watching: list[set[str]] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "os.listdir", "os.scandir") and arguments and arguments[0]:
        try:
            path = os.fsdecode(arguments[0])
        except TypeError:  # a file descriptor
            return
        for seen in _watching:
            seen.add(path)


@contextmanager
def opened() -> Iterator[set[str]]:
    """Yield a set that collects the path of every file and folder opened by this process within the block.

    An audit hook cannot be taken out again; outside the block it does nothing.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    seen: set[str] = set()
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def touched(paths: set[str], roots: Mapping[str, str]) -> dict[str, str]:
    """Return the data sets below whose roots something was opened, each with one path as evidence."""
    real = {name: os.path.realpath(root) for name, root in roots.items() if root}
    found: dict[str, str] = {}
    for path in sorted(paths):
        where = os.path.realpath(path)
        for name, root in real.items():
            if where == root or where.startswith(root + os.sep):
                found.setdefault(name, path)
    return found
