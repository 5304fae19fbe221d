"""Which results may share a column, and in what the others differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.records import Record
from leaderboard.sources import Entry

RECIPE = "pre-training recipe"


def _item(record: Record) -> str:
    return f"{record.suite}/{record.item}"


def _slot(record: Record) -> tuple[str, str]:
    return _item(record), record.subject.backbone


def facts_of(record: Record) -> dict[str, str]:
    """Return everything that must agree in a column, by name."""
    c = record.comparability
    return {
        "profile": c.profile,
        "suite version": str(c.suite_version),
        "data": str(sorted(c.data.items())),
        "class list": c.classes,
        "protocol": c.protocol,
        RECIPE: c.recipe,
    }


def _terms(record: Record) -> str:
    return repr(sorted((name, fact) for name, fact in facts_of(record).items() if name != RECIPE))


def _recipe(record: Record) -> str:
    return facts_of(record)[RECIPE]


def differing(entry: Entry, main: Sequence[Entry]) -> str:
    """Say what keeps an entry out of the main table."""
    here = facts_of(entry.record)
    for alike, names in ((_item, [name for name in here if name != RECIPE]), (_slot, [RECIPE])):
        for there in (facts_of(other.record) for other in main if alike(other.record) == alike(entry.record)):
            apart = [name for name in names if here[name] != there[name]]
            if apart:
                return f"{entry.record.suite}: {', '.join(apart)}"
            break
    return entry.record.suite


def comparable(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Split entries into the most common ones that may share columns, and the rest.

    Data, protocol, class list and version agree down a whole column; the pre-training recipe, whatever it is, agrees
    among the rows of one backbone.
    """
    chosen, rest = list(entries), []
    for place, mark in ((_item, _terms), (_slot, _recipe)):
        counts: dict[object, Counter[str]] = {}
        for entry in chosen:
            weight = 2 if entry.origin == "run" else 1
            counts.setdefault(place(entry.record), Counter())[mark(entry.record)] += weight
        common = {at: min(marks, key=lambda m, seen=marks: (-seen[m], m)) for at, marks in counts.items()}  # type: ignore[misc]
        rest += [entry for entry in chosen if mark(entry.record) != common[place(entry.record)]]
        chosen = [entry for entry in chosen if mark(entry.record) == common[place(entry.record)]]
    return chosen, rest
