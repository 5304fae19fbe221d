"""Where records come from: a store's evaluate artifacts, and the rows recorded with the project."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.records import Record

Origin = Literal["run", "recorded"]


@dataclass(frozen=True)
class Entry:
    """A record and where it comes from."""

    record: Record
    origin: Origin


def from_store(root: Path) -> list[Entry]:
    """Return the records of all finished evaluations of a store, whatever the order of its files.

    Raises:
        UserError: a record's bytes differ from its manifest, or it cannot be parsed.
    """
    return [Entry(record, "run") for record in sorted(_store_records(root), key=_order)]


def _store_records(root: Path) -> Iterator[Record]:
    for path in sorted((root / "evaluate").glob("*/record.json")):
        manifest = path.with_name("manifest.json")
        if ".set-aside-" in path.parent.name or not manifest.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        try:
            expected = json.loads(manifest.read_text(encoding="utf-8"))["files"][path.name]["sha256"]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{manifest} cannot be read", str(error), "delete its folder and run the same command again"
            ) from error
        if hashlib.sha256(text.encode()).hexdigest() != expected:
            raise UserError(
                f"{path} was changed after it was written",
                "its bytes differ from its manifest",
                "delete its folder and run the same command again",
            )
        yield Record.from_json(text, str(path))


def recorded() -> list[Entry]:
    """Return the records that ship with the project."""
    folder = importlib.resources.files("leaderboard").joinpath("baselines")
    found: list[Record] = []
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.name.endswith(".jsonl"):
            lines = item.read_text(encoding="utf-8").splitlines()
            found += [Record.from_json(line, f"{item.name} line {number}") for number, line in enumerate(lines, 1)]
    return [Entry(record, "recorded") for record in sorted(found, key=_order)]


def _order(record: Record) -> tuple[object, ...]:
    s = record.subject
    return (
        record.suite_order,
        record.suite,
        record.item,
        record.probe_seed,
        s.generator,
        s.backbone,
        s.generator_seed,
        s.train_seed,
        record.key,
    )
