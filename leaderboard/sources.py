"""Where records come from: stores, baseline folders, and the rows recorded with the project. Any number may be merged."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.core.errors import DataMissing, UserError, refuse_malformed
from harness.core.files import parse_json, read_text
from harness.core.identity import content_key, key_of_parsed
from harness.core.limits import gunzip
from harness.core.seals import edited
from harness.stats.difference import Units
from harness.stats.units_file import unpack
from harness.store.records import Record
from leaderboard.setups import Setups

STORE_FILES = ("evaluate", "status.json", "locks")
"""What lies in a store: results, what the last run did, or what a first run begins with."""
WORLD = "world:"
"""What the names of calibration worlds begin with: instruments, never rows of a board."""
LINES = ".jsonl"
"""How the name of a file of records ends."""
Origin = Literal["run", "recorded"]
RECORD, UNITS, MANIFEST = "record.json", "units.npz", "manifest.json"
BASELINE_SCHEMA, SEAL = 2, "seal"
"""2 added the seal."""
HEAD = ("reason", "code", "measured_by", "gated", "values", "files")
BASELINE, BASELINE_RECORDS, BASELINE_UNITS = "baseline.json", "records.jsonl.gz", "units.npz"


@dataclass(frozen=True)
class Entry:
    """A record, where it comes from, and its per-item data for paired tests."""

    record: Record
    origin: Origin
    place: str = ""
    """Folder or file it was read from; shown in errors only."""
    units: tuple[Units, ...] = field(default=(), compare=False)
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """The evaluation's manifest without its file list: spec, provenance, cost. Empty for recorded rows."""

    def unit(self, metric: str) -> Units | None:
        """Return the per-item data of a metric for paired tests, or None."""
        return next((units for units in self.units if units.metric == metric), None)


