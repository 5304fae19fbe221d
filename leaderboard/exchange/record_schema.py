"""The JSON Schema of ``record.json``, made from the classes that write it; ``python -m leaderboard.exchange.record_schema`` prints it."""

from __future__ import annotations

import inspect
import json
import sys
from functools import cache
from typing import Any

from harness.stats.estimate import Estimate
from harness.store.records import READABLE, Check, Comparability, Metric, Record, Subject

PUBLISHED = "docs/record.schema.json"
"""Where the project publishes it."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def model() -> Any:
    """Return the checker of records: pydantic's, over the classes as they are."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.dataclasses import dataclass

    config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    return TypeAdapter(dataclass(Record, config=config, frozen=True))


def schema() -> dict[str, Any]:
    """Return the schema; what older records lack is optional."""
    found = _untitled(model().json_schema())
    found["properties"]["schema"]["enum"] = list(READABLE)
    for part in (Check, Comparability, Estimate, Metric, Subject):  # of these older versions of pydantic say less
        found["$defs"][part.__name__] |= {"description": inspect.getdoc(part), "additionalProperties": False}
    return {"$schema": DIALECT, **found, "title": "record.json"}


def _untitled(part: Any) -> Any:
    """Return a part of a schema without the titles, which repeat the names."""
    if isinstance(part, dict):
        return {name: _untitled(value) for name, value in part.items() if name != "title" or not isinstance(value, str)}
    return [_untitled(each) for each in part] if isinstance(part, list) else part


def to_json() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(to_json())
