"""What published folders and labels mean in the run's class list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.api import ClassList, UserError, load_classes, resolve_path

WORDS = ("wnid", "index", "names")
"""Maps that need no file."""


@dataclass(frozen=True)
class ClassMap:
    """Published folders (or labels) by what they mean."""

    labels: Mapping[str, int]
    """Class index by folder."""
    elsewhere: frozenset[str] = frozenset()
    """Folders of ImageNet classes that the run's list leaves out."""


def class_map(spec: str, classes: ClassList, folders: Iterable[str]) -> ClassMap:
    """Return what published folders or labels mean.

    Args:
        spec: ``wnid`` (folders are class ids), ``index`` (positions in the sorted list, zeros in front do not count),
            ``names`` (class names), or the path of a file of lines ``folder wnid``.
        classes: The class list.
        folders: The folders or labels that are there.

    Raises:
        UserError: names that two classes share, or a line of the file that names no class.
    """
    position = {wnid: index for index, wnid in enumerate(classes.ids)}
    known = load_classes("imagenet1k")
    if spec == "wnid":
        return ClassMap(position, frozenset(known.ids) - position.keys())
    if spec == "index":
        found = {folder: int(folder) for folder in folders if folder.isascii() and folder.isdigit()}
        return ClassMap({folder: index for folder, index in found.items() if index < len(classes)})
    if spec == "names":
        labels = _names(classes)
        return ClassMap(labels, frozenset(known.names) - labels.keys())
    pairs = _pairs(spec)
    wrong = [(folder, wnid) for folder, wnid in pairs if wnid not in position and wnid not in known.ids]
    if wrong:
        folder, wnid = wrong[0]
        raise UserError(
            f"{spec} names {len(wrong)} classes that do not exist",
            f"{wnid!r} (of {folder!r}) is neither in {classes.name} nor in ImageNet",
            "correct the lines; each is 'folder wnid'",
        )
    labels = {folder: position[wnid] for folder, wnid in pairs if wnid in position}
    return ClassMap(labels, frozenset(folder for folder, _ in pairs) - labels.keys())


def _names(classes: ClassList) -> dict[str, int]:
    double = classes.duplicate_names()
    if double:
        raise UserError(
            "folders named by class cannot be told apart",
            f"{len(double)} names stand for several classes, such as {next(iter(double))!r}",
            "write a file of lines 'folder wnid' and give its path as class_map",
        )
    return {name: index for index, name in enumerate(classes.names)}


def _pairs(spec: str) -> list[tuple[str, str]]:
    """Return the lines of a class map; a folder may hold spaces."""
    pairs = []
    for line in resolve_path(spec).read_text(encoding="utf-8").splitlines():
        parts = line.rsplit(None, 1)
        if len(parts) == 1:
            raise UserError(f"{spec} is not a class map", f"line {line!r}", "write one 'folder wnid' a line")
        if parts:
            pairs.append((parts[0].strip(), parts[1]))
    return pairs
