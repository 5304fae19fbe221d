"""The tables of the HTML report: what stands in their heads and cells; ``page/grid.html`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leaderboard.exports import ACCURACY, BEST, INVALID, MATCHED, arrow, beside_texts, common_n, doubt, flag
from leaderboard.provenance import Facts
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table, varied


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


def grids(table: Table, facts: Facts, formulas: Mapping[str, str]) -> list[Grid]:
    """Return the main columns in the order of the board, then one table per suite whose members the main one leaves out.

    Args:
        table: The board.
        facts: Takes the provenance of the values.
        formulas: Suite to its formula.
    """
    by_suite = {c.suite: [column for column in table.columns if column.suite == c.suite] for c in table.columns}
    means = {suite: [column for column in columns if column.position] for suite, columns in by_suite.items()}
    main = [column for suite, columns in by_suite.items() for column in means[suite] or columns]
    found = [_grid("", table, main, facts, formulas, {c for c in main if c.suite in (ACCURACY, *MATCHED)})]
    for suite, columns in by_suite.items():
        if means[suite] and len(columns) > len(means[suite]):
            found.append(_grid(f"{suite}: its parts", table, columns, facts, formulas, set()))
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
        heads.append(Head(c.name, arrow(c), c.better, suite, small, formulas.get(c.suite, ""), minor[c]))
    rows = []
    for key in keys:
        cells = tuple(_cell(table, key, column, facts, minor[column], sizes[column] is None) for column in columns)
        seeds = table.seeds(key)
        counted = ("recorded, " if key.origin == "recorded" else "") + _count(len(seeds))
        details = f"{varied(seeds)}; supervision used: {'+'.join(table.information.get(key, ()))}"
        rows.append(Row(key.label, counted, details, key.backbone, cells))
    return Grid(title, tuple(heads), tuple(rows))


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
