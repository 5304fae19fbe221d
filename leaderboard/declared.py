"""What the generators and suites on a board declare: supervision, prompts, sampler, cost, licence; the formulas of the metrics."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from harness.core.names import plain
from leaderboard.markup import Section
from leaderboard.tables import Table

Declarations = Mapping[str, Mapping[str, str]]
"""Id of a generator or suite to its facts: those of ``FACTS``, or ``summary``, ``formula``, ``citation`` and ``metric NAME``."""
Source = Callable[[str], Declarations]
"""From ``generators`` or ``suites`` to what those declare that are installed."""
METRIC = "metric "
"""What the facts of a suite about one of its metrics begin with."""
FACTS = ("base model", "prompts", "sampler", "cost at full scale", "licence")


def none_declared(kind: str) -> Declarations:
    """Return no declarations: without an engine a board has nothing but its records."""
    return {}


def supervision(tables: Sequence[Table]) -> dict[str, str]:
    """Return the supervision that each generator used, as its records state it, by generator id, sorted."""
    found: dict[str, str] = {}
    for table in tables:
        for key in table.rows:
            found.setdefault(key.generator, ", ".join(table.information.get(key, ())).replace("_", " "))
    return {name: text for name, text in sorted(found.items()) if text}


def generators(tables: Sequence[Table], declared: Declarations) -> Section | None:
    """Return a table with a line per generator; facts of one that is not installed here are dashes."""
    rows = []
    for name, text in supervision(tables).items():
        facts = declared.get(name) or declared.get(name.partition(":")[0]) or {}
        rows.append((name, text, *(facts.get(fact) or "–" for fact in FACTS)))
    return Section("Generators", heads=("generator", "supervision used", *FACTS), rows=tuple(rows)) if rows else None


def formulas_of(suite: str, known: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the formulas of a suite and of its metrics, each by its name: ``texture-bias``, ``texture-bias/TI``."""
    metrics = [
        (f"{suite}/{fact.removeprefix(METRIC)}", text) for fact, text in known.items() if fact.startswith(METRIC)
    ]
    return [(suite, known.get("formula", "")), *metrics]


def formulas(tables: Sequence[Table], declared: Declarations) -> Section | None:
    """Return a table with a line per suite: its metrics on the board, how they are computed, and who proposed them."""
    metrics: dict[str, dict[str, None]] = {}
    second: dict[str, str] = {}
    for table in tables:
        for column in table.columns:
            metrics.setdefault(column.suite, {})[column.name] = None
            formula = (declared.get(column.suite) or {}).get(METRIC + column.metric.partition("@")[0], "")
            if column.role == "secondary" and formula:
                second.setdefault(f"{column.suite} {column.name}", formula)
    rows = []
    for suite, names in metrics.items():
        facts = declared.get(suite) or {}
        rows.append((suite, ", ".join(names), *(facts.get(fact) or "–" for fact in ("summary", "formula", "citation"))))
    rows += [(*name.split(" ", 1), "secondary", formula, "see the suite") for name, formula in second.items()]
    heads = ("suite", "metrics", "what it measures", "formula", "source")
    return Section("Metrics", heads=heads, rows=tuple(rows)) if rows else None


def to_terminal(tables: Sequence[Table], width: int) -> str:
    """Return one line per generator: the supervision it used."""
    found = supervision(tables)
    size = max(map(len, found), default=0) + 2
    lines = [textwrap.fill(plain(text), width, initial_indent=plain(name).ljust(size), subsequent_indent=" " * size)
             for name, text in found.items()]  # fmt: skip
    return (
        "\n".join(["supervision used (prompts, sampler, cost, licence: describe NAME):", *lines]) + "\n\n"
        if lines
        else ""
    )
