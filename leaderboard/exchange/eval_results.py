"""The board as ``.eval_results`` of the Hugging Face Hub: one YAML file per row, through ``huggingface_hub``'s own class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.core.errors import UserError
from leaderboard.exchange.results import PROJECT, Result, cleaned, iso, measured_at, rows, slug
from leaderboard.sources import Entry

MISSING = (
    "huggingface_hub has no EvalResultEntry",
    "the installed version is older than 1.4, or not there",
    "pip install 'databias-harness[export]'",
)


def documents(entries: Sequence[Entry]) -> dict[str, str]:
    """Return path to YAML of every row: a folder per network, laid out as its repository on the Hub.

    Raises:
        UserError: the installed ``huggingface_hub`` does not know the format.
    """
    try:
        import yaml
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError as error:
        raise UserError(*MISSING) from error

    found = {}
    for row in rows(entries):
        made = [EvalResultEntry(**cleaned(_entry(one))) for one in row.results]
        found[f"{row.name}/.eval_results/{PROJECT}.yaml"] = (
            f"---\n{yaml.safe_dump(eval_result_entries_to_yaml(made), sort_keys=False, allow_unicode=True)}"
        )
    return found


def _entry(one: Result) -> dict[str, Any]:
    when = measured_at(one.value.sources)
    return {
        "dataset_id": f"{PROJECT}/{slug(one.facts['suite'])}",
        "task_id": one.facts["column"],
        "value": one.score,
        "date": None if when is None else iso(when),
        "notes": notes(one),
    }


def notes(one: Result) -> str:
    """Return in one line of text what the format has no field for: unit, direction, interval, n, seeds, validity, conditions."""
    f = one.facts
    low_high = "no interval" if f["low"] is None else f"95 % interval {f['low']!r} to {f['high']!r} ({f['method']})"
    spread = "" if f["seed_sd"] is None else f", standard deviation {f['seed_sd']!r}"
    parts = [
        f"unit {f['unit']}", f"{f['direction']} is better", low_high, f"n {f['n']}", f"generalises to {f['population']}",
        f"generator/train seeds {f['seeds']}{spread}", f"validity checks {f['checks']}",
        *(f"{name} {number!r}" for name, number in one.value.beside.items() if number is not None),
        f"profile {f['profile']}", f"suite version {f['suite_version']}", f"protocol {f['protocol']}", f"data {f['data']}",
        *([f"findings {f['findings']}"] if f["findings"] else []), *([f"remark {f['remark']}"] if f["remark"] else []),
    ]  # fmt: skip
    return "; ".join(" ".join(part.split()) for part in parts)
