"""Image data sets as others publish them: class folders, tar shards, webdataset shards, parquet files; never copied."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core.errors import DataMissing, UserError
from harness.core.tree import files, folders, visible, walk

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
OTHER_SUFFIXES = frozenset(
    {".gif", ".tif", ".tiff", ".jfif", ".jp2", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pnm", ".tga", ".ico"}
)
"""Image formats that are not read; their files are counted."""
_LABEL_KEYS = ("label", "cls", "class", "wnid")
_NAME_KEYS = ("path", "file_name", "filename", "__key__")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".zip")
_FIX = "give the folder that holds class folders, .tar shards or .parquet files (of the training images)"


@dataclass(frozen=True)
class Entry:
    """One image of a published data set: where it is and which class it is published under."""

    path: str
    """Name that is unique in the data set: ``n01440764/a.jpg``, ``00001.tar::n01440764/a.jpg``, ``p.parquet::00000017``."""
    folder: str
    """Class as published: a folder's name, a label, or the name of a shard that holds one class."""
    container: str = ""
    """File that holds it, relative to the root; empty for a file of its own."""
    offset: int = 0
    """Byte offset in a tar file, or row of a parquet file."""
    size: int = 0
    """Encoded bytes, where the container tells."""
    name: str = ""
    """File name before it was packed, where the container tells it beside the path (a column of a parquet file)."""

    @property
    def stem(self) -> str:
        """Return the file's own name without folders, container and suffix."""
        return PurePosixPath(self.name or self.path.rpartition("::")[2]).stem


