"""``compare A B``: two systems on their common test items, Holm over the whole table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.stats.difference import Difference, difference
from harness.stats.estimate import LEVEL, Estimate, holm
from leaderboard.agreement import agreements
from leaderboard.markup import md
from leaderboard.network import OUTSIDE, RECIPE, differences, facts_of
from leaderboard.rows import RowKey
from leaderboard.systems import system
from leaderboard.tables import Column, Table, Value, varied
from leaderboard.terms import Terms, differ
from leaderboard.ties import unpaired

Verdict = Literal["better", "worse", "not significantly different", "not comparable"]


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
    """Why not comparable, else what the interval generalises to."""
    agreement: Estimate | None = None
    """Error consistency of the two in the suite's single answers, at the suite's first column."""


def systems(texts: tuple[str, str], places: Sequence[Path]) -> tuple[Table, Table]:
    """Return the tables of two systems by the names that a board prints, each with ``@STORE`` if it is meant there.

    Raises:
        UserError: an unknown name, or one that stands for several rows.
    """
    first, second = (system(text, places) for text in texts)
    return first, second


def compare(first: Table, second: Table, names: tuple[str, str] = ("the first", "the second")) -> list[Comparison]:
    """Compare two systems in every main column either has, backbone by backbone; Holm over all that can be tested.

    A checkpoint from outside is compared with the only backbone of the other system, whatever its architecture.
    """
    found = []
    seen: set[frozenset[str]] = set()
    for backbone, sides in _backbones(first, second).items():
        rows = _row(first, sides[0]), _row(second, sides[1])
        known = agreements(*rows)
        for column, mine, other in _pairs(*map(_main, rows)):
            made_from = frozenset(
                [column.title, *(e.record.key for value in (mine, other) if value for e in value.sources)]
            )
            if made_from not in seen:  # measures of the images stand in the rows of every backbone
                agreement = next((known.pop(slot) for slot in list(known) if _same_terms(slot, column)), None)
                found.append(replace(compare_values(backbone, column, mine, other), agreement=agreement))
            seen.add(made_from)
    tested = [i for i, one in enumerate(found) if one.difference is not None]
    adjusted = holm([one.difference.p for one in found if one.difference is not None])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = _judged(found[i], p, _short(names))
    return found


def _backbones(first: Table, second: Table) -> dict[str, tuple[str, str]]:
    """Return title to the backbones that stand against each other: equal ones, or a checkpoint's and the other's only one."""
    mine, other = ({key.backbone for key in table.rows} for table in (first, second))
    outside = any(key.generator.startswith("checkpoint:") for table in (first, second) for key in table.rows)
    if outside and len(mine) == len(other) == 1 and mine != other:
        (a,), (b,) = mine, other
        return {f"{a} against {b}": (a, b)}
    return {backbone: (backbone, backbone) for backbone in sorted(mine | other)}


def _short(names: tuple[str, str]) -> tuple[str, str]:
    """Return names without their stores, where they differ without them."""
    first, second = (head if at and Path(place).exists() else name
                     for name in names for head, at, place in [name.rpartition("@")])  # fmt: skip
    return (first, second) if first != second else names


def _row(table: Table, backbone: str) -> dict[Column, Value]:
    keys: list[RowKey] = [key for key in table.rows if key.backbone == backbone]
    return table.rows[keys[0]] if keys else {}


def _main(cells: dict[Column, Value]) -> dict[Column, Value]:
    return {column: value for column, value in cells.items() if column.role != "secondary"}


def _same_terms(slot: tuple[str, Terms], column: Column) -> bool:
    """Return whether a suite's answers were given on the terms of a column; which metric is read from them makes no difference."""
    suite, terms = slot
    return suite == column.suite and set(terms.differing(column.terms)) <= {"members"}


def _pairs(first: dict[Column, Value], second: dict[Column, Value]) -> list[tuple[Column, Value | None, Value | None]]:
    """Return the values of two rows side by side: on equal terms where there are such, else the plainest that both have left."""
    slots: dict[tuple[str, int, str], list[dict[Column, Value]]] = {}
    for side, cells in enumerate((first, second)):
        for column, value in cells.items():
            slots.setdefault((column.suite, column.position, column.metric), [{}, {}])[side][column] = value
    found: list[tuple[Column, Value | None, Value | None]] = []
    for mine, other in slots.values():
        by_terms = {column.terms: column for column in other}
        for column in [column for column in mine if column.terms in by_terms]:
            found.append((column, mine.pop(column), other.pop(by_terms[column.terms])))
        left = [sorted(side.items(), key=lambda item: item[0].rank) for side in (mine, other)]
        for at in range(max(map(len, left))):
            a, b = (side[at] if at < len(side) else None for side in left)
            column = (a or b)[0]  # type: ignore[index]
            found.append((column, a[1] if a else None, b[1] if b else None))
    return sorted(found, key=lambda pair: pair[0].place)


