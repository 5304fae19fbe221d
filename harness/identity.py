"""Identities: canonical JSON, content keys, derived seeds, fingerprints of files (pure but for reading files)."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KEY_SCHEMA = 1
"""Bumped when the rules below change; part of every key, so that old artifacts are never mistaken for new ones."""

WHOLE_FILE_LIMIT = 32 * 2**20
SAMPLE_BYTES = 2**20
TREE_LIMIT = 20_000
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tar", ".npy"})


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


def derive_seed(*facts: str | int) -> int:
    """Return a 63-bit seed that depends on nothing but ``facts``."""
    return int(content_key(["seed", KEY_SCHEMA, *facts])[:16], 16) >> 1


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Return a fingerprint of a file, or of the first 20,000 files of a folder, fast enough for terabytes.

    Images and archives count with name and size; every other file counts with its bytes (above 32 MiB: size, first and
    last MiB). It answers "is this the data I meant?", not "was a single pixel changed?".

    Raises:
        FileNotFoundError: nothing is there.
    """
    if path.is_file():
        return _file_mark(path)
    if not path.is_dir():
        raise FileNotFoundError(path)
    digest = hashlib.sha256()
    for item in itertools.islice(_walk(path), TREE_LIMIT):
        mark = str(item.stat().st_size) if item.suffix.lower() in IMAGE_SUFFIXES else _file_mark(item)
        digest.update(f"{item.relative_to(path).as_posix()}\0{mark}\n".encode())
    return digest.hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        yield from (Path(folder) / name for name in sorted(files))


def _file_mark(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLE_FILE_LIMIT:
        return file_sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        digest.update(stream.read(SAMPLE_BYTES))
        stream.seek(size - SAMPLE_BYTES)
        digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()
