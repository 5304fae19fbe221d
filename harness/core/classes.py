"""Ordered class lists: what the outputs of a head mean, in which order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.core.errors import UserError
from harness.core.names import did_you_mean

SHIPPED = {
    "imagenet1k": "package:harness/class_lists/imagenet1k.txt",
    "imagenet100": "package:harness/class_lists/imagenet100.txt",
    "micro": "package:harness.microworld/classes.txt",
}


@dataclass(frozen=True)
class ClassList:
    """An ordered list of classes: that of a head's outputs, or of the training folders, whose order is that of the sorted ids."""

    name: str
    ids: tuple[str, ...]
    """Such as ``n01440764``."""
    names: tuple[str, ...]
    """Such as ``tench``; need not be unique."""

    def __len__(self) -> int:
        return len(self.ids)

    def key(self) -> dict[str, str]:
        """Return what stands for the list in keys of cells: its name and the hash of its content."""
        return {"name": self.name, "content": self.content}

    @cached_property
    def ids_hash(self) -> str:
        """Return the SHA-256 of the ids joined by line feeds."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    @property
    def content(self) -> str:
        """Return the SHA-256 of ids and names: what a generator receives."""
        return hashlib.sha256(
            "\n".join(f"{i} {n}" for i, n in zip(self.ids, self.names, strict=True)).encode()
        ).hexdigest()

    def duplicate_names(self) -> dict[str, tuple[str, ...]]:
        """Return names that several classes share, with the ids; a text-only generator cannot separate those."""
        counts = Counter(self.names)
        return {
            name: tuple(i for i, n in zip(self.ids, self.names, strict=True) if n == name)
            for name, count in counts.items()
            if count > 1
        }


@dataclass(frozen=True)
class Coverage:
    """Which of the wanted classes a head can answer with."""

    wanted: tuple[str, ...]
    outputs: tuple[int, ...]
    """Output of every wanted class that the head has, in the order of ``wanted``."""
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Tell whether the head has all of them."""
        return not self.missing

    @property
    def text(self) -> str:
        """Return what restricted metrics are named after, such as ``100of1000``."""
        return f"{len(self.outputs)}of{len(self.wanted)}"


def coverage(head: Sequence[str], wanted: Sequence[str]) -> Coverage:
    """Find wanted classes among the outputs of a head; only ids count, so permuting head and list changes nothing.

    Raises:
        UserError: the head comes without its ordered list, or the list names a class twice.
    """
    if not head:
        raise UserError(
            "the head has no ordered class list",
            "its width does not say which output is which class",
            "give the class list the head was trained with (--classes)",
        )
    position = {class_id: index for index, class_id in enumerate(head)}
    if len(position) != len(head):
        raise UserError("the head's class list names a class twice", "ids must be unique", "correct the class list")
    return Coverage(
        tuple(wanted),
        tuple(position[class_id] for class_id in wanted if class_id in position),
        tuple(class_id for class_id in wanted if class_id not in position),
    )


def load_classes(name: str) -> ClassList:
    """Load a shipped class list by name, or a file of lines ``id`` or ``id name``, in the order of the lines.

    A class without a name takes that of the shipped lists, or its id.

    Raises:
        UserError: unknown list, an empty one, or an id twice.
    """
    from harness.core.resources import resolve_path

    location = SHIPPED.get(name, name)
    if name not in SHIPPED and not Path(name).is_file():
        raise UserError(
            f"unknown class list {name!r}",
            f"shipped lists: {', '.join(SHIPPED)}",
            f"{did_you_mean(name, SHIPPED)}give a shipped name or a file of lines 'id' or 'id name'",
        )
    pairs = _read_pairs(name, resolve_path(location))
    ids = tuple(pair[0] for pair in pairs)
    if len(set(ids)) != len(ids):
        twice = next(class_id for class_id, count in Counter(ids).items() if count > 1)
        raise UserError(
            f"class list {name} holds the id {twice} twice",
            "every line stands for one output of the head, or for one class folder",
            "remove the line that does not belong there",
        )
    known: dict[str, str] = {}
    if name not in SHIPPED and any(len(pair) == 1 for pair in pairs):
        known = {i: n for shipped in SHIPPED for i, n in _read_pairs(shipped, resolve_path(SHIPPED[shipped]))}
    names = tuple(pair[1].strip() if len(pair) == 2 else known.get(pair[0], pair[0]) for pair in pairs)
    return ClassList(name, ids, names)


def load_folder_classes(name: str) -> ClassList:
    """Load the list of a profile's classes: they name the folders of training images, so their order is the sorted one.

    Raises:
        UserError: as `load_classes`, or ids out of order.
    """
    classes = load_classes(name)
    if list(classes.ids) != sorted(classes.ids):
        first = next(i for i, (a, b) in enumerate(zip(classes.ids, sorted(classes.ids), strict=True)) if a != b)
        raise UserError(
            f"class list {name} is not sorted by id (from line {first + 1} on)",
            "it names training folders, and the label of a training image is the position of its folder among the sorted ones",
            "sort it where it lists training classes: LC_ALL=C sort FILE; the list of a head (--checkpoint with --classes) "
            "keeps the head's own order",
        )
    return classes


def _read_pairs(name: str, path: Path) -> list[list[str]]:
    """Return the id, and the name where there is one, of every line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"class list {name} cannot be read", str(error), "give a text file in UTF-8") from error
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    if not pairs:
        raise UserError(f"class list {name} is empty", f"{path} has no line", "write one 'id' or 'id name' a line")
    return pairs
