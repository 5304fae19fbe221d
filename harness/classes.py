"""Ordered class lists: what the outputs of a head mean, in which order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import UserError
from harness.names import near

SHIPPED = {
    "imagenet1k": "package:harness/class_lists/imagenet1k.txt",
    "imagenet100": "package:harness/class_lists/imagenet100.txt",
    "micro": "package:harness.microworld/classes.txt",
}


@dataclass(frozen=True)
class ClassList:
    """An ordered list of classes. The order is always that of the sorted ids (torchvision's ImageFolder order)."""

    name: str
    ids: tuple[str, ...]
    """Such as ``n01440764``."""
    names: tuple[str, ...]
    """Such as ``tench``; need not be unique."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the ids joined by line feeds."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    @property
    def content(self) -> str:
        """Return the SHA-256 of ids and names: what a generator is told."""
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
        raise UserError("the head's class list names a class twice", "ids must be unique", "mend the class list")
    return Coverage(
        tuple(wanted),
        tuple(position[class_id] for class_id in wanted if class_id in position),
        tuple(class_id for class_id in wanted if class_id not in position),
    )


def load_classes(name: str) -> ClassList:
    """Load a shipped class list by name, or a file of lines ``id name``, sorted by id.

    Raises:
        UserError: unknown list, a line without a name, an id twice, or ids out of order.
    """
    from harness.profile import resolve_path

    location = SHIPPED.get(name, name)
    if name not in SHIPPED and not Path(name).is_file():
        raise UserError(
            f"unknown class list {name!r}",
            f"shipped lists: {', '.join(SHIPPED)}",
            f"{near(name, SHIPPED)}give a shipped name or a file of lines 'id name'",
        )
    lines = [line for line in resolve_path(location).read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = [line.split(" ", 1) for line in lines]
    broken = [line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2 or not pair[1].strip()]
    if broken:
        raise UserError(f"class list {name} has a line without a name", repr(broken[0]), "write one 'id name' a line")
    ids = tuple(pair[0] for pair in pairs)
    if list(ids) != sorted(set(ids)):
        raise UserError(
            f"class list {name} is not sorted by id, or holds an id twice",
            "labels are positions in the sorted list; another order would silently permute every label",
            "sort the file: LC_ALL=C sort -u FILE",
        )
    return ClassList(name, ids, tuple(pair[1].strip() for pair in pairs))
