"""The schema of a result: what is written is read back, and records of every older schema stay readable."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.core.errors import UserError
from harness.stats.estimate import proportion
from harness.store.records import SCHEMA, Check, Comparability, Metric, Record, Subject

NETWORK = {
    "weights": "ema", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "image_size": 160, "interpolation": "bicubic",
    "crop": 0.875, "precision": "fp32", "recipe": {"epochs": 40},
}  # fmt: skip
ADDED = {3: ("findings", "network", "beside"), 2: ("inputs", "code")}


def record() -> Record:
    """Return a record that uses every field."""
    metrics = (Metric("TI", proportion([True, False]), better="lower", beside=("cue_coverage",)),
               Metric("cue_coverage", proportion([True, True]), role="companion"))  # fmt: skip
    return Record(
        "texture-bias", 700, "TI", Subject("checkpoint", "resnet10", 0, 0, ("class_names",), NETWORK), 0, metrics,
        (Check("floor", True, 1.0, 0.5, "recognises anything"),), Comparability("toy", 1, {"d": "f"}, "c", "p", "r"), "key",
        notes=("s = 1",), inputs={"checkpoint/dataset": "k"}, code={"commit": "abc"},
        findings=("1280 of 1280 files differ from the published hashes",),
    )  # fmt: skip


def test_a_record_is_read_back_as_it_was_written() -> None:
    """Nothing is lost or changed on the way through JSON, and a subject can be a key."""
    made = record()
    assert Record.from_json(made.to_json()) == made and made.schema == SCHEMA
    assert hash(made.subject) == hash(replace(made.subject, network={}))


@pytest.mark.parametrize("schema", [1, 2])
def test_older_schemas_are_read_without_what_came_later(schema: int) -> None:
    """What an older record cannot know is empty."""
    raw = json.loads(record().to_json()) | {"schema": schema}
    gone = {name for version, names in ADDED.items() if version > schema for name in names}
    for part in (raw, raw["subject"], *raw["metrics"]):
        for name in gone & set(part):
            del part[name]
    old = Record.from_json(json.dumps(raw))
    assert old.schema == schema and old.subject.network == {} and old.findings == ()
    assert [metric.beside for metric in old.metrics] == [(), ()] and old.notes == ("s = 1",)


def test_an_unknown_schema_is_refused() -> None:
    """A newer harness's record is not half understood."""
    with pytest.raises(UserError, match=f"schema {SCHEMA + 1}"):
        Record.from_json(record().to_json().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'))
