"""From tables to text: CSV for programs, Markdown and LaTeX for pages, a narrow table for terminals. No time, host or path."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence

from leaderboard.footnotes import DOUBT, DOUBT_MEANS, footnotes
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table, Value, varied

FACTS = ("table", "generator", "backbone", "origin", "variant", "seeds", "information")
PARTS = ("", ".low", ".high", ".n", ".valid", ".seed_sd", ".seeds", ".tie_group")
FINDINGS = ".findings"
FLAG, BEST = "!", "*"
OWN_COLUMN = "the spread over seeds has its own column"
ON_THE_BOARD = "the spread over seeds stands in the whole board"
MATCHED = ("texture-bias", "context-bias", "background-bias")
ACCURACY = "in-domain"


def legend(spread: str) -> str:
    """Return what the marks mean, with words for where the spread over seeds stands."""
    return (
        f"Values are percent with 95 % intervals of sampling error alone; {spread}. {BEST} first tie group: best of its "
        f"backbone, or not significantly different from it; later groups are numbered. {FLAG} a validity check failed: shown, not ranked. "
        f"{DOUBT} {DOUBT_MEANS}. *recorded* rows ship with the project."
    )


def to_csv(tables: list[Table]) -> str:
    """Return one line per row and eight fields per metric, as fractions or points, in fixed order.

    Metrics that are read with companions have a field more for each, those with findings about their data one for these.
    """
    columns = {csv_name(column): column for table in tables for column in table.columns}
    names = sorted(columns, key=lambda name: (columns[name].place, name))
    extras = {name: _extras(tables, name) for name in names}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*FACTS, *(f"{name}{part}" for name in names for part in (*PARTS, *extras[name]))])
    for table in tables:
        here = {csv_name(column): column for column in table.columns}
        for key, cells in table.rows.items():
            seeds = " ".join(f"{g}/{t}" for g, t in table.seeds(key))
            told = "+".join(table.information.get(key, ()))
            line: list[object] = [table.title, key.generator, key.backbone, key.origin, key.variant, seeds, told]
            for name in names:
                column = here.get(name)
                value = cells.get(column) if column else None
                if column is None or value is None:
                    line += [""] * (len(PARTS) + len(extras[name]))
                else:
                    line += _fields(table, key, column, value) + [_extra(value, part) for part in extras[name]]
            writer.writerow(line)
    return stream.getvalue()


def csv_name(column: Column) -> str:
    """Return a column's name for programs: suite, a slash, and the metric as every board prints it."""
    return column.name if column.name == column.suite else f"{column.suite}/{column.name}"


def _extras(tables: Sequence[Table], name: str) -> list[str]:
    """Return the fields that a column has beyond ``PARTS``: its companions, and findings where there are any."""
    mine = [(table, column) for table in tables for column in table.columns if csv_name(column) == name]
    beside = dict.fromkeys(f".{companion}" for table, column in mine for companion in table.beside(column))
    doubted = any(cells[column].findings for table, column in mine for cells in table.rows.values() if column in cells)
    return [*beside, *([FINDINGS] if doubted else [])]


def _extra(value: Value, part: str) -> str:
    if part == FINDINGS:
        return "; ".join(value.findings)
    number = value.beside.get(part.removeprefix("."))
    return "" if number is None else repr(float(number))


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
        below = footnotes(table)
        parts += ["### notes\n", "\n".join(f"* {note}" for note in below) + "\n"] if below else []
    parts.append(legend(OWN_COLUMN) + "\n")
    return "\n".join(parts)


