"""Outcomes of conformance checks, and how they are shown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from harness.core.errors import DataMissing, UserError

State = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Outcome:
    """One promise of the contract and whether it holds."""

    check: str
    state: State
    text: str
    """What was seen, with numbers."""
    fix: str = ""
    """What to do where it failed."""


def passed(check: str, text: str) -> Outcome:
    """Return a promise that holds."""
    return Outcome(check, "passed", text)


def failed(check: str, text: str, fix: str) -> Outcome:
    """Return a promise that is broken, with what to do."""
    return Outcome(check, "failed", text, fix)


def judge(check: str, problems: Sequence[str], good: str, fix: str) -> Outcome:
    """Return the outcome of a check from what it found wrong; at most three examples are shown."""
    if not problems:
        return passed(check, good)
    shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    return failed(check, shown, fix)


def guard(check: str, steps: Iterator[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes; if the plugin fails meanwhile, or breaks its contract, that is the outcome of ``check``.

    Raises:
        DataMissing: what the check needs is missing.
    """
    try:
        yield from steps
    except DataMissing:
        raise
    except UserError as error:
        yield failed(check, f"{error.what}: {error.why}", error.fix)


def render(name: str, kind: str, outcomes: Sequence[Outcome], as_json: bool) -> str:
    """Return the report for a person, or as JSON."""
    broken = sum(each.state == "failed" for each in outcomes)
    if as_json:
        facts = {"name": name, "kind": kind, "passed": not broken, "checks": [asdict(each) for each in outcomes]}
        return json.dumps(facts, indent=1, sort_keys=True)
    lines = [f"{kind} {name}"]
    for each in outcomes:
        mark = {"passed": "ok", "failed": "FAILED", "not applicable": "--"}[each.state]
        head = f"  {mark:<7} {each.check:<24} "
        lines += textwrap.wrap(each.text, 110, initial_indent=head, subsequent_indent=" " * len(head))
        if each.fix:
            lines += textwrap.wrap(f"fix: {each.fix}", 110, initial_indent=" " * 35, subsequent_indent=" " * 40)
    lines.append(f"{len(outcomes) - broken} of {len(outcomes)} kept" + ("" if broken else ": it conforms"))
    return "\n".join(lines)
