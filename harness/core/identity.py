"""Identities: canonical JSON, content keys, derived seeds, hashes of files (pure but for reading files)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY_SCHEMA = 1
"""Bumped when the rules below change; part of every key, so that old artifacts are never mistaken for new ones."""
_WHOLE_FLOAT = re.compile(r"\.0[],}]|\.0$")
"""What a whole float ends with in JSON; a text may end so, too."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: keys sorted, no spaces, shortest floats, no NaN.

    Raises:
        TypeError: a value that has no canonical form (a set, a path, an object).
        ValueError: a float that is not finite.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("canonical JSON needs string keys")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return int(value)  # 1 and 1.0 are the same setting, whichever way the profile spells it
    if isinstance(value, int | float | str):
        return value
    raise TypeError(f"{kind.__name__} has no canonical JSON form")


def content_key(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def key_of_parsed(value: Any) -> str:
    """Return ``content_key`` of a value that was parsed from JSON: its keys are text, so only whole floats need a look."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest() if not _WHOLE_FLOAT.search(text) else content_key(value)


def derive_seed(*facts: str | int) -> int:
    """Return a 63-bit seed that depends on nothing but ``facts``."""
    return int(content_key(["seed", KEY_SCHEMA, *facts])[:16], 16) >> 1


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
