"""Image data sets as others publish them: class folders, tar shards, webdataset shards, parquet files; never copied."""

from __future__ import annotations

import bisect
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core.errors import DataMissing, UserError
from harness.core.tree import archive_suffix, files, is_image, not_read, unpacking, walk
from harness.images.archives import check_keys, read_archive
from harness.images.cards import card_names
from harness.images.copies import repeated_keys, take_one_copy, take_one_size
from harness.images.entries import Entry
from harness.images.folder import check_parts, explain_parts, image_folder, read_file
from harness.images.labels import class_ids_beside, with_class_ids
from harness.images.parts import TRAINING, check_images, part_of_file, part_of_folder, take_part
from harness.images.tables import has_images, image_column, label_names, open_parquet, refuse_damaged, table_entries

_FIX = "give the folder that holds class folders, .tar shards or .parquet files (of the training images)"
_OF = re.compile(r"(.*?)-(\d{5})-of-(\d{5})(\.\w+)")
"""Names of numbered parts, such as ``data/train-00000-of-00257.parquet``."""


@dataclass(frozen=True)
class Listing:
    """All images of a data set."""

    layout: str
    base: Path
    entries: tuple[Entry, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of image files in formats that are not read, by suffix."""
    label_names: tuple[str, ...] = ()
    """Names of labels 0, 1, ... as the files themselves state them; empty where they state none."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Class ids that stand beside numbers, by number; the images bear the class id."""
    left_out: tuple[str, ...] = ()
    """What was left out on purpose, in words."""
    noted: tuple[str, ...] = ()
    """What is odd and was read all the same, in words."""
    missing: tuple[str, ...] = ()
    """What is missing by the names of the files, in words."""


@dataclass
class _Survey:
    """What one walk finds below a folder."""

    tars: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    folders: dict[str, list[str]] = field(default_factory=dict)
    """Files of each top folder that holds images, relative to it."""
    loose: list[str] = field(default_factory=list)
    """Images in no folder."""
    other: list[str] = field(default_factory=list)


def list_images(root: Path, part: str = TRAINING) -> Listing:
    """List one part of a published data set in the order of its names; nothing is decoded.

    ``root/train`` is taken where there is one (a ``val`` beside it is not read). Of files in one folder, those whose names
    say that they are of another part are left out.

    Raises:
        DataMissing: no images in a known layout.
        UserError: several layouts in one folder, compressed archives, parts that cannot be distinguished, two files that
            claim one place, or two folders that hold the same names in the same classes.
    """
    base = image_folder(root, part)
    listing = _in_one_layout(base, root, part)
    entries, left = take_one_size(base, listing.entries)
    return replace(listing, entries=tuple(entries), left_out=(*listing.left_out, *left)) if left else listing


def _in_one_layout(base: Path, root: Path, part: str) -> Listing:
    found = _survey(base)
    nested = bool(found.folders)
    tars = [name for name in found.tars if not (nested and "/" in name)]
    tables = [name for name in found.tables if not (nested or tars) or has_images(base / name)]
    layouts = {"class folders": found.folders, "tar shards": tars, "parquet": tables}
    present = [name for name, items in layouts.items() if items]
    if len(present) > 1:
        raise UserError(
            f"{base} holds {' and '.join(present)}",
            "one data set has one layout",
            "give a folder with only one of them",
        )
    if not present:
        _explain_nothing(base, found)
    if nested:
        listing, inside = _class_folders(base, found, part), [name for name in found.tars if "/" in name]
        if inside:
            text = f"left out: {len(inside)} archives inside the folders, such as {inside[0]}"
            listing = replace(listing, left_out=(*listing.left_out, text))
        return listing
    names, others = take_part(base, {name: part_of_file(name) for name in tars or tables}, part)
    names, copies = take_one_copy(base, names)
    listing = _of_part(_archives(base, names) if tars else _tables(base, root, names), part)
    left = tuple(f"left out: {count} {other} files" for other, count in sorted(others.items()))
    return replace(listing, left_out=(*left, *copies, *listing.left_out), missing=tuple(_numbered(base, names)))


def _survey(base: Path) -> _Survey:
    found = _Survey()
    listed: dict[str, list[str]] = {}
    for name, _ in walk(base):
        top, _, rest = name.partition("/")
        lower = name.lower()
        if lower.endswith(".tar"):
            found.tars.append(name)
        elif lower.endswith(".parquet"):
            found.tables.append(name)
        elif rest:
            listed.setdefault(top, []).append(rest)
        elif is_image(name):
            found.loose.append(name)
        else:
            found.other.append(name)
    found.tables.sort()
    found.tars.sort()
    found.folders = {top: names for top, names in listed.items() if any(map(is_image, names))}
    return found


def _class_folders(base: Path, found: _Survey, part: str) -> Listing:
    """List class folders; top folders that are called like another part and hold folders themselves are left out."""
    _check_not_shards(base, found)
    explain_parts(base, list(found.folders), part)
    foreign = [
        top
        for top, names in found.folders.items()
        if part_of_folder(top) not in ("", part) and all("/" in name for name in names if is_image(name))
    ]
    classes = {top: names for top, names in found.folders.items() if top not in foreign}
    if not classes:
        raise UserError(
            f"{base} holds no {part} images",
            f"its folders are {', '.join(foreign)}",
            f"give the folder that holds the {part} images",
        )
    skipped: Counter[str] = Counter()
    entries = []
    for top, names in classes.items():
        skipped.update(_suffixes(not_read(names)))
        images = [name for name in names if is_image(name)]
        check_parts(base / top, images, part)
        entries += [Entry(f"{top}/{name}", top) for name in images]
    left = [f"left out: the folder {', '.join(foreign)}"] if foreign else []
    left += [f"left out: {len(found.loose)} images in no class folder, such as {found.loose[0]}"] if found.loose else []
    return Listing("class folders", base, tuple(entries), skipped, left_out=tuple(left))


def _of_part(listing: Listing, part: str) -> Listing:
    """Return the images of one part, as folders inside archives, columns and side files tell them.

    Raises:
        UserError: the parts cannot be distinguished, or images bear the names of another part's.
    """
    kept, others = take_part(listing.base, {entry.path: entry.part for entry in listing.entries}, part)
    if others:
        chosen = set(kept)
        left = tuple(f"left out: {count} {other} images inside the files" for other, count in sorted(others.items()))
        entries = tuple(entry for entry in listing.entries if entry.path in chosen)
        listing = replace(listing, entries=entries, left_out=(*listing.left_out, *left))
    check_images(listing.base, {entry.path: entry.stem for entry in listing.entries}, part)
    beside = class_ids_beside(listing.base, listing.entries, listing.label_names)
    return replace(listing, entries=with_class_ids(listing.entries, beside), beside=beside)


def _archives(base: Path, names: Sequence[str]) -> Listing:
    packed = [read_archive(base, name) for name in names]
    check_keys(base, packed)
    skipped: Counter[str] = Counter()
    for each in packed:
        skipped.update(each.skipped)
    entries = [entry for each in packed for entry in each.entries]
    if not entries:
        raise DataMissing(f"no images in {base}", f"{', '.join(names[:3])} hold none", "check what was downloaded")
    noted = tuple(repeated_keys(base, {name: each.entries for name, each in zip(names, packed, strict=True)}))
    return Listing("tar shards", base, tuple(entries), skipped, noted=noted)


def _tables(base: Path, root: Path, names: Sequence[str]) -> Listing:
    stated = {name: label_names(base / name) for name in names}
    if not any(stated.values()):
        stated = dict.fromkeys(names, card_names(base, root))
    first = stated[names[0]]
    other = next((name for name, each in stated.items() if each != first), None)
    if other is not None:
        raise UserError(
            f"two files of {base} give labels different names",
            f"{names[0]} and {other}: their metadata are those of two data sets",
            "give a folder that holds one of them",
        )
    entries = tuple(entry for name in names for entry in table_entries(base, name))
    return Listing("parquet", base, entries, label_names=first)


def _numbered(base: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield in words how many numbered parts are missing.

    Raises:
        UserError: parts of two numberings lie side by side, which would take images twice.
    """
    totals: dict[str, dict[str, int]] = {}
    for name in names:
        if match := _OF.fullmatch(name):
            counts = totals.setdefault(match[1], {})
            counts[match[3]] = counts.get(match[3], 0) + 1
    for prefix, counts in totals.items():
        if len(counts) > 1:
            raise UserError(
                f"{base} holds two numberings of {prefix}",
                f"files of {' and of '.join(str(int(total)) for total in sorted(counts))}: the same images, packed twice",
                "remove the files of one of them",
            )
        ((total, count),) = counts.items()
        if count < int(total):
            yield f"{int(total) - count} of the {int(total)} files of {prefix} are missing"


def _check_not_shards(base: Path, found: _Survey) -> None:
    """Refuse the folders that img2dataset writes: each is a shard and not a class."""
    facts = {PurePosixPath(name).name for name in (*found.other, *found.tables)}
    shards = [top for top in found.folders if f"{top}_stats.json" in facts or f"{top}.parquet" in facts]
    if shards:
        raise UserError(
            f"the folders of {base} are shards of a download and no classes",
            f"beside {shards[0]}/ lies {shards[0]}_stats.json or {shards[0]}.parquet, as img2dataset writes them",
            "sort the images into one folder per class by a column of these tables",
        )


def _explain_nothing(base: Path, found: _Survey) -> None:
    """Raise with what is in the folder instead of images in a known layout."""
    packed = [name for name in files(base) if archive_suffix(name)]
    arrow = [name for name, _ in walk(base) if name.endswith(".arrow")]
    why, fix = "there is nothing in a known layout", _FIX
    if packed:
        why, fix = f"{packed[0]} is compressed and cannot be read in place", f"unpack it first: {unpacking(base)}"
    elif arrow:
        why = f"{arrow[0]} is what save_to_disk of the library datasets writes"
        fix = "write parquet instead: datasets.load_from_disk(PATH).to_parquet(FILE)"
    elif found.loose:
        why = f"{len(found.loose)} images, such as {found.loose[0]}, lie in no class folder"
        fix = "sort them into one folder per class"
    raise DataMissing(f"no images in {base}", why, fix)


def _suffixes(names: Iterable[str]) -> Iterator[str]:
    return (PurePosixPath(name).suffix.lower() for name in names)


class EntryReader:
    """Read encoded bytes of entries; safe to share between threads."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._lock = threading.Lock()
        self._group: tuple[tuple[str, int], list[bytes | None]] | None = None

    def read(self, entry: Entry) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            DataMissing: the file is gone.
            UserError: the file ends before the image does.
        """
        if not entry.container:
            return read_file(self.base / entry.path)
        path = self.base / entry.container
        if path.suffix == ".parquet":
            content = self._row(path, entry.offset)
            if not content:
                raise UserError(f"{path} holds no image in row {entry.offset}", "it holds no bytes", "fetch it again")
            return content
        with path.open("rb") as stream:
            stream.seek(entry.offset)
            content = stream.read(entry.size)
        if len(content) != entry.size:
            raise UserError(f"{path} is truncated", f"its archive ends before {entry.path} does", "fetch it again")
        return content

    def _row(self, path: Path, row: int) -> bytes | None:
        with self._lock:
            file = open_parquet(path)
            ends = list(accumulate(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)))
            group = bisect.bisect_right(ends, row)
            key = (str(path), group)
            if self._group is None or self._group[0] != key:
                column = image_column(path)
                with refuse_damaged(path, f"row group {group} cannot be read"):
                    values = file.read_row_group(group, columns=[column]).column(column).to_pylist()
                self._group = (key, [each["bytes"] if isinstance(each, dict) else each for each in values])
            return self._group[1][row - (ends[group - 1] if group else 0)]


class PublishedSource:
    """Images of an imported data set, in the order of its manifest.

    Args:
        root: Root of the data set.
        rows: Manifest rows: ``path``, ``class_index``, ``container``, ``offset``, ``bytes``, ``sha1``.
    """

    def __init__(self, root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        self.names = [str(row["path"]) for row in rows]
        self.labels = [int(row["class_index"]) for row in rows]
        self._entries = [Entry(row["path"], "", row["container"], row["offset"], row["bytes"]) for row in rows]
        self._sha1 = [str(row["sha1"]) for row in rows]
        self._reader = EntryReader(image_folder(root))

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            UserError: they are not those that were imported.
        """
        content = self._reader.read(self._entries[index])
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != self._sha1[index]:
            raise UserError(
                f"{self._reader.base / self.names[index]} has changed since the data set was imported",
                "its SHA-1 is not that of the list of images",
                "restore the file, or import the data set again into another store",
            )
        return content
