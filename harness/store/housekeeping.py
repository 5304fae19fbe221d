"""Housekeeping of a store: what its artifacts are, what uses them, and the removal of what no result needs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any, Literal

from harness.core.errors import CorruptArtifact, UserError
from harness.core.files import parse_json, remove_tree
from harness.core.locks import lock
from harness.store.artifacts import ASIDE, read_manifest
from harness.store.cells import KINDS

State = Literal["done", "partial", "damaged", "moved aside"]
RECORD = "record.json"
_MODEL = ".model-"
"""Beginning of the folders in which ``harness.evaluate`` keeps a model's weights meanwhile."""


@dataclass(frozen=True)
class Entry:
    """An artifact's folder."""

    folder: Path
    kind: str
    name: str
    """Registry id of the generator, backbone or suite, or the name of an extraction; empty without a manifest."""
    label: str
    state: State
    """``partial``: without a manifest, so work that a run can resume. ``damaged``: its manifest cannot be read, or a file is
    missing or has another size than it says. ``moved aside``: a run found it damaged or stale and rebuilt it."""
    bytes: int
    changed: float
    """Unix time of the last change of a file or of the folder."""
    key: str
    """First 16 digits of the content key."""
    used_by: int
    """Number of finished evaluations that it was made for; an evaluation is not used by itself."""

    @property
    def path(self) -> str:
        """Folder below the store: ``kind/name-key``."""
        return f"{self.kind}/{self.folder.name}"


@dataclass(frozen=True)
class Garbage:
    """Something that no result needs."""

    path: Path
    bytes: int
    reason: str
    key: str = ""
    """First 16 digits of its content key, if it is an artifact."""


def in_use_path(store: Path) -> Path:
    """The file on which each run in a store holds a shared lock."""
    return store / "locks" / "in-use.lock"


def remove_torn(store: Path) -> None:
    """Remove what interrupted writes have left beside the artifacts, unless a run is active, whose writes they may be.

    Those inside an artifact's folder go when it is sealed.
    """
    if not in_use(store):
        for path in store.glob(".*.tmp"):
            with suppress(OSError):
                path.unlink()


def in_use(store: Path) -> bool:
    """Return whether a run on this machine, or one of a Python caller, is active in a store."""
    path = in_use_path(store)
    if not path.is_file():
        return False
    try:
        with lock(path, wait=False):
            return False
    except BlockingIOError:
        return True
    except (OSError, UserError):  # a store of somebody else, or on a read-only disk, which cannot be locked
        return False


def entries(store: Path) -> list[Entry]:
    """List the artifacts of a store, by kind in the order of a run, then by folder name."""
    folders = [folder for kind in KINDS for folder in _folders(store / kind)]
    inputs = {_key(folder): _inputs(folder) for folder in folders if ASIDE not in folder.name}
    users: Counter[str] = Counter()
    for folder in folders:
        if folder.parent.name == "evaluate" and ASIDE not in folder.name and _state(folder) == "done":
            users.update(_lineage(_key(folder), inputs))
    return [_entry(folder, users) for folder in folders]


def garbage(store: Path, kept: Collection[str] = (), *, active: bool = False) -> list[Garbage]:
    """List what no finished evaluation was made from, folders that were moved aside, and leftovers of interrupted writes.

    Args:
        store: Folder of the store.
        kept: Folders below the store (``kind/name-key``) that are needed by others, such as an unfinished run.
        active: Whether a run is active: then unfinished folders and temporary files are its own, and not listed.
    """
    found = []
    for entry in entries(store):
        reason = "" if active and entry.state == "partial" else _unneeded(entry, kept)
        if reason:
            found.append(Garbage(entry.folder, entry.bytes, reason, entry.key))
    return found + ([] if active else list(_leftovers(store, {each.path for each in found})))


