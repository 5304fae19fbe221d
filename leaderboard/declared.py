"""What the generators on a board say of themselves: what they were told, prompts, sampler, cost, licence."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from leaderboard.tables import Table

Declarations = Mapping[str, Mapping[str, str]]
"""Generator id to its facts, those of ``FACTS``."""
FACTS = ("base model", "prompts", "sampler", "cost at full scale", "licence")


def none_declared() -> Declarations:
    """Return no declarations: a board without an engine knows what the records say, and nothing else."""
    return {}


Source = Callable[[], Declarations]


def told(tables: Sequence[Table]) -> dict[str, str]:
    """Return each generator's information as its records state it, by generator id, in order of appearance."""
    found: dict[str, str] = {}
    for table in tables:
        for key in table.rows:
            found.setdefault(key.generator, ", ".join(table.information.get(key, ())).replace("_", " "))
    return {name: text for name, text in sorted(found.items()) if text}


def to_markdown(tables: Sequence[Table], declarations: Declarations) -> str:
    """Return a Markdown table with a line per generator; facts of one that is not installed here are dashes."""
    rows = []
    for name, text in told(tables).items():
        facts = declarations.get(name) or declarations.get(name.partition(":")[0]) or {}
        rows.append([name, text, *(facts.get(fact) or "–" for fact in FACTS)])
    if not rows:
        return ""
    heads = ("generator", "told", *FACTS)
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join(["## What the generators were told\n", lines[0], "|---" * len(heads) + "|", *lines[1:]]) + "\n"


def to_terminal(tables: Sequence[Table], width: int) -> str:
    """Return one line per generator: what it was told."""
    found = told(tables)
    size = max(map(len, found), default=0) + 2
    lines = [textwrap.fill(text, width, initial_indent=name.ljust(size), subsequent_indent=" " * size)
             for name, text in found.items()]  # fmt: skip
    return "\n".join(["told (prompts, sampler, cost, licence: describe NAME):", *lines]) + "\n\n" if lines else ""
