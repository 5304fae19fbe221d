"""Data sets by name: where they are, what marks their content, and embedded ones written at first use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from harness.core.code import code_hash, load_attribute
from harness.core.errors import DataMissing, UserError
from harness.core.files import parse_json, write_text
from harness.core.fingerprints import Fingerprints
from harness.core.identity import canonical_json
from harness.core.locks import lock
from harness.core.resources import cache_folder, local_source, read_resource
from harness.core.settings import Settings
from harness.store.cells import Cell

DONE = ".complete"
CHECKPOINT = "checkpoint"
"""Name under which the file of a checkpoint from outside, or the function that makes a classifier, is found."""
HEAD = "head"
"""Name under which the file of a linear head beside a checkpoint is found."""


class DataSettings(Settings):
    """Where a data set is, or which function writes it, and how it differs from the public one."""

    root: str = ""
    writer: str = ""
    """``module:function`` called with (name, folder); for embedded data."""
    writer_name: str = ""
    """Name under which the writer knows it, where that differs."""
    identity: str = ""
    """``module:function`` called with (name); its text names the content the writer would write."""
    card: str = ""
    """JSON file (``package:PKG/PATH`` or a path), or the JSON object itself, of what differs from the public data set."""


def load_card(location: str) -> dict[str, Any]:
    """Return the JSON object of a dataset card; empty for the public data set's own card."""
    if not location:
        return {}
    try:
        card = parse_json(location if location.lstrip().startswith("{") else read_resource(location))
    except ValueError as error:
        raise UserError(f"dataset card {location} is not JSON", str(error), "correct the file") from error
    if not isinstance(card, dict):
        raise UserError(
            f"dataset card {location} is not a JSON object", f"it is a {type(card).__name__}", "correct the file"
        )
    return card


@dataclass(frozen=True)
class DataSource:
    """A data set that a run can read."""

    name: str
    root: str
    data_hash: str
    card: Mapping[str, Any]
    writer: str = ""
    writer_name: str = ""
    function: str = ""
    """``module:function`` that makes it, of a classifier: it is known by its hash wherever it is made."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find_data(name: str, settings: DataSettings, fingerprints: Fingerprints | None = None) -> DataSource | str:
    """Return the data set, or in words why it is not there. Writes nothing but the cache of ``fingerprints``."""
    card = load_card(settings.card)
    if settings.writer:
        writer_name = settings.writer_name or name
        identity = cast(Callable[[str], str], load_attribute(settings.identity))(writer_name)
        mark = hashlib.sha256(identity.encode()).hexdigest()
        # What other code has left is never read as what this one writes.
        code = code_hash(settings.writer).rpartition(":")[2]
        root = cache_folder() / f"{writer_name}-{mark[:12]}-{code[:8]}"
        return DataSource(name, str(root), _mark(mark, card), card, settings.writer, writer_name)
    if not settings.root:
        return f"no root for data set {name!r}: give --data {name}=PATH"
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        return f"data set {name!r}: {root} is not a folder"
    try:
        return DataSource(name, str(root), _found(root, card, fingerprints or Fingerprints.beside(None)), card)
    except DataMissing as error:
        return f"data set {name!r}: {error.what}: {error.why}"
    except OSError as error:
        return f"data set {name!r}: {error.filename or root} cannot be read: {error.strerror}"


def _found(root: Path, card: Mapping[str, Any], fingerprints: Fingerprints) -> str:
    """Return the fingerprint of what lies there now: a folder with its card, or a single file."""
    return fingerprints.file(root) if root.is_file() else _mark(fingerprints.data(root), card)


def model_files(location: str) -> Path | None:
    """Return the folder or file on this machine whose bytes a model source stands for; None where there is none.

    It is what the source names, or the weights of ``open_clip:NAME@FILE``.

    Raises:
        DataMissing: a folder that does not exist.
    """
    path, weights = local_source(location), Path(location.rpartition("@")[2]).expanduser()
    return weights if path is None and "@" in location and weights.is_file() else path


def check_unchanged(cell: Cell, sources: Mapping[str, DataSource], store: Path) -> None:
    """Check that the data sets and local models that a cell has read are still those its key stands for.

    Data sets count as far as their fingerprints see; hashes of large files are kept beside ``store``.

    Raises:
        UserError: one of them has changed since the plan was made.
    """
    fingerprints = Fingerprints.beside(store)
    for name, source in ((name, sources[name]) for name in cell.data if name in sources):
        root = Path(source.root)
        if not (source.writer or source.function) and not (
            root.exists() and _found(root, source.card, fingerprints) == source.data_hash
        ):
            raise _changed(f"data set {name!r}", root)
    for name, mark in cell.params.get("sources", {}).items():
        path = model_files(str(cell.params["settings"][name]))
        if path is not None and fingerprints.model(path) != mark:
            raise _changed(f"the model {name!r}", path)


def _changed(what: str, path: Path) -> UserError:
    return UserError(
        f"{what} has changed since the plan was made",
        f"the files in {path} are no longer those its fingerprint stands for",
        "start the command again when nothing writes to them any more",
    )


def _mark(content: str, card: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{content}\n{canonical_json(card)}".encode()).hexdigest()


def materialise(source: DataSource) -> Path:
    """Return the data set's folder, writing it first if it is embedded and not yet in the cache.

    Raises:
        DataMissing: the folder has gone since the plan was made.
        UserError: files of an embedded data set have changed since it was written.
    """
    root = Path(source.root)
    if source.writer and not (root / DONE).is_file():
        with lock(root.with_name(f".{root.name}.lock"), remove=True):
            if not (root / DONE).is_file():
                write = cast(Callable[[str, Path], None], load_attribute(source.writer))
                write(source.writer_name, root)
                write_text(root / DONE, f"{source.data_hash}\n{_content(root)}\n")
    if not root.is_dir():
        raise DataMissing(
            f"data set {source.name!r} is not there", f"{root} is not a folder", f"give --data {source.name}=PATH"
        )
    if source.writer:
        _check_written(source.name, root)
    return root


def _content(root: Path) -> str:
    return Fingerprints.beside(None).data(root)


@cache
def _check_written(name: str, root: Path) -> None:
    """Check, once per process, that an embedded data set is as it was written; of older ones nothing is known."""
    written = (root / DONE).read_text(encoding="utf-8", errors="replace").split()[1:]
    if written and written != [_content(root)]:
        raise UserError(
            f"files of the embedded data set {name!r} have changed since it was written",
            f"the files in {root} are not those its fingerprint stands for",
            "remove that folder: it is written again when it is next needed",
        )
