"""Files by location: ``package:PKG/PATH``, plain paths, and the sources of models."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
from functools import cache
from pathlib import Path

from harness.core.errors import DataMissing
from harness.core.files import read_text


def read_resource(location: str) -> str:
    """Return the text of ``package:PKG/PATH`` or of a file."""
    return read_text(resolve_path(location), "save the file as UTF-8")


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
        or plain.startswith(("hub:", "open_clip:", "timm:", "call:"))
        or ("@" in plain and not Path(plain).exists())
    ):
        return None
    return resolve_path(plain)


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``$HARNESS_CACHE``, or a folder of the user's cache."""
    base = os.environ.get("HARNESS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "databias-harness"
    return Path(base).expanduser()


def data_of(folder: Path) -> list[Path]:
    """Return the files below a folder of a package that are neither source nor compiled, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts and path.is_file()
    )


@cache
def package_places(name: str) -> tuple[Path, ...]:
    """Return the folders of a top-level package, or the file of a module; none where there is no source. Imports nothing."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module without a spec, such as a notebook
        return ()
    if spec is not None and spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec is not None and spec.origin and spec.origin.endswith(".py") else ()
