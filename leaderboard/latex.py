"""The board as LaTeX tables: one for each profile and suite."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.exports import (
    BEST,
    INVALID,
    RESOLUTION,
    RESOLUTION_MEANS,
    beside_texts,
    common_n,
    doubt,
    flag,
    resolution_text,
)
from leaderboard.footnotes import DOUBT, DOUBT_MEANS, footnotes
from leaderboard.markup import tex
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table

_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}


def to_latex(tables: list[Table]) -> str:
    """Return one ``table`` per board table and suite (package booktabs); intervals as small brackets, best groups in bold."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        for title, columns in table.groups():
            notes = "".join(
                f" {note}." for note in table.notes if any(note.startswith(f"{c.title}: ") for c in columns)
            )
            parts.append(_table(table, columns, f"{title}, {table.title}.{notes}"))
    return "\n".join(parts) + "\n"


def _table(table: Table, columns: Sequence[Column], caption: str) -> str:
    keys = [key for key, cells in table.rows.items() if any(column in cells for column in columns)]
    sizes = {column: common_n(table, keys, column) for column in columns}
    heads: list[str] = []
    for column in columns:
        heads += [tex(column.name) + _ARROWS[column.better] + _n(sizes[column]), *map(tex, table.beside(column))]
    lines = [
        r"\begin{table}[t]\centering\small",
        rf"\caption{{{tex(caption)} Percent, 95\,\% intervals of sampling error alone; $n$: test items; $\pm$: standard "
        rf"deviation over seeds, where there are several; bold: first tie group; {INVALID}: not ranked, a validity check failed; "
        rf"{DOUBT}: {DOUBT_MEANS}; \emph{{{RESOLUTION}}}: {tex(RESOLUTION_MEANS)}.}}",
        r"\begin{tabular}{ll" + "r" * len(heads) + "}",
        r"\toprule",
        " & ".join(["generator", "backbone", *heads]) + r" \\",
        r"\midrule",
    ]
    for key in keys:
        texts = [tex(key.label) + (r" \emph{recorded}" if key.origin == "recorded" else ""), tex(key.backbone)]
        for column in columns:
            texts.append(_cell(table, key, column, sizes[column] is None))
            texts += [text.replace("–", "--") for text in beside_texts(table, key, column)]
        lines.append(" & ".join(texts) + r" \\")
    lines += [r"\midrule", *_resolutions(table, keys, columns)]
    below = [rf"\par {{\scriptsize {tex(note)}}}" for note in footnotes(table, columns[0].suite)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}"])


def _resolutions(table: Table, keys: Sequence[RowKey], columns: Sequence[Column]) -> list[str]:
    """Return a line per backbone: the smallest difference that each column can show."""
    lines = []
    for backbone in dict.fromkeys(key.backbone for key in keys):
        texts = [rf"\emph{{{RESOLUTION}}}", tex(backbone)]
        for column in columns:
            texts += [resolution_text(table, column, backbone).replace("–", "--"), *("" for _ in table.beside(column))]
        lines.append(" & ".join(texts) + r" \\")
    return lines


def _n(n: int | None) -> str:
    return "" if n is None else rf" {{\scriptsize $n={n}$}}"


def _cell(table: Table, key: RowKey, column: Column, with_n: bool) -> str:
    value = table.rows[key].get(column)
    if value is None:
        return "--"
    e, scale = value.estimate, column.scale
    n = _n(e.n) if with_n else ""
    if e.value is None:
        return f"undefined{n}"
    text, sign = f"{scale * e.value:.1f}", flag(table, key, column)
    text = rf"\textbf{{{text}}}" if sign == BEST else text + (sign if sign == INVALID else "")
    text += doubt(value)
    if value.spread is not None:
        text += rf"$\pm${scale * value.spread.sd:.1f}"
    if e.low is not None and e.high is not None:
        text += rf" {{\scriptsize[{scale * e.low:.1f}, {scale * e.high:.1f}]}}"
    return text + n
