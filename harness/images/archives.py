"""Images in tar files, read where they lie: webdataset samples, class folders, one class a file, and tar files inside."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core.errors import UserError
from harness.core.tree import archive_suffix, is_image, not_read, visible
from harness.images.entries import Entry
from harness.images.labels import UNLABELLED, Label, decide, disagree, is_wnid
from harness.images.parts import part_of_file, part_of_folder
from harness.images.side_files import read_side_files, sample


@dataclass(frozen=True)
class Packed:
    """The images of one tar file."""

    entries: tuple[Entry, ...]
    keys: Mapping[str, str]
    """Where an image would be unpacked to, by the path of an entry; samples with a label of their own have none."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of image files in formats that are not read, by suffix."""


def read_archive(base: Path, container: str) -> Packed:
    """List the images of a tar file.

    Raises:
        UserError: it is damaged, two of its members claim one name or one sample, or its labels are not known.
    """
    path = base / container
    try:
        with tarfile.open(path, mode="r:") as tar:
            found = [*_images(tar, container, PurePosixPath(container).stem, 0, part_of_file(container))]
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path} is not a whole tar file", str(error), "fetch it again") from error
    entries = tuple(replace(each.entry, container=container) for each in found if each.entry.folder)
    named = {each.entry.path: each for each in found}
    return Packed(
        entries,
        {entry.path: named[entry.path].key for entry in entries if named[entry.path].key},
        Counter(PurePosixPath(path).suffix.lower() for path, each in named.items() if not each.entry.folder),
    )


@dataclass(frozen=True)
class _Found:
    """An image, or one that is not read (without a folder)."""

    entry: Entry
    key: str


def _images(tar: tarfile.TarFile, where: str, stem: str, start: int, part: str) -> Iterator[_Found]:
    """Yield the images of a tar file that begins at byte ``start`` of the outermost one."""
    members = _members(tar, where)
    inner = {name for name in members if archive_suffix(name)}
    if any(map(is_image, members)):
        inner = {name for name in inner if name.lower().endswith(".tar")}  # beside images, others hold something else
    closed = [name for name in members if archive_suffix(name) and name not in inner]
    labels, splits = read_side_files(tar, members, where, stem)
    for name, info in members.items():
        if name in inner:
            yield from _inside(tar, f"{where}::{name}", info, start, part)
        elif is_image(name):
            parents = PurePosixPath(name).parts[:-1]
            label, in_place = _class_of(name, labels, stem, where)
            told = [part, *(part_of_folder(each) for each in (parents[:-1] if in_place else parents))]
            entry = Entry(
                f"{where}::{name}",
                label.text,
                offset=start + info.offset_data,
                size=info.size,
                number=label.number,
                part=splits.get(sample(name)) or next(filter(None, reversed(told)), ""),
            )
            place = (name if parents else f"{stem}/{name}") if in_place else ""
            yield _Found(entry, place)
    yield from (_Found(Entry(f"{where}::{name}", ""), "") for name in (*not_read(members), *closed))


def _inside(tar: tarfile.TarFile, where: str, info: tarfile.TarInfo, start: int, part: str) -> Iterator[_Found]:
    """Yield the images of an archive inside another; only uncompressed tar files can be read in place."""
    if not info.name.lower().endswith(".tar"):
        outer = where.rpartition("::")[0]
        raise UserError(
            f"{where} cannot be read in place",
            "it is an archive inside another, and compressed",
            f"unpack both into one folder: tar -xf {outer.partition('::')[0]}, then {info.name}",
        )
    with tarfile.open(fileobj=tar.extractfile(info), mode="r:") as inner:
        own = part_of_file(info.name) or part
        yield from _images(inner, where, PurePosixPath(info.name).stem, start + info.offset_data, own)


def _members(tar: tarfile.TarFile, where: str) -> dict[str, tarfile.TarInfo]:
    """Return the files of a tar file by name, each with the member that holds its bytes.

    Raises:
        UserError: a name occurs twice (unpacking would keep the last), or a link leads nowhere.
    """
    listed = [(PurePosixPath(info.name), info) for info in tar]
    named = dict(listed)
    found: dict[str, tarfile.TarInfo] = {}
    stream: Any = tar.fileobj
    length = int(stream.seek(0, os.SEEK_END))
    for name, info in listed:
        if info.issparse() or info.offset_data + info.size > length:
            raise UserError(
                f"{where} is damaged, or packed in a way that is not read",
                f"{name} declares {info.size:,} bytes, which do not lie in the archive",
                "fetch it again, or pack it again from the unpacked files (without tar's --sparse)",
            )
        if not (info.isfile() or info.islnk() or info.issym()) or not all(map(visible, name.parts)):
            continue
        if name.as_posix() in found:
            raise UserError(
                f"{where} holds {name} twice",
                "two members claim one name, and which of them is meant is not known",
                "pack it again from the unpacked files",
            )
        found[name.as_posix()] = _content(info, named, where)
    return found


def _content(info: tarfile.TarInfo, found: Mapping[PurePosixPath, tarfile.TarInfo], where: str) -> tarfile.TarInfo:
    """Return the member that holds a file's bytes: itself, or what a hard or symbolic link inside the archive names."""
    passed = 0
    while info.islnk() or info.issym():
        target = PurePosixPath(info.name).parent / info.linkname if info.issym() else PurePosixPath(info.linkname)
        linked, passed = found.get(PurePosixPath(os.path.normpath(target))), passed + 1
        if linked is None or linked.isdir() or passed > len(found):
            raise UserError(
                f"the link {info.name} in {where} leads nowhere", f"it holds no file {target}", "pack it again"
            )
        info = linked
    return info


def _class_of(name: str, labels: Mapping[str, Label], stem: str, where: str) -> tuple[Label, bool]:
    """Return the class of an image, and whether its place alone tells it: its folder, or the name of its archive.

    Raises:
        UserError: the folder is another class id than its label.
    """
    folder, stated = PurePosixPath(name).parent.name, labels.get(sample(name), Label(""))
    if is_wnid(folder) and stated.text:
        if disagree(folder, stated.text):
            raise UserError(
                f"{where}: {name} has two labels",
                f"it lies in the folder of {folder}, and its side files say {stated.text!r}",
                "pack it again with one label a sample",
            )
        return decide((stated.text, stated.number, folder)), False
    if stated.text:
        return stated, False
    if labels and not is_wnid(folder):  # other samples have one
        return Label(UNLABELLED), False
    return Label(folder or stem), True


def check_keys(base: Path, packed: Sequence[Packed]) -> None:
    """Refuse archives that hold the same class folder's image twice between them.

    Raises:
        UserError: two members of two files would be unpacked to one place.
    """
    first: dict[str, str] = {}
    for each in packed:
        for path, key in each.keys.items():
            if first.setdefault(key, path) != path:
                raise UserError(
                    f"two archives in {base} hold {key}",
                    f"{first[key]} and {path}",
                    "remove the archive that repeats images of another, or pack them again",
                )
