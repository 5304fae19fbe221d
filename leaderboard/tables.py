"""From records to tables: one row per generator, backbone and seeds; one column per primary metric.

Only values that may be compared share a column: suite version, data, class list, protocol, profile and, within a
backbone, the pre-training recipe must agree. A value that differs goes to a second table that names the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.records import Better, Record
from harness.stats import Estimate, mean_over
from leaderboard.sources import Entry, Origin

REPEATS = "mean of repeats"


@dataclass(frozen=True, order=True)
class Column:
    """One metric."""

    order: int
    suite: str
    position: int
    """0 for metrics in the order of their records, 1 for the mean of a group, so that means come last."""
    name: str
    better: Better = field(compare=False)
    unit: str = field(compare=False)

    @property
    def title(self) -> str:
        """Return suite and metric."""
        return self.name if self.name == self.suite else f"{self.suite} {self.name}"


@dataclass(frozen=True)
class RowKey:
    """What a row stands for."""

    generator: str
    backbone: str
    generator_seed: int
    train_seed: int
    origin: Origin


@dataclass(frozen=True)
class Value:
    """One cell of a table."""

    estimate: Estimate
    valid: bool
    """False where a validity check failed: shown, flagged, never ranked."""


@dataclass
class Table:
    """A table; every column holds comparable values only."""

    title: str
    columns: list[Column]
    rows: dict[RowKey, dict[Column, Value]]
    information: dict[RowKey, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)


def build_tables(entries: Sequence[Entry]) -> list[Table]:
    """Return the main table of each profile, each followed by one of the values that differ in something."""
    tables = []
    for profile in sorted({entry.record.comparability.profile for entry in entries}):
        chosen = [entry for entry in entries if entry.record.comparability.profile == profile]
        tables += _profile_tables(profile, _without_doubles(chosen))
    return tables


def _without_doubles(entries: list[Entry]) -> list[Entry]:
    """Drop recorded rows of a generator and backbone that the run has itself."""
    own = {
        (e.record.subject.generator, e.record.subject.backbone)
        for e in entries
        if e.origin == "run" and e.record.subject.backbone != "-"
    }
    own |= {(generator, "-") for generator, _ in own}
    return [
        e for e in entries if e.origin == "run" or (e.record.subject.generator, e.record.subject.backbone) not in own
    ]


def _profile_tables(profile: str, entries: list[Entry]) -> list[Table]:
    common: dict[tuple[str, str], str] = {}
    by_column: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        by_column.setdefault(_slot(entry.record), Counter())[_mark(entry.record)] += 2 if entry.origin == "run" else 1
    for slot, marks in by_column.items():
        common[slot] = min(marks, key=lambda mark: (-marks[mark], mark))
    main = [entry for entry in entries if _mark(entry.record) == common[_slot(entry.record)]]
    other = [entry for entry in entries if _mark(entry.record) != common[_slot(entry.record)]]
    tables = [_table(f"profile {profile}", main)]
    if other:
        differing = sorted({_difference(entry, main) for entry in other})
        second = _table(f"profile {profile}, not comparable with the first table", other)
        second.notes.append("differs in: " + "; ".join(differing))
        tables.append(second)
    return tables


def _slot(record: Record) -> tuple[str, str]:
    return f"{record.suite}/{record.item}", record.subject.backbone


def _facts(record: Record) -> dict[str, str]:
    c = record.comparability
    return {
        "suite version": str(c.suite_version),
        "data": str(sorted(c.data.items())),
        "class list": c.classes,
        "protocol": c.protocol,
        "pre-training recipe": c.recipe,
    }


def _mark(record: Record) -> str:
    return repr(sorted(_facts(record).items()))


def _difference(entry: Entry, main: Iterable[Entry]) -> str:
    for other in main:
        if _slot(other.record) == _slot(entry.record):
            here, there = _facts(entry.record), _facts(other.record)
            return f"{entry.record.suite}: {', '.join(key for key in here if here[key] != there[key])}"
    return entry.record.suite


def _table(title: str, entries: list[Entry]) -> Table:
    repeats: dict[tuple[RowKey, Column], list[Value]] = {}
    groups: dict[tuple[RowKey, Column], dict[str, tuple[int, Estimate]]] = {}
    information: dict[RowKey, tuple[str, ...]] = {}
    shown: set[Column] = set()
    for entry in entries:
        record = entry.record
        for key in _rows_of(entry, entries):
            information[key] = record.subject.information
            valid = all(check.passed for check in record.checks)
            for metric in record.metrics:
                column = Column(record.suite_order, record.suite, 0, metric.name, metric.better, metric.unit)
                repeats.setdefault((key, column), []).append(Value(metric.estimate, valid))
                if metric.role == "primary":
                    shown.add(column)
                if metric.group:
                    mean = Column(record.suite_order, record.suite, 1, metric.group, metric.better, metric.unit)
                    groups.setdefault((key, mean), {})[metric.name] = (metric.group_size, metric.estimate)
    cells = {slot: _merge(values) for slot, values in repeats.items()}
    for (key, mean), members in groups.items():
        sizes = {size for size, _ in members.values()}
        if sizes == {len(members)}:
            values = [
                cells[key, Column(mean.order, mean.suite, 0, name, mean.better, mean.unit)] for name in sorted(members)
            ]
            cells[key, mean] = Value(
                mean_over([value.estimate for value in values]), all(value.valid for value in values)
            )
            shown.add(mean)
    columns = sorted(shown)
    keys = sorted({key for key, _ in cells}, key=_row_order)
    rows = {key: {column: cells[key, column] for column in columns if (key, column) in cells} for key in keys}
    return Table(title, columns, rows, information)


def _rows_of(entry: Entry, entries: list[Entry]) -> list[RowKey]:
    """Return the rows a record belongs to: its own, or those of all backbones where it measures the images themselves."""
    s = entry.record.subject
    if s.backbone != "-":
        return [RowKey(s.generator, s.backbone, s.generator_seed, s.train_seed, entry.origin)]
    shared = {
        RowKey(
            o.record.subject.generator,
            o.record.subject.backbone,
            o.record.subject.generator_seed,
            o.record.subject.train_seed,
            o.origin,
        )
        for o in entries
        if o.origin == entry.origin
        and o.record.subject.backbone != "-"
        and (o.record.subject.generator, o.record.subject.generator_seed) == (s.generator, s.generator_seed)
    }
    return sorted(shared or {RowKey(s.generator, "-", s.generator_seed, 0, entry.origin)}, key=_row_order)


def _row_order(key: RowKey) -> tuple[str, str, int, int, str]:
    return key.backbone, key.generator, key.generator_seed, key.train_seed, key.origin


def _merge(values: list[Value]) -> Value:
    """Return the mean of repeats (probe seeds); their intervals are averaged, because they share their test items."""
    if len(values) == 1:
        return values[0]
    valid = all(value.valid for value in values)
    defined = [value.estimate for value in values if value.estimate.value is not None]
    if len(defined) != len(values):
        return Value(next(value.estimate for value in values if value.estimate.value is None), valid)

    def mean(parts: list[float | None]) -> float | None:
        numbers = [part for part in parts if part is not None]
        return sum(numbers) / len(numbers) if len(numbers) == len(parts) else None

    first = defined[0]
    return Value(
        Estimate(
            mean([e.value for e in defined]),
            mean([e.low for e in defined]),
            mean([e.high for e in defined]),
            first.n,
            f"{REPEATS}: {first.method}",
            first.population,
        ),
        valid,
    )


def leaders(table: Table, column: Column, backbone: str) -> frozenset[RowKey]:
    """Return the rows of a backbone that may be best: the best valid value and all whose interval reaches it."""
    found = {
        key: cells[column].estimate
        for key, cells in table.rows.items()
        if key.backbone == backbone
        and column in cells
        and cells[column].valid
        and cells[column].estimate.value is not None
    }
    if len(found) < 2 or column.better == "neither":
        return frozenset()
    sign = 1 if column.better == "higher" else -1
    best = max(found.values(), key=lambda e: sign * (e.value or 0.0))
    reach = [key for key, e in found.items() if e is best or _overlap(e, best)]
    return frozenset(reach)


def _overlap(a: Estimate, b: Estimate) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return a.value == b.value
    return a.low <= b.high and b.low <= a.high
