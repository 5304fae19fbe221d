"""The tables of the HTML report: what stands in their heads and cells; ``page/grid.html`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leaderboard.exports import BEST, INVALID, arrow, beside_texts, common_n, doubt, flag, resolution_text
from leaderboard.provenance import Facts
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table, varied
from leaderboard.views import ACCURACY, MATCHED


@dataclass(frozen=True)
class Head:
    """The head of a column."""

    name: str
    arrow: str
    better: str
    suite: str
    """Shown above the name; empty if it is not needed."""
    small: tuple[str, ...]
    """Companions in brackets, and n if it is the same in all rows."""
    formula: str
    minor: bool
    """Whether a narrow screen leaves the column out."""


@dataclass(frozen=True)
class Cell:
    """One value."""

    text: str = "–"
    kind: str = ""
    """``best``, ``bad`` or nothing."""
    rank: str = ""
    """Number to sort by; empty if it is not ranked."""
    fact: int | None = None
    small: tuple[str, ...] = ()
    failed: str = ""
    """Failed checks."""
    minor: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the board."""

    label: str
    small: str
    details: str
    backbone: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """One table."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    resolutions: tuple[tuple[str, tuple[str, ...]], ...]
    """Backbone to the smallest difference that each column can show."""


def grids(table: Table, facts: Facts, formulas: Mapping[str, str]) -> list[Grid]:
    """Return the main columns in the order of the board, then a table per suite whose members the main one leaves out, or that
    has secondary metrics.

    Args:
        table: The board.
        facts: Takes the provenance of the values.
        formulas: Suite to its formula.
    """
    groups = table.groups()
    primary = {title: columns for title, columns in groups if columns[0].role != "secondary"}
    means = {suite: [column for column in columns if column.position] for suite, columns in primary.items()}
    main = [column for suite, columns in primary.items() for column in means[suite] or columns]
    found = (
        [_grid("", table, main, facts, formulas, {c for c in main if c.suite in (ACCURACY, *MATCHED)})] if main else []
    )
    for title, columns in groups:
        if title not in primary:
            found.append(_grid(title, table, columns, facts, formulas, set()))
        elif means[title] and len(columns) > len(means[title]):
            found.append(_grid(f"{title}: its parts", table, columns, facts, formulas, set()))
    return found


def _grid(title: str, table: Table, columns: Sequence[Column], facts: Facts, formulas: Mapping[str, str],
          important: set[Column]) -> Grid:  # fmt: skip
    keys = [key for key in table.rows if any(column in table.rows[key] for column in columns)]
    sizes = {column: common_n(table, keys, column) for column in columns}
    minor = {column: bool(important) and column not in important for column in columns}
    heads = []
    for c in columns:
        beside, n = table.beside(c), sizes[c]
        small = (*([f"({', '.join(beside)})"] if beside else []), *([] if n is None else [f"n={n}"]))
        suite = "" if title or c.suite == c.name else c.suite
        own = formulas.get(f"{c.suite}/{c.metric.partition('@')[0]}", "") if c.role == "secondary" else ""
        heads.append(Head(c.name, arrow(c), c.better, suite, small, own or formulas.get(c.suite, ""), minor[c]))
    rows = []
    for key in keys:
        cells = tuple(_cell(table, key, column, facts, minor[column], sizes[column] is None) for column in columns)
        seeds = table.seeds(key)
        counted = ("recorded, " if key.origin == "recorded" else "") + _count(len(seeds))
        details = f"{varied(seeds)}; supervision used: {'+'.join(table.information.get(key, ()))}"
        rows.append(Row(key.label, counted, details, key.backbone, cells))
    backbones = dict.fromkeys(key.backbone for key in keys)
    able = tuple((name, tuple(resolution_text(table, column, name) for column in columns)) for name in backbones)
    return Grid(title, tuple(heads), tuple(rows), able)


def _count(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "1 seed"


def _cell(table: Table, key: RowKey, column: Column, facts: Facts, minor: bool, with_n: bool) -> Cell:
    value = table.rows[key].get(column)
    if value is None:
        return Cell(minor=minor)
    e, scale, number = value.estimate, column.scale, facts.add(table, key, column, value)
    if e.value is None:
        return Cell("undefined", fact=number, small=(e.reason[:40],), minor=minor)
    sign = flag(table, key, column)
    text = f"{scale * e.value:.1f}{doubt(value)}"
    beside = beside_texts(table, key, column)
    small = [] if e.low is None or e.high is None else [f"{scale * e.low:.1f} – {scale * e.high:.1f}"]
    small += [f"({', '.join(beside)})"] if beside else []
    small += [f"n={e.n}"] if with_n else []
    small += [f"sd {scale * value.spread.sd:.2f}"] if value.spread is not None else []
    small += [_count(len(value.seeds))] if len(value.seeds) != len(table.seeds(key)) else []
    return Cell(
        f"{text}{sign}" if sign in (BEST, INVALID) else f"{text} {sign}".strip(),
        {BEST: "best", INVALID: "bad"}.get(sign, ""),
        repr(float(e.value)) if value.valid else "",
        number,
        tuple(small),
        ", ".join(value.failed),
        minor,
    )