def _block(table: Table, columns: list[Column], suite: str) -> str:
    heads: list[str] = []
    for column in columns:
        heads += [f"{column.name} {_arrow(column)}".strip(), "seed sd", *table.beside(column)]
    lines = [
        f"### {suite}\n",
        "| generator | backbone | seeds | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for key, cells in table.rows.items():
        if any(column in cells for column in columns):
            texts: list[str] = []
            for column in columns:
                texts += [
                    cell_text(table, key, column),
                    spread_text(table, key, column),
                    *beside_texts(table, key, column),
                ]
            lines.append(f"| {row_name(key)} | {key.backbone} | {_seeds(cells, columns)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def beside_texts(table: Table, key: RowKey, column: Column, digits: int = 1) -> list[str]:
    """Return the companions of a value in percent, in the order of ``Table.beside``; a dash where one is not known."""
    value = table.rows[key].get(column)
    numbers = [None if value is None else value.beside.get(name) for name in table.beside(column)]
    return ["–" if number is None else f"{100 * number:.{digits}f}" for number in numbers]


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


def doubt(value: Value) -> str:
    """Return ``?`` for a value whose data on disk are not the published set."""
    return DOUBT if value.findings else ""


def cell_text(table: Table, key: RowKey, column: Column, narrow: bool = False) -> str:
    """Return a value with its interval and marks."""
    value = table.rows[key].get(column)
    if value is None:
        return "–"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return "undefined" if narrow else f"undefined: {e.reason}"
    sign = doubt(value) + mark(table, key, column)
    if e.low is None or e.high is None:
        return f"{scale * e.value:.1f}{sign}"
    if narrow:
        return f"{scale * e.value:.1f}±{scale * (e.high - e.low) / 2:.1f}{sign.partition('(')[0]}"
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
    accuracy = [column for column in table.columns if column.suite == ACCURACY and not column.rank]
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
        "| generator | backbone | " + " | ".join(_head_with_companions(table, c) for c in (accuracy, *biases)) + " |",
        "|---|---|" + "---|" * (1 + len(biases)),
    ]
    for key in by_accuracy(table, accuracy, biases):
        texts = [with_companions(table, key, column) for column in (accuracy, *biases)]
        lines.append(f"| {row_name(key)} | {key.backbone} | " + " | ".join(texts) + " |")
    return ["\n".join(lines) + "\n"]


def _head_with_companions(table: Table, column: Column) -> str:
    beside = table.beside(column)
    return f"{column.name} {_arrow(column)}" + (f" ({', '.join(beside)})" if beside else "")


def with_companions(table: Table, key: RowKey, column: Column) -> str:
    """Return a value with half its interval, and its companions in brackets."""
    text, beside = cell_text(table, key, column, narrow=True), beside_texts(table, key, column)
    return f"{text} ({', '.join(beside)})" if beside and column in table.rows[key] else text


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
            notes = "".join(f" {note}." for note in table.notes if note.startswith(f"{suite} "))
            parts.append(_latex(table, columns, f"{suite}, {table.title}.{notes}"))
    return "\n".join(parts) + "\n"


def _latex(table: Table, columns: list[Column], caption: str) -> str:
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
    heads: list[str] = []
    for column in columns:
        heads += [tex(column.name) + arrows[column.better], *map(tex, table.beside(column))]
    lines = [
        r"\begin{table}[t]\centering\small",
        rf"\caption{{{tex(caption.strip())} Percent, 95\,\% intervals of sampling error alone; $\pm$: standard deviation over seeds, "
        r"where there are several; "
        rf"bold: first tie group; !: not ranked, a validity check failed; {DOUBT}: {DOUBT_MEANS}.}}",
        r"\begin{tabular}{ll" + "r" * len(heads) + "}",
        r"\toprule",
        " & ".join(["generator", "backbone", *heads]) + r" \\",
        r"\midrule",
    ]
    for key, cells in table.rows.items():
        if any(column in cells for column in columns):
            name = tex(key.label) + (r" \emph{recorded}" if key.origin == "recorded" else "")
            texts: list[str] = []
            for column in columns:
                texts += [
                    _latex_cell(table, key, column),
                    *(t.replace("–", "--") for t in beside_texts(table, key, column)),
                ]
            lines.append(" & ".join([name, tex(key.backbone), *texts]) + r" \\")
    below = [rf"\par {{\scriptsize {tex(note)}}}" for note in footnotes(table, columns[0].suite)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}"])


def _latex_cell(table: Table, key: RowKey, column: Column) -> str:
    value = table.rows[key].get(column)
    if value is None:
        return "--"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return "undefined"
    text, sign = f"{scale * e.value:.1f}", mark(table, key, column)
    text = rf"\textbf{{{text}}}" if sign == BEST else text + (sign if sign == FLAG else "")
    text += doubt(value)
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
    names = [
        line for column in table.columns for text in _labels(table, column) for line in textwrap.wrap(text, width // 2)
    ]
    label = max(map(len, names), default=8) + 2
    cells = {(key, column): [cell_text(table, key, column, narrow=True), *beside_texts(table, key, column)]
             for key in keys for column in table.columns}  # fmt: skip
    heads = {key: _heads(table, key, width - label) for key in keys}
    sizes = {key: 1 + max(len(text) for texts in [heads[key], *(cells[key, c] for c in table.columns)] for text in texts)
             for key in keys}  # fmt: skip
    lines = [table.title, *(textwrap.fill(note, width, subsequent_indent="  ") for note in table.notes)]
    for shown in _parts(sizes, width - label):
        lines += _head_lines([heads[key] for key in shown], label, [sizes[key] for key in shown])
        for column in table.columns:
            if any(column in table.rows[key] for key in shown):
                lines += _column_lines(
                    _labels(table, column), label, [(cells[key, column], sizes[key]) for key in shown]
                )
        lines.append("")
    lines += [textwrap.fill(note, width, subsequent_indent="  ") for note in footnotes(table)]
    return "\n".join(lines) + "\n"


def _column_lines(labels: Sequence[str], label: int, cells: Sequence[tuple[list[str], int]]) -> list[str]:
    """Return the lines of a column: its values behind the last line of its name, then those of its companions."""
    lines = []
    for number, text in enumerate(labels):
        *first, last = textwrap.wrap(text, label - 2, subsequent_indent="  ", drop_whitespace=False)
        values = "".join(texts[number].rjust(size) for texts, size in cells)
        lines += [*(line.rstrip() for line in first), last.rstrip().ljust(label) + values]
    return lines


def _labels(table: Table, column: Column) -> list[str]:
    """Return the names of a column's lines: its own, then those of its companions."""
    return [f"{column.title} {_arrow(column)}", *(f"  {name}" for name in table.beside(column))]


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


def _head_lines(heads: list[list[str]], label: int, sizes: Sequence[int]) -> list[str]:
    most = max(map(len, heads))
    filled = [[""] * (most - len(head)) + head for head in heads]
    lines = [" " * label + "".join(head[level].rjust(size) for head, size in zip(filled, sizes, strict=True))
             for level in range(most)]  # fmt: skip
    return [line.rstrip() for line in lines if line.strip()]


def _heads(table: Table, key: RowKey, room: int) -> list[str]:
    """Return the lines above a row of the board: its name, broken where it is long, its backbone, its seeds."""
    count, wide = len(table.seeds(key)), min(room - 1, max(18, room // 3))
    third = "recorded" if key.origin == "recorded" else f"{count} seeds" if count > 1 else ""
    lines = textwrap.wrap(key.generator, wide) + (textwrap.wrap(f"({key.variant})", wide) if key.variant else [])
    return [*lines, key.backbone, third]
