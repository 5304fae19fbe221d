"""From records to tables: one row per generator and backbone, one column per primary metric, seeds averaged.

Only values that may be compared share a column: suite version, data, class list, protocol, profile and, within a
backbone, the pre-training recipe must agree. Values that differ go to further tables that name the difference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from harness.inference import Part, Spread, difference, joint_error
from harness.records import Better, Metric, Record
from harness.stats import Estimate, mean_over, normal_quantile
from harness.student import quantile
from leaderboard.comparable import comparable, differing
from leaderboard.sources import Entry, Origin

REPEATS = "mean of repeats"
SeedPair = tuple[int, int]
"""Generator seed and train seed."""


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

    @property
    def scale(self) -> float:
        """Return the factor from stored value to printed percent or points."""
        return 1.0 if self.unit == "points" else 100.0


@dataclass(frozen=True)
class RowKey:
    """What a row stands for; its seeds are averaged."""

    generator: str
    backbone: str
    origin: Origin
    variant: str = ""
    """First digits of the training images' key, where one generator made several datasets with one seed."""

    @property
    def label(self) -> str:
        """Return the generator's name, told apart from its variants."""
        return f"{self.generator} ({self.variant})" if self.variant else self.generator


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
    """What pairing needs, one tuple per seed; empty where a suite gives nothing."""


@dataclass
class Table:
    """A table; every column holds comparable values only."""

    title: str
    columns: list[Column]
    rows: dict[RowKey, dict[Column, Value]]
    information: dict[RowKey, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    _ties: dict[tuple[Column, str], dict[RowKey, int]] = field(default_factory=dict, repr=False)

    def ties(self, column: Column, backbone: str) -> dict[RowKey, int]:
        """Return ``tie_groups``, worked out once."""
        slot = (column, backbone)
        if slot not in self._ties:
            self._ties[slot] = tie_groups(self, column, backbone)
        return self._ties[slot]

    def seeds(self, key: RowKey) -> tuple[SeedPair, ...]:
        """Return all seeds behind a row; measures of the images alone know no train seed and do not count beside others."""
        values = self.rows[key].values()
        trained = [v for v in values if any(entry.record.subject.backbone != "-" for entry in v.sources)]
        return tuple(sorted({seed for value in trained or values for seed in value.seeds}))


def varied(seeds: Sequence[SeedPair]) -> str:
    """Say how many seeds there are and which of them vary."""
    kinds = [name for i, name in enumerate(("generator", "train")) if len({seed[i] for seed in seeds}) > 1]
    return f"{len(seeds)} seeds ({' and '.join(kinds)} vary)" if kinds else "1 seed"


def build_tables(entries: Sequence[Entry]) -> list[Table]:
    """Return the main table of each profile, each followed by those of values that differ in something."""
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
    tables: list[Table] = []
    variants = _variants(entries)
    main: list[Entry] = []
    while entries:
        chosen, entries = comparable(entries)
        if not tables:
            main = chosen
            tables.append(_table(f"profile {profile}", chosen, variants))
            continue
        number = f" ({len(tables)})" if len(tables) > 1 or entries else ""
        table = _table(f"profile {profile}, not comparable with the first table{number}", chosen, variants)
        table.notes.append("differs in: " + "; ".join(sorted({differing(entry, main) for entry in chosen})))
        tables.append(table)
    return tables


def _variants(entries: Sequence[Entry]) -> dict[str, str]:
    """Return dataset key to the mark of its variant, for generators that made several datasets with one seed."""
    made: dict[tuple[str, int, Origin], set[str]] = defaultdict(set)
    for entry in entries:
        subject = entry.record.subject
        if entry.record.dataset:
            made[subject.generator, subject.generator_seed, entry.origin].add(entry.record.dataset)
    several = {generator for (generator, _, _), keys in made.items() if len(keys) > 1}
    return {key: key[:6] for (generator, _, _), keys in made.items() if generator in several for key in keys}


Member = tuple[Entry, Metric]


def _table(title: str, entries: list[Entry], variants: dict[str, str]) -> Table:
    columns: dict[Column, dict[RowKey, dict[SeedPair, dict[str, list[Member]]]]] = {}
    information: dict[RowKey, tuple[str, ...]] = {}
    sizes: dict[tuple[Column, RowKey], int] = {}
    backbones = _backbones(entries, variants)
    for entry in entries:
        for key, seed in _rows_of(entry, backbones, variants):
            information[key] = entry.record.subject.information
            for metric in entry.record.metrics:
                for column in _columns_of(entry.record, metric):
                    size = metric.group_size if column.position else 1
                    sizes[column, key] = max(size, sizes.get((column, key), 1))
                    by_seed = columns.setdefault(column, {}).setdefault(key, {})
                    by_seed.setdefault(seed, {}).setdefault(metric.name, []).append((entry, metric))
    rows: dict[RowKey, dict[Column, Value]] = {key: {} for key in sorted(information, key=_row_order)}
    for column in sorted(columns):
        whole = {
            key: {seed: members for seed, members in by_seed.items() if len(members) == sizes[column, key]}
            for key, by_seed in columns[column].items()
        }
        names = {key: tuple(sorted(set().union(*by_seed.values()))) for key, by_seed in whole.items() if by_seed}
        every = max(names.values(), key=lambda members: (len(members), members), default=())
        for key, members in names.items():
            rows[key][column if members == every else _partial(column, members)] = _value(whole[key])
    shown = sorted({column for cells in rows.values() for column in cells})
    return Table(title, shown, {key: cells for key, cells in rows.items() if cells}, information)


def _partial(column: Column, members: Sequence[str]) -> Column:
    """Return the column of a mean over fewer members than others have; a mean over other members is another metric."""
    return replace(column, name=f"{column.name} of {'+'.join(members) if len(members) < 4 else f'{len(members)} sets'}")


def _columns_of(record: Record, metric: Metric) -> list[Column]:
    found = []
    if metric.role == "primary":
        found.append(Column(record.suite_order, record.suite, 0, metric.name, metric.better, metric.unit))
    if metric.group:
        found.append(Column(record.suite_order, record.suite, 1, metric.group, metric.better, metric.unit))
    return found


def _row_key(entry: Entry, variants: dict[str, str]) -> RowKey:
    s = entry.record.subject
    return RowKey(s.generator, s.backbone, entry.origin, variants.get(entry.record.dataset, ""))


def _backbones(entries: list[Entry], variants: dict[str, str]) -> dict[RowKey, set[tuple[RowKey, SeedPair]]]:
    """Return, by generator without backbone, the rows that have one, with their seeds."""
    found: dict[RowKey, set[tuple[RowKey, SeedPair]]] = {}
    for entry in entries:
        s, key = entry.record.subject, _row_key(entry, variants)
        if s.backbone != "-":
            bare = RowKey(key.generator, "-", key.origin, key.variant)
            found.setdefault(bare, set()).add((key, (s.generator_seed, s.train_seed)))
    return found


def _rows_of(
    entry: Entry, backbones: dict[RowKey, set[tuple[RowKey, SeedPair]]], variants: dict[str, str]
) -> list[tuple[RowKey, SeedPair]]:
    """Return rows and seeds of a record: its own, or those of all backbones where it measures the images themselves."""
    s, key = entry.record.subject, _row_key(entry, variants)
    if s.backbone != "-":
        return [(key, (s.generator_seed, s.train_seed))]
    shared = {(row, (s.generator_seed, 0)) for row, seed in backbones.get(key, ()) if seed[0] == s.generator_seed}
    return sorted(shared or {(key, (s.generator_seed, 0))}, key=lambda found: _row_order(found[0]))


def _row_order(key: RowKey) -> tuple[str, str, str, str]:
    return key.backbone, key.generator, key.variant, key.origin


def _value(by_seed: dict[SeedPair, dict[str, list[Member]]]) -> Value:
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
    )


