"""Work: what a worker does for a cell. The context it hands to plugins, and the five kinds of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from harness.core.classes import ClassList, load_classes
from harness.core.cost import facts as cost_facts
from harness.core.cost import stopwatch
from harness.core.errors import UserError
from harness.core.files import explain_full_disk, lock
from harness.core.identity import derive_seed
from harness.core.provenance import provenance
from harness.plan.profile import local_source, parse_settings
from harness.plugins.registry import load_attribute
from harness.store.artifacts import SCRATCH, Artifact, Store
from harness.store.cells import Cell
from harness.store.data import DataSource, check_unchanged, materialise

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
        """Return the root of a data set, written first if it is embedded."""
        return materialise(self.sources[name])

    def card(self, name: str) -> Mapping[str, Any]:
        """Return what differs from the public data set; empty for the public one."""
        return self.sources[name].card

    def settings(self, model: type[T]) -> T:
        """Return the cell's settings as the plugin's own type."""
        return cast(T, parse_settings(cast(Any, model), self.params["settings"], self.cell.name))

    def source(self, name: str) -> str:
        """Return a model source of the settings: a folder as its path, anything else as it is written."""
        location = str(self.params["settings"][name])
        folder = local_source(location)
        return location if folder is None else str(folder)

    def seed(self, *facts: str | int) -> int:
        """Return a seed derived from the cell's seeds and ``facts``."""
        return derive_seed(*(f"{k}={v}" for k, v in sorted(self.cell.seeds.items())), *facts)

    def cached(self, name: str, build: Callable[[], T]) -> T:
        """Build something costly once per worker and cell."""
        return shared(f"{self.cell.key}/{name}", build)


def shared(key: str, build: Callable[[], T]) -> T:
    """Build something costly once per worker; what was used last is kept."""
    if key not in _CACHE:
        while len(_CACHE) >= _CACHE_LIMIT:
            _CACHE.pop(next(iter(_CACHE)))
        _CACHE[key] = build()
    _CACHE[key] = _CACHE.pop(key)
    return cast(T, _CACHE[key])


@dataclass(frozen=True)
class Order:
    """A cell, or one shard of it, with all a worker needs to do it."""

    cell: Cell
    inputs: Mapping[str, Cell]
    sources: Mapping[str, DataSource]
    store: str
    shard: str = ""
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "cell": self.cell.to_dict(),
            "inputs": {role: cell.to_dict() for role, cell in self.inputs.items()},
            "sources": {name: source.to_dict() for name, source in self.sources.items()},
            "store": self.store,
            "shard": self.shard,
            "device": self.device,
        }

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Order:
        """Rebuild an order from ``to_dict``."""
        return Order(
            cell=Cell.from_dict(raw["cell"]),
            inputs={role: Cell.from_dict(cell) for role, cell in raw["inputs"].items()},
            sources={name: DataSource(**source) for name, source in raw["sources"].items()},
            store=raw["store"],
            shard=raw["shard"],
            device=raw["device"],
        )


def execute(order: Order, progress: Progress = silent, rank: int = 0, world_size: int = 1) -> None:
    """Do an order. A cell with shards is sealed by the order that names no shard.

    Whoever comes second waits at the lock and finds the work done. Only rank 0 seals.

    Raises:
        UserError: a data set or model has changed since the plan was made; nothing is sealed.
    """
    store = Store(Path(order.store))
    cell = order.cell
    out = store.folder(cell)
    out.mkdir(parents=True, exist_ok=True)
    inputs = {role: store.open(made_by) for role, made_by in order.inputs.items()}
    ctx = Context(cell, out, inputs, order.sources, order.device, rank, world_size, progress)
    work = cast(Callable[..., None], load_attribute(cell.work))
    if rank > 0:
        work(ctx)
        return
    with _full_disk_explained(out), lock(store.root / "locks" / f"{cell.key[:16]}{order.shard}.lock"):
        if store.state(cell) in ("done", "stale"):
            return
        started, spent = time.time(), stopwatch()
        if order.shard:
            work(ctx, order.shard)
            return
        work(ctx)
        check_unchanged(cell, order.sources, store.root)
        store.seal(
            cell,
            {
                "provenance": provenance(order.device, cell.resources.threads),
                "started": round(started, 3),
                **cost_facts(out / SCRATCH, cell.shards, spent()),
            },
        )


@contextmanager
def _full_disk_explained(out: Path) -> Iterator[None]:
    """Turn a full disk into a user error; files already finished are untouched, because every write is atomic."""
    try:
        yield
    except OSError as error:
        raise explain_full_disk(out, error) from error
