"""The artifact store: one folder per cell, data first, manifest last, verified on reading.

    STORE/KIND/NAME-KEY16/   data files, and manifest.json once everything is there
    STORE/logs/              one log per cell
    STORE/status.json        what the last run did

An artifact is *missing*, *partial* (a folder without manifest: work to be resumed), *done*, *stale* (done by other code
under the same version number), *rescore* (an evaluation whose rows are done and were scored by other code) or *corrupt* (bytes
that differ from the manifest).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.core.code import comparable
from harness.core.cost import carry_over
from harness.core.disk import gone
from harness.core.errors import CorruptArtifact
from harness.core.files import parse_json, remove_tree, write_json
from harness.core.identity import content_key, file_sha256
from harness.core.seals import edited, with_seal
from harness.store.cells import Cell

State = Literal["missing", "partial", "done", "stale", "rescore", "corrupt"]
MANIFEST = "manifest.json"
SCORE_HASH = "score_fingerprint"
"""Entry of an evaluation's manifest: the code that made its record of its rows."""
ASIDE = ".set-aside-"
"""In the name of an artifact's folder that was moved aside."""
SCRATCH = "scratch"
"""Folder for checkpoints and claims inside an artifact; gone when the artifact is done."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Return the content key of the cell that made it."""
        return str(self.manifest["key"])

    @cached_property
    def _verified(self) -> set[str]:
        return set()

    def path(self, name: str) -> Path:
        """Return one of its files, its bytes checked against the manifest at the first use.

        Raises:
            CorruptArtifact: the file is not in the manifest, is gone, or has other bytes.
        """
        path = self.folder / name
        if name not in self._verified:
            entry = self.manifest["files"].get(name)
            if entry is None:
                raise _corrupt(self.folder, f"its manifest does not list {name}")
            if not path.is_file():
                raise _corrupt(self.folder, f"{name} is gone")
            if path.stat().st_size != entry["bytes"]:
                raise _corrupt(
                    self.folder, f"{name} has {path.stat().st_size} bytes, its manifest says {entry['bytes']}"
                )
            if file_sha256(path) != entry["sha256"]:
                raise _corrupt(self.folder, f"the bytes of {name} differ from its manifest")
            self._verified.add(name)
        return path

    def files(self, suffix: str = "") -> tuple[str, ...]:
        """Return the names of its files in order."""
        return tuple(name for name in sorted(self.manifest["files"]) if name.endswith(suffix))

    def json(self, name: str) -> Any:
        """Return the content of a JSON file."""
        return parse_json(self.path(name).read_text(encoding="utf-8"))

    def verify(self) -> None:
        """Check every file.

        Raises:
            CorruptArtifact: as ``path``.
        """
        for name in self.manifest["files"]:
            self.path(name)


