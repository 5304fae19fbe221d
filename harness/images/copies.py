"""The same images packed more than once: second copies of files, configurations of a data set, the hub's converted copy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.core.errors import UserError
from harness.images.entries import Entry
from harness.images.parts import part_of_file
from harness.images.tables import open_parquet

_NUMBERED = re.compile(r"(?:(.*)/)?[^/]*-\d{5}-of-\d{5}\.\w+")
"""Files as a publisher uploads them: ``data/train-00000-of-00257.parquet``; the folder is the configuration."""
_CONVERTED = re.compile(r"(?:(.*)/)?([^/]+)/\d{4}\.parquet")
"""Files as the hub converts them: ``default/train/0000.parquet``, below the configuration's name."""
_SECOND = re.compile(r"(.+?)(?: ?\(\d+\)| - copy| copy)(\.\w+)", re.IGNORECASE)
_SMALL = frozenset({"thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"})
"""Folders of smaller copies."""
_FIX = "give the folder of one of them, or leave one of them in this folder"


def take_one_copy(base: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files without those that repeat others, and what was left out in words.

    The hub's converted copy is left out where it has as many rows as the publisher's own files beside it.

    Raises:
        UserError: a second copy of a file, several configurations, or a converted copy of other size.
    """
    for name in names:
        if (found := _SECOND.fullmatch(name)) and found[1] + found[2] in names:
            raise UserError(
                f"{base} holds {found[1] + found[2]} twice",
                f"{name} is called as a second copy of it, and its images would be taken twice",
                "remove one of them",
            )
    numbered = _grouped(names, _NUMBERED)
    converted = {
        config: files
        for config, files in _grouped([name for name in names if not _NUMBERED.fullmatch(name)], _CONVERTED).items()
        if all(part_of_file(PurePosixPath(name).parent.name) for name in files)
    }
    for groups in (numbered, converted):
        if len(groups) > 1:
            shown = " and ".join(
                f"{config or 'the folder itself'} ({len(files)} files)" for config, files in groups.items()
            )
            raise UserError(
                f"{base} holds several configurations of a data set", f"{shown} may hold the same images", _FIX
            )
    if not numbered or not converted:
        return list(names), []
    ((config, own),), ((_, copy),) = numbered.items(), converted.items()
    sizes = [sum(int(open_parquet(base / name).metadata.num_rows) for name in files) for files in (own, copy)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{base} holds {own[0]} and {copy[0]}",
            f"the second is named as the hub's converted copy, but they have {sizes[0]} and {sizes[1]} rows",
            _FIX,
        )
    note = f"left out: {len(copy)} files such as {copy[0]}, the hub's converted copy of {config or 'the others'}"
    return [name for name in names if name not in copy], [note]


def _grouped(names: Sequence[str], pattern: re.Pattern[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        if found := pattern.fullmatch(name):
            groups.setdefault(found[1] or "", []).append(name)
    return groups


def repeated_keys(base: Path, archives: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    """Yield in words which sample keys several archives give different labels.

    Args:
        base: Folder, for messages.
        archives: Entries of each archive.

    Raises:
        UserError: two archives hold the same names, labels and sizes.
    """
    listed: dict[tuple[tuple[str, str, int], ...], str] = {}
    labels: dict[str, Entry] = {}
    odd = []
    for container, entries in archives.items():
        facts = tuple((entry.path.partition("::")[2], entry.folder, entry.size) for entry in entries)
        if facts and listed.setdefault(facts, container) != container:
            raise UserError(
                f"{base} holds one archive twice",
                f"{listed[facts]} and {container} hold the same names, labels and sizes",
                "remove one of them",
            )
        for (key, label, _), entry in zip(facts, entries, strict=True):
            if labels.setdefault(key, entry).folder != label and "/" not in key:
                odd.append((labels[key], entry))
    if odd:
        one, other = odd[0]
        yield (
            f"{len(odd)} sample keys stand in several archives under different labels, such as {one.path} ({one.folder}) and "
            f"{other.path} ({other.folder}): both are read"
        )


def take_one_size(base: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the images without smaller copies of them in a folder of its own, and what was left out in words.

    Args:
        base: Folder, for messages.
        entries: Images of one part.

    Raises:
        UserError: two folders hold the same names in the same classes, and neither is called as one of smaller copies.
    """
    places: dict[str, set[tuple[str, str]]] = {}
    for entry in entries:
        places.setdefault(_place(entry), set()).add((entry.folder, entry.stem))
    small = [place for place in places if _SMALL & set(place.lower().split("/"))]
    others = {name for place, names in places.items() if place not in small for name in names}
    copies = [place for place in small if places[place] <= others]
    known: dict[frozenset[tuple[str, str]], str] = {}
    for place in (place for place in places if place not in copies):
        first = known.setdefault(frozenset(places[place]), place)
        if first != place:
            raise UserError(
                f"{base} holds the same image names in {first or 'class folders'} and in {place or 'class folders'}",
                "the two may be one data set in two sizes, and each picture would be taken twice",
                "remove the smaller ones, or give the files of one folder other names if their pictures are others",
            )
    kept = [entry for entry in entries if _place(entry) not in copies] if copies else list(entries)
    counts = [(place, sum(_place(entry) == place for entry in entries)) for place in copies]
    return kept, [
        f"left out: {count} images in {place}/, named as smaller copies of the others" for place, count in counts
    ]


def _place(entry: Entry) -> str:
    """Return the folders that an image lies in, without its class and without its archive."""
    folders = entry.path.rpartition("::")[2].split("/")[:-1]
    return "/".join(name for name in folders if name != entry.folder)
