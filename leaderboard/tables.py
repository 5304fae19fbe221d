"""From records to tables: one table a profile, one row per generator, backbone and setup, one column per metric and terms.

Seeds are averaged. Only values on equal terms share a column (``leaderboard.terms``), only seeds of one setup share a row
(``leaderboard.rows``); both are decided by a result's own facts, so an added row changes no other row's values.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from harness.stats.difference import Part, Spread, joint_error
from harness.stats.estimate import Estimate, mean_over
from harness.store.records import Better, Metric
from leaderboard.rows import RowKey, SeedPair, row_keys
from leaderboard.sources import Entry
from leaderboard.terms import Data, Terms, base_terms, clauses, column_names, data_of
from leaderboard.ties import resolution, tie_groups
from leaderboard.views import View, in_view

REPEATS, SECONDARY = "mean of repeats", "secondary"
SECOND = 2
"""Position of secondary metrics."""
Role = Literal["primary", "companion", "secondary", "mean"]
"""What a column holds: a metric of the board, one that is kept beside it, one of a further view, or the mean of a group."""


@dataclass(frozen=True, order=True)
class Column:
    """One metric on one set of terms."""

    order: int
    suite: str
    position: int
    """0 for metrics in the order of their records, 1 for the mean of a group, so that means come last, 2 for secondary ones."""
    metric: str
    rank: int = field(compare=False)
    """0 for the column that has the plain name."""
    terms: Terms
    name: str = field(compare=False)
    """The metric, distinguished from the columns of other terms."""
    better: Better = field(compare=False)
    unit: str = field(compare=False)
    role: Role = field(default="primary", compare=False)

    @property
    def title(self) -> str:
        """Return suite and metric."""
        return self.name if self.name == self.suite else f"{self.suite} {self.name}"

    @property
    def place(self) -> tuple[int, str, int, str, int]:
        """Return what columns are sorted by."""
        return self.order, self.suite, self.position, self.metric, self.rank

    @property
    def scale(self) -> float:
        """Return the factor from stored value to printed percent or points."""
        return 1.0 if self.unit == "points" else 100.0


@dataclass(frozen=True)
class Value:
    """One cell of a table."""

    estimate: Estimate
    """Mean over seeds; the interval is sampling error alone."""
    valid: bool
    """False where a validity check failed: shown, flagged, never ranked."""
    seeds: tuple[SeedPair, ...] = ()
    spread: Spread | None = None
    """Standard deviation over seeds; None for one seed."""
    failed: tuple[str, ...] = ()
    """Names of the checks that failed."""
    by_seed: dict[SeedPair, Estimate] = field(default_factory=dict, compare=False)
    sources: tuple[Entry, ...] = field(default=(), compare=False)
    """The records behind it."""
    parts: tuple[tuple[Part, ...], ...] = field(default=(), compare=False)
    """Per-item data for paired tests, one tuple per seed; empty if the suite gives none."""
    beside: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """Companions that the value must be read with, as fractions, means over seeds."""
    terms: Terms | None = None
    """What another value must have in common with it."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Return what a look at the data on disk found, each finding once."""
        return tuple(dict.fromkeys(text for entry in self.sources for text in entry.record.findings))


