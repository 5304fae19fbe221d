"""What a plugin is handed while it works on a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from harness.core.classes import ClassList, load_classes
from harness.core.errors import UserError
from harness.core.identity import derive_seed
from harness.core.resources import local_source
from harness.core.settings import parse_settings
from harness.store.artifacts import SCRATCH, Artifact
from harness.store.cells import Cell
from harness.store.data import DataSource, materialise

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
"""Called with (done, total, note)."""
_CACHE: dict[str, Any] = {}
_CACHE_LIMIT = 3


def silent(done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Context:
    """What a plugin may know while it works on a cell."""

    cell: Cell
    out: Path
    """The artifact's folder; whatever is written here is part of the artifact."""
    inputs: Mapping[str, Artifact]
    sources: Mapping[str, DataSource]
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    progress: Progress = field(default=silent)

    @property
    def scratch(self) -> Path:
        """Return a folder for checkpoints; it survives a kill and is gone when the artifact is done."""
        path = self.out / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the cell's parameters."""
        return self.cell.params

    @property
    def classes(self) -> ClassList:
        """Return the ordered class list the cell works with.

        Raises:
            UserError: the list has changed since the plan was made.
        """
        classes = load_classes(self.params["classes"]["name"])
        if classes.content != self.params["classes"]["content"]:
            raise UserError(
                f"class list {classes.name} has changed since the plan was made",
                "its hash differs from the cell's",
                "start the command again",
            )
        return classes

    def data(self, name: str) -> Path:
        """Return the root folder of a data set; one that this software writes is written first.

        Args:
            name: One of the names in the card's or item's ``data``.

        Raises:
            KeyError: the cell does not declare this data set.
            DataMissing: the data set cannot be written.
        """
        return materialise(self.sources[name])

    def card(self, name: str) -> Mapping[str, Any]:
        """Return the data set's card: a JSON object of what differs from the public data set; empty for the public one.

        Raises:
            KeyError: the cell does not declare this data set.
        """
        return self.sources[name].card

    def settings(self, model: type[T]) -> T:
        """Return the cell's settings as an instance of ``model``, the plugin's ``Settings``."""
        return cast(T, parse_settings(cast(Any, model), self.params["settings"], self.cell.name))

    def source(self, name: str) -> str:
        """Return a setting that names a model: the path of a local folder, or the setting's text (``hub:ID@REVISION``).

        Args:
            name: A setting named in the plugin's ``sources``.

        Raises:
            DataMissing: it names a folder that does not exist.
        """
        location = str(self.params["settings"][name])
        folder = local_source(location)
        return location if folder is None else str(folder)

    def seed(self, *facts: str | int) -> int:
        """Return a seed derived from the cell's seeds and ``facts``."""
        return derive_seed(*(f"{k}={v}" for k, v in sorted(self.cell.seeds.items())), *facts)

    def cached(self, name: str, build: Callable[[], T]) -> T:
        """Return what ``build`` returns, built once per worker and cell."""
        return shared(f"{self.cell.key}/{name}", build)


def shared(key: str, build: Callable[[], T]) -> T:
    """Build something costly once per worker; what was used last is kept."""
    if key not in _CACHE:
        while len(_CACHE) >= _CACHE_LIMIT:
            _CACHE.pop(next(iter(_CACHE)))
        _CACHE[key] = build()
    _CACHE[key] = _CACHE.pop(key)
    return cast(T, _CACHE[key])


def release_shared() -> None:
    """Let go of everything built by ``shared``: for processes that go on with other work, whose memory it would hold."""
    _CACHE.clear()
