"""From tables to text: CSV for programs, Markdown and LaTeX for pages, a narrow table for terminals. No time, host or path."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from leaderboard.tables import Column, RowKey, Table, Value, varied

FACTS = ("table", "generator", "backbone", "origin", "variant", "seeds", "information")
PARTS = ("", ".low", ".high", ".n", ".valid", ".seed_sd", ".seeds", ".tie_group")
FLAG, BEST = "!", "*"
OWN_COLUMN = "the spread over seeds has its own column"
ON_THE_BOARD = "the spread over seeds stands in the whole board"
MATCHED = ("texture-bias", "context-bias", "background-bias")
ACCURACY = "in-domain"


def legend(spread: str) -> str:
    """Return what the marks mean, with words for where the spread over seeds stands."""
    return (
        f"Values are percent with 95 % intervals of sampling error alone; {spread}. {BEST} first tie group: best of its "
        f"backbone, or not separable from it; later groups are numbered. {FLAG} a validity check failed: shown, not ranked. "
        "*recorded* rows ship with the project."
    )


def to_csv(tables: list[Table]) -> str:
    """Return one line per row and eight fields per metric, as fractions or points, in fixed order."""
    columns = sorted({column for table in tables for column in table.columns})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*FACTS, *(f"{column.title.replace(' ', '/')}{part}" for column in columns for part in PARTS)])
    for table in tables:
        for key, cells in table.rows.items():
            seeds = " ".join(f"{g}/{t}" for g, t in table.seeds(key))
            told = "+".join(table.information.get(key, ()))
            line: list[object] = [table.title, key.generator, key.backbone, key.origin, key.variant, seeds, told]
            for column in columns:
                value = cells.get(column)
                line += [""] * len(PARTS) if value is None else _fields(table, key, column, value)
            writer.writerow(line)
    return stream.getvalue()


def _fields(table: Table, key: RowKey, column: Column, value: Value) -> list[object]:
    e = value.estimate
    numbers: list[object] = ["" if part is None else repr(float(part)) for part in (e.value, e.low, e.high)]
    spread = "" if value.spread is None else repr(value.spread.sd)
    tie = table.ties(column, key.backbone).get(key, "")
    return [*numbers, e.n, "yes" if value.valid else "no", spread, len(value.seeds), tie]


def to_markdown(tables: list[Table]) -> str:
    """Return a Markdown page: for each table one block per suite, one row per generator and backbone."""
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n")
        parts += [f"{note}\n" for note in table.notes]
        for suite in dict.fromkeys(column.suite for column in table.columns):
            parts.append(_block(table, [column for column in table.columns if column.suite == suite], suite))
        parts += _matched_block(table)
    parts.append(legend(OWN_COLUMN) + "\n")
    return "\n".join(parts)


def _block(table: Table, columns: list[Column], suite: str) -> str:
    heads = [text for column in columns for text in (f"{column.name} {_arrow(column)}".strip(), "seed sd")]
    lines = [
        f"### {suite}\n",
        "| generator | backbone | seeds | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for key, cells in table.rows.items():
        if any(column in cells for column in columns):
            texts = [
                text for column in columns for text in (cell_text(table, key, column), spread_text(table, key, column))
            ]
            lines.append(
                f"| {row_name(key)} | {key.backbone} | {_seeds(cells, columns)} | " + " | ".join(texts) + " |"
            )
    return "\n".join(lines) + "\n"


def _seeds(cells: dict[Column, Value], columns: Sequence[Column]) -> str:
    """Return the seeds behind the values of some columns of one row."""
    return varied(sorted({seed for column in columns if column in cells for seed in cells[column].seeds}))


def row_name(key: RowKey) -> str:
    """Return the generator's name, marked where the row ships with the project."""
    return f"{key.label} *recorded*" if key.origin == "recorded" else key.label


def _arrow(column: Column) -> str:
    return {"higher": "↑", "lower": "↓", "neither": ""}[column.better]


def mark(table: Table, key: RowKey, column: Column) -> str:
    """Return the mark of a value: ``!`` invalid, ``*`` first tie group, the group's number for later ones."""
    if not table.rows[key][column].valid:
        return FLAG
    number = table.ties(column, key.backbone).get(key)
    return "" if number is None else BEST if number == 1 else f"({number})"


def cell_text(table: Table, key: RowKey, column: Column, narrow: bool = False) -> str:
    """Return a value with its interval and marks."""
    value = table.rows[key].get(column)
    if value is None:
        return "–"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return "undefined" if narrow else f"undefined: {e.reason}"
    sign = mark(table, key, column)
    if e.low is None or e.high is None:
        return f"{scale * e.value:.1f}{sign}"
    if narrow:
        return f"{scale * e.value:.1f}±{scale * (e.high - e.low) / 2:.1f}{sign if len(sign) < 2 else ''}"
    return f"{scale * e.value:.1f}{sign} [{scale * e.low:.1f}, {scale * e.high:.1f}] n={e.n}"


def spread_text(table: Table, key: RowKey, column: Column) -> str:
    """Return the standard deviation over seeds, or a dash for one seed."""
    value = table.rows[key].get(column)
    if value is None or value.spread is None:
        return "–"
    return f"{column.scale * value.spread.sd:.2f} ({len(value.seeds)} seeds)"


