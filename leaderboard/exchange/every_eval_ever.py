"""The board as logs of Every Eval Ever, schema 0.3.0: one JSON document per row.

The schema is the project's of that name (MIT); nothing of it is copied here, and a test holds the documents against its file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

from leaderboard.exchange.results import PROJECT, Result, Row, cleaned, measured_at, rows, texts
from leaderboard.network import OUTSIDE, facts_of, words
from leaderboard.sources import Entry

SCHEMA_VERSION = "0.3.0"
UNITS = {"fraction": "proportion", "points": "points", "ratio": "ratio"}
LEVEL = 0.95
CREATED = "SOURCE_DATE_EPOCH"
"""Variable of the environment that fixes the time at which the documents say that they were made."""


def documents(entries: Sequence[Entry]) -> dict[str, str]:
    """Return path to JSON, on one line, of every row: the tree of the Every Eval Ever data store.

    Everything but ``retrieved_timestamp``, which the schema asks for, depends on the records alone.
    """
    made = os.environ.get(CREATED, "")
    created = made if made.isdecimal() else str(int(time.time()))
    return {
        f"data/{PROJECT}/{PROJECT}/{row.name}/{_uuid(row)}.json": json.dumps(
            cleaned(_document(row, created)), ensure_ascii=False, allow_nan=False
        )
        + "\n"
        for row in rows(entries)
    }


def _uuid(row: Row) -> uuid.UUID:
    """Return an identifier of the form that the store asks for, version 4, that the same records always get."""
    return uuid.UUID(bytes=hashlib.sha256(f"{row.name} {row.digest}".encode()).digest()[:16], version=4)


def _document(row: Row, created: str) -> dict[str, Any]:
    when = measured_at(row.entries)
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{PROJECT}/{row.name}/{row.digest[:16]}",
        **({} if when is None else {"evaluation_timestamp": str(int(when))}),
        "retrieved_timestamp": created,
        "source_metadata": _source(row),
        "eval_library": _library(row.entries),
        "model_info": _model(row),
        "evaluation_results": [_result(one) for one in row.results],
    }


def _source(row: Row) -> dict[str, Any]:
    outside = {entry.record.comparability.recipe for entry in row.entries} <= {*OUTSIDE}
    lost = {"undefined_results": json.dumps(row.undefined, ensure_ascii=False)} if row.undefined else {}
    return {
        "source_name": f"{PROJECT} leaderboard",
        "source_type": "evaluation_run",
        "source_organization_name": PROJECT if row.key.origin == "recorded" else "unknown",
        "evaluator_relationship": "other" if outside else "first_party",
        "additional_details": texts({"origin": row.key.origin, **lost}),
    }


def _library(entries: Sequence[Entry]) -> dict[str, Any]:
    code = [entry.record.code for entry in entries]
    said = {name: " ".join(sorted({c[name] for c in code if c.get(name)})) for name in ("harness", "commit", "dirty")}
    return {
        "name": PROJECT,
        "version": said["harness"] or "unknown",
        "additional_details": texts({"commit": said["commit"], "dirty": said["dirty"]}),
    }


def _model(row: Row) -> dict[str, Any]:
    network = next((words(facts) for e in row.entries if (facts := facts_of(e.record))), {})
    first = row.results[0].facts
    details = {
        "generator": row.key.generator, "variant": row.key.variant, "backbone": row.key.backbone,
        "supervision": first["supervision"], "pretraining_recipe": first["recipe"], "profile": first["profile"],
        **{f"network {name.removeprefix('recipe ')}": text for name, text in network.items()},
    }  # fmt: skip
    return {
        "name": f"{row.key.label} {row.key.backbone}",
        "id": f"{PROJECT}/{row.name}",
        "additional_details": {"deployment_type": "self_deployed", "model_availability": "unknown"} | texts(details),
    }


def _result(one: Result) -> dict[str, Any]:
    facts, when = one.facts, measured_at(one.value.sources)
    data = dict(pair for _, sets in one.column.terms.members for pair in sets)
    return {
        "evaluation_result_id": one.id,
        "evaluation_name": f"{PROJECT}.{facts['suite']}",
        "source_data": {
            "dataset_name": ", ".join(data) or facts["item"] or facts["suite"],
            "source_type": "other",
            "additional_details": texts({f"hash {name}": key for name, key in data.items()}),
        },
        **({} if when is None else {"evaluation_timestamp": str(int(when))}),
        "metric_config": _metric(one),
        "score_details": _score(one),
    }


def _metric(one: Result) -> dict[str, Any]:
    facts = one.facts
    low, high = bounds(one)
    conditions = {
        name: facts[name] for name in ("role", "item", "suite_version", "protocol", "class_list", "population")
    }
    return {
        "metric_id": f"{PROJECT}.{facts['suite']}.{facts['metric']}",
        "metric_name": facts["column"],
        "metric_unit": UNITS.get(facts["unit"], facts["unit"]),
        "lower_is_better": facts["direction"] == "lower",
        "score_type": "continuous",
        "min_score": low,
        "max_score": high,
        "additional_details": texts(conditions),
    }


def bounds(one: Result) -> tuple[float | str, float | str]:
    """Return the ends of a metric's scale, which its record does not state.

    They are 0 and 1 for a ranked fraction, and -100 and 100 for points, which are differences of percentages; infinite for all
    others, and where the value itself lies beyond.
    """
    ranked, values = one.column.role in ("primary", "mean"), (one.score, one.facts["low"], one.facts["high"])
    low, high = {"fraction": (0.0, 1.0), "points": (-100.0, 100.0)}.get(one.column.unit, (0.0, 0.0))
    if ranked and all(value is None or low <= value <= high for value in values):
        return low, high
    return "-Infinity", "Infinity"


def _score(one: Result) -> dict[str, Any]:
    facts = one.facts
    uncertainty: dict[str, Any] = {"num_samples": facts["n"]}
    if facts["low"] is not None:
        uncertainty["confidence_interval"] = {
            "lower": facts["low"], "upper": facts["high"], "confidence_level": LEVEL, "method": facts["method"],
        }  # fmt: skip
    by_seed = {f"{g}/{t}": e.value for (g, t), e in sorted(one.value.by_seed.items())} if facts["n_seeds"] > 1 else {}
    kept = ("seeds", "n_seeds", "seed_sd", "checks", "failed_checks", "tie_group", "resolution", "findings", "remark")
    details = {
        **{name: facts[name] for name in kept},
        "values_by_seed": json.dumps(by_seed) if by_seed else "",
        **{f"read with {name}": number for name, number in one.value.beside.items()},
    }
    return {"score": one.score, "details": texts(details), "uncertainty": uncertainty}
