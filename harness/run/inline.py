"""The executor of a Python caller: the cells of a plan in this process, one after another, with the numbers that workers give.

A failure is raised where it happens; what was done before it stays in the store. Cells that leave a process unusable for other
work (``Resources.isolated``) go to a worker process of their own, as on the command line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.core.errors import CorruptArtifact, UserError
from harness.core.locks import lock
from harness.plan.model import Plan
from harness.plugins.context import release_shared
from harness.run.job import Job, execute
from harness.run.join import missing_shards
from harness.run.local import LocalExecutor
from harness.run.progress import ProgressReporter, RunSummary
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.housekeeping import in_use_path


class InlineExecutor:
    """Runs a plan in this process.

    Args:
        store: Where artifacts go.
        slots: Of no meaning here: one cell runs at a time.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        board: Receives every step of the run.
    """

    def __init__(self, store: Store, slots: int, device: str, board: ProgressReporter) -> None:
        self.store, self.device, self.board = store, device, board

    def run(self, plan: Plan, wanted: frozenset[str]) -> RunSummary:
        """Do the wanted cells of a plan, inputs first.

        Raises:
            UserError: a cell failed for a reason the caller can act on; the cells after it have not been started.
            Exception: whatever else a plugin or the model itself raised.
        """
        todo = [cell for key, cell in plan.cells.items() if key in wanted]
        self.board.begin(todo, [cell for key, cell in plan.cells.items() if key not in wanted], 1)
        try:
            with lock(in_use_path(self.store.root), shared=True):
                for cell in todo:
                    self._do_and_repair(plan, cell)
        except BaseException:
            self.board.interrupt()
            raise
        finally:
            release_shared()
        return self.board.finish()

    def _do_and_repair(self, plan: Plan, cell: Cell) -> None:
        """Do a cell; if an input turns out to be damaged, set it aside, rebuild it and try once more."""
        try:
            self._do(plan, cell)
        except CorruptArtifact:
            damaged = [made for made in plan.inputs(cell).values() if self._damaged(made)]
            if not damaged:
                raise
            release_shared()
            for made in damaged:
                self.store.discard(made, salvage=True)
                self._do_and_repair(plan, made)
            self._do(plan, cell)

    def _damaged(self, cell: Cell) -> bool:
        try:
            self.store.open(cell).verify()
        except CorruptArtifact:
            return True
        return False

    def _do(self, plan: Plan, cell: Cell) -> None:
        if cell.resources.isolated:
            self._do_apart(plan, cell)
            return
        missing = missing_shards(self.store.folder(cell), cell)
        self.board.resumed(cell, len(cell.shards) - len(missing))
        for shard in (*missing, ""):
            self._do_here(plan, cell, shard)

    def _do_here(self, plan: Plan, cell: Cell, shard: str) -> None:
        def progress(done: int, total: int, note: str) -> None:
            self.board.progress(cell, shard, done, total, note)
            self.board.tick()

        job = Job(cell, plan.inputs(cell), plan.sources_of(cell), str(self.store.root), shard, self.device)
        started, cpu = time.monotonic(), time.process_time()
        self.board.started(cell, shard, os.getpid())
        self.board.tick()
        try:
            with _as_a_worker(cell.resources.threads):
                execute(job, progress)
        except BaseException as error:
            reason = error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.board.failed(cell, shard, {"what": reason, "why": "", "fix": ""}, time.process_time() - cpu)
            raise
        self.board.done(cell, shard, time.monotonic() - started, time.process_time() - cpu)

    def _do_apart(self, plan: Plan, cell: Cell) -> None:
        """Do a cell in a worker process that is thrown away."""
        known = len(self.board.failures)
        LocalExecutor(self.store, 1, self.device.partition(":")[0], self.board).run(plan, frozenset({cell.key}))
        for failure in self.board.failures[known:]:
            raise UserError(failure.what, f"{failure.why} (log: {failure.log})", failure.fix)


@contextmanager
def _as_a_worker(threads: int) -> Iterator[None]:
    """Compute with the threads that a worker has, because sums of floats depend on them, and leave the caller's state as it was."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        with threadpool_limits(1), torch.random.fork_rng(devices=[]):
            torch.set_num_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)
