"""Code by name: ``module:attribute`` loaded, and hashes of modules, which notice a forgotten version bump."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from harness.core.errors import UserError


def load_attribute(location: str) -> object:
    """Import ``module:attribute``.

    Raises:
        UserError: no such module or attribute.
    """
    module, _, attribute = location.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot load {location}", f"{type(error).__name__}: {error}", "correct the name, or install its package"
        ) from error


@cache
def code_hash(module_name: str) -> str:
    """Return the hash of a plugin's source: its package folder if it is a package, else its file."""
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        return ""
    files = sorted(Path(spec.origin).parent.rglob("*.py")) if spec.submodule_search_locations else [Path(spec.origin)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def modules_hash(modules: Sequence[str]) -> str:
    """Return the fingerprint of some modules, such as those of a package that one kind of work runs."""
    return hashlib.sha256(" ".join(map(code_hash, modules)).encode()).hexdigest()[:16]


def callable_hash(work: str) -> str:
    """Return the fingerprint of the package that holds ``module:function``, or of the module where it is in none."""
    module = work.partition(":")[0]
    package = module.rpartition(".")[0]
    return code_hash(package if "." in package else module)
