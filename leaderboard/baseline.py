"""Baselines of the gate: a reviewed folder of records with the units that pairing needs.

baseline.json    reason, commit, n, seeds, which columns are gated, their values for the reviewer, hashes of the others, a seal
records.jsonl.gz  one record a line
units.npz        test items with their sums, compressed
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.files import json_bytes, write_together
from harness.core.names import did_you_mean
from harness.stats.units_file import pack
from harness.store.records import Record
from leaderboard.footnotes import notable
from leaderboard.rows import RowKey
from leaderboard.sources import (
    BASELINE,
    BASELINE_RECORDS,
    BASELINE_SCHEMA,
    BASELINE_UNITS,
    SEAL,
    Entry,
    seal_of,
)
from leaderboard.tables import Column, Value, build_tables, varied


@dataclass(frozen=True)
class Gated:
    """One gated value: a column of a row."""

    key: RowKey
    column: Column
    value: Value

    @property
    def title(self) -> str:
        """Return what a person reads."""
        return f"{self.key.label} {self.key.backbone} {self.column.title}"


def gated(entries: Sequence[Entry], columns: Sequence[str], plain: bool = False) -> list[Gated]:
    """Return every value of the gated columns, in board order.

    Args:
        entries: Records with units.
        columns: Titles of gated columns; empty: every one that has a direction.
        plain: Whether ``columns`` left empty means those alone that have a metric's plain name.

    Raises:
        UserError: a named column does not exist or has no direction.
    """
    tables = build_tables(entries)
    known = {column.title: column for table in tables for column in table.columns if column.better != "neither"}
    unknown = sorted(set(columns) - known.keys())
    if unknown:
        raise UserError(f"cannot gate {', '.join(unknown)}", f"columns with a direction: {', '.join(sorted(known))}",
                        f"{did_you_mean(unknown[0], known)}correct --metrics")  # fmt: skip
    wanted = set(columns) or {title for title, column in known.items() if not (plain and column.rank)}
    found: dict[frozenset[str], Gated] = {}
    for table in tables:
        for key, cells in table.rows.items():
            for column, value in cells.items():
                made_from = frozenset([column.title, *(entry.record.key for entry in value.sources)])
                if column.title in wanted:  # measures of the images stand in the rows of every backbone: once is enough
                    found.setdefault(made_from, Gated(key, column, value))
    return list(found.values())


def write_baseline(
    folder: Path, entries: Sequence[Entry], reason: str, columns: Sequence[str], code: dict[str, str]
) -> None:
    """Write a baseline; everything first, ``baseline.json`` last.

    Args:
        folder: The baseline.
        entries: The records it keeps.
        reason: Why it may replace the last one.
        columns: Gated columns, see ``gated``.
        code: Version, commit and dirtiness of the code that writes it.

    Raises:
        UserError: no reason, or nothing to gate.
    """
    if not reason.strip():
        raise UserError(
            "a baseline needs a reason", "changing it changes what passes", 'give --reason "why the numbers moved"'
        )
    found = gated(entries, columns, plain=True)
    used = {source.record.key: source for one in found for source in one.value.sources}
    if not used:
        raise UserError(
            "nothing to gate", "no finished evaluation has a column with a direction", "run the suites first"
        )
    kept = [entry for entry in entries if entry.record.key in used]
    names = {
        metric.name for entry in kept for metric in entry.record.metrics if metric.role != "companion" or metric.group
    }
    units = {e.record.key: [u for u in e.units if u.metric in names] for e in kept if e.units}
    lines = [json.dumps(asdict(slim(entry.record)), sort_keys=True, allow_nan=False) for entry in kept]
    records = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
    contents = {BASELINE_RECORDS: records, BASELINE_UNITS: pack(units)}
    head = {
        "schema": BASELINE_SCHEMA,
        "reason": reason.strip(),
        "code": code,
        "measured_by": sorted({entry.record.code.get("commit", "") for entry in kept} - {""}),
        "gated": sorted({one.column.title for one in found}),
        "values": {one.title: _for_review(one) for one in found},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents[BASELINE] = json_bytes({**head, SEAL: seal_of(head)})
    write_together({folder / name: content for name, content in contents.items()})


def slim(record: Record) -> Record:
    """Return the record without what a gate and a board never read: companions outside any group that no value is read with."""
    beside = {name for metric in record.metrics if metric.role == "primary" for name in metric.beside}
    kept = tuple(
        metric for metric in record.metrics if metric.role != "companion" or metric.group or metric.name in beside
    )
    return replace(record, metrics=kept, notes=tuple(note for note in record.notes if notable(note)))


def _for_review(one: Gated) -> dict[str, Any]:
    e, value = one.value.estimate, one.value
    return {
        "value": e.value,
        "low": e.low,
        "high": e.high,
        "n": e.n,
        "seeds": varied(value.seeds),
        "seed_sd": None if value.spread is None else value.spread.sd,
        "valid": value.valid,
        "paired": bool(value.parts),
    }
