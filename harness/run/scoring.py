"""From stored rows to records: used live by evaluate cells, and by ``rescore`` without any model."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.core.code import comparable
from harness.core.errors import CorruptArtifact, UserError
from harness.core.files import json_bytes, write_bytes, write_json, write_text, write_together
from harness.core.identity import content_key, file_sha256
from harness.core.seals import with_seal
from harness.core.settings import parse_settings
from harness.plugins import registry
from harness.plugins.border import checked_names, checked_score, checked_units, plugin_errors
from harness.plugins.code import score_code
from harness.plugins.suite import Item
from harness.stats.difference import Units
from harness.stats.units_file import pack
from harness.store.artifacts import MANIFEST, SCORE_HASH, Artifact, read_manifest
from harness.store.records import Comparability, Record, Subject

ROWS, RECORD, UNITS, CARDS, MEASURED = "rows.parquet", "record.json", "units.npz", "cards.json", "measured.json"
OWNER = "record"
"""Whose units an evaluation's file holds: those of the record beside it."""


@dataclass(frozen=True)
class Measured:
    """What stands beside rows: facts of the network that made them, and what contradicts what was expected.

    Attributes:
        network: Facts of the network, see ``Subject.network``; empty where there is none.
        notes: What of its preprocessing contradicts what the network states itself.
        findings: What a look at the data found to differ from the published data set.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Measured:
        """Rebuild it from its file."""
        return Measured(raw["network"], tuple(raw["notes"]), tuple(raw["findings"]))


@dataclass(frozen=True)
class Scored:
    """What a suite makes of rows."""

    record: Record
    units: tuple[Units, ...]


def score_rows(
    spec: Mapping[str, Any],
    key: str,
    rows: Any,
    cards: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Mapping[str, str],
    measured: Measured | None = None,
) -> Scored:
    """Return record and units of rows; pure.

    Args:
        spec: The evaluate cell's spec, as its manifest keeps it.
        key: The cell's content key.
        rows: The suite's rows, a DataFrame.
        cards: Data set name to its card.
        inputs: What everything was made from, see ``lineage``.
        code: Version, commit and dirtiness of the code that measured the rows.
        measured: What stands beside the rows; None for artifacts that did not keep it.

    Raises:
        UserError: rows, score or units break the suite's contract.
    """
    measured = measured or Measured()
    name, params = str(spec["name"]), spec["params"]
    suite = registry.suites().get(name)
    settings = parse_settings(suite.Settings, params["settings"], name)
    item = Item(params["item"], tuple(params["data"]), params["item_params"], spec["seeds"]["probe_seed"])
    checked_names(suite, rows)
    with plugin_errors(suite):
        scored = suite.score(rows, item, settings, cards)
    found = checked_score(suite, scored)
    facts = params["subject"]
    subject = Subject(
        facts["generator"], facts["backbone"], facts["generator_seed"], facts["train_seed"], tuple(facts["information"]),
        dict(measured.network),
    )  # fmt: skip
    comparable = Comparability(
        facts["profile"],
        int(spec["version"]),
        dict(params["data"]),
        facts["class_list"],
        suite.protocol(settings),
        facts["recipe"],
    )
    record = Record(
        name, suite.card.order, item.label, subject, item.probe_seed, found.metrics, found.checks, comparable, key,
        notes=(*measured.notes, *found.notes), inputs=dict(inputs), code=dict(code), findings=measured.findings,
    )  # fmt: skip
    wanted = [metric.name for metric in found.metrics if metric.role != "companion" or metric.group]
    with plugin_errors(suite):
        units = suite.units(rows, item, settings, cards, wanted)
    return Scored(record, checked_units(suite, units, found, wanted))


def write_scored(folder: Path, scored: Scored, cards: Mapping[str, Any], measured: Measured | None = None) -> None:
    """Write record, units and what they were made from beside the rows into an evaluation's folder."""
    write_json(folder / CARDS, cards)
    if measured is not None:
        write_json(folder / MEASURED, asdict(measured))
    write_bytes(folder / UNITS, pack({OWNER: scored.units}))
    write_text(folder / RECORD, scored.record.to_json())


