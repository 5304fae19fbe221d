"""Where records come from: stores, baseline folders, and the rows recorded with the project. Any number may be merged."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataMissing, UserError
from harness.inference import Units
from harness.packing import unpack
from harness.records import Record

Origin = Literal["run", "recorded"]
RECORD, UNITS, MANIFEST = "record.json", "units.npz", "manifest.json"
BASELINE, BASELINE_RECORDS, BASELINE_UNITS = "baseline.json", "records.jsonl.gz", "units.npz"


@dataclass(frozen=True)
class Entry:
    """A record, where it comes from, and what pairing needs of it."""

    record: Record
    origin: Origin
    place: str = ""
    """Folder or file it was read from; shown in errors only."""
    units: tuple[Units, ...] = field(default=(), compare=False)
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """The evaluation's manifest without its file list: spec, provenance, cost. Empty for recorded rows."""

    def unit(self, metric: str) -> Units | None:
        """Return what pairing needs of a metric, or None where its suite gives nothing."""
        return next((units for units in self.units if units.metric == metric), None)


def gather(places: Sequence[Path]) -> list[Entry]:
    """Return the records of stores and baseline folders, merged.

    Raises:
        UserError: a record or its files differ from its manifest, cannot be parsed, or disagrees with another of the
            same cell.
        DataMissing: a place does not exist.
    """
    found: list[Entry] = []
    for place in places:
        if not place.exists():
            raise DataMissing(
                f"{place} does not exist", "no such folder", "give the folder of a store or of a baseline"
            )
        found += from_baseline(place) if (place / BASELINE).is_file() else from_store(place)
    return merge(found)


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Return each cell once, in board order.

    Raises:
        UserError: two records of one cell disagree.
    """
    kept: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: (_order(e.record), e.origin != "run", -e.record.schema, e.place)):
        first = kept.setdefault(entry.record.key, entry)
        if first is not entry:
            differing = _disagreement(first.record, entry.record)
            if differing:
                raise UserError(
                    f"two records of {entry.record.suite} {entry.record.item} of {entry.record.subject.generator} disagree",
                    f"{first.place or first.origin} and {entry.place or entry.origin} differ in {', '.join(differing)}",
                    "rescore both stores (python -m harness rescore STORE), or leave one out",
                )
            if not first.units and entry.units:
                kept[entry.record.key] = Entry(first.record, first.origin, first.place, entry.units, first.facts)
    return list(kept.values())


def _disagreement(first: Record, second: Record) -> list[str]:
    here, there = asdict(first), asdict(second)
    fields = ("suite", "item", "subject", "probe_seed", "comparability", "metrics", "checks")
    return [name for name in fields if here[name] != there[name]]


def from_store(root: Path) -> list[Entry]:
    """Return the records of all finished evaluations of a store, whatever the order of its files.

    Raises:
        UserError: a file's bytes differ from its manifest, or a record cannot be parsed.
    """
    found = []
    for path in sorted((root / "evaluate").glob(f"*/{RECORD}")):
        manifest = path.with_name(MANIFEST)
        if ".set-aside-" not in path.parent.name and manifest.is_file():
            found.append(_store_entry(path.parent, manifest))
    return sorted(found, key=lambda entry: _order(entry.record))


def _store_entry(folder: Path, manifest: Path) -> Entry:
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        contents = {name: _verified(folder / name, entry["sha256"]) for name, entry in facts["files"].items()}
        record = Record.from_json(contents[RECORD].decode("utf-8"), str(folder / RECORD))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{manifest} cannot be read",
            f"{type(error).__name__}: {error}",
            "delete its folder and run the same command again",
        ) from error
    if facts.get("key", record.key) != record.key:
        raise UserError(f"{folder / RECORD} belongs to another cell", "its key is not that of its manifest",
                        "delete its folder and run the same command again")  # fmt: skip
    units = unpack(contents[UNITS], str(folder / UNITS)).get("record", ()) if UNITS in contents else ()
    return Entry(record, "run", str(folder), units, {name: value for name, value in facts.items() if name != "files"})


def _verified(path: Path, expected: str) -> bytes:
    """Return a file's bytes.

    Raises:
        UserError: they are not those its manifest was written for.
    """
    fix = "delete its folder and run the same command again, or rescore the store if only the record was edited"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read", error.strerror or "it is gone", fix) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{path} was changed after it was written", "its bytes differ from its manifest", fix)
    return content


def from_baseline(folder: Path, origin: Origin = "run") -> list[Entry]:
    """Return the records of a baseline folder with their units.

    Raises:
        UserError: a file is missing, damaged, or not the one the baseline was reviewed with.
    """
    try:
        head = json.loads((folder / BASELINE).read_text(encoding="utf-8"))
        marks = {name: head["files"][name] for name in (BASELINE_RECORDS, BASELINE_UNITS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / BASELINE} cannot be read", f"{type(error).__name__}: {error}",
                        "restore the folder from version control") from error  # fmt: skip
    lines = gzip.decompress(_verified(folder / BASELINE_RECORDS, marks[BASELINE_RECORDS])).decode("utf-8").splitlines()
    units = unpack(_verified(folder / BASELINE_UNITS, marks[BASELINE_UNITS]), str(folder / BASELINE_UNITS))
    records = [Record.from_json(line, f"{folder / BASELINE_RECORDS} line {i}") for i, line in enumerate(lines, 1)]
    return [Entry(record, origin, str(folder), units.get(record.key, ())) for record in sorted(records, key=_order)]


def shipped(name: str = "") -> Path:
    """Return the folder of the baselines that ship with the project, or of one of them."""
    return Path(str(importlib.resources.files("leaderboard").joinpath("baselines"))) / name


def recorded() -> list[Entry]:
    """Return the records that ship with the project: lines of records, and baseline folders."""
    found: list[Entry] = []
    for item in sorted(shipped().iterdir()):
        if item.suffix == ".jsonl":
            lines = item.read_text(encoding="utf-8").splitlines()
            found += [
                Entry(Record.from_json(line, f"{item.name} line {i}"), "recorded", item.name)
                for i, line in enumerate(lines, 1)
            ]
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
