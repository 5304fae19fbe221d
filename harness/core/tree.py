"""One walk of a folder tree, for fingerprints and for every reader of data from outside.

Symbolic links to folders and files are followed. Hidden files and what operating systems and editors leave behind are
passed over. The order is that of the names, whatever the file system says.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from harness.core.errors import DataMissing

LITTER = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "__MACOSX", "__pycache__"})
"""Left behind by operating systems and Python; with the hidden ones (``.DS_Store``, ``._*``, ``.ipynb_checkpoints``)
never part of a data set."""

_Chain = tuple[tuple[int, int], ...]


def visible(name: str) -> bool:
    """Return whether a file or folder of this name may be part of a data set."""
    return not name.startswith(".") and name not in LITTER


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path relative to ``root``, entry) of every file: those of a folder by name, then its subfolders by name.

    A folder that is reached by two links is read twice; a link to a folder that holds it ends there.

    Raises:
        DataMissing: a link leads nowhere, or a folder cannot be read.
    """
    yield from _walk(os.fspath(root), "", (_identity(os.stat(root)),))


def _walk(folder: str, prefix: str, chain: _Chain) -> Iterator[tuple[str, os.DirEntry[str]]]:
    inner = []
    for entry in entries(folder):
        if entry.is_dir():
            inner.append(entry)
        elif entry.is_file():  # sockets, pipes and devices are no data
            yield prefix + entry.name, entry
    for entry in inner:
        place = _identity(entry.stat())
        if place not in chain:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*chain, place))


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what lies in one folder, by name.

    Raises:
        DataMissing: as ``walk``.
    """
    try:
        with os.scandir(folder) as found:
            listed = sorted((entry for entry in found if visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataMissing(
            f"{os.fspath(folder)} cannot be read", error.strerror or str(error), "correct the path or its permissions"
        ) from error
    for entry in listed:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise DataMissing(
                f"the link {entry.path} leads nowhere",
                f"there is no {os.readlink(entry.path)}",
                "restore what it points to, or remove the link",
            )
    return listed


def files(folder: Path, suffixes: Collection[str] = ()) -> list[str]:
    """Return the names of the files in one folder, in order; with ``suffixes`` (lower case) those that end so."""
    return [
        entry.name
        for entry in entries(folder)
        if (not suffixes or os.path.splitext(entry.name)[1].lower() in suffixes) and entry.is_file()
    ]


def folders(folder: Path) -> list[str]:
    """Return the names of the folders in one folder, in order."""
    return [entry.name for entry in entries(folder) if entry.is_dir()]
