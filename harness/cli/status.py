"""The command ``status``: what a run in a store is doing now."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import DataMissing, refuse_malformed
from harness.core.quantities import duration
from harness.run.status import FILE, RunStatus, read_status, seconds_since
from harness.store.cells import SHOWN_KINDS


def show_status(store: Path, as_json: bool) -> int:
    """Print the status of a store's last run, and return the exit code: 0 running or finished, 1 anything else, 4 no run."""
    found = read_status(store)
    if found is None:
        if as_json:
            print(json.dumps({"verdict": "none", "store": str(store)}, indent=1, sort_keys=True))
        else:
            print(f"no run is recorded in {store}; another store: --store FOLDER", file=sys.stderr)
        return DataMissing.code
    if as_json:
        extra = {
            "verdict": found.verdict,
            "reason": found.reason,
            "heartbeat_age": found.heartbeat_age,
            "store": str(store),
        }
        print(json.dumps({**found.facts, **extra}, indent=1, sort_keys=True))
    else:
        with refuse_malformed(store / FILE, "delete it; the next run writes it again"):
            lines = [*_lines(found)]
        for line in (*lines, *_remaining(found, store)):
            print(line)
    return 0 if found.good else 1


def _remaining(found: RunStatus, store: Path) -> Iterator[str]:
    """Yield what an executor has out there, whether or not its command is alive."""
    name = found.facts.get("executor")
    if name and isinstance(name, str):
        from harness.run.executors import executor_class

        lines = executor_class(name).remaining(store)
        if lines:
            yield f"jobs of {name}:"
        for line in lines:
            yield from (f"  {part}" for part in line.splitlines())


def _lines(found: RunStatus) -> Iterator[str]:
    facts = found.facts
    yield _head(found)
    yield f"cells: {facts['done']} of {facts['total']} done" + (
        f", {facts['failed']} failed" if facts["failed"] else ""
    )
    kinds = facts.get("kinds", {})
    for kind, counts in ((kind, kinds[kind]) for kind in SHOWN_KINDS if kind in kinds):
        failed = f", {counts['failed']} failed or blocked" if counts["failed"] else ""
        yield f"  {kind:<11}{counts['done']:>5} of {counts['total']}{failed}"
    left = facts.get("seconds_left")
    if found.verdict == "running" and left is not None:
        yield f"time left: about {duration(left)}"
    tasks = facts.get("running", [])
    if tasks:
        yield "workers:" if found.verdict == "running" else "workers when it stopped:"
    for task in tasks:
        yield from _task(task)
    failures = [entry for entry in facts["cells"].values() if entry["state"] in ("failed", "blocked")]
    if failures:
        yield "failures:"
    for entry in failures:
        yield f"  {entry['kind']} {entry['label']}: {entry['reason']}"
        if entry["state"] == "failed" and entry.get("log"):
            yield f"    log: {entry['log']}"
    if found.verdict in ("dead", "interrupted", "failed"):
        yield "to continue, run the same command again: finished work is kept"


def _head(found: RunStatus) -> str:
    facts = found.facts
    if "schema" not in facts:
        return f"{found.verdict}" + (f" ({found.reason})" if found.reason else "")
    process = f"process {facts['pid']} on {facts['host']}"
    age = duration(found.heartbeat_age or 0.0)
    spent = duration(float(facts["seconds"]))
    if found.verdict == "running":
        return f"running: {process}, started {duration(seconds_since(facts['started']))} ago, last heartbeat {age} ago"
    if found.verdict == "dead":
        return f"dead: {found.reason}; it ran for {spent}, last heartbeat {age} ago"
    words = {"finished": "finished", "failed": "finished with failures", "interrupted": "interrupted"}
    return f"{words[found.verdict]} {age} ago after {spent}: {process}"


def _task(task: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {task['task']}"
    steps = f"{task['done']}/{task['total']} {task.get('note', '')}".strip() if task["total"] else ""
    since = f"for {duration(seconds_since(task['since']))}" if "since" in task else ""
    left = task.get("seconds_left")
    place = task.get("place") or f"pid {task['pid']}"
    words = [steps, since, f"about {duration(left)} left" if left is not None else "", place]
    yield f"    {', '.join(filter(None, words))}"