@dataclass(frozen=True)
class Listing:
    """All images of a data set."""

    layout: str
    base: Path
    entries: tuple[Entry, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of image files in formats that are not read, by suffix."""


def list_images(root: Path) -> Listing:
    """List a published data set in the order of its names; nothing is decoded.

    ``root/train`` is taken where there is one (a ``val`` beside it is not read).

    Raises:
        DataMissing: no images in a known layout.
        UserError: several layouts in one folder, or compressed archives.
    """
    base = root / "train" if (root / "train").is_dir() else root
    tars, parquets = [base / name for name in files(base, {".tar"})], _parquets(base)
    inside = {name: files(base / name) for name in folders(base)}
    classes = {name: images for name, listed in inside.items() if (images := _suffixed(listed, SUFFIXES))}
    found = {"class folders": classes, "tar shards": tars, "parquet": parquets}
    present = [name for name, items in found.items() if items]
    if len(present) > 1:
        raise UserError(
            f"{base} holds {' and '.join(present)}",
            "one data set has one layout",
            "give a folder with only one of them",
        )
    if not present:
        packed = [name for name in files(base) if name.lower().endswith(_COMPRESSED)]
        why = (
            f"{packed[0]} is compressed and cannot be read in place" if packed else "there is nothing in a known layout"
        )
        raise DataMissing(f"no images in {base}", why, "unpack it first" if packed else _FIX)
    skipped: Counter[str] = Counter()
    if classes:
        for listed in inside.values():
            skipped.update(_not_read(listed))
        entries = tuple(Entry(f"{name}/{image}", name) for name, images in classes.items() for image in images)
        return Listing("class folders", base, entries, skipped)
    if tars:
        entries = tuple(entry for tar in tars for entry in _tar_entries(base, tar, skipped))
        return Listing("tar shards", base, entries, skipped)
    return Listing("parquet", base, tuple(entry for file in parquets for entry in _parquet_entries(base, file)))


def _parquets(base: Path) -> list[Path]:
    found = sorted(base / path for path, _ in walk(base) if path.endswith(".parquet"))
    training = [file for file in found if file.name.startswith("train")]
    return training or found


def _not_read(names: Iterable[str]) -> Iterator[str]:
    """Yield the suffixes of images in formats that are not read."""
    suffixes = (Path(name).suffix.lower() for name in names)
    return (suffix for suffix in suffixes if suffix in OTHER_SUFFIXES)


def _suffixed(names: Iterable[str], suffixes: Collection[str]) -> list[str]:
    return [name for name in names if Path(name).suffix.lower() in suffixes]


def _tar_entries(base: Path, path: Path, skipped: Counter[str]) -> Iterator[Entry]:
    """Yield the images of a tar file: webdataset samples with a label, members in class folders, or one class a file.

    What is not read is counted in ``skipped``.
    """
    container = path.relative_to(base).as_posix()
    try:
        with tarfile.open(path, mode="r:") as tar:
            listed = [(PurePosixPath(info.name), info) for info in tar]
            named = dict(listed)
            members = [
                (name.as_posix(), _content(info, named, path))
                for name, info in listed
                if (info.isfile() or info.islnk() or info.issym()) and all(map(visible, name.parts))
            ]
            labels = _webdataset_labels(tar, members)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path} is not a whole tar file", str(error), "fetch it again") from error
    skipped.update(_not_read(name for name, _ in members))
    for name, info in members:
        if Path(name).suffix.lower() in SUFFIXES:
            label = labels.get(_key(name)) or Path(name).parent.name or path.stem
            yield Entry(f"{container}::{name}", label, container, info.offset_data, info.size)


def _content(info: tarfile.TarInfo, found: Mapping[PurePosixPath, tarfile.TarInfo], tar: Path) -> tarfile.TarInfo:
    """Return the member that holds a file's bytes: itself, or what a hard or symbolic link inside the archive names."""
    passed = 0
    while info.islnk() or info.issym():
        target = PurePosixPath(info.name).parent / info.linkname if info.issym() else PurePosixPath(info.linkname)
        linked, passed = found.get(PurePosixPath(os.path.normpath(target))), passed + 1
        if linked is None or linked.isdir() or passed > len(found):
            raise UserError(
                f"the link {info.name} in {tar} leads nowhere", f"it holds no file {target}", "pack it again"
            )
        info = linked
    return info


def _key(name: str) -> str:
    """Return the sample a webdataset member belongs to: its path up to the first dot of the file name."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _webdataset_labels(tar: tarfile.TarFile, members: Sequence[tuple[str, tarfile.TarInfo]]) -> dict[str, str]:
    labels = {}
    for name, info in members:
        suffix = Path(name).suffix
        if suffix not in (".cls", ".json"):
            continue
        stream = tar.extractfile(info)
        text = stream.read().decode("utf-8", "replace").strip() if stream is not None else ""
        value = text if suffix == ".cls" else _json_label(text)
        if value:
            labels[_key(name)] = value
    return labels


def _json_label(text: str) -> str:
    try:
        facts = json.loads(text)
    except json.JSONDecodeError:
        return ""
    if not isinstance(facts, dict):
        return ""
    return next((str(facts[key]) for key in _LABEL_KEYS if facts.get(key) is not None), "")


def _parquet_entries(base: Path, path: Path) -> Iterator[Entry]:
    container = path.relative_to(base).as_posix()
    _, column = _columns(path)
    labels, names = _column(path, column), _names(path)
    for row, label in enumerate(labels):
        yield Entry(f"{container}::{row:08d}", str(label), container, row, 0, names[row] or "")


def _column(path: Path, column: str) -> list[Any]:
    """Return a column of a parquet file, or a field of one (``image.path``).

    Raises:
        UserError: it cannot be read.
    """
    try:
        values = _open_parquet(path).read(columns=[column]).column(0).to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged", f"column {column} cannot be read", "fetch it again") from error
    key = column.rpartition(".")[2]
    return [value.get(key) if isinstance(value, dict) else value for value in values]


def _names(path: Path) -> list[str]:
    """Return the file names that the rows of a parquet file bear: beside the bytes or in a column; empty where neither."""
    file = _open_parquet(path)
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    columns = [name for name in (f"{_columns(path)[0]}.path", *_NAME_KEYS) if name in leaves]
    found = [""] * int(file.metadata.num_rows)
    for column in columns:
        found = [one or str(other or "") for one, other in zip(found, _column(path, column), strict=True)]
    return found


def _columns(path: Path) -> tuple[str, str]:
    """Return the image and the label column of a parquet file.

    Raises:
        UserError: there is no such pair.
    """
    names = list(_open_parquet(path).schema_arrow.names)
    image = next((name for name in ("image", "img", "jpg", "png") if name in names), "")
    label = next((name for name in _LABEL_KEYS if name in names), "")
    if not image or not label:
        raise UserError(
            f"{path} holds no labelled images",
            f"its columns are {', '.join(names)}",
            "an image column (image, bytes inside) and a label column (label, cls, class or wnid) are needed",
        )
    return image, label


@lru_cache(maxsize=64)
def _open_parquet(path: Path) -> Any:
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a parquet file", str(error).splitlines()[0], "fetch it again") from error


class EntryReader:
    """Read encoded bytes of entries; safe to share between threads."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._lock = threading.Lock()
        self._group: tuple[tuple[str, int], list[bytes | None]] | None = None

    def read(self, entry: Entry) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            UserError: the file ends before the image does.
        """
        if not entry.container:
            return (self.base / entry.path).read_bytes()
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
            file = _open_parquet(path)
            ends = list(accumulate(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)))
            group = bisect.bisect_right(ends, row)
            key = (str(path), group)
            if self._group is None or self._group[0] != key:
                column = _columns(path)[0]
                try:
                    values = file.read_row_group(group, columns=[column]).column(column).to_pylist()
                except (OSError, ValueError) as error:
                    raise UserError(
                        f"{path} is damaged", f"row group {group} cannot be read", "fetch it again"
                    ) from error
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
        self._reader = EntryReader(root / "train" if (root / "train").is_dir() else root)

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