def compare_values(
    backbone: str, column: Column, first: Value | None, second: Value | None, replicates: int = 10_000
) -> Comparison:
    """Return the difference of two values before any correction, or why there is none."""
    why = incomparable(first, second)
    if why or first is None or second is None:
        return Comparison(backbone, column, first, second, None, None, "not comparable", why)
    if not first.parts or not second.parts:
        return Comparison(backbone, column, first, second, unpaired(first, second), None, "not significantly different")
    try:
        found = difference(first.parts, second.parts, replicates=replicates)
    except ValueError as error:
        return Comparison(backbone, column, first, second, None, None, "not comparable", str(error))
    return Comparison(backbone, column, first, second, found, None, "not significantly different")


def incomparable(first: Value | None, second: Value | None) -> str:
    """Return why two values may not be compared; empty where they may. How the networks were made or are fed is no reason."""
    for value, name in ((first, "first"), (second, "second")):
        if value is None:
            return f"the {name} has not been measured"
    assert first is not None and second is not None
    differing = terms_apart(first, second)
    if differing:
        return differ(differing)
    for value, name in ((first, "first"), (second, "second")):
        if not value.valid:
            return f"the {name} fails its validity check: {', '.join(value.failed)}"
        if value.estimate.value is None:
            return f"the {name} is undefined: {value.estimate.reason}"
    return ""


def terms_apart(first: Value, second: Value) -> list[str]:
    """Return in which terms of comparison two values differ, in words."""
    return [] if first.terms is None or second.terms is None else first.terms.differing(second.terms)


def _judged(one: Comparison, p: float, names: tuple[str, str]) -> Comparison:
    d = one.difference
    assert d is not None and one.first is not None and one.second is not None
    if one.column.better == "neither":
        return replace(one, holm=p, verdict="not comparable", why="neither direction is better")
    verdict: Verdict = "not significantly different"
    if p < 1 - LEVEL:
        verdict = "better" if (d.value > 0) == (one.column.better == "higher") else "worse"
    return replace(one, holm=p, verdict=verdict, why=_covered(d, one.first, one.second, names))


def _covered(d: Difference, first: Value, second: Value, names: tuple[str, str]) -> str:
    """Return what the interval generalises to.

    Where one side has a single seed its scatter cannot be known. The other's is taken for both: they train one network by one
    recipe, and an interval that left the single seed's luck out would be read as a claim about its generator and be wrong too
    often. Nor is it moderated over the columns as in the gate: that serves a whole set of metrics well, and fails the one that
    scatters more than the rest. Two seeds say little, and the interval is as wide as that (docs/results.md has the simulation).
    """
    if d.se_seeds is None:
        return "these weights, new images"
    single = [name for value, name in zip((first, second), names, strict=True) if len(value.seeds) == 1]
    if not single:
        return "new images and new seeds"
    other, seeds = (names[1], second.seeds) if single[0] == names[0] else (names[0], first.seeds)
    value = first if single[0] == names[0] else second
    imported = all(entry.record.comparability.recipe in OUTSIDE for entry in value.sources)
    alone = "is a single file" if imported else "has one seed"
    return f"new images and new seeds; {single[0]} {alone}, assumed to vary like the {len(seeds)} seeds of {other}"


# --- text ---------------------------------------------------------------------------------------------------------------

NOTE = (
    "Differences are first - second in percent or points, with 95 % intervals, paired on common test items; p is Holm-adjusted "
    "over the table. *These weights*: one seed of each system says nothing about its generator."
)


AGREEMENT = (
    "Error consistency, Cohen's kappa of right and wrong answers to the same items (0: independent errors, 1: the same)"
)


