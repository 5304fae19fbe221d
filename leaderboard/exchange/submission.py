"""Submissions to the board that ships with the project: a file of records, one a line, and what is asked of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.files import read_text
from harness.store.records import SCHEMA, Metric, Record
from leaderboard.baseline import slim
from leaderboard.network import OUTSIDE
from leaderboard.sources import LINES, WORLD, Entry, merge

_KEY = re.compile(r"[0-9a-f]{64}")
_MOST = 3
"""Findings of the schema that one line is shown with."""
_SCALES = {"fraction": (0.0, 1.0), "points": (-100.0, 100.0)}


def to_lines(entries: Sequence[Entry]) -> str:
    """Return records as JSON lines, without companions that no value is read with."""
    return "".join(json.dumps(asdict(slim(e.record)), sort_keys=True, allow_nan=False) + "\n" for e in entries)


def problems(path: Path, suites: Collection[str], shipped_rows: Sequence[Entry]) -> list[str]:
    """Return what keeps a file of records from being shipped, one text each; nothing if it can be.

    Args:
        path: The file.
        suites: Ids of the installed suites; empty if they are not known.
        shipped_rows: The records that ship already.

    Raises:
        UserError: it is not text.
    """
    lines = [(n, text) for n, text in enumerate(read_text(path).splitlines(), 1) if text.strip()]
    if not lines:
        return [f"{path} holds no record"]
    found = [] if path.suffix == LINES else [f"{path}: the name of a file of records ends with {LINES}"]
    entries: list[Entry] = []
    for number, text in lines:
        place = f"{path} line {number}"
        if not (wrong := _misshapen(text)):
            record = Record.from_json(text, place)
            wrong = list(_doubts(record, suites))
            entries.append(Entry(record, "recorded", place))
        found += [f"{place}: {each}" for each in wrong]
    found += [f"{e.place}: a second record of cell {e.record.key[:16]}" for e in _repeated(entries)]
    try:
        merge([*shipped_rows, *entries])
    except UserError as error:
        found.append(f"{error.what}: {error.why}")
    return found


def _misshapen(text: str) -> list[str]:
    """Return in what a line differs from the schema of records; types are not converted."""
    from pydantic import ValidationError

    from leaderboard.exchange.record_schema import model

    try:
        json.loads(text, object_pairs_hook=_each_name_once, parse_constant=_refuse)
        model().validate_json(text, strict=True)
        Record.from_json(text)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc'])) or 'record'}: {one['msg']}" for one in error.errors(include_url=False)
        ]
        return found[:_MOST] + ([f"and {len(found) - _MOST} more"] if len(found) > _MOST else [])
    except UserError as error:
        return [f"{error.what}: {error.why}"]
    except (ValueError, RecursionError) as error:
        return [f"not a record: {error}"]
    return []


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no finite number")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name comes twice among {', '.join(name for name, _ in pairs)[:200]}")
    return found


def _repeated(entries: Sequence[Entry]) -> list[Entry]:
    first: dict[str, Entry] = {}
    return [entry for entry in entries if first.setdefault(entry.record.key, entry) is not entry]


def _doubts(record: Record, suites: Collection[str]) -> Iterator[str]:
    """Yield what a well-formed record lacks for the shipped board."""
    if record.schema != SCHEMA:
        yield f"schema {record.schema}: only records of schema {SCHEMA} say how the network was made and fed; run the suite again"
    if not _KEY.fullmatch(record.key):
        yield f"key {record.key[:80]!r} is not the hash of a cell"
    if record.subject.generator.startswith(WORLD):
        yield "calibration worlds are no rows of the board"
    if suites and record.suite not in suites:
        yield f"suite {record.suite!r} does not ship with the project"
    if not record.code.get("harness"):
        yield "code.harness is missing: which version measured this?"
    if record.code.get("dirty") == "yes":
        yield "measured by modified code (code.dirty): commit the change, and run the suite again"
    if not record.inputs and record.comparability.recipe not in OUTSIDE:
        yield "inputs are missing: from which images and network was this measured?"
    if not record.metrics:
        yield "it has no metrics"
    names = [metric.name for metric in record.metrics]
    if len({*names}) < len(names):
        yield "two metrics have one name"
    for metric in record.metrics:
        yield from (f"{metric.name}: {text}" for text in _odd_numbers(metric))
    for check in record.checks:
        if check.passed and (check.value is None or check.value < check.threshold):
            yield f"check {check.name!r} is said to be passed with {check.value}, below {check.threshold}"


def _odd_numbers(metric: Metric) -> Iterator[str]:
    e, ranked = metric.estimate, metric.role == "primary"
    if e.value is None:
        return
    if e.n < 1:
        yield f"value {e.value} of {e.n} test items"
    if ranked and e.low is None:
        yield "no interval"
    if e.low is not None and e.high is not None and not e.low <= e.value <= e.high:
        yield f"value {e.value} is outside its interval, {e.low} to {e.high}"
    low, high = _SCALES.get(metric.unit, (e.value, e.value))
    if ranked and not low <= e.value <= high:
        yield f"value {e.value} is outside the range of its unit, {low:g} to {high:g}"
