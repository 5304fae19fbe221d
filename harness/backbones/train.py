"""Pre-training: one loop, start to end, on one device or on many under torchrun.

Everything random is a function of (seed, step) or (seed, epoch, sample), so a checkpoint needs no generator
states, a resumed run equals an uninterrupted one, and every world size sees the same samples, augmented the
same way, in the same batches. (Batch statistics and stochastic depth are per rank and do depend on the world
size.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from harness.backbones.augment import Augment
from harness.backbones.models import create, is_convolutional, size_arguments
from harness.backbones.randomness import INIT, LAYERS, derive, permutation
from harness.backbones.ranks import Ranks, join
from harness.backbones.recipe import PretrainSettings
from harness.backbones.state import TrainingState
from harness.core.errors import UserError

LOSS_SYNC_EVERY = 50  # steps between looks at the loss on a GPU, where each look waits for the device


class TrainingData(Protocol):
    """Labelled training images: squares of one size (`TrainingCopy`), or crops of the original files (`Originals`)."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def cropped(self) -> bool: ...

    def __len__(self) -> int: ...

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Progress:
    """Report where a training stands; `loss` is the mean of the present epoch so far."""

    step: int
    steps: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class Hooks:
    """Connect a training to its surroundings.

    Attributes:
        progress: Called about once a second on rank 0.
        should_stop: Asked after each step; when true, a checkpoint is written and the training pauses.
        checkpoint_seconds: Time between checkpoints; 0 writes one after each step.
    """

    progress: Callable[[Progress], None] | None = None
    should_stop: Callable[[], bool] | None = None
    checkpoint_seconds: float = 60.0


def train(
    settings: PretrainSettings,
    data: TrainingData,
    folder: Path,
    *,
    seed: int,
    state_file: Path,
    device: str = "cpu",
    hooks: Hooks | None = None,
) -> bool:
    """Train a backbone and write its folder; continue from `state_file` when it exists.

    Under torchrun every rank calls this with the same arguments; rank 0 writes.

    Args:
        settings: The recipe.
        data: The training images.
        folder: Gets `raw.safetensors`, `ema.safetensors`, `log.jsonl` and, last, `backbone.json`.
        seed: Training seed: initial weights, order, augmentation.
        state_file: The resumable checkpoint; removed when the training is finished.
        device: "cpu" or "cuda".
        hooks: Progress, pausing and the checkpoint interval.

    Returns:
        True when the training is finished, False when it was paused.

    Raises:
        UserError: The data are fewer than a batch, or `state_file` is damaged or another training's.
        TrainingFailed: The loss is not finite.
    """
    with join(device) as ranks:
        kwargs = size_arguments(settings.arch, settings.image_size)
        torch.manual_seed(derive(seed, INIT, 0))
        model = create(settings.arch, len(data.classes), drop_path_rate=settings.drop_path, **kwargs)
        model = model.to(ranks.device).to(memory_format=_layout(model))
        state = TrainingState(settings, model, data.classes, len(data), seed)
        state.resume(state_file)
        finished = _loop(state, data, ranks, seed, state_file, hooks or Hooks())
        if finished and ranks.rank == 0:
            state.finish(folder, dict(kwargs), ranks.world)
            state_file.unlink(missing_ok=True)
    return finished


def _loop(state: TrainingState, data: TrainingData, ranks: Ranks, seed: int, state_file: Path, hooks: Hooks) -> bool:
    """Run the steps that are left; return whether all are done."""
    s, device = state.settings, ranks.device
    per_epoch = steps_per_epoch(len(data), s.batch_size)
    total, share = per_epoch * s.epochs, ranks.share(s.batch_size)
    network = DistributedDataParallel(state.model) if ranks.world > 1 else state.model
    layout = _layout(state.model)
    augment = Augment(s, len(data.classes), seed, device, cropped=data.cropped)
    autocast = torch.autocast(device.type, torch.bfloat16) if s.precision == "bf16" else nullcontext()
    reporter = _Reporter(state, hooks, total, state_file if ranks.rank == 0 else None)

    def read(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = permutation(seed, step // per_epoch, len(data))
        first = step % per_epoch * s.batch_size
        samples = order[first : first + s.batch_size][share]
        return data.read(samples, step // per_epoch), data.labels[samples], samples

    state.model.train()
    with ThreadPoolExecutor(1) as reader:  # reads the next batch while this one computes
        batch = reader.submit(read, state.step)
        while state.step < total:
            step, epoch = state.step, state.step // per_epoch
            images, labels, samples = batch.result()
            if step + 1 < total:
                batch = reader.submit(read, step + 1)
            x, targets = augment(images, labels, samples, epoch, step)
            torch.manual_seed(derive(seed, LAYERS, step, ranks.rank))  # stochastic depth
            with autocast:
                logits = network(x.contiguous(memory_format=layout))
            loss = -(targets * logits.float().log_softmax(1)).sum(1).mean()
            rate = learning_rate(s, step, per_epoch)
            state.update(loss, rate)
            if state.step % per_epoch == 0:
                state.close_epoch(epoch, rate)
            stop = hooks.should_stop is not None and ranks.any(hooks.should_stop())
            reporter.after_step(epoch, stop)
            if stop and state.step < total:
                return False
    return True


class _Reporter:
    """Inspector at the loss, report progress and write checkpoints; `path` is None on ranks that do not write."""

    def __init__(self, state: TrainingState, hooks: Hooks, total: int, path: Path | None) -> None:
        self._state, self._hooks, self._total, self._path = state, hooks, total, path
        self._spoke = self._saved = time.monotonic()

    def after_step(self, epoch: int, stop: bool) -> None:
        """Do what is due after a step."""
        state, now = self._state, time.monotonic()
        done = state.step == self._total
        if state.step % LOSS_SYNC_EVERY == 0 or next(state.model.parameters()).device.type == "cpu":
            state.mean_loss()  # raises when it is not finite
        if self._path is None:
            return
        if not done and (stop or now - self._saved >= self._hooks.checkpoint_seconds):
            state.save(self._path)
            self._saved = now
        if self._hooks.progress is not None and (done or now - self._spoke >= 1.0):
            self._hooks.progress(Progress(state.step, self._total, epoch, state.mean_loss()))
            self._spoke = now


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of whole batches.

    Raises:
        UserError: There is none.
    """
    if count < batch_size:
        raise UserError(
            f"{count} training images are fewer than one batch of {batch_size}",
            "an incomplete batch is dropped, so nothing would be trained",
            "make more images or lower the batch size",
        )
    return count // batch_size


def learning_rate(settings: PretrainSettings, step: int, per_epoch: int) -> float:
    """Return the learning rate of a step: linear from zero over the warm-up, then a cosine to `min_lr`."""
    total, warmup = settings.epochs * per_epoch, int(settings.warmup_epochs * per_epoch)
    if step < warmup:
        return settings.lr * step / warmup
    phase = (step - warmup) / max(1, total - warmup)
    return settings.min_lr + 0.5 * (settings.lr - settings.min_lr) * (1 + float(np.cos(np.pi * phase)))


def _layout(model: torch.nn.Module) -> torch.memory_format:
    return torch.channels_last if is_convolutional(model) else torch.contiguous_format
