"""One walk of a folder tree, for fingerprints and for every reader of data from outside.

Symbolic links to folders and files are followed. Hidden files and what operating systems and editors leave behind are
passed over. The order is that of the names, whatever the file system says.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from harness.core.errors import DataMissing, UserError

LITTER = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "__MACOSX", "__pycache__"})
"""Left behind by operating systems and Python; with the hidden ones (``.DS_Store``, ``._*``, ``.ipynb_checkpoints``)
never part of a data set."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Suffixes (lower case) of the images that folders and archives are searched for."""
OTHER_IMAGE_SUFFIXES = frozenset({".gif", ".jp2", ".avif", ".heic", ".heif", ".pnm", ".tga", ".ico"})
"""Image formats that are not read; their files are counted, or refused where a missing image would not show."""
ARCHIVES: Mapping[str, str] = {
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"), "tar -xf {file} -C {folder}"),
    ".zip": "unzip {file} -d {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".rar": "unrar x {file} {folder}/",
}
"""Suffixes of packed data sets, with the command that unpacks them."""
MOST_PATHS = 10_000
"""Paths by which one folder may be reached through links; folders that link to one another crosswise have exponentially many."""

_Place = tuple[int, int]
_Chain = tuple[_Place, ...]


def visible(name: str) -> bool:
    """Return whether a file or folder of this name may be part of a data set."""
    return not name.startswith(".") and name not in LITTER


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path relative to ``root``, entry) of every file: those of a folder by name, then its subfolders by name.

    A folder that is reached by two links is read twice; a link to a folder that holds it ends there.

    Raises:
        DataMissing: a link leads nowhere, or a folder cannot be read.
        UserError: a folder is reached by more than ``MOST_PATHS`` paths.
    """
    yield from _walk(os.fspath(root), "", (_identity(os.stat(root)),), Counter())


def _walk(folder: str, prefix: str, chain: _Chain, seen: Counter[_Place]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    inner = []
    for entry in entries(folder):
        if entry.is_dir():
            inner.append(entry)
        elif entry.is_file():  # sockets, pipes and devices are no data
            yield prefix + entry.name, entry
    for entry in inner:
        place = _identity(entry.stat())
        if place not in chain:
            seen[place] += 1
            if seen[place] > MOST_PATHS:
                raise UserError(
                    f"links lead to {os.path.realpath(entry.path)} by more than {MOST_PATHS:,} paths",
                    f"one of them is {entry.path}",
                    "remove the links that repeat a folder: each path counts as files of its own",
                )
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*chain, place), seen)


def _identity(stat: os.stat_result) -> _Place:
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


def files_below(root: Path, name: str) -> list[str]:
    """Return the paths of all files below the folder ``root/name``, relative to it, in the order of ``walk``.

    Raises:
        DataMissing, UserError: as ``walk``.
    """
    chain = (_identity(os.stat(root)), _identity(os.stat(root / name)))
    return [path for path, _ in _walk(os.fspath(root / name), "", chain, Counter())]


def not_read(names: Iterable[str]) -> list[str]:
    """Return those of some file names that are images in formats that are not read."""
    return [name for name in names if os.path.splitext(name)[1].lower() in OTHER_IMAGE_SUFFIXES]


def is_image(name: str) -> bool:
    """Tell whether a file of this name is read as an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def archive_suffix(name: str) -> str:
    """Return the suffix that tells a packed data set (``.tar.gz``); empty for every other file."""
    lower = name.lower()
    return next((suffix for suffix in sorted(ARCHIVES, key=len, reverse=True) if lower.endswith(suffix)), "")


def unpacking(folder: Path, into: Path | None = None, word: str = "") -> str:
    """Return the command that unpacks an archive in a folder; empty where it holds none.

    Args:
        folder: Where archives are looked for.
        into: Where they are unpacked; the folder itself by default.
        word: Part of the name of the archive that is meant, if there is one; else the first is.
    """
    found = [name for name in files(folder) if archive_suffix(name)] if folder.is_dir() else []
    packed = next((name for name in found if word in name), found[0] if found else "")
    if not packed:
        return ""
    command = ARCHIVES[archive_suffix(packed)].format(
        file=shlex.quote(os.fspath(folder / packed)), folder=shlex.quote(os.fspath(into or folder))
    )
    return f"mkdir -p {shlex.quote(os.fspath(into))} && {command}" if into else command


def find_root(name: str, root: Path, places: Iterable[str], marker: Callable[[Path], bool], wants: str) -> Path:
    """Return the folder of a data set: the first of ``root/place`` that ``marker`` accepts, or one a level deeper.

    Args:
        name: The data set, for messages.
        root: Folder the user named.
        places: Folders below the root in the order of preference; ``""`` is the root itself.
        marker: Tells whether a folder holds the layout.
        wants: What the marker looks for, in words.

    Raises:
        DataMissing: no folder holds the layout.
        UserError: none of the usual places does, and several folders below the root do.
    """
    places = tuple(places)
    found = _first(root, places, marker)
    if found is not None:
        return found
    inside = [root / folder for folder in folders(root)] if root.is_dir() else []
    # A mirror may have put everything into one more folder, whatever its name.
    nested = [place for entry in inside if (place := _first(entry, places, marker)) is not None]
    if len(nested) == 1:
        return nested[0]
    command = unpacking(root)
    fix = f"point the data set to the folder that holds {wants} (--data NAME=PATH)"
    fix += f", or unpack the archive that lies there: {command}" if command else ""
    if nested:
        shown = ", ".join(place.relative_to(root).parts[0] for place in nested)
        raise UserError(f"{name}: several copies in {root}", f"expected {wants} once; found it in {shown}", fix)
    state = (
        "the folder does not exist" if not root.is_dir() else f"expected {wants}; found {_contents(root)}{_table(root)}"
    )
    raise DataMissing(f"{name}: no known layout in {root}", state, fix)


def _table(root: Path) -> str:
    """Say where a folder holds the hub's form of a data set, which readers of the published archives do not read."""
    places = [root, *(root / name for name in folders(root))]
    found = next((place / name for place in places for name in files(place, {".parquet"})), None)
    if found is None:
        return ""
    return f"; {found.relative_to(root)} is the hub's parquet form, whose parts and labels are the uploader's: get the archive as published"


def _first(root: Path, places: Iterable[str], marker: Callable[[Path], bool]) -> Path | None:
    candidates = (root / place if place else root for place in places)
    return next((folder for folder in candidates if folder.is_dir() and marker(folder)), None)


def _contents(folder: Path, shown: int = 6) -> str:
    names = [entry.name for entry in entries(folder)]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "an empty folder"