def gather(places: Sequence[Path]) -> list[Entry]:
    """Return the records of stores, baseline folders and files of records, merged.

    Raises:
        UserError: a record or its files differ from its manifest, cannot be parsed, or disagrees with another of the
            same cell.
        DataMissing: a place does not exist, or is neither a store nor a baseline.
    """
    found: list[Entry] = []
    for place in places:
        if not place.exists():
            raise DataMissing(
                f"{place} does not exist", "no such folder", "give the folder of a store or of a baseline"
            )
        if place.is_file() and place.suffix == LINES:
            found += from_lines(place)
        elif (place / BASELINE).is_file():
            found += from_baseline(place)
        elif any((place / name).exists() for name in STORE_FILES):
            found += from_store(place)
        else:
            raise DataMissing(
                f"no results in {place}",
                "it is neither a store nor a baseline",
                "give the folder of a store or of a baseline",
            )
    return merge(found)


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Return each cell once, in board order: the newest record of it, with what only another knows.

    Raises:
        UserError: two records of one cell disagree.
    """
    kept: dict[str, Entry] = {}
    for entry in sorted(
        entries, key=lambda e: (_order(e.record), e.origin != "run", *(-n for n in _fullness(e.record)), e.place)
    ):
        first = kept.setdefault(entry.record.key, entry)
        if first is not entry:
            differing = _disagreement(first.record, entry.record)
            if differing:
                raise UserError(
                    f"two records of {entry.record.suite} {entry.record.item} of {entry.record.subject.generator} disagree",
                    f"{first.place or first.origin} and {entry.place or entry.origin} differ in {', '.join(differing)}",
                    "rescore both stores (python -m harness rescore STORE), or leave one out",
                )
            record = replace(first.record, setups=first.record.setups or entry.record.setups)
            kept[record.key] = replace(first, record=record, units=first.units or entry.units)
    return list(kept.values())


def _fullness(record: Record) -> tuple[int, int]:
    """Return by what one of two records of a cell is the better: its schema, then how many metrics it kept."""
    return record.schema, len(record.metrics)


def _disagreement(first: Record, second: Record) -> list[str]:
    """Return in what two records of one cell contradict each other; what only one of them says contradicts nothing."""
    names = ("suite", "item", "probe_seed", "comparability", "checks")
    found = [name for name in names if getattr(first, name) != getattr(second, name)]
    subjects = [replace(record.subject, network={}) for record in (first, second)]
    networks = [record.subject.network for record in (first, second)]
    if subjects[0] != subjects[1] or (all(networks) and networks[0] != networks[1]):
        found.append("subject")
    mine, other = ({metric.name: metric for metric in record.metrics} for record in (first, second))
    if any(mine[name] != other[name] for name in mine.keys() & other.keys()):
        found.append("metrics")
    return found


def from_store(root: Path) -> list[Entry]:
    """Return the records of all finished evaluations of a store, whatever the order of its files.

    Raises:
        UserError: a file is gone, its bytes differ from its manifest, or a record cannot be parsed.
    """
    setups = Setups(root)
    found = [_with_setups(_store_entry(folder), setups) for folder in _finished(root / "evaluate")]
    return sorted(found, key=lambda entry: _order(entry.record))


def _finished(place: Path) -> list[str]:
    """Return the folders of finished evaluations in order; as text, of which thousands cost less than of paths."""
    names = sorted(os.listdir(place)) if place.is_dir() else []
    folders = [f"{place}/{name}" for name in names if ".set-aside-" not in name]
    return [folder for folder in folders if os.path.exists(f"{folder}/{MANIFEST}")]


def _with_setups(entry: Entry, setups: Setups) -> Entry:
    return (
        entry if entry.record.setups else replace(entry, record=replace(entry.record, setups=setups.of(entry.record)))
    )


def _store_entry(folder: str) -> Entry:
    manifest = f"{folder}/{MANIFEST}"
    try:
        with open(manifest, "rb") as stream:
            facts = parse_json(stream.read().decode("utf-8"))
        contents = {name: _verified(f"{folder}/{name}", entry["sha256"]) for name, entry in facts["files"].items()}
        record = Record.from_json(contents[RECORD].decode("utf-8"), f"{folder}/{RECORD}")
        file_hashes = {name: entry["sha256"] for name, entry in facts["files"].items()}
        listed, why = key_of_parsed(file_hashes), edited(facts) if "spec" in facts else ""
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{manifest} cannot be read",
            f"{type(error).__name__}: {error}",
            "delete its folder and run the same command again",
        ) from error
    if facts.get("content") != listed:
        raise UserError(f"{manifest} was changed after it was written", "its content hash does not match its list of files",
                        "delete its folder and run the same command again, or rescore the store")  # fmt: skip
    if why:
        raise UserError(f"{manifest} was changed after it was written", why,
                        "restore the file, or delete its folder and run the same command again")  # fmt: skip
    if facts.get("key") != record.key:
        raise UserError(f"{folder}/{RECORD} belongs to another cell", "its key is not that of its manifest",
                        "delete its folder and run the same command again")  # fmt: skip
    units = unpack(contents[UNITS], f"{folder}/{UNITS}").get("record", ()) if UNITS in contents else ()
    return Entry(record, "run", folder, units, {name: value for name, value in facts.items() if name != "files"})


def _verified(path: str | Path, expected: str) -> bytes:
    """Return a file's bytes.

    Raises:
        UserError: they are not those its manifest was written for.
    """
    fix = "delete its folder and run the same command again, or rescore the store if only the record was edited"
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read", error.strerror or "the file is missing", fix) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{path} was changed after it was written", "its hash differs from that in its manifest", fix)
    return content


def seal_of(head: Mapping[str, Any]) -> str:
    """Return the hash of everything ``baseline.json`` says but the seal itself."""
    return content_key({name: value for name, value in head.items() if name != SEAL})


def read_head(folder: Path) -> dict[str, Any]:
    """Return ``baseline.json``.

    Raises:
        UserError: it cannot be read, has a schema this version does not know, or was edited after it was sealed.
    """
    path = folder / BASELINE
    try:
        head = dict(parse_json(path.read_text(encoding="utf-8")))
        if head["schema"] != BASELINE_SCHEMA:
            raise UserError(f"{path} has schema {head['schema']}", f"this version reads {BASELINE_SCHEMA}",
                            'rebuild it from its store: gate STORE --baseline FOLDER --update --reason "why"')  # fmt: skip
        if head[SEAL] != seal_of(head):
            raise UserError(f"{path} was changed after it was written", "its content differs from its seal",
                            "restore the folder from version control, or rebuild it with gate --update")  # fmt: skip
        return {name: head[name] for name in HEAD} | head
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read", f"{type(error).__name__}: {error}",
                        "restore the folder from version control") from error  # fmt: skip


def from_baseline(folder: Path, origin: Origin = "run") -> list[Entry]:
    """Return the records of a baseline folder with their units.

    Raises:
        UserError: a file is missing, damaged, or not the one the baseline was reviewed with.
    """
    file_hashes = read_head(folder)["files"]
    with refuse_malformed(folder / BASELINE, "restore the folder from version control"):
        packed, kept = (_verified(folder / name, file_hashes[name]) for name in (BASELINE_RECORDS, BASELINE_UNITS))
        lines = gunzip(packed, folder / BASELINE_RECORDS).decode("utf-8").splitlines()
    units = unpack(kept, str(folder / BASELINE_UNITS))
    records = [Record.from_json(line, f"{folder / BASELINE_RECORDS} line {i}") for i, line in enumerate(lines, 1)]
    return [Entry(record, origin, str(folder), units.get(record.key, ())) for record in sorted(records, key=_order)]


def from_lines(path: Path, origin: Origin = "run") -> list[Entry]:
    """Return the records of a file with one record a line; it has no units.

    Raises:
        UserError: it is not text, or a line is no record.
    """
    lines = read_text(path).splitlines()
    return [Entry(Record.from_json(line, f"{path.name} line {i}"), origin, str(path))
            for i, line in enumerate(lines, 1) if line.strip()]  # fmt: skip


def shipped(name: str = "") -> Path:
    """Return the folder of the baselines that ship with the project, or of one of them."""
    return Path(str(importlib.resources.files("leaderboard").joinpath("baselines"))) / name


def recorded() -> list[Entry]:
    """Return the records that ship with the project: lines of records, and baseline folders."""
    found: list[Entry] = []
    for item in sorted(shipped().iterdir()):
        if item.suffix == LINES:
            found += from_lines(item, "recorded")
        elif (item / BASELINE).is_file():
            found += from_baseline(item, "recorded")
    return merge(found)


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
