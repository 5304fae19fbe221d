"""What published folders and labels mean in the run's class list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.api import ClassList, UserError, load_classes, match_label_names, read_resource

_UNLABELLED = "-1"
"""Label of the hub's images without one, such as ImageNet's test part."""
WORDS = ("wnid", "index", "names")
"""Maps that need no file."""


@dataclass(frozen=True)
class ClassMap:
    """Published folders (or labels) by what they mean."""

    labels: Mapping[str, int]
    """Class index by folder."""
    elsewhere: frozenset[str] = frozenset()
    """Folders of ImageNet classes that the run's list leaves out."""


def class_map(
    spec: str,
    classes: ClassList,
    folders: Iterable[str],
    label_names: Sequence[str] = (),
    beside: Mapping[str, str] = MappingProxyType({}),
) -> ClassMap:
    """Return what published folders or labels mean.

    Args:
        spec: ``wnid`` (folders are class ids), ``index`` (positions in the sorted list, zeros in front do not count),
            ``names`` (class names), or the path of a file of lines ``folder wnid``.
        classes: The class list.
        folders: The folders or labels that are there.
        label_names: Names of labels 0, 1, ... that the data set states itself. They decide what numbers mean, whatever word
            ``spec`` is.
        beside: Class ids that stand beside numbers. They decide, and ``spec`` must agree with them.

    Raises:
        UserError: a map that contradicts class ids or certain label names, names that two classes share, numbers that count another
            list, a line of the file that names no class, or two folders or lines that claim one class or folder.
    """
    folders = set(folders)
    position = {wnid: index for index, wnid in enumerate(classes.ids)}
    known = load_classes("imagenet1k")
    numbers = set(filter(_is_number, folders))
    if label_names and spec in WORDS and folders - numbers <= {_UNLABELLED}:
        return _stated(spec, classes, numbers, label_names)
    if spec == "wnid":
        return ClassMap(position, frozenset(known.ids) - position.keys())
    if spec == "index":
        ids = {folder: position[folder] for folder in folders & position.keys()}
        _check_beside(spec, dict(enumerate(classes.ids)), beside)
        return ClassMap(_indices(classes, folders) | ids, frozenset(known.ids) - position.keys())
    if spec == "names":
        labels = _names(classes) | {folder: position[folder] for folder in folders & position.keys()}
        return ClassMap(labels, frozenset(known.names) - labels.keys())
    pairs = _pairs(spec)
    numbered = {int(folder): wnid for folder, wnid in pairs if _is_number(folder)}
    _check_beside(spec, numbered, beside)
    _check_names(spec, numbered, classes, label_names)
    pairs += [(wnid, wnid) for wnid in sorted({*beside.values()} - {folder for folder, _ in pairs})]
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


def _check_beside(spec: str, meaning: Mapping[int, str], beside: Mapping[str, str]) -> None:
    """Refuse a map by which a number means another class than the class id beside it says."""
    for number, wnid in beside.items():
        if meaning.get(int(number), wnid) != wnid:
            raise UserError(
                f"class_map={spec} contradicts the class ids of the data set",
                f"label {number} would be {meaning[int(number)]}, and {wnid} stands beside it",
                "leave class_map out: the class ids are read",
            )


def _check_names(spec: str, meaning: Mapping[int, str], classes: ClassList, label_names: Sequence[str]) -> None:
    """Refuse a file of lines by which a number means another class than the data set's own name of it; uncertain names say nothing."""
    try:
        named = match_label_names(label_names, classes)
    except UserError:
        return
    odd = next((number for number, wnid in enumerate(named) if meaning.get(number, wnid) != wnid), None)
    if odd is not None:
        raise UserError(
            f"{spec} contradicts the data set's own label names",
            f"label {odd} would be {meaning[odd]}, and its metadata say {label_names[odd]!r}, which is {named[odd]}",
            "leave class_map out: the names are read; or correct the metadata where they are wrong",
        )


_DIGITS = 18
"""Longer ones number no class."""


def _is_number(folder: str) -> bool:
    return folder.isascii() and folder.isdigit() and len(folder) <= _DIGITS


def _indices(classes: ClassList, folders: Iterable[str]) -> dict[str, int]:
    found = {folder: int(folder) for folder in sorted(folders) if _is_number(folder)}
    beyond = {folder for folder, index in found.items() if index >= len(classes)}
    if beyond:
        raise UserError(
            f"class_map=index does not fit {classes.name}",
            f"its {len(classes)} classes have the indices 0 to {len(classes) - 1}, but there are labels such as {min(beyond)!r}: "
            "they count another list",
            "write a file of lines 'label wnid' by that list, and give its path as class_map",
        )
    counts = Counter(found.values())
    twice = [folder for folder, index in found.items() if counts[index] > 1]
    if twice:
        raise UserError(
            f"several folders claim class {found[twice[0]]}",
            f"{' and '.join(repr(folder) for folder in twice if found[folder] == found[twice[0]])} are one number",
            "put the images of each class into one folder",
        )
    return found


def _stated(spec: str, classes: ClassList, folders: Iterable[str], label_names: Sequence[str]) -> ClassMap:
    """Return what numbers mean by the names that the data set states; ``index`` must agree with them.

    Raises:
        UserError: a number has no name, a name is not certain, or ``index`` says otherwise.
    """
    meaning = match_label_names(label_names, classes)
    beyond = sorted(folder for folder in folders if int(folder) >= len(meaning))
    if beyond:
        raise UserError(
            f"label {beyond[0]} has no name",
            f"the data set's own metadata names labels 0 to {len(meaning) - 1}",
            "fetch the data set again",
        )
    wnids = {folder: meaning[int(folder)] for folder in folders}
    position = {wnid: index for index, wnid in enumerate(classes.ids)}
    labels = {folder: position[wnid] for folder, wnid in wnids.items() if wnid in position}
    odd = sorted((int(folder), folder) for folder, wnid in wnids.items() if labels.get(folder) != int(folder))
    if spec == "index" and odd:
        folder = odd[0][1]
        raise UserError(
            "class_map=index contradicts the data set's own label names",
            f"label {folder} would be {_named(classes, int(folder))}, and its metadata say {label_names[int(folder)]!r}",
            "leave class_map out: the names are read",
        )
    return ClassMap(labels, frozenset(folder for folder in folders if folder not in labels))


def _named(classes: ClassList, index: int) -> str:
    return f"{classes.ids[index]} ({classes.names[index]})" if index < len(classes) else "beyond the list"


def _names(classes: ClassList) -> dict[str, int]:
    double = classes.duplicate_names()
    if double:
        raise UserError(
            "folders named by class cannot be distinguished",
            f"{len(double)} names stand for several classes, such as {next(iter(double))!r}",
            "write a file of lines 'folder wnid' and give its path as class_map",
        )
    return {name: index for index, name in enumerate(classes.names)}


def _pairs(spec: str) -> list[tuple[str, str]]:
    """Return the lines of a class map; a folder may hold spaces."""
    pairs = []
    for line in read_resource(spec).splitlines():
        parts = line.rsplit(None, 1)
        if len(parts) == 1:
            raise UserError(f"{spec} is not a class map", f"line {line!r}", "write one 'folder wnid' a line")
        if parts:
            pairs.append((parts[0].strip(), parts[1]))
    twice = next((folder for folder, count in Counter(folder for folder, _ in set(pairs)).items() if count > 1), None)
    if twice is not None:
        raise UserError(
            f"{spec} gives {twice!r} two classes",
            f"{' and '.join(sorted({wnid for folder, wnid in pairs if folder == twice}))}",
            "leave the right line",
        )
    return pairs