class Store:
    """Artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, cell: Cell) -> Path:
        """Return where a cell's artifact is or will be."""
        return self.root / cell.folder

    def log(self, cell: Cell) -> Path:
        """Return the path of a cell's log."""
        return self.root / "logs" / f"{cell.folder.replace('/', '-')}.log"

    def state(self, cell: Cell) -> State:
        """Return the state as far as manifest and file sizes tell; ``Artifact.verify`` looks at every byte."""
        folder = self.folder(cell)
        if not folder.is_dir():
            return "missing"
        try:
            manifest = read_manifest(folder)
        except CorruptArtifact:
            return "corrupt"
        if manifest is None:
            return "partial"
        if manifest["key"] != cell.key:
            return "corrupt"
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return "corrupt"
        if manifest["fingerprint"] != cell.code_hash:
            return "stale"
        return "done" if manifest.get(SCORE_HASH, "") == cell.score_hash else "rescore"

    def of_older_rules(self, cell: Cell) -> bool:
        """Return whether the code of an artifact is unknown, because an older version hashed it by other rules."""
        manifest = read_manifest(self.folder(cell))
        return manifest is not None and not comparable(manifest["fingerprint"])

    def open(self, cell: Cell) -> Artifact:
        """Return a finished artifact.

        Raises:
            CorruptArtifact: there is none, or its manifest cannot be read.
        """
        folder = self.folder(cell)
        manifest = read_manifest(folder)
        if manifest is None:
            raise _corrupt(folder, "it has no manifest")
        if manifest["key"] != cell.key:
            raise _corrupt(folder, "its manifest belongs to another cell")
        return Artifact(folder, manifest)

    def seal(
        self,
        cell: Cell,
        facts: Mapping[str, Any],
        hashes: Mapping[str, str] | None = None,
        stands: Callable[[], bool] = lambda: True,
    ) -> Artifact:
        """Drop scratch files and write the manifest of everything else; from now on the artifact is done.

        Args:
            cell: What is done.
            facts: Further entries of the manifest.
            hashes: SHA-256 of files that have just been read whole, by path below the folder; the others are read.
            stands: Whether the folder is still the one that was written into.

        Raises:
            DiskFailed: the folder was removed meanwhile, so that files would be missing from the manifest.
        """
        known = hashes or {}
        folder = self.folder(cell)
        remove_tree(folder / SCRATCH)
        for leftover in folder.rglob(".*.tmp"):
            leftover.unlink()
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        named = {path.relative_to(folder).as_posix(): path for path in paths}
        files = {
            name: {"bytes": path.stat().st_size, "sha256": known.get(name) or file_sha256(path)}
            for name, path in named.items()
        }
        manifest = {
            "key": cell.key,
            "spec": cell.spec,
            "label": cell.label,
            "fingerprint": cell.code_hash,
            **({SCORE_HASH: cell.score_hash} if cell.score_hash else {}),
            "files": files,
            "content": content_key({name: entry["sha256"] for name, entry in files.items()}),
            **facts,
        }
        manifest = with_seal(manifest)
        if not stands():
            raise gone(folder)
        write_json(folder / MANIFEST, manifest)
        return Artifact(folder, manifest)

    def discard(self, cell: Cell, *, salvage: bool = False) -> None:
        """Set a corrupt or stale artifact aside, so that it is rebuilt; its bytes stay for a post-mortem.

        With ``salvage``, whole files that this code made stay in place: work in shards makes only what is missing.
        """
        folder = self.folder(cell)
        if not folder.exists():
            return
        for number in range(1, 1000):
            aside = folder.with_name(f"{folder.name}{ASIDE}{number}")
            if not aside.exists():
                folder.rename(aside)
                if salvage and cell.shards:
                    self._salvage(cell, aside)
                return

    def _salvage(self, cell: Cell, aside: Path) -> None:
        try:
            manifest = read_manifest(aside)
        except CorruptArtifact:
            return
        if manifest is None or (manifest["key"], manifest["fingerprint"]) != (cell.key, cell.code_hash):
            return  # what other code made must not pass for what this code makes
        damaged = Artifact(aside, manifest)
        for name in damaged.files():
            with suppress(CorruptArtifact):
                whole, target = damaged.path(name), self.folder(cell) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                whole.rename(target)
        carry_over(self.folder(cell) / SCRATCH, manifest)

    def artifacts(self, kind: str) -> list[Artifact]:
        """Return all finished artifacts of a kind, ordered by folder name."""
        base = self.root / kind
        found = []
        for folder in sorted(base.iterdir()) if base.is_dir() else []:
            if ASIDE in folder.name:
                continue
            manifest = read_manifest(folder)
            if manifest is not None:
                found.append(Artifact(folder, manifest))
        return found


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, or None where there is none.

    Raises:
        CorruptArtifact: the manifest is not JSON, lacks its fields, or was edited.
    """
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        if not {"key", "spec", "files", "fingerprint"} <= manifest.keys():
            raise ValueError("fields are missing")
        if not all(
            type(entry["bytes"]) is int and type(entry["sha256"]) is str for entry in manifest["files"].values()
        ):
            raise ValueError("its list of files has another form")
        why = edited(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise _corrupt(folder, f"its manifest cannot be read: {error}") from error
    if why:
        raise _corrupt(folder, why)
    return dict(manifest)


def _corrupt(folder: Path, why: str) -> CorruptArtifact:
    return CorruptArtifact(
        f"artifact {folder.name} is damaged", why, "run the same command again: it is moved aside and rebuilt"
    )
