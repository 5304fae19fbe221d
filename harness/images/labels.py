"""What containers state of an image's class: a class id decides over numbers and names, and a contradiction is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.images.entries import Entry
from harness.images.label_names import match_label_names

UNLABELLED = "-1"
"""Label of images without one, as the hub writes it."""
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Label:
    """The class of an image as its container states it."""

    text: str
    """A class id, else a name or a number; empty: none is stated."""
    number: str = ""
    """Number that stands beside a class id."""


_DIGITS = 18
"""Longer numbers count no class."""


def is_wnid(text: str) -> bool:
    """Return whether a text is one of ImageNet's class ids."""
    return WNID.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Return whether a text is a number that may count a class."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def decide(statements: Iterable[str]) -> Label:
    """Return the class that several statements agree on: the class id if there is one, else the first that states any."""
    stated = [each for each in statements if each not in ("", UNLABELLED)]
    wnid, number = next(filter(is_wnid, stated), ""), next(filter(is_number, stated), "")
    return Label(wnid, number) if wnid else Label(stated[0] if stated else "")


def disagree(one: str, other: str) -> bool:
    """Return whether two statements on an image cannot both hold: two class ids, two numbers or two names that differ."""
    kinds = [(is_wnid(each), is_number(each)) for each in (one, other)]
    same = int(one) == int(other) if is_number(one) and is_number(other) else one == other
    return kinds[0] == kinds[1] and not same and not {one, other} & {"", UNLABELLED}


def class_ids_beside(base: Path, entries: Sequence[Entry], names: Sequence[str]) -> dict[str, str]:
    """Return the class id that stands beside each number.

    Args:
        base: Folder, for messages.
        entries: Images of a data set.
        names: Names of numbers 0, 1, ... as its files state them.

    Raises:
        UserError: a number stands beside two class ids, or its name is that of another class.
    """
    found: dict[str, str] = {}
    for entry in entries:
        if entry.number and found.setdefault(entry.number, entry.folder) != entry.folder:
            raise UserError(
                f"label {entry.number} stands beside two class ids in {base}",
                f"{found[entry.number]} and {entry.folder}, the latter at {entry.path}",
                "remove what is wrong, the numbers or the class ids",
            )
    for number, wnid, named in _otherwise(found, names):
        raise UserError(
            f"the class ids in {base} contradict the label names that it states",
            f"label {number} stands beside {wnid}, and its name {names[int(number)]!r} is {named}",
            "remove what is wrong, the class ids or the names",
        )
    return found


def _otherwise(found: Mapping[str, str], names: Sequence[str]) -> list[tuple[str, str, str]]:
    if not found or not names:
        return []
    try:
        ids = match_label_names(names, load_classes("imagenet1k"))
    except UserError:  # names that are not certain are not needed: class ids decide
        return []
    return [(n, wnid, ids[int(n)]) for n, wnid in found.items() if int(n) < len(ids) and ids[int(n)] != wnid]


def with_class_ids(entries: Sequence[Entry], beside: Mapping[str, str]) -> tuple[Entry, ...]:
    """Return images with the class ids of numbers that stand beside one elsewhere."""
    if not beside:
        return tuple(entries)
    return tuple(
        replace(each, folder=beside[each.folder], number=each.folder) if each.folder in beside else each
        for each in entries
    )
