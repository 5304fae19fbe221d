"""From stored rows to records: used live by evaluate cells, and by ``rescore`` without any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.contracts import Item
from harness.files import write_bytes, write_json, write_text
from harness.inference import Units
from harness.packing import pack
from harness.profile import parse_settings
from harness.records import Comparability, Record, Subject
from harness.store import read_manifest

ROWS, RECORD, UNITS, CARDS = "rows.parquet", "record.json", "units.npz", "cards.json"
OWNER = "record"
"""Whose units an evaluation's file holds: those of the record beside it."""


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
) -> Scored:
    """Return record and units of rows; pure.

    Args:
        spec: The evaluate cell's spec, as its manifest keeps it.
        key: The cell's content key.
        rows: The suite's rows, a DataFrame.
        cards: Data set name to its card.
        inputs: What everything was made from, see ``lineage``.
        code: Version, commit and dirtiness of the code that measured the rows.
    """
    name, params = str(spec["name"]), spec["params"]
    suite = registry.suites().get(name)
    settings = parse_settings(suite.Settings, params["settings"], name)
    item = Item(params["item"], tuple(params["data"]), params["item_params"], spec["seeds"]["probe_seed"])
    found = suite.score(rows, item, settings, cards)
    facts = params["subject"]
    subject = Subject(
        facts["generator"], facts["backbone"], facts["generator_seed"], facts["train_seed"], tuple(facts["information"])
    )
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
        notes=found.notes, inputs=dict(inputs), code=dict(code),
    )  # fmt: skip
    wanted = [metric.name for metric in found.metrics if metric.role == "primary" or metric.group]
    return Scored(record, suite.units(rows, item, settings, cards, wanted))


def write_scored(folder: Path, scored: Scored, cards: Mapping[str, Any]) -> None:
    """Write record, units and the cards that were used into an evaluation's folder."""
    write_json(folder / CARDS, cards)
    write_bytes(folder / UNITS, pack({OWNER: scored.units}))
    write_text(folder / RECORD, scored.record.to_json())


def lineage(store: Path, inputs: Mapping[str, str], trail: str = "") -> dict[str, str]:
    """Return path of roles to content key of all inputs, and of their inputs, as far as their manifests are there."""
    found = {}
    for role, key in sorted(inputs.items()):
        path = f"{trail}{role}"
        found[path] = key
        for folder in sorted(store.glob(f"*/*-{key[:16]}")):
            manifest = read_manifest(folder)
            if manifest is not None:
                found |= lineage(store, manifest["spec"]["inputs"], f"{path}/")
    return found