# --- accuracy-matched view ----------------------------------------------------------------------------------------------


def matched(table: Table) -> tuple[Column, list[Column]] | None:
    """Return the column of in-domain accuracy and those of the bias metrics, or None where either is missing."""
    accuracy = [column for column in table.columns if column.suite == ACCURACY]
    biases = [column for column in table.columns if column.suite in MATCHED]
    return (accuracy[0], biases) if accuracy and biases else None


def by_accuracy(table: Table, accuracy: Column, biases: Sequence[Column]) -> list[RowKey]:
    """Return the rows with accuracy and a bias metric, by backbone, the most accurate first."""
    keys = [key for key, cells in table.rows.items() if accuracy in cells and any(column in cells for column in biases)]
    return sorted(keys, key=lambda key: (key.backbone, -(table.rows[key][accuracy].estimate.value or 0.0), key.label))


def _matched_block(table: Table) -> list[str]:
    found = matched(table)
    if found is None:
        return []
    accuracy, biases = found
    lines = [
        "### bias against in-domain accuracy\n",
        "Compare neighbours: a bias metric can be bought with accuracy.\n",
        "| generator | backbone | " + " | ".join(f"{c.name} {_arrow(c)}" for c in (accuracy, *biases)) + " |",
        "|---|---|" + "---|" * (1 + len(biases)),
    ]
    for key in by_accuracy(table, accuracy, biases):
        texts = [cell_text(table, key, column, narrow=True) for column in (accuracy, *biases)]
        lines.append(f"| {row_name(key)} | {key.backbone} | " + " | ".join(texts) + " |")
    return ["\n".join(lines) + "\n"]


# --- LaTeX --------------------------------------------------------------------------------------------------------------

_SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
            "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}  # fmt: skip


def tex(text: str) -> str:
    """Return a text with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def to_latex(tables: list[Table]) -> str:
    """Return one ``table`` per board table and suite (package booktabs); intervals as small brackets, best groups in bold."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        for suite in dict.fromkeys(column.suite for column in table.columns):
            columns = [column for column in table.columns if column.suite == suite]
            parts.append(_latex(table, columns, f"{suite}, {table.title}. " + " ".join(table.notes)))
    return "\n".join(parts) + "\n"


def _latex(table: Table, columns: list[Column], caption: str) -> str:
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
    lines = [
        r"\begin{table}[t]\centering\small",
        rf"\caption{{{tex(caption.strip())} Percent, 95\,\% intervals of sampling error alone; $\pm$: standard deviation over seeds, "
        r"where there are several; "
        r"bold: first tie group; !: not ranked, a validity check failed.}",
        r"\begin{tabular}{ll" + "r" * len(columns) + "}",
        r"\toprule",
        " & ".join(["generator", "backbone", *(tex(column.name) + arrows[column.better] for column in columns)])
        + r" \\",
        r"\midrule",
    ]
    for key, cells in table.rows.items():
        if any(column in cells for column in columns):
            name = tex(key.label) + (r" \emph{recorded}" if key.origin == "recorded" else "")
            lines.append(" & ".join([name, tex(key.backbone), *(_latex_cell(table, key, c) for c in columns)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _latex_cell(table: Table, key: RowKey, column: Column) -> str:
    value = table.rows[key].get(column)
    if value is None:
        return "--"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return "undefined"
    text, sign = f"{scale * e.value:.1f}", mark(table, key, column)
    text = rf"\textbf{{{text}}}" if sign == BEST else text + (sign if sign == FLAG else "")
    if value.spread is not None:
        text += rf"$\pm${scale * value.spread.sd:.1f}"
    if e.low is not None and e.high is not None:
        text += rf" {{\scriptsize[{scale * e.low:.1f}, {scale * e.high:.1f}]}}"
    return text


# --- terminal -----------------------------------------------------------------------------------------------------------


def to_terminal(tables: list[Table], width: int = 80) -> str:
    """Return tables with one line per metric and one column per row of the board, split to fit the width."""
    told = textwrap.fill(legend(ON_THE_BOARD).replace("*recorded*", "Recorded"), width)
    return "\n".join(_terminal(table, width) for table in tables) + told + "\n"


def _terminal(table: Table, width: int) -> str:
    keys = list(table.rows)
    label = max((len(column.title) + 2 for column in table.columns), default=10)
    cells = {(key, column): cell_text(table, key, column, narrow=True) for key in keys for column in table.columns}
    heads = {key: _heads(table, key) for key in keys}
    size = (
        max([len(text) for text in cells.values()] + [len(part) for head in heads.values() for part in head], default=8)
        + 1
    )
    per_line = max(1, (width - label) // size)
    lines = [table.title, *(textwrap.fill(note, width, subsequent_indent="  ") for note in table.notes)]
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


def _heads(table: Table, key: RowKey) -> tuple[str, str, str]:
    count = len(table.seeds(key))
    third = "recorded" if key.origin == "recorded" else f"{count} seeds" if count > 1 else ""
    return key.label, key.backbone, third
