"""From tables to text: wide CSV and Markdown, and how every text export writes a value. No time, host or path."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from leaderboard.footnotes import DOUBT, DOUBT_MEANS, footnotes
from leaderboard.markup import md, md_row
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table, Value, varied
from leaderboard.views import ACCURACY, MATCHED

FACTS = ("table", "generator", "backbone", "origin", "variant", "seeds", "supervision")
PARTS = ("", ".low", ".high", ".n", ".valid", ".seed_sd", ".seeds", ".tie_group")
FINDINGS = ".findings"
INVALID, BEST = "!", "*"
OWN_COLUMN = "the spread over seeds has its own column"
ON_THE_BOARD = "the spread over seeds is in the full leaderboard"
RESOLUTION = "resolution"
RESOLUTION_MEANS = (
    "the smallest true difference of two rows that these items and seeds show in four of five cases (paired, two-sided 5 %, before "
    "any correction; median over the pairs with most seeds); smaller differences cannot be told from none"
)


def legend(spread: str, groups: bool = True) -> str:
    """Return what the signs at a value mean.

    Args:
        spread: Words for where the spread over seeds is shown.
        groups: Whether tie groups after the first are numbered.
    """
    numbered = "; later groups are numbered" if groups else ""
    return (
        f"Values are percent with 95 % intervals of sampling error alone; {spread}. {BEST} first tie group: best of its "
        f"backbone, or not significantly different from it{numbered}. {INVALID} a validity check failed: shown, not ranked. "
        f"{DOUBT} {DOUBT_MEANS}. *{RESOLUTION}*: {RESOLUTION_MEANS}. *recorded* rows ship with the project."
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
            supervision = "+".join(table.information.get(key, ()))
            line: list[object] = [table.title, key.generator, key.backbone, key.origin, key.variant, seeds, supervision]
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
        parts.append(f"## {md(table.title)}\n")
        parts += [f"{md(note)}\n" for note in table.notes]
        parts += [_block(table, columns, title) for title, columns in table.groups()]
        parts += _matched_block(table)
        below = footnotes(table)
        parts += ["### notes\n", "\n".join(f"* {md(note)}" for note in below) + "\n"] if below else []
    parts.append(legend(OWN_COLUMN) + "\n")
    return "\n".join(parts)


def _block(table: Table, columns: list[Column], title: str) -> str:
    heads = ["generator", "backbone", "seeds"]
    for column in columns:
        heads += [f"{md(column.name)} {arrow(column)}".strip(), "seed sd", *map(md, table.beside(column))]
    lines = [f"### {md(title)}\n", md_row(heads), "|---" * len(heads) + "|"]
    shown = {key: cells for key, cells in table.rows.items() if any(column in cells for column in columns)}
    for key, cells in shown.items():
        texts = [row_name(key), md(key.backbone), _seeds(cells, columns)]
        for column in columns:
            texts += [md_cell(table, key, column), spread_text(table, key, column), *beside_texts(table, key, column)]
        lines.append(md_row(texts))
    for backbone in dict.fromkeys(key.backbone for key in shown):
        if all(table.resolution(column, backbone) is None for column in columns):
            continue
        texts = [f"*{RESOLUTION}*", md(backbone), ""]
        for column in columns:
            texts += [resolution_text(table, column, backbone), "", *("" for _ in table.beside(column))]
        lines.append(md_row(texts))
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
    """Return the generator's name in Markdown; rows that ship with the project say so."""
    return f"{md(key.label)} *recorded*" if key.origin == "recorded" else md(key.label)


def arrow(column: Column) -> str:
    """Return an arrow in the direction of better values; nothing if neither direction is better."""
    return {"higher": "↑", "lower": "↓", "neither": ""}[column.better]


def flag(table: Table, key: RowKey, column: Column) -> str:
    """Return the sign of a value: ``!`` invalid, ``*`` first tie group, the group's number for later ones."""
    if not table.rows[key][column].valid:
        return INVALID
    number = table.ties(column, key.backbone).get(key)
    return "" if number is None else BEST if number == 1 else f"({number})"


def doubt(value: Value) -> str:
    """Return ``?`` for a value whose data on disk are not the published set."""
    return DOUBT if value.findings else ""


def md_cell(table: Table, key: RowKey, column: Column) -> str:
    """Return a value in Markdown, with its signs, its interval and n."""
    value = table.rows[key].get(column)
    if value is None:
        return "–"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return f"undefined: {md(e.reason)}"
    text = f"{scale * e.value:.1f}{doubt(value)}{flag(table, key, column)}"
    return text if e.low is None or e.high is None else f"{text} [{scale * e.low:.1f}, {scale * e.high:.1f}] n={e.n}"


def cell_text(table: Table, key: RowKey, column: Column) -> str:
    """Return a value with half its interval and its signs; of the tie groups only the first has one."""
    value = table.rows[key].get(column)
    if value is None:
        return "–"
    e, scale = value.estimate, column.scale
    if e.value is None:
        return "undefined"
    half = "" if e.low is None or e.high is None else f"±{scale * (e.high - e.low) / 2:.1f}"
    return f"{scale * e.value:.1f}{half}{doubt(value)}{flag(table, key, column).partition('(')[0]}"


def common_n(table: Table, keys: Sequence[RowKey], column: Column) -> int | None:
    """Return the number of test items behind a column in some rows; None if it differs between them."""
    found = {table.rows[key][column].estimate.n for key in keys if column in table.rows[key]}
    return found.pop() if len(found) == 1 else None


def resolution_text(table: Table, column: Column, backbone: str) -> str:
    """Return the smallest difference that a column can show among the rows of a backbone, or a dash where there are no two."""
    found = table.resolution(column, backbone)
    return "–" if found is None else f"{column.scale * found:.1f}"


def spread_text(table: Table, key: RowKey, column: Column) -> str:
    """Return the standard deviation over seeds, or a dash for one seed."""
    value = table.rows[key].get(column)
    if value is None or value.spread is None:
        return "–"
    return f"{column.scale * value.spread.sd:.2f} ({len(value.seeds)} seeds)"


# --- accuracy-matched view ----------------------------------------------------------------------------------------------


def matched(table: Table) -> tuple[Column, list[Column]] | None:
    """Return the column of in-domain accuracy and those of the bias metrics, or None where either is missing."""
    accuracy = [c for c in table.columns if c.suite == ACCURACY and not c.rank and c.role != "secondary"]
    biases = [column for column in table.columns if column.suite in MATCHED and column.role != "secondary"]
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
    heads = ["generator", "backbone", *(_head_with_companions(table, column) for column in (accuracy, *biases))]
    lines = ["### bias against in-domain accuracy\n", "Compare rows of similar accuracy: a less accurate model can look less biased.\n",
             md_row(heads), "|---" * len(heads) + "|"]  # fmt: skip
    for key in by_accuracy(table, accuracy, biases):
        texts = [with_companions(table, key, column) for column in (accuracy, *biases)]
        lines.append(md_row([row_name(key), md(key.backbone), *texts]))
    return ["\n".join(lines) + "\n"]


def _head_with_companions(table: Table, column: Column) -> str:
    beside = table.beside(column)
    return f"{md(column.name)} {arrow(column)}" + (f" ({', '.join(map(md, beside))})" if beside else "")


def with_companions(table: Table, key: RowKey, column: Column) -> str:
    """Return a value with half its interval, and its companions in brackets."""
    text, beside = cell_text(table, key, column), beside_texts(table, key, column)
    return f"{text} ({', '.join(beside)})" if beside and column in table.rows[key] else text