def to_markdown(found: Sequence[Comparison], names: tuple[str, str]) -> str:
    """Return one block per backbone; facts in which the two networks differ stand above its table."""
    names = (md(names[0]), md(names[1]))
    lines = [f"# {names[0]} against {names[1]}\n"]
    for backbone in dict.fromkeys(one.backbone for one in found):
        mine = [one for one in found if one.backbone == backbone]
        seeds = [text for text in (_seeds([one.first for one in mine]), _seeds([one.second for one in mine])) if text]
        apart = networks_apart(mine)
        lines += [f"## {md(backbone)}" + (f": {' and '.join(seeds)}" if seeds else "") + "\n",
                  *([f"{md(' '.join(apart))}\n"] if apart else []),
                  f"| | {names[0]} | {names[1]} | difference | p | {names[0]} is | interval generalises to |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [_line(one) for one in mine]
        lines += ["", *_consistency(mine)]
    return "\n".join([*lines, NOTE]) + "\n"


def _consistency(found: Sequence[Comparison]) -> list[str]:
    """Return a sentence with the error consistency of the two in each suite that has single answers."""
    said = [f"{one.column.suite} {e.value:.2f}" + ("" if e.low is None or e.high is None else f" [{e.low:.2f}, {e.high:.2f}]")
            + f" n={e.n}" for one in found if (e := one.agreement) is not None and e.value is not None]  # fmt: skip
    return [f"{AGREEMENT}: {'; '.join(said)}.\n"] if said else []


def networks_apart(found: Sequence[Comparison]) -> list[str]:
    """Return in sentences in what the networks of two systems differ, as far as their records say it, with both values."""
    sides = [[entry.record for one in found for value in [getattr(one, side)] if value for entry in value.sources
              if entry.record.subject.backbone != "-"] for side in ("first", "second")]  # fmt: skip
    facts = [next(filter(None, map(facts_of, records)), {}) for records in sides]
    apart = differences(facts[0], facts[1]) if all(facts) else []
    recipes = [{record.comparability.recipe for record in records} for records in sides]
    if all(recipes) and recipes[0] != recipes[1] and not any(text.startswith(RECIPE) for text in apart):
        imported = [name for name, side in zip(("first", "second"), recipes, strict=True) if side & set(OUTSIDE)]
        apart.append(RECIPE + (f" (not known of the {' and the '.join(imported)})" if imported else ""))
    said = [f"The two differ in {'; '.join(apart)}."] if apart else []
    if any(facts) and not all(facts):
        said.append(
            f"The records of the {'second' if facts[0] else 'first'} are older and say nothing of its preprocessing."
        )
    return said


def _seeds(values: Sequence[Value | None]) -> str:
    """Return the seeds of the column that has most."""
    found = [value.seeds for value in values if value is not None]
    return varied(max(found, key=lambda seeds: (len(seeds), len({seed[1] for seed in seeds})))) if found else ""


def _line(one: Comparison) -> str:
    scale, d = one.column.scale, one.difference
    values = [_number(value, scale) for value in (one.first, one.second)]
    title = md(one.column.title + _companions(one))
    verdict = f"not comparable ({md(one.why)})" if one.verdict == "not comparable" else one.verdict
    if d is None or one.holm is None:
        return f"| {title} | {values[0]} | {values[1]} | – | – | {verdict} | – |"
    text = f"{scale * d.value:+.1f} [{scale * d.low:+.1f}, {scale * d.high:+.1f}]"
    scope = "–" if one.verdict == "not comparable" else md(one.why)
    return f"| {title} | {values[0]} | {values[1]} | {text} | {one.holm:.3g} | {verdict} | {scope} |"


def _companions(one: Comparison) -> str:
    """Return the names of the companions whose values stand in brackets behind those of the two systems."""
    names = dict.fromkeys(name for value in (one.first, one.second) if value for name in value.beside)
    return f" ({', '.join(names)})" if names else ""


def _number(value: Value | None, scale: float) -> str:
    if value is None or value.estimate.value is None:
        return "–"
    beside = ["–" if number is None else f"{100 * number:.1f}" for number in value.beside.values()]
    return f"{scale * value.estimate.value:.1f}{'?' if value.findings else ''}" + (
        f" ({', '.join(beside)})" if beside else ""
    )


def to_csv(found: Sequence[Comparison]) -> str:
    """Return one line per column and backbone, in fractions or points."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["backbone", "column", "first", "second", "difference", "low", "high", "se_items", "se_seeds", "n", "p",
                     "p_holm", "method", "verdict", "why", "kappa", "kappa_low", "kappa_high"])  # fmt: skip
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
        e = one.agreement
        kappa = ["" if x is None else repr(x) for x in ((e.value, e.low, e.high) if e is not None else (None,) * 3)]
        writer.writerow([one.backbone, one.column.title, *values, *numbers, one.verdict, one.why, *kappa])
    return stream.getvalue()
