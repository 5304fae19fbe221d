"""The board for a terminal: one line per metric, one column per row of the board, split to fit the width."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.core.names import plain
from leaderboard.exports import (
    BEST,
    INVALID,
    ON_THE_BOARD,
    RESOLUTION,
    arrow,
    beside_texts,
    cell_text,
    common_n,
    legend,
    resolution_text,
)
from leaderboard.footnotes import footnotes
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

STYLES = {BEST: "bold green", INVALID: "red"}
GAP = 1
"""Blanks between columns."""


def to_terminal(tables: Sequence[Table], width: int = 80, colour: bool = False) -> str:
    """Return the tables with what their signs mean.

    Args:
        tables: The board.
        width: Columns of the terminal.
        colour: Whether values are coloured by escape sequences; the text is the same.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None,
        no_color=not colour, highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    for table in tables:
        _print(console, table, width)
    words = (
        legend(ON_THE_BOARD, groups=False)
        .replace("*recorded*", "Recorded")
        .replace(f"*{RESOLUTION}*", RESOLUTION.capitalize())
    )
    console.print(words, style="dim")
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def _print(console: Console, table: Table, width: int) -> None:
    console.print(plain(table.title), style="bold")
    for note in table.notes:
        console.print(textwrap.fill(plain(note), width, subsequent_indent="  "))
    names = [
        text for column in table.columns for text in _labels(table, column, common_n(table, list(table.rows), column))
    ]
    label = min(max(map(len, names), default=8), width // 2)
    heads = {key: _head(table, key, width - label) for key in table.rows}
    sizes = {key: _size(table, key, heads[key]) + GAP for key in table.rows}
    for keys in _parts(sizes, width - label - GAP):
        console.print(_grid(table, keys, heads, label))
        console.print()
    for note in footnotes(table):
        console.print(textwrap.fill(plain(note), width, subsequent_indent="  "))
    console.print()


def _grid(table: Table, keys: Sequence[RowKey], heads: Mapping[RowKey, str], label: int) -> Grid:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    grid.add_column("", width=label, overflow="fold")
    for key in keys:
        grid.add_column(heads[key], justify="right", vertical="bottom", no_wrap=True)
    for column in table.columns:
        if any(column in table.rows[key] for key in keys):
            n = common_n(table, keys, column)
            first, *others = _labels(table, column, n)
            grid.add_row(first, *(_styled(cell_text(table, key, column)) for key in keys))
            beside = [beside_texts(table, key, column) for key in keys]
            lines = list(zip(*beside, strict=True))
            if n is None:
                cells = [table.rows[key].get(column) for key in keys]
                lines.append(tuple("–" if value is None else str(value.estimate.n) for value in cells))
            for name, texts in zip(others, lines, strict=True):
                grid.add_row(name, *texts, style="dim")
            if table.resolution(column, keys[0].backbone) is not None:
                grid.add_row(f"  {RESOLUTION} {resolution_text(table, column, keys[0].backbone)}", style="dim")
    return grid


def _labels(table: Table, column: Column, n: int | None) -> list[str]:
    """Return the names of a column's lines: its own with n, then those of its companions, then n if the rows differ in it."""
    own = plain(f"{column.title} {arrow(column)}".strip())
    return [
        own if n is None else f"{own} n={n}",
        *(f"  {plain(name)}" for name in table.beside(column)),
        *(["  n"] if n is None else []),
    ]


def _styled(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=STYLES.get(text[-1], ""))


def _size(table: Table, key: RowKey, head: str) -> int:
    texts = [*head.splitlines()]
    for column in table.columns:
        texts += [cell_text(table, key, column), *beside_texts(table, key, column)]
    return max(map(len, texts))


def _parts(sizes: Mapping[RowKey, int], room: int) -> list[list[RowKey]]:
    """Split rows into parts of one backbone that fit beside each other."""
    parts: list[list[RowKey]] = []
    for key in sizes:
        here = parts[-1] if parts else []
        if here and here[0].backbone == key.backbone and sum(sizes[one] for one in here) + sizes[key] <= room:
            here.append(key)
        else:
            parts.append([key])
    return parts


def _head(table: Table, key: RowKey, room: int) -> str:
    """Return the lines above a row of the board: its name, broken if it is long, its backbone, its seeds."""
    count, wide = len(table.seeds(key)), min(room - GAP, max(18, room // 3))
    lines = textwrap.wrap(key.generator, wide) + (textwrap.wrap(f"({key.variant})", wide) if key.variant else [])
    seeds = "recorded" if key.origin == "recorded" else f"{count} seeds" if count > 1 else ""
    return plain("\n".join(filter(None, [*lines, key.backbone, seeds])))
