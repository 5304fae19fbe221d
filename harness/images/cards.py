"""What the card of a hub data set (``README.md`` beside the files) states of its labels."""

from __future__ import annotations

import re
from pathlib import Path

from harness.core.errors import UserError
from harness.images.entries import LABEL_KEYS

_CARD = "README.md"
_COLUMN = re.compile(r"\s*- name: (\S+)")
_LABEL = re.compile(r"\s+['\"]?(\d{1,9})['\"]?: (.+)")


def card_names(base: Path, root: Path) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ... by the card in a data set's folder or in its root; empty where it states none.

    Raises:
        UserError: configurations of the data set give them in several orders.
    """
    found = {names for place in (base, root) for names in _stated(place / _CARD)}
    if len(found) > 1:
        raise UserError(
            f"{root / _CARD} gives labels several orders of names",
            "it describes several configurations of the data set",
            "give the folder of one of them, or a file of lines 'label wnid' as class_map",
        )
    return found.pop() if found else ()


def _stated(path: Path) -> set[tuple[str, ...]]:
    """Return the lists of names that a card's head gives its label columns, one of each configuration.

    The hub writes a line ``- name: COLUMN`` for each column and, below ``names:``, a line ``'NUMBER': NAME`` for each label.
    """
    head = path.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0] if path.is_file() else ""
    column, names, found = "", list[str](), set[tuple[str, ...]]()
    for line in map(str.rstrip, head.splitlines() if head.startswith("---") else ()):
        named, label = _COLUMN.fullmatch(line), _LABEL.fullmatch(line)
        if label and column in LABEL_KEYS and int(label[1]) == len(names):
            names.append(_unquoted(label[2]))
        elif not label:
            found.add(tuple(names))
            names, column = [], named[1] if named else column
    return {*found, tuple(names)} - {()}


def _unquoted(text: str) -> str:
    quote = text[0] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else ""
    return text[1:-1].replace(quote * 2, quote) if quote else text
