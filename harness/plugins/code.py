"""Which code a cell runs: where its work begins, for ``code_hash``, which follows it from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.core.code import code_hash
from harness.plugins.generator import Generator
from harness.plugins.suite import Suite

TASKS = "harness.run.tasks"
SCORING = tuple(f"harness.run.scoring:{name}" for name in ("score_rows", "lineage", "write_scored"))
_LOCATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def fit_code(generator: Generator) -> str:
    """Return the identity of the code that fits a generator."""
    return code_hash(f"{TASKS}:fit", *_members(generator, "fit"))


def synthesis_code(generator: Generator) -> str:
    """Return the identity of the code that makes a generator's images, or lists them."""
    if generator.imports:
        return code_hash(generator.import_callable_path)
    return code_hash(f"{TASKS}:synthesise", *_members(generator, "synthesise"))


def rows_code(suite: Suite, settings: Mapping[str, Any]) -> str:
    """Return the identity of the code that measures a suite's rows, functions that settings name included."""
    named = [value for value in settings.values() if isinstance(value, str) and _LOCATION.fullmatch(value)]
    return code_hash(f"{TASKS}:measure", *named, *_members(suite, "rows", "data_inspectors"))


def score_code(suite: Suite) -> str:
    """Return the identity of the code that makes metrics, units and the record of rows."""
    return code_hash(*SCORING, *_members(suite, "score", "units", "protocol", "Settings"))


def _members(plugin: Generator | Suite, *names: str) -> list[str]:
    """Return where members of a plugin's class are found; its module where the class has no name in it."""
    cls = type(plugin)
    if "." in cls.__qualname__:
        return [f"{cls.__module__}:"]
    return [f"{cls.__module__}:{cls.__qualname__}.{name}" for name in (*names, "__init__", "bind")]