def lineage(store: Path, inputs: Mapping[str, str], trail: str = "") -> dict[str, str]:
    """Return path of roles to content key of all inputs, and of their inputs, as far as their manifests are there."""
    found = {}
    for role, key in sorted(inputs.items()):
        path = f"{trail}{role}"
        found[path] = key
        for folder in artifacts(store, key):
            manifest = read_manifest(folder)
            if manifest is not None:
                found |= lineage(store, manifest["spec"]["inputs"], f"{path}/")
    return found


def artifacts(store: Path, key: str) -> list[Path]:
    """Return the folders of a store whose names end in a key, set-aside ones left out."""
    return sorted(store.glob(f"*/*-{key[:16]}"))


UNCHANGED = "unchanged"


def rescore_artifact(store: Path, folder: Path, cards: Mapping[str, Any] | None = None) -> str:
    """Score the rows of a finished evaluation anew; record, units and manifest are replaced where they differ.

    Args:
        store: The store, for what the evaluation was made from.
        folder: The evaluation's folder.
        cards: Data set name to its card, of an artifact that did not keep them.

    Returns:
        ``unchanged``, ``metrics as before, record brought up to date``, ``metrics as before, added: ...`` or
        ``metrics changed: ...``.

    Raises:
        CorruptArtifact: rows or cards differ from the manifest, or the manifest was edited.
    """
    import pandas as pd

    manifest = read_manifest(folder) or {}
    artifact, spec, files = Artifact(folder, manifest), manifest["spec"], manifest["files"]
    rows = pd.read_parquet(artifact.path(ROWS))
    cards = artifact.json(CARDS) if cards is None else cards
    code = dict(manifest.get("provenance", {}).get("code", {}))
    # What was kept beside the rows is read, never looked up again: an old artifact has none, and stays as it is.
    measured = Measured.from_json(artifact.json(MEASURED)) if MEASURED in files else None
    scored = score_rows(spec, manifest["key"], rows, cards, lineage(store, spec["inputs"]), code, measured)
    before, now = read_record(folder / RECORD), dict(manifest)
    if comparable(manifest["fingerprint"]):
        now[SCORE_HASH] = score_code(registry.suites().get(str(spec["name"])))
    whole = {RECORD, UNITS, CARDS} <= files.keys() and all(
        (folder / name).is_file() and file_sha256(folder / name) == files[name]["sha256"] for name in (RECORD, UNITS)
    )
    if not (whole and sealed(manifest) and before is not None and scored.record.to_json() == before.to_json()):
        _replace(folder, now, scored, cards)
        return _outcome(before, scored.record)
    if now != manifest:
        _replace(folder, now, scored, cards)
    return UNCHANGED


def read_record(path: Path) -> Record | None:
    """Return the record as it stands, or None where it cannot be read; its rows decide anyway."""
    try:
        return Record.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, UserError):
        return None


def _outcome(before: Record | None, after: Record) -> str:
    if before is None:
        return "metrics changed: the old record could not be read"
    old, new = ({metric.name: metric for metric in record.metrics} for record in (before, after))
    names = [name for name, metric in sorted(old.items()) if metric != new.get(name)]
    names += ["checks"] if before.checks != after.checks else []
    added = ", ".join(sorted(new.keys() - old.keys()))
    if names:
        return "metrics changed: " + ", ".join(names) + (f"; added: {added}" if added else "")
    return f"metrics as before, added: {added}" if added else "metrics as before, record brought up to date"


def sealed(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest's list of files is the one it was sealed with."""
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return bool(manifest.get("content") == content_key(hashes))


def _replace(folder: Path, manifest: Mapping[str, Any], scored: Scored, cards: Mapping[str, Any]) -> None:
    """Replace an evaluation's record, units and manifest.

    Raises:
        CorruptArtifact: the manifest's list of files was edited, and the rows do not give back what it was sealed with.
    """
    files = dict(manifest["files"])
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        write_scored(made, scored, cards)
        contents = {folder / name: (made / name).read_bytes() for name in (CARDS, UNITS, RECORD)}
    for path, data in contents.items():
        files[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content = content_key({name: entry["sha256"] for name, entry in files.items()})
    if content != manifest.get("content") and not sealed(manifest):
        raise CorruptArtifact(
            f"artifact {folder.name} is damaged",
            "its manifest was edited: the list of files is not what it was sealed with",
            "run the same command again: it is moved aside and rebuilt",
        )
    contents[folder / MANIFEST] = json_bytes(with_seal({**manifest, "files": files, "content": content}))
    write_together(contents)