@dataclass
class Table:
    """A table; every column holds comparable values only."""

    title: str
    columns: list[Column]
    rows: dict[RowKey, dict[Column, Value]]
    information: dict[RowKey, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    _ties: dict[tuple[Column, str], dict[RowKey, int]] = field(default_factory=dict, repr=False)
    _resolutions: dict[tuple[Column, str], float | None] = field(default_factory=dict, repr=False)

    def ties(self, column: Column, backbone: str) -> dict[RowKey, int]:
        """Return the tie group of each valid row of a backbone (``tie_groups``), worked out once."""
        slot = (column, backbone)
        if slot not in self._ties:
            cells = {key: row[column] for key, row in self.rows.items() if key.backbone == backbone and column in row}
            ranked = {key: v for key, v in cells.items() if v.valid and v.estimate.value is not None}
            unranked = column.better == "neither" or column.role == "secondary"
            self._ties[slot] = {} if unranked else tie_groups(ranked, column.better == "higher")
        return self._ties[slot]

    def resolution(self, column: Column, backbone: str) -> float | None:
        """Return the smallest difference that the rows of a backbone, all rows if it has one, could show (``ties.resolution``).

        Rows that show one measurement, as networks trained on one dataset show what was measured on its images, count once.
        """
        slot = (column, backbone)
        if slot not in self._resolutions:
            every = {key: row[column] for key, row in self.rows.items() if column in row}
            ranked = {key: v for key, v in every.items() if v.valid and v.estimate.value is not None}
            mine = [v for key, v in ranked.items() if key.backbone == backbone]
            compared = mine if len(mine) > 1 else [*ranked.values()] if mine else []
            once = {tuple(sorted(entry.record.key for entry in v.sources)): v for v in compared}
            self._resolutions[slot] = resolution([*once.values()])
        return self._resolutions[slot]

    def groups(self) -> list[tuple[str, list[Column]]]:
        """Return the columns suite by suite with a title, those of secondary metrics in a group of their own."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.suite + (f": {SECONDARY}" if column.role == "secondary" else ""), []).append(column)
        return list(found.items())

    def part(self, keys: Sequence[RowKey], suites: Collection[str]) -> Table:
        """Return some rows and suites of the table; their tie groups and resolutions stay those of the whole table."""
        columns = [c for c in self.columns if c.suite in suites and any(c in self.rows[key] for key in keys)]
        for column in columns:
            for backbone in {key.backbone for key in keys}:
                self.ties(column, backbone)
                self.resolution(column, backbone)
        rows = {key: {column: value for column, value in self.rows[key].items() if column in columns} for key in keys}
        notes = [note for note in self.notes if any(note.startswith(f"{column.title}: ") for column in columns)]
        return replace(self, columns=columns, rows={key: cells for key, cells in rows.items() if cells}, notes=notes)

    def seeds(self, key: RowKey) -> tuple[SeedPair, ...]:
        """Return all seeds behind a row; measures of the images alone know no train seed and do not count beside others."""
        values = self.rows[key].values()
        trained = [v for v in values if any(entry.record.subject.backbone != "-" for entry in v.sources)]
        return tuple(sorted({seed for value in trained or values for seed in value.seeds}))

    def beside(self, column: Column) -> tuple[str, ...]:
        """Return the companions that stand beside a column, in the order of their records."""
        return tuple(
            dict.fromkeys(name for cells in self.rows.values() if column in cells for name in cells[column].beside)
        )


def varied(seeds: Sequence[SeedPair]) -> str:
    """Say how many seeds there are and which of them vary."""
    kinds = [name for i, name in enumerate(("generator", "train")) if len({seed[i] for seed in seeds}) > 1]
    return f"{len(seeds)} seeds ({' and '.join(kinds)} vary)" if kinds else "1 seed"


def build_tables(entries: Sequence[Entry], view: View = "main", companions: bool = False) -> list[Table]:
    """Return one table for each profile.

    Args:
        entries: The records.
        view: Which metrics have columns. Secondary ones are never ranked, and have none where no row has a value.
        companions: Whether companion metrics have columns, too, and undefined ones keep theirs; they are never ranked.
    """
    tables = []
    for profile in sorted({entry.record.comparability.profile for entry in entries}):
        chosen = [entry for entry in entries if entry.record.comparability.profile == profile]
        table = _table(f"profile {profile}", chosen, view, companions)
        tables.append(table if companions else _without_undefined(table))
    return tables


def _without_undefined(table: Table) -> Table:
    """Drop secondary columns in which no row has a value; a note says why."""
    dropped: dict[tuple[str, str], list[str]] = {}
    for column in [c for c in table.columns if c.role == "secondary"]:
        estimates = [cells[column].estimate for cells in table.rows.values() if column in cells]
        if all(estimate.value is None for estimate in estimates):
            dropped.setdefault((column.suite, estimates[0].reason), []).append(column.name)
            table.columns.remove(column)
            for cells in table.rows.values():
                cells.pop(column, None)
    for (suite, why), names in dropped.items():
        table.notes.append(f"{suite} {', '.join(names)}: undefined in all rows, {why}")
    return table


# --- columns ------------------------------------------------------------------------------------------------------------

Member = tuple[Entry, Metric]
BySeed = dict[SeedPair, dict[str, list[Member]]]
"""Seed to the members of a value with their repeats."""


@dataclass(frozen=True)
class Slot:
    """A column before it has terms and a name."""

    suite: str
    position: int
    metric: str
    order: int = field(compare=False)
    better: Better = field(compare=False)
    unit: str = field(compare=False)
    role: Role = field(compare=False)


def _table(title: str, entries: Sequence[Entry], view: View, companions: bool) -> Table:
    placed = row_keys(entries)
    information = {key: entry.record.subject.information
                   for entry, rows in zip(entries, placed, strict=True) for key, _ in rows}  # fmt: skip
    rows: dict[RowKey, dict[Column, Value]] = {key: {} for key in sorted(information, key=lambda key: key.order)}
    notes: list[str] = []
    for slot, members in sorted(_members(entries, placed, view, companions).items(), key=lambda item: (item[0].order, item[0].suite,
                                                                                  item[0].position, item[0].metric)):  # fmt: skip
        by_row = {key: _by_terms(mine, slot.position) for key, mine in members.items()}
        recorded: dict[Terms, bool] = {}
        for key, by_terms in by_row.items():
            for terms in by_terms:
                recorded[terms] = recorded.get(terms, False) or key.origin == "recorded"
        names = column_names(slot.metric, recorded)
        columns = {terms: Column(slot.order, slot.suite, slot.position, slot.metric, rank, terms, name, slot.better, slot.unit, slot.role)
                   for terms, (rank, name) in names.items()}  # fmt: skip
        notes += _differences(columns)
        for key, by_terms in by_row.items():
            rows[key] |= {columns[terms]: replace(_value(by_seed), terms=terms) for terms, by_seed in by_terms.items()}
    shown = sorted({column for cells in rows.values() for column in cells}, key=lambda column: column.place)
    return Table(title, shown, {key: cells for key, cells in rows.items() if cells}, information, notes)


def _differences(columns: Mapping[Terms, Column]) -> list[str]:
    """Return in what the columns of one metric differ from the one that has the plain name."""
    plain = min(columns.values(), key=lambda column: column.rank, default=None)
    others = sorted((column for column in columns.values() if column is not plain), key=lambda column: column.rank)
    return [f"{other.title}: not comparable with {plain.title}, differs in {_words(other.terms, plain.terms)}"
            for other in others if plain is not None]  # fmt: skip


def _words(terms: Terms, plain: Terms) -> str:
    """Return in what terms differ, the protocol with its words."""
    said = {"protocol": f"protocol: {clauses(terms.protocol, plain.protocol)}"}
    return ", ".join(said.get(name, name) for name in terms.differing(plain))


def _members(
    entries: Sequence[Entry], placed: Sequence[Sequence[tuple[RowKey, SeedPair]]], view: View, companions: bool
) -> dict[Slot, dict[RowKey, list[tuple[SeedPair, Member]]]]:
    """Return all metrics by the column and row that they belong to."""
    found: dict[Slot, dict[RowKey, list[tuple[SeedPair, Member]]]] = defaultdict(lambda: defaultdict(list))
    for entry, rows in zip(entries, placed, strict=True):
        for metric in entry.record.metrics:
            for slot in _slots(entry, metric, view, companions):
                for key, seed in rows:
                    found[slot][key].append((seed, (entry, metric)))
    return found


def _slots(entry: Entry, metric: Metric, view: View, companions: bool) -> Iterator[Slot]:
    record = entry.record
    shown = in_view(record, metric, view)
    if companions or (shown and metric.role != "companion"):
        position = SECOND if metric.role == "secondary" else 0
        yield Slot(record.suite, position, metric.name, record.suite_order, metric.better, metric.unit, metric.role)
    if metric.group and shown:
        yield Slot(record.suite, 1, metric.group, record.suite_order, metric.better, metric.unit, "mean")


def _by_terms(members: Sequence[tuple[SeedPair, Member]], position: int) -> dict[Terms, BySeed]:
    """Return the values of one row in one metric: terms to seeds to members; a mean needs all members of its group."""
    sorted_out: dict[Terms, dict[SeedPair, dict[str, dict[Data, list[Member]]]]] = {}
    sizes: dict[Terms, int] = {}
    for seed, (entry, metric) in members:
        terms = base_terms(entry.record)
        sizes[terms] = max(sizes.get(terms, 1), metric.group_size if position == 1 else 1)
        by_name = sorted_out.setdefault(terms, {}).setdefault(seed, {})
        by_name.setdefault(metric.name, {}).setdefault(data_of(entry.record), []).append((entry, metric))
    found: dict[Terms, BySeed] = {}
    for terms, by_seed in sorted_out.items():
        for seed, by_name in by_seed.items():
            for choice in _choices(by_name) if len(by_name) == sizes[terms] else []:
                whole = replace(terms, members=tuple(sorted(choice.items())))
                found.setdefault(whole, {})[seed] = {name: by_name[name][data] for name, data in choice.items()}
    return found


def _choices(by_name: Mapping[str, Mapping[Data, Sequence[Member]]]) -> list[dict[str, Data]]:
    """Return on which data the members of a value may be taken together, where some were measured on several.

    Members with several data are taken in step, the older records' first: a store and its successor differ in all of them. Where
    their numbers differ nothing says which belong together, and there is no mean.
    """
    most = max(len(by_data) for by_data in by_name.values())
    if any(len(by_data) not in (1, most) for by_data in by_name.values()):
        return []
    steps = {name: sorted(by_data, key=lambda data, seen=by_data: (max(e.record.schema for e, _ in seen[data]), data))  # type: ignore[misc]
             for name, by_data in by_name.items()}  # fmt: skip
    return [{name: data[min(step, len(data) - 1)] for name, data in steps.items()} for step in range(most)]


# --- values -------------------------------------------------------------------------------------------------------------


def _value(by_seed: BySeed) -> Value:
    found = {seed: _of_seed(members) for seed, members in sorted(by_seed.items())}
    every = [member for members in by_seed.values() for repeats in members.values() for member in repeats]
    values = [estimate.value for estimate in found.values() if estimate.value is not None]
    spread = None
    if len(values) == len(found) > 1:
        spread = Spread(math.sqrt(sum((v - fmean(values)) ** 2 for v in values) / (len(values) - 1)), len(values) - 1)
    failed = {check.name for entry, _ in every for check in entry.record.checks if not check.passed}
    parts = [_parts(members) for _, members in sorted(by_seed.items())]
    return Value(
        mean_of_repeats(list(found.values()), parts),
        not failed,
        tuple(found),
        spread,
        tuple(sorted(failed)),
        found,
        _distinct(every),
        tuple(part for part in parts if part) if all(parts) else (),
        _beside(every),
    )


def _beside(members: Sequence[Member]) -> dict[str, float | None]:
    """Return the companions of a value, each the mean over the records that have it; None where one is undefined."""
    found: dict[str, list[float | None]] = {}
    for entry, metric in members:
        known = {other.name: other for other in entry.record.metrics}
        for companion in (known[name] for name in metric.beside if name in known):
            value, points = companion.estimate.value, companion.unit == "points"
            found.setdefault(companion.name, []).append(value / 100 if points and value is not None else value)
    return {
        name: None if None in values else fmean(v for v in values if v is not None) for name, values in found.items()
    }


def _distinct(members: Iterable[Member]) -> tuple[Entry, ...]:
    return tuple({entry.record.key: entry for entry, _ in members}.values())


def _of_seed(members: dict[str, list[Member]]) -> Estimate:
    """Return the mean over the members of a group, each averaged over its repeats."""
    means = [
        mean_of_repeats(
            [metric.estimate for _, metric in members[name]], [_parts({name: [repeat]}) for repeat in members[name]]
        )
        for name in sorted(members)
    ]
    return means[0] if len(means) == 1 else mean_over(means)


def _parts(members: dict[str, list[Member]]) -> tuple[Part, ...]:
    parts = []
    for name in sorted(members):
        for entry, _ in members[name]:
            units = entry.unit(name)
            if units is None:
                return ()
            space = f"{entry.record.suite}/{entry.record.item}"
            parts.append(Part(space, units, 1 / (len(members) * len(members[name]))))
    return tuple(parts)


def mean_of_repeats(estimates: Sequence[Estimate], systems: Sequence[tuple[Part, ...]]) -> Estimate:
    """Return the mean of repeats or seeds.

    They share their test items, so their errors neither add up nor average out: the averaged interval is narrowed by the
    ratio of the mean's own error to the average one, where the items are known.
    """
    if len(estimates) == 1:
        return estimates[0]
    for estimate in estimates:
        if estimate.value is None:
            return estimate
    first, n = estimates[0], min(e.n for e in estimates)
    value = fmean(e.value for e in estimates if e.value is not None)
    if any(e.low is None or e.high is None for e in estimates):
        return Estimate(value, None, None, n, f"{REPEATS}: {first.method}", first.population)
    low, high = (fmean(getattr(e, end) - e.value for e in estimates) for end in ("low", "high"))
    narrowed = _narrowing(systems) if all(systems) else 1.0
    ends = (value + narrowed * low, value + narrowed * high)
    return Estimate(value, *ends, n, f"{REPEATS}: {first.method}", first.population)


def _narrowing(systems: Sequence[tuple[Part, ...]]) -> float:
    """Return the error of a mean over that of its members, at most 1; 1 where they have no items in common."""
    alone = fmean(joint_error([parts]) for parts in systems)
    try:
        return min(1.0, joint_error(systems) / alone) if alone else 1.0
    except ValueError:
        return 1.0
