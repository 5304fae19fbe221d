"""The commands ``store ls`` and ``store gc``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import DEFAULT_STORE, JsonOption, OneStore, StoreOption, examples
from harness.core.errors import DataMissing, UserError
from harness.core.quantities import duration, size

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List or clean up the artifacts of a store.")


@app.command(epilog=examples("store ls", "store ls my-store --json"))
def ls(folder: OneStore = None, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List artifacts with size, age, state and use.

    "used by" counts the finished evaluations that an artifact was made for; an evaluation (-) is itself a result. States: done;
    partial (a run can resume it); damaged; moved aside (an earlier run found it damaged or stale and rebuilt it).
    """
    from harness.run.status import seconds_since
    from harness.store.housekeeping import entries

    store = _existing(folder or store)
    found = entries(store)
    if run := _active(store):
        print(f"{run}: it is writing to some of the partial artifacts", file=sys.stderr)
    if as_json:
        print(json.dumps([_facts(store, asdict(entry), entry.folder) for entry in found], indent=1, sort_keys=True))
        return
    for entry in found:
        used = "-" if entry.kind == "evaluate" else str(entry.used_by)
        print(f"{entry.path}\n  {size(entry.bytes):>8}  {duration(seconds_since(entry.changed)) + ' old':<16}"
              f"{entry.state:<12} used by {used:<4} {entry.label}".rstrip())  # fmt: skip
    print(f"{len(found)} artifacts, {size(sum(entry.bytes for entry in found))}", file=sys.stderr)


@app.command(epilog=examples("store gc", "store gc my-store --delete"))
def gc(
    folder: OneStore = None,
    store: StoreOption = DEFAULT_STORE,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it nothing is changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List or delete what no result needs.

    Without --delete nothing is changed. Listed are: datasets, backbones, features and other intermediate artifacts that no
    finished evaluation was made from; unfinished work; folders that an earlier run moved aside; and leftovers of interrupted
    writes. Kept are: every evaluation with its rows, record and units; everything an evaluation was made from, so that a
    leaderboard can show it and a new suite can use it; and everything that the store's last run needs, finished or not.

    While a run is active in the store, what it is writing is not listed, and --delete refuses to work.
    """
    from harness.store.housekeeping import garbage, remove

    place = _existing(folder or store)
    run = _active(place)
    if run and delete:
        raise UserError(
            f"{run} in {place}",
            "artifacts are removed only while none is",
            "wait until it ends, or interrupt it; python -m harness status shows what it is doing",
        )
    found = garbage(place, _of_last_run(place), active=bool(run))
    removed, busy = remove(place, found) if delete else ([], [])
    if as_json:
        facts = [_facts(place, asdict(each), each.path) | {"removed": each in removed} for each in found]
        print(
            json.dumps(
                {"garbage": facts, "bytes": sum(each.bytes for each in found), "run_is_active": bool(run)},
                indent=1,
                sort_keys=True,
            )
        )
        return
    for each in found:
        print(f"{size(each.bytes):>8}  {each.path.relative_to(place)}  ({each.reason})")
    for each in busy:
        print(f"kept: {each.path.relative_to(place)}: a process is working on it", file=sys.stderr)
    if run:
        print(f"{run}: what it is writing is not listed, and nothing is deleted before it ends", file=sys.stderr)
    print(_total(found, removed, delete), file=sys.stderr)


def _total(found: Sequence[Any], removed: Sequence[Any], delete: bool) -> str:
    if delete:
        return f"deleted {len(removed)} items, {size(sum(each.bytes for each in removed))} freed"
    if not found:
        return "nothing to delete"
    return f"{len(found)} items, {size(sum(each.bytes for each in found))} can be freed; add --delete to delete them"


def _existing(store: Path) -> Path:
    if not store.is_dir():
        raise DataMissing(f"{store} does not exist", "no such folder", "name the folder of a store")
    return store.resolve()


def _active(store: Path) -> str:
    """Return which run is active in a store, as the beginning of a sentence; empty if none is."""
    from harness.run.status import read_status
    from harness.store.housekeeping import in_use

    status = read_status(store)
    if status is not None and status.verdict == "running":
        return f"a run is active (process {status.facts['pid']} on {status.facts['host']})"
    return "a run is active" if in_use(store) else ""


def _of_last_run(store: Path) -> frozenset[str]:
    """Folders below the store that its last run makes or reads."""
    from harness.run.status import read_status

    status = read_status(store)
    if status is None:
        return frozenset()
    return frozenset((*status.facts["cells"], *status.facts.get("reads", ()), *status.facts.get("writes", ())))


def _facts(store: Path, facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """Plain JSON values; paths below the store."""
    return {name: value for name, value in facts.items() if name not in ("folder", "path")} | {
        "path": str(path.relative_to(store.resolve()))
    }
