"""Files by location: ``package:PKG/PATH``, plain paths, and the sources of models."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from harness.core.errors import DataMissing


def read_resource(location: str) -> str:
    """Return the text of ``package:PKG/PATH`` or of a file."""
    return resolve_path(location).read_text(encoding="utf-8")


def resolve_path(location: str) -> Path:
    """Turn ``package:PKG/PATH`` or a plain path into a path.

    Raises:
        DataMissing: nothing is there.
    """
    if location.startswith("package:"):
        package, _, rest = location.removeprefix("package:").partition("/")
        path = Path(str(importlib.resources.files(package))) / rest
    else:
        path = Path(location).expanduser()
    if not path.exists():
        raise DataMissing(
            f"{location} does not exist", f"looked at {path}", "correct the path, or install the package again"
        )
    return path


def local_source(location: str) -> Path | None:
    """Return the folder a model source names, or None for a hub id, a tag, ``none`` and an empty text.

    Raises:
        DataMissing: a folder that does not exist.
    """
    plain = location
    for prefix in ("open-clip:", "q-align:", "local-dir:", "file:"):
        plain = plain.removeprefix(prefix)
    if (
        plain in ("", "none")
        or plain.startswith(("hub:", "open_clip:", "call:"))
        or ("@" in plain and not Path(plain).exists())
    ):
        return None
    return resolve_path(plain)
