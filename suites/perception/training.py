"""Run a resolved config through mmengine so that a killed run continues to bit-identical weights.

Three things make that so: every picture's augmentation is seeded by (seed, visit, item), see ``loading``; every
iteration reseeds torch by (seed, iteration), and checkpoints are written whole (temporary file, rename, pointer last).

Imported only after ``bridge.install``: this module needs mmengine.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from harness.api import TrainingFailed, UserError, atomic_path, check_state, write_text
from suites.perception.jobs import Progress
from suites.perception.loading import BrokenItem, derive
from suites.perception.shims import resumable

POINTER = "last_checkpoint"
MEASURE_AFTER = 200


@LOOPS.register_module()
class StreamLoop(IterBasedTrainLoop):
    """Iterate to ``max_iters``; the sampler starts behind consumed batches, nothing is loaded twice."""

    def run(self) -> Any:
        """Train, then validate once after the last iteration."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        while self._iter < self._max_iters:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        self.runner.val_loop.run()
        return self.runner.model


class ReseedHook(Hook):
    """Make the random draws of an iteration a function of (seed, iteration)."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed torch, numpy and Python."""
        seed = derive("iteration", self.seed, runner.iter)
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)


class CheckpointHook(Hook):
    """Save the full state every ``every`` epochs or iterations; only the newest file is kept."""

    priority = "VERY_LOW"

    def __init__(self, every: int, by_epoch: bool) -> None:
        self.every, self.by_epoch = every, by_epoch

    def after_train_epoch(self, runner: Runner) -> None:
        """Save at epoch boundaries and after the last epoch."""
        done = runner.epoch + 1
        if self.by_epoch and (done % self.every == 0 or done == runner.max_epochs):
            self._save(runner, f"epoch_{done}.pth")

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save at iteration intervals and after the last iteration."""
        done = runner.iter + 1
        if not self.by_epoch and (done % self.every == 0 or done == runner.max_iters):
            self._save(runner, f"iter_{done}.pth")

    def _save(self, runner: Runner, name: str) -> None:
        folder = Path(runner.work_dir)
        with atomic_path(folder / name) as temporary:
            runner.save_checkpoint(str(folder), temporary.name, by_epoch=self.by_epoch)
        write_text(folder / POINTER, str(folder / name))
        for old in folder.glob("*.pth"):
            if old.name != name:
                old.unlink()


class WatchHook(Hook):
    """Report progress with the measured cost and stop at a loss that is not finite."""

    priority = "LOW"

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total
        self.seconds, self.counted, self._began = 0.0, 0, 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock of this iteration at the end of the previous one, so data loading counts."""
        if not self._began:
            self._began = time.perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the iteration and extrapolate."""
        now = time.perf_counter()
        self.seconds, self.counted, self._began = self.seconds + now - self._began, self.counted + 1, now
        loss = float(outputs["loss"].detach()) if outputs and "loss" in outputs else 0.0
        if not math.isfinite(loss):
            raise TrainingFailed(
                "perception training diverged",
                f"loss {loss} at iteration {runner.iter + 1}",
                "lower the rate",
            )
        self.progress(runner.iter + 1, self.total, f"loss {loss:.3f}{self._cost(runner.iter + 1)}")

    def _cost(self, done: int) -> str:
        if self.counted < min(MEASURE_AFTER, max(1, self.total // 10)):
            return ""
        pace = self.seconds / self.counted
        return f", {pace:.3f} s/iteration, {pace * (self.total - done) / 3600:.2f} h left"


class BackboneHook(Hook):
    """Compare the backbone with its file: all before the first iteration, the frozen part at the end."""

    def __init__(self, state: Mapping[str, Tensor], frozen: tuple[str, ...]) -> None:
        self.state, self.frozen = state, frozen

    def before_train(self, runner: Runner) -> None:
        """Require every tensor to have arrived."""
        if runner.iter == 0:
            self._compare(runner, tuple(self.state), "backbone was not loaded")

    def after_train(self, runner: Runner) -> None:
        """Require the frozen stages to be untouched."""
        keys = tuple(k for k in self.state if self.frozen and k.startswith(self.frozen))
        self._compare(runner, keys, "frozen backbone stages changed")

    def _compare(self, runner: Runner, keys: tuple[str, ...], what: str) -> None:
        model = runner.model.module if hasattr(runner.model, "module") else runner.model
        loaded = model.backbone.state_dict()
        wrong = [key for key in keys if not torch.equal(loaded[key].cpu(), self.state[key])]
        if wrong:
            raise UserError(what, f"{len(wrong)} tensors differ from the file, first {wrong[0]}", "report this")


@dataclass(frozen=True)
class Trained:
    """What a run leaves in memory: the model and its measured cost."""

    model: Any
    seconds_per_iteration: float | None
    iterations: int


def run(
    config: dict[str, Any],
    work: Path,
    results: tuple[Path, ...],
    state: Mapping[str, Tensor],
    frozen: tuple[str, ...],
    every: int,
    progress: Progress,
) -> Trained:
    """Train and validate once, continuing from the newest checkpoint in ``work``.

    Args:
        config: Resolved config of ``configs``.
        work: Folder of checkpoints and log.
        results: Files the validation writes; removed first, validated again if a killed run left none.
        state: The backbone's tensors under toolbox names.
        frozen: Key prefixes that must stay bit-identical.
        every: Checkpoint interval, epochs or iterations by the kind of loop.
        progress: Called after each iteration.

    Raises:
        UserError: A picture cannot be used; the checkpoints stay.
        TrainingFailed: The loss is not finite.
    """
    work.mkdir(parents=True, exist_ok=True)
    for path in results:
        path.unlink(missing_ok=True)
    by_epoch = config["train_cfg"]["type"] == "EpochBasedTrainLoop"
    seed = config["randomness"]["seed"]
    console = sys.stdout

    def report(done: int, total: int, note: str) -> None:
        with contextlib.redirect_stdout(console):
            progress(done, total, note)

    with (work / "log.txt").open("a") as log, contextlib.redirect_stdout(log), resumable():
        newest = _newest(work)
        if newest is not None and not by_epoch:
            config = _started_at(config, newest)
        # Plain arguments: from_cfg would pretty-print the config into every checkpoint, seconds each.
        runner = Runner(**ConfigDict(config), work_dir=str(work), resume=newest is not None)
        if newest is not None:
            check_checkpoint(newest, runner.model)
        total = runner.train_loop.max_iters if not by_epoch else _epoch_iterations(runner)
        watch = WatchHook(report, total)
        for hook in (ReseedHook(seed), CheckpointHook(every, by_epoch), watch, BackboneHook(state, frozen)):
            runner.register_hook(hook)
        with _broken_items_explained():
            runner.train()
            if not all(path.exists() for path in results):
                runner.val()
    pace = watch.seconds / watch.counted if watch.counted else None
    return Trained(runner.model, pace, total)


@contextlib.contextmanager
def _broken_items_explained() -> Iterator[None]:
    try:
        yield
    except BrokenItem as error:
        raise UserError(
            "a picture cannot be used",
            error.line,
            "replace the file and run the same command again: it goes on from the last checkpoint",
        ) from error


def _newest(work: Path) -> Path | None:
    pointer = work / POINTER
    if not pointer.exists():
        return None
    # Only the name counts: the folder may have moved since.
    path = work / Path(pointer.read_text().strip()).name
    pointer.write_text(str(path))
    return path


def check_checkpoint(path: Path, model: Any) -> None:
    """Compare the tensors of a checkpoint with the network's: mmengine goes on without those that are missing.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape.
    """
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    network = model.module if hasattr(model, "module") else model
    check_state(content["state_dict"], network.state_dict(), path, "delete the folder and start again")


def _started_at(config: dict[str, Any], newest: Path) -> dict[str, Any]:
    match = re.fullmatch(r"iter_(\d+)", newest.stem)
    if match is None:
        raise UserError("unknown perception checkpoint", str(newest), "delete the folder and start again")
    loader = config["train_dataloader"]
    start = int(match[1]) * loader["batch_size"]
    return {**config, "train_dataloader": {**loader, "sampler": {**loader["sampler"], "start": start}}}


def _epoch_iterations(runner: Runner) -> int:
    return int(runner.train_loop.max_epochs * len(runner.train_loop.dataloader))
