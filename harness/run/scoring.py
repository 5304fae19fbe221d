"""From stored rows to records: used live by evaluate cells, and by ``rescore`` without any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.core.files import write_bytes, write_json, write_text
from harness.core.settings import parse_settings
from harness.plugins import registry
from harness.plugins.border import checked_score, plugin_errors
from harness.plugins.suite import Item
from harness.stats.difference import Units
from harness.stats.units_file import pack
from harness.store.artifacts import read_manifest
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
    """
    measured = measured or Measured()
    name, params = str(spec["name"]), spec["params"]
    suite = registry.suites().get(name)
    settings = parse_settings(suite.Settings, params["settings"], name)
    item = Item(params["item"], tuple(params["data"]), params["item_params"], spec["seeds"]["probe_seed"])
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
    wanted = [metric.name for metric in found.metrics if metric.role == "primary" or metric.group]
    with plugin_errors(suite):
        return Scored(record, suite.units(rows, item, settings, cards, wanted))


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
