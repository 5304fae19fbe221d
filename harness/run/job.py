"""Work: what a worker does for a cell. The context it hands to plugins, and the five kinds of work."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from harness.core.code import load_attribute
from harness.core.cost import manifest_fields, stopwatch
from harness.core.disk import disk_errors, explain, gone
from harness.core.locks import lock
from harness.core.provenance import provenance
from harness.plugins.border import code_errors
from harness.plugins.context import Context, Progress, silent
from harness.store.artifacts import SCRATCH, Store
from harness.store.cells import Cell
from harness.store.data import DataSource, check_unchanged

Work = Callable[..., Mapping[str, str] | None]
"""What does a cell; it may return the SHA-256 of files it has read whole, by path below the artifact's folder."""


@dataclass(frozen=True)
class Job:
    """A cell, or one shard of it, with all a worker needs to do it."""

    cell: Cell
    inputs: Mapping[str, Cell]
    sources: Mapping[str, DataSource]
    store: str
    shard: str = ""
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        Only the job that joins the shards of a cell names them all: they may be many.
        """
        return {
            "cell": (replace(self.cell, shards=()) if self.shard else self.cell).to_dict(),
            "inputs": {role: replace(cell, shards=()).to_dict() for role, cell in self.inputs.items()},
            "sources": {name: source.to_dict() for name, source in self.sources.items()},
            "store": self.store,
            "shard": self.shard,
            "device": self.device,
        }

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Job:
        """Rebuild a job from ``to_dict``."""
        return Job(
            cell=Cell.from_dict(raw["cell"]),
            inputs={role: Cell.from_dict(cell) for role, cell in raw["inputs"].items()},
            sources={name: DataSource(**source) for name, source in raw["sources"].items()},
            store=raw["store"],
            shard=raw["shard"],
            device=raw["device"],
        )


def no_beat(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class JobRank:
    """The place of a process among those that do one job together."""

    number: int = 0
    size: int = 1
    agree: Callable[[bool | None], bool] = bool
    """Tells the others whether there is work (rank 0), or waits to be told (the others, which give None)."""
    beat: Callable[[int, int], None] = no_beat
    """Called with (done, total) as the work proceeds."""


ALONE = JobRank()
FINISHED = ("done", "stale", "rescore")


def execute(job: Job, progress: Progress = silent, rank: JobRank = ALONE) -> None:
    """Do a job. A cell with shards is sealed by the job that names no shard.

    Whoever comes second waits at the lock and finds the work done. Only rank 0 takes the lock and seals; the other ranks begin
    when it has found that there is work.

    Raises:
        UserError: a data set or model has changed since the plan was made, or the disk is full; nothing is sealed.
    """
    store, cell = Store(Path(job.store)), job.cell
    out = store.folder(cell)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with _kept(out) as stands:
            inputs = {role: store.open(made_by) for role, made_by in job.inputs.items()}
            ctx = Context(cell, out, inputs, job.sources, job.device, rank.number, rank.size, progress)
            work = _callable(cell)
            if rank.number > 0:
                if rank.agree(None):
                    work(ctx)
                return
            with _locked(store, job):
                if rank.agree(store.state(cell) not in FINISHED):
                    with _unless_finished(store, cell):
                        _do(job, ctx, work, store, stands)


@contextmanager
def _unless_finished(store: Store, cell: Cell) -> Iterator[None]:
    """Drop an error if the cell is sealed: a run on another machine, whose locks are not seen here, has done it meanwhile."""
    try:
        yield
    except Exception:
        if store.state(cell) not in FINISHED:
            raise
        traceback.print_exc()
        print("note: another run has finished this cell meanwhile; its result stands", flush=True)


@contextmanager
def _locked(store: Store, job: Job) -> Iterator[None]:
    """Keep other runs from doing the same job, and from joining and sealing a cell while a shard of it is made."""
    path = store.root / "locks" / f"{job.cell.key[:16]}.lock"
    if not job.shard:
        with lock(path, remove=True):
            yield
        return
    with lock(path, shared=True), lock(path.with_name(f"{job.cell.key[:16]}{job.shard}.lock"), remove=True):
        yield


@contextmanager
def _kept(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a folder is still the one that it was, and not one made anew in its place.

    Raises:
        DiskFailed: something was raised in the block, and the folder was removed meanwhile: that is its cause.
    """
    handle = os.open(folder, os.O_RDONLY)  # while it is open, no other folder gets its number

    def stands() -> bool:
        return folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat())

    try:
        yield stands
    except Exception as error:
        if stands() or explain(folder, error):
            raise
        raise gone(folder) from error
    finally:
        os.close(handle)


def _do(job: Job, ctx: Context, work: Work, store: Store, stands: Callable[[], bool]) -> None:
    """Do the work of a job, and seal the cell unless it was one of its shards."""
    started, spent, cell = time.time(), stopwatch(), job.cell
    if job.shard:
        work(ctx, job.shard)
        return
    hashes = work(ctx)
    check_unchanged(cell, job.sources, store.root)
    store.seal(
        cell,
        {
            "provenance": provenance(job.device, cell.resources.threads),
            "started": round(started, 3),
            **manifest_fields(ctx.out / SCRATCH, cell.shards, spent()),
        },
        hashes or {},
        stands,
    )


def _callable(cell: Cell) -> Work:
    """Return what does the cell; exceptions of code outside ``harness`` are reported as that code's."""
    work = cast(Work, load_attribute(cell.callable_path))
    module = cell.callable_path.partition(":")[0]
    if module.startswith("harness."):
        return work

    def guarded(ctx: Context, *shard: str) -> None:
        with code_errors(f"{cell.callable_path} ({cell.shown_kind} {cell.name})", (module,)):
            work(ctx, *shard)

    return guarded
