"""From tables to text: CSV for programs, Markdown for pages, a narrow table for terminals. No time, host or path."""

from __future__ import annotations

import csv
import io
import textwrap

from harness.stats import Estimate
from leaderboard.tables import Column, RowKey, Table, leaders

FACTS = ("table", "generator", "backbone", "origin", "generator_seed", "train_seed", "information")
FLAG, BEST = "!", "*"
LEGEND = (
    f"Values are percent with 95 % intervals. {BEST} best of its backbone, or not separable from it by the interval; "
    f"{FLAG} a validity check failed: not ranked. *recorded* rows ship with the project."
)


def to_csv(tables: list[Table]) -> str:
    """Return one line per row, four fields per metric (value, low, high, n) as fractions or points, in fixed order."""
    columns = sorted({column for table in tables for column in table.columns})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = [f"{_id(column)}{part}" for column in columns for part in ("", ".low", ".high", ".n", ".valid")]
    writer.writerow([*FACTS, *head])
    for table in tables:
        for key, cells in table.rows.items():
            line = [
                table.title,
                key.generator,
                key.backbone,
                key.origin,
                key.generator_seed,
                key.train_seed,
                "+".join(table.information.get(key, ())),
            ]
            for column in columns:
                value = cells.get(column)
                line += (
                    ["", "", "", "", ""]
                    if value is None
                    else [*_numbers(value.estimate), "yes" if value.valid else "no"]
                )
            writer.writerow(line)
    return stream.getvalue()


def _numbers(e: Estimate) -> list[object]:
    return ["" if part is None else repr(float(part)) for part in (e.value, e.low, e.high)] + [e.n]


def _id(column: Column) -> str:
    return column.title.replace(" ", "/")


def to_markdown(tables: list[Table]) -> str:
    """Return a Markdown page: for each table one block per suite, one row per generator, backbone and seeds."""
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n")
        parts += [f"{note}\n" for note in table.notes]
        for suite in dict.fromkeys(column.suite for column in table.columns):
            parts.append(_block(table, [column for column in table.columns if column.suite == suite], suite))
    parts.append(LEGEND + "\n")
    return "\n".join(parts)


def _block(table: Table, columns: list[Column], suite: str) -> str:
    lines = [
        f"### {suite}\n",
        "| generator | backbone | seeds | " + " | ".join(f"{c.name} {_arrow(c)}".strip() for c in columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for key, cells in table.rows.items():
        if any(column in cells for column in columns):
            name = f"{key.generator} *recorded*" if key.origin == "recorded" else key.generator
            texts = [cell_text(table, key, column) for column in columns]
            lines.append(
                f"| {name} | {key.backbone} | {key.generator_seed}/{key.train_seed} | " + " | ".join(texts) + " |"
            )
    return "\n".join(lines) + "\n"


def _arrow(column: Column) -> str:
    return {"higher": "↑", "lower": "↓", "neither": ""}[column.better]


def cell_text(table: Table, key: RowKey, column: Column, narrow: bool = False) -> str:
    """Return a value with its interval and marks."""
    value = table.rows[key].get(column)
    if value is None:
        return "–"
    e = value.estimate
    if e.value is None:
        return "undefined" if narrow else f"undefined: {e.reason}"
    scale = 1.0 if column.unit == "points" else 100.0
    mark = FLAG if not value.valid else BEST if key in leaders(table, column, key.backbone) else ""
    if e.low is None or e.high is None:
        return f"{scale * e.value:.1f}{mark}"
    if narrow:
        return f"{scale * e.value:.1f}±{scale * (e.high - e.low) / 2:.1f}{mark}"
    return f"{scale * e.value:.1f}{mark} [{scale * e.low:.1f}, {scale * e.high:.1f}] n={e.n}"


def to_terminal(tables: list[Table], width: int = 80) -> str:
    """Return tables with one line per metric and one column per row of the board, split to fit the width."""
    legend = textwrap.fill(LEGEND.replace("*recorded*", "Recorded"), width)
    return "\n".join(_terminal(table, width) for table in tables) + legend + "\n"


def _terminal(table: Table, width: int) -> str:
    keys = list(table.rows)
    label = max((len(column.title) + 2 for column in table.columns), default=10)
    cells = {(key, column): cell_text(table, key, column, narrow=True) for key in keys for column in table.columns}
    varied = len({(key.generator_seed, key.train_seed) for key in keys}) > 1
    heads = {key: _heads(key, varied) for key in keys}
    size = (
        max([len(text) for text in cells.values()] + [len(part) for head in heads.values() for part in head], default=8)
        + 1
    )
    per_line = max(1, (width - label) // size)
    lines = [table.title, *table.notes]
    for shown in _parts(keys, per_line):
        lines += [line for line in _head_lines([heads[key] for key in shown], label, size) if line]
        for column in table.columns:
            if any(column in table.rows[key] for key in shown):
                texts = "".join(cells[key, column].rjust(size) for key in shown)
                lines.append(f"{column.title} {_arrow(column)}".ljust(label) + texts)
        lines.append("")
    return "\n".join(lines) + "\n"


def _parts(keys: list[RowKey], per_line: int) -> list[list[RowKey]]:
    """Split rows into parts of one backbone that fit beside each other."""
    parts = []
    for backbone in dict.fromkeys(key.backbone for key in keys):
        mine = [key for key in keys if key.backbone == backbone]
        parts += [mine[first : first + per_line] for first in range(0, len(mine), per_line)]
    return parts


def _head_lines(heads: list[tuple[str, str, str]], label: int, size: int) -> list[str]:
    return [(" " * label + "".join(head[level].rjust(size) for head in heads)).rstrip() for level in range(3)]


def _heads(key: RowKey, varied: bool) -> tuple[str, str, str]:
    third = f"seed {key.generator_seed}/{key.train_seed}" if varied else ""
    return key.generator, key.backbone, "recorded" if key.origin == "recorded" else third
