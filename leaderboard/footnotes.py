"""What must be read with a table: findings about the data on disk, and notes about heads and geometry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from leaderboard.rows import RowKey
from leaderboard.sources import Entry
from leaderboard.tables import Table

DOUBT = "?"
DOUBT_MEANS = "the data on disk differ from the published set, see notes"
_NOTABLE = re.compile(r"\b(heads?|logits|geometry|transform|instead of)\b", re.IGNORECASE)
"""What a record's note speaks of where a reader of the number must know it: the head, the geometry, preprocessing that is not what
the network states. Counts and names of files stay in the record."""


def notable(note: str) -> bool:
    """Return whether a record's note must be read with its number."""
    return bool(_NOTABLE.search(note))


def findings(table: Table, suite: str = "") -> list[str]:
    """Return the findings about the data behind a table, or one suite of it, each with the rows that it concerns."""
    return [f"{DOUBT} {text}" for text in _gathered(table, suite, lambda entry: entry.record.findings)]


def notes(table: Table, suite: str = "") -> list[str]:
    """Return the notes of records that a reader must know, each with the rows that it concerns."""
    return _gathered(table, suite, lambda entry: filter(notable, entry.record.notes))


def footnotes(table: Table, suite: str = "") -> list[str]:
    """Return findings, then notes."""
    return findings(table, suite) + notes(table, suite)


def _gathered(table: Table, suite: str, texts: Callable[[Entry], Iterable[str]]) -> list[str]:
    found: dict[tuple[str, str], dict[RowKey, None]] = {}
    measured: dict[str, dict[RowKey, None]] = {}
    for key, cells in table.rows.items():
        for column, value in cells.items():
            if suite in ("", column.suite):
                measured.setdefault(column.suite, {})[key] = None
                for entry in value.sources:
                    for text in texts(entry):
                        found.setdefault((column.suite, text), {})[key] = None
    return [f"{of}, {_rows(list(keys), len(measured[of]))}: {text}" for (of, text), keys in found.items()]


def _rows(keys: list[RowKey], measured: int) -> str:
    if len(keys) == measured > 1:
        return "all rows"
    names: dict[str, list[str]] = {}
    for key in keys:
        names.setdefault(key.label + (" recorded" if key.origin == "recorded" else ""), []).append(key.backbone)
    return "; ".join(f"{label} {'+'.join(backbones)}" for label, backbones in names.items())
