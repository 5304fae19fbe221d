"""The seal of a manifest: whether what it says is what was written when its artifact was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harness.core.identity import key_of_parsed

SEAL = "seal"


def with_seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the seal of all it says."""
    return {**manifest, SEAL: _seal(manifest)}


def edited(manifest: Mapping[str, Any]) -> str:
    """Return what in a manifest was edited after its artifact was done; empty if nothing was.

    The key is the hash of the spec; that holds for artifacts of any version. Those of older versions have no other seal. The
    list of files has a hash of its own (``content``), so that a record or a list can be made anew from rows.
    """
    if key_of_parsed(manifest["spec"]) != manifest["key"]:
        return "its spec was edited: it is not what its key is the hash of"
    if SEAL in manifest and manifest[SEAL] != _seal(manifest):
        return "its manifest was edited: it is not what it was sealed with"
    return ""


def _seal(manifest: Mapping[str, Any]) -> str:
    sealed = {name: value for name, value in manifest.items() if name not in ("files", SEAL)}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
