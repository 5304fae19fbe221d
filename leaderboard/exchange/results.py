"""What a row of the board hands to the formats of others: its values with their conditions, each row under one name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from harness.core.identity import content_key
from harness.core.names import plain
from leaderboard.exports import csv_name
from leaderboard.long import Line, line
from leaderboard.rows import RowKey
from leaderboard.sources import Entry
from leaderboard.tables import Column, Table, Value, build_tables

PROJECT = "databias-harness"
"""Namespace of names that only this project gives: models, metrics and data sets."""
_ODD = re.compile(r"[^A-Za-z0-9.]+")
_LONGEST = 80


@dataclass(frozen=True)
class Result:
    """One value of a row with everything that is known of it."""

    column: Column
    value: Value
    facts: Line
    """As ``leaderboard.long`` lists them."""

    @property
    def score(self) -> float:
        """Return the value in its unit; results without one are not handed on."""
        return float(self.facts["value"])

    @property
    def id(self) -> str:
        """Return suite and metric, unique within a row."""
        return csv_name(self.column)


@dataclass(frozen=True)
class Row:
    """One network, its seeds averaged."""

    name: str
    """Unique among the rows; letters, digits, dots and hyphens."""
    key: RowKey
    results: tuple[Result, ...]
    undefined: dict[str, str]
    """Metrics without a value, with the reason."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the records behind the row, each once."""
        return tuple({e.record.key: e for result in self.results for e in result.value.sources}.values())

    @property
    def digest(self) -> str:
        """Return a hash of which evaluations are behind the row."""
        return content_key(sorted(entry.record.key for entry in self.entries))


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Return the rows that have a value of a network, in board order.

    Metrics of which neither direction is better are left out: every one of these formats would rank them. What was measured on
    the images themselves belongs to the dataset (``leaderboard.exchange.card``).
    """
    found: list[tuple[str, Row]] = []
    for table in build_tables(entries, "all"):
        for key in table.rows:
            results, undefined = _results(table, key)
            if results:
                found.append(
                    (f"{results[0].facts['profile']}-{key.label}-{key.backbone}", Row("", key, results, undefined))
                )
    names = [slug(text) for text, _ in found]
    return [
        Row(name if names.count(name) == 1 else f"{name}-{row.digest[:8]}", row.key, row.results, row.undefined)
        for name, (_, row) in zip(names, found, strict=True)
    ]


def _results(table: Table, key: RowKey) -> tuple[tuple[Result, ...], dict[str, str]]:
    found, undefined = [], {}
    for column, value in table.rows[key].items():
        facts = line(table, key, column, value)
        if column.better == "neither" or facts["measured"] == "images":
            continue
        if facts["value"] is None:
            undefined[csv_name(column)] = facts["remark"]
        else:
            found.append(Result(column, value, facts))
    return tuple(found), undefined


def slug(text: str) -> str:
    """Return a text as part of a file name on every system: letters, digits, single dots and hyphens; never empty."""
    clean = re.sub(r"\.{2,}", ".", _ODD.sub("-", text))
    return clean[:_LONGEST].strip("-.") or "unnamed"


def texts(facts: dict[str, object]) -> dict[str, str]:
    """Return facts as texts, numbers in full; what is unknown or empty is left out."""
    return {name: value if isinstance(value, str) else repr(value)
            for name, value in facts.items() if value not in (None, "", ())}  # fmt: skip


def cleaned(value: Any) -> Any:
    """Return a JSON value without characters that act on a terminal or turn the direction of a text."""
    if isinstance(value, dict):
        return {cleaned(name): cleaned(one) for name, one in value.items()}
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    return plain(value) if isinstance(value, str) else value


def measured_at(entries: Sequence[Entry]) -> float | None:
    """Return when the last of some evaluations was started, in seconds since 1970; None where no manifest says."""
    return max((float(e.facts["started"]) for e in entries if "started" in e.facts), default=None)


def iso(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