def remove(store: Path, found: Sequence[Garbage]) -> tuple[list[Garbage], list[Garbage]]:
    """Remove garbage from a store that no run is using. Returns what was removed, and what a process still works on.

    Raises:
        UserError: a run is active; nothing was removed.
    """
    removed: list[Garbage] = []
    busy: list[Garbage] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(in_use_path(store), wait=False))
        except BlockingIOError as error:
            raise UserError(
                f"a run is active in {store}", "artifacts are removed only while none is",
                "wait until it ends, or interrupt it; python -m harness status shows what it is doing",
            ) from error  # fmt: skip
        for each in found:
            (removed if _remove_one(store, each) else busy).append(each)
    return removed, busy


def _remove_one(store: Path, each: Garbage) -> bool:
    with ExitStack() as stack:
        for path in sorted((store / "locks").glob(f"{each.key}*.lock")) if each.key else []:
            try:
                stack.enter_context(lock(path, wait=False, remove=True))
            except BlockingIOError:
                return False
        if each.path.is_dir():
            remove_tree(each.path)
        else:
            each.path.unlink(missing_ok=True)
        return True


def _folders(base: Path) -> list[Path]:
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _key(folder: Path) -> str:
    return folder.name.partition(ASIDE)[0].rpartition("-")[2]


def _manifest(folder: Path) -> dict[str, Any] | None:
    with suppress(CorruptArtifact):
        return read_manifest(folder)
    return None


def _state(folder: Path) -> State:
    if ASIDE in folder.name:
        return "moved aside"
    try:
        manifest = read_manifest(folder)
    except CorruptArtifact:
        return "damaged"
    if manifest is None:
        return "partial"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return "damaged"
    return "done"


def _inputs(folder: Path) -> set[str]:
    """Keys of everything that a folder's manifest and record name as their inputs, 16 digits each."""
    manifest = _manifest(folder)
    keys = set(manifest["spec"].get("inputs", {}).values()) if manifest else set()
    with suppress(OSError, ValueError, AttributeError):
        keys |= set(parse_json((folder / RECORD).read_text(encoding="utf-8")).get("inputs", {}).values())
    return {str(key)[:16] for key in keys}


def _lineage(key: str, inputs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = list(inputs.get(key, ()))
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += inputs.get(one, ())
    return found


def _entry(folder: Path, users: Counter[str]) -> Entry:
    manifest = _manifest(folder) or {"spec": {}}
    stats = [path.lstat() for path in (folder, *folder.rglob("*"))]
    return Entry(
        folder=folder,
        kind=folder.parent.name,
        name=str(manifest["spec"].get("name", "")),
        label=str(manifest.get("label", "")),
        state=_state(folder),
        bytes=sum(each.st_size for each in stats if not S_ISDIR(each.st_mode)),
        changed=max(each.st_mtime for each in stats),
        key=_key(folder),
        used_by=0 if ASIDE in folder.name else users[_key(folder)],
    )


def _unneeded(entry: Entry, kept: Collection[str]) -> str:
    """Why an artifact can go; empty if it must stay. Finished evaluations always stay, and damaged ones, which may be repaired."""
    if entry.state == "moved aside":
        return "moved aside by an earlier run"
    if entry.used_by or entry.path in kept:
        return ""
    if entry.state == "partial":
        return "unfinished"
    return "" if entry.kind == "evaluate" else "not used by any evaluation"


def _leftovers(store: Path, removed: set[Path]) -> Iterator[Garbage]:
    """Temporary files of interrupted writes, and folders whose removal was interrupted."""
    for path in sorted(store.rglob(".*")):
        inside = any(parent in removed for parent in path.parents)
        if not inside and path.name.endswith(".gone") and path.is_dir():
            count = sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
            yield Garbage(path, count, "removal was interrupted")
        elif not inside and path.name.startswith(_MODEL) and _old(path):
            count = sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
            yield Garbage(path, count, "evaluation from Python was interrupted")
        elif not inside and path.name.endswith(".tmp") and path.is_file() and not _in_gone(path, store):
            yield Garbage(path, path.lstat().st_size, "write was interrupted")


def _old(folder: Path) -> bool:
    """Return whether a folder was left alone for a day: no process waits so long before its run begins."""
    return folder.is_dir() and time.time() - folder.stat().st_mtime > 86400


def _in_gone(path: Path, store: Path) -> bool:
    return any(parent.name.endswith(".gone") for parent in path.relative_to(store).parents)
