"""``compare A B``: two systems on their common test items, Holm over the whole table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.inference import Difference, difference
from harness.names import near
from harness.stats import LEVEL, holm, normal_quantile
from harness.student import quantile, tail
from leaderboard.comparable import facts_of
from leaderboard.sources import Entry, gather, recorded
from leaderboard.tables import Column, RowKey, Table, Value, build_tables, varied

Verdict = Literal["better", "worse", "not separable", "not comparable"]


@dataclass(frozen=True)
class Comparison:
    """One line of a comparison: the first system against the second in one column."""

    backbone: str
    column: Column
    first: Value | None
    second: Value | None
    difference: Difference | None
    holm: float | None
    """Holm-adjusted p over the table."""
    verdict: Verdict
    why: str = ""
    """Why not comparable, else what the difference speaks for."""


def systems(texts: tuple[str, str], places: Sequence[Path]) -> tuple[Table, Table]:
    """Return the tables of ``GENERATOR[:VARIANT][@STORE]`` twice.

    Raises:
        UserError: unknown generator, or one that stands for several datasets.
    """
    first, second = (_system(text, places) for text in texts)
    return first, second


def _system(text: str, places: Sequence[Path]) -> Table:
    name, _, place = text.partition("@")
    generator, _, variant = name.partition(":")
    every = gather([Path(place)] if place else places)
    chosen = [entry for entry in every if entry.record.subject.generator == generator]
    if not chosen and not place:  # rows that ship with the project; paired only where they come with units
        profiles = {entry.record.comparability.profile for entry in every}
        beside = [entry for entry in recorded() if entry.record.comparability.profile in profiles]
        chosen = [entry for entry in beside if entry.record.subject.generator == generator]
    if not chosen:
        known = sorted({entry.record.subject.generator for entry in every})
        raise UserError(f"no results of {generator!r}", f"the store has {', '.join(known) or 'none'}",
                        f"{near(generator, known)}give GENERATOR[:VARIANT][@STORE]")  # fmt: skip
    chosen = [entry for entry in chosen if _is_variant(entry, variant)]
    table = build_tables(chosen)[0] if chosen else Table("", [], {}, {})
    variants = sorted({key.variant for key in table.rows})
    if not chosen or len(variants) > 1:
        raise UserError(f"{text!r} does not name one dataset", f"variants of {generator}: {', '.join(variants) or 'none'}",
                        f"give one, e.g. {generator}:{(variants or ['KEY'])[0]}")  # fmt: skip
    return table


def _is_variant(entry: Entry, variant: str) -> bool:
    return not variant or entry.record.dataset.startswith(variant)


def compare(first: Table, second: Table) -> list[Comparison]:
    """Compare two systems in every column either has, backbone by backbone; Holm over all that can be tested."""
    found = []
    seen: set[frozenset[str]] = set()
    for backbone in sorted({key.backbone for table in (first, second) for key in table.rows}):
        a, b = (_row(table, backbone) for table in (first, second))
        for column in sorted({*a, *b}):
            pair = a.get(column), b.get(column)
            made_from = frozenset([column.title, *(e.record.key for value in pair if value for e in value.sources)])
            if made_from not in seen:  # measures of the images stand in the rows of every backbone
                found.append(compare_values(backbone, column, *pair))
            seen.add(made_from)
    tested = [i for i, one in enumerate(found) if one.difference is not None]
    adjusted = holm([one.difference.p for one in found if one.difference is not None])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = _judged(found[i], p)
    return found


def _row(table: Table, backbone: str) -> dict[Column, Value]:
    keys: list[RowKey] = [key for key in table.rows if key.backbone == backbone]
    return table.rows[keys[0]] if keys else {}


def compare_values(
    backbone: str, column: Column, first: Value | None, second: Value | None, replicates: int = 10_000
) -> Comparison:
    """Return the difference of two values before any correction, or why there is none."""
    why = incomparable(first, second)
    if why or first is None or second is None:
        return Comparison(backbone, column, first, second, None, None, "not comparable", why)
    if not first.parts or not second.parts:
        return Comparison(backbone, column, first, second, unpaired(first, second), None, "not separable")
    try:
        found = difference(first.parts, second.parts, replicates=replicates)
    except ValueError as error:
        return Comparison(backbone, column, first, second, None, None, "not comparable", str(error))
    return Comparison(backbone, column, first, second, found, None, "not separable")


def incomparable(first: Value | None, second: Value | None) -> str:
    """Return why two values may not be compared; empty where they may."""
    for value, name in ((first, "first"), (second, "second")):
        if value is None:
            return f"the {name} has not been measured"
    assert first is not None and second is not None
    mine, other = ([facts_of(entry.record) for entry in value.sources] for value in (first, second))
    differing = [name for name in mine[0] if {repr(f[name]) for f in mine} != {repr(f[name]) for f in other}]
    if differing:
        return f"{', '.join(differing)} differ"
    for value, name in ((first, "first"), (second, "second")):
        if not value.valid:
            return f"the {name} fails its validity check: {', '.join(value.failed)}"
        if value.estimate.value is None:
            return f"the {name} is undefined: {value.estimate.reason}"
    return ""


def unpaired(first: Value, second: Value) -> Difference | None:
    """Return the difference as if the systems had been measured on different items, or None without intervals."""
    a, b = first.estimate, second.estimate
    if None in (a.low, a.high, b.low, b.high) or a.value is None or b.value is None:
        return None
    squares = sum(((e.high or 0.0) - (e.low or 0.0)) ** 2 for e in (a, b)) / (2 * normal_quantile()) ** 2
    spreads = [value.spread.sd**2 / len(value.seeds) for value in (first, second) if value.spread]
    df = sum(value.spread.df for value in (first, second) if value.spread) or 1e9
    d, se = a.value - b.value, math.sqrt(squares + sum(spreads))
    half = (quantile(df) if df < 1e9 else normal_quantile()) * se
    upper = tail(d / se, df) if se else 0.5
    p = 2 * min(upper, 1 - upper)
    seeds = math.sqrt(sum(spreads)) if spreads else None
    return Difference(d, d - half, d + half, math.sqrt(squares), seeds, df, p, upper, 1 - upper, min(a.n, b.n),
                      "unpaired: the test items differ or were not kept")  # fmt: skip


def _judged(one: Comparison, p: float) -> Comparison:
    d = one.difference
    assert d is not None and one.first is not None and one.second is not None
    if one.column.better == "neither":
        return replace(one, holm=p, verdict="not comparable", why="neither direction is better")
    verdict: Verdict = "not separable"
    if p < 1 - LEVEL:
        verdict = "better" if (d.value > 0) == (one.column.better == "higher") else "worse"
    seeds = min(len(one.first.seeds), len(one.second.seeds))
    scope = "new seeds and images" if d.se_seeds is not None and seeds > 1 else "these weights, new images"
    return replace(one, holm=p, verdict=verdict, why=scope)


# --- text ---------------------------------------------------------------------------------------------------------------

NOTE = (
    "Differences are first - second in percent or points, with 95 % intervals, paired on common test items; p is Holm-adjusted "
    "over the table. *These weights*: one seed of a system says nothing about its generator."
)


def to_markdown(found: Sequence[Comparison], names: tuple[str, str]) -> str:
    """Return one block per backbone."""
    lines = [f"# {names[0]} against {names[1]}\n"]
    for backbone in dict.fromkeys(one.backbone for one in found):
        mine = [one for one in found if one.backbone == backbone]
        seeds = [text for text in (_seeds([one.first for one in mine]), _seeds([one.second for one in mine])) if text]
        lines += [f"## {backbone}" + (f": {' and '.join(seeds)}" if seeds else "") + "\n",
                  f"| | {names[0]} | {names[1]} | difference | p | {names[0]} is | speaks for |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [_line(one) for one in mine]
        lines.append("")
    return "\n".join([*lines, NOTE]) + "\n"


def _seeds(values: Sequence[Value | None]) -> str:
    """Return the seeds of the column that has most."""
    found = [value.seeds for value in values if value is not None]
    return varied(max(found, key=lambda seeds: (len(seeds), len({seed[1] for seed in seeds})))) if found else ""


def _line(one: Comparison) -> str:
    scale, d = one.column.scale, one.difference
    values = [_number(value, scale) for value in (one.first, one.second)]
    verdict = f"not comparable ({one.why})" if one.verdict == "not comparable" else one.verdict
    if d is None or one.holm is None:
        return f"| {one.column.title} | {values[0]} | {values[1]} | – | – | {verdict} | – |"
    text = f"{scale * d.value:+.1f} [{scale * d.low:+.1f}, {scale * d.high:+.1f}]"
    scope = "–" if one.verdict == "not comparable" else one.why
    return f"| {one.column.title} | {values[0]} | {values[1]} | {text} | {one.holm:.3g} | {verdict} | {scope} |"


def _number(value: Value | None, scale: float) -> str:
    return "–" if value is None or value.estimate.value is None else f"{scale * value.estimate.value:.1f}"


def to_csv(found: Sequence[Comparison]) -> str:
    """Return one line per column and backbone, in fractions or points."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["backbone", "column", "first", "second", "difference", "low", "high", "se_items", "se_seeds", "n", "p",
                     "p_holm", "method", "verdict", "why"])  # fmt: skip
    for one in found:
        d = one.difference
        values = [
            "" if v is None or v.estimate.value is None else repr(v.estimate.value) for v in (one.first, one.second)
        ]
        numbers: list[object] = [""] * 9
        if d is not None and one.holm is not None:
            seeds = "" if d.se_seeds is None else repr(d.se_seeds)
            numbers = [
                *(repr(x) for x in (d.value, d.low, d.high, d.se_items)),
                seeds,
                d.n,
                repr(d.p),
                repr(one.holm),
                d.method,
            ]
        writer.writerow([one.backbone, one.column.title, *values, *numbers, one.verdict, one.why])
    return stream.getvalue()
