"""What results were made from, seeds left out: what the runs of one setup have in common, read from a store's manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.files import parse_json
from harness.core.identity import content_key
from harness.core.seals import edited
from harness.store.records import Record

MANIFEST = "manifest.json"


class Setups:
    """The artifacts of a store, each looked up once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, Path] | None = None
        self._known: dict[str, str] = {}

    def of(self, record: Record) -> dict[str, str]:
        """Return the keys without seeds of a record's network and images, as far as their manifests are there."""
        found = {"checkpoint": self.without_seeds(record.checkpoint), "dataset": self.without_seeds(record.dataset)}
        return {role: key for role, key in found.items() if key}

    def without_seeds(self, key: str) -> str:
        """Return the key that an artifact would have without seeds, its own and its inputs'; empty where that is unknown.

        What was made without any seed keeps its key. The number of threads is left out with the seeds: it moves results as little
        and as blindly as another seed does.
        """
        if key and key not in self._known:
            self._known[key] = self._without_seeds(key)
        return self._known.get(key, "")

    def _without_seeds(self, key: str) -> str:
        spec = self._spec(key)
        if spec is None:
            return ""
        inputs = {role: self.without_seeds(made) for role, made in spec["inputs"].items()}
        if not all(inputs.values()):
            return ""
        if not spec["seeds"] and inputs == spec["inputs"]:
            return key
        kept = {name: value for name, value in spec.items() if name not in ("seeds", "threads")}
        return content_key(kept | {"inputs": inputs})

    def _spec(self, key: str) -> dict[str, Any] | None:
        """Return the spec of an artifact, or None where its manifest is not there or damaged, which ``verify`` is for."""
        if self._folders is None:
            kinds = [kind for kind in sorted(self._root.iterdir()) if kind.is_dir() and kind.name != "evaluate"]
            self._folders = {folder.name.rpartition("-")[2]: folder for kind in kinds for folder in sorted(kind.glob("*-*"))
                             if ".set-aside-" not in folder.name}  # fmt: skip
        folder = self._folders.get(key[:16])
        try:
            raw = parse_json((folder / MANIFEST).read_text(encoding="utf-8")) if folder else None
            if raw and raw["key"] == key and {"inputs", "seeds"} <= raw["spec"].keys() and not edited(raw):
                return dict(raw["spec"])
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