def _distinct(members: Iterable[Member]) -> tuple[Entry, ...]:
    return tuple({entry.record.key: entry for entry, _ in members}.values())


def _of_seed(members: dict[str, list[Member]]) -> Estimate:
    """Return the mean over the members of a group, each averaged over its repeats."""
    means = [
        mean_of_repeats([metric.estimate for _, metric in members[name]], [_parts({name: [repeat]}) for repeat in members[name]])
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


# --- ties ---------------------------------------------------------------------------------------------------------------


def separable(first: Value, second: Value) -> bool:
    """Return whether two values differ by more than chance: 95 %, paired where both have units, seed spread included."""
    a, b = first.estimate, second.estimate
    if a.value is None or b.value is None:
        return False
    if first.parts and second.parts:
        try:
            found = difference(first.parts, second.parts, replicates=0)
        except ValueError:  # no common items: fall back to the intervals
            pass
        else:
            return found.p < 0.05
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    z = normal_quantile()
    squares = [((e.high - e.low) / (2 * z)) ** 2 for e in (a, b) if e.low is not None and e.high is not None]
    squares += [v.spread.sd**2 / (v.spread.df + 1) for v in (first, second) if v.spread]
    df = min((v.spread.df for v in (first, second) if v.spread), default=1e9)
    return abs(a.value - b.value) > (quantile(df) if df < 1e9 else z) * math.sqrt(sum(squares))


def tie_groups(table: Table, column: Column, backbone: str) -> dict[RowKey, int]:
    """Return the tie group of each valid row of a backbone: 1 holds the best value and all not separable from it."""
    found = {
        key: cells[column]
        for key, cells in table.rows.items()
        if key.backbone == backbone
        and column in cells
        and cells[column].valid
        and cells[column].estimate.value is not None
    }
    if len(found) < 2 or column.better == "neither":
        return {}
    sign = 1 if column.better == "higher" else -1
    rest = sorted(found, key=lambda key: -sign * (found[key].estimate.value or 0.0))
    groups: dict[RowKey, int] = {}
    number = 0
    while rest:
        number += 1
        last = max(i for i, key in enumerate(rest) if i == 0 or not separable(found[rest[0]], found[key]))
        groups |= dict.fromkeys(rest[: last + 1], number)  # whatever lies between two tied rows is tied with them
        rest = rest[last + 1 :]
    return groups


def leaders(table: Table, column: Column, backbone: str) -> frozenset[RowKey]:
    """Return the rows of a backbone that may be best: the first tie group."""
    return frozenset(key for key, number in table.ties(column, backbone).items() if number == 1)
