"""The loop that trains every model: seeded by the step number, resumable, with progress lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.core.resume import load_state, save_state
from harness.microworld.causes import SHAPES, Causes, Doses, draw_causes
from harness.microworld.renderer import Rendered, render

LOG = logging.getLogger("harness.microworld")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    batch: int
    lr: float
    warmup: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    hold: float = 0.0

    def rate(self, step: int) -> float:
        """Return the learning rate: linear warm-up, the peak for a share `hold` of the steps, cosine to 2 % of it."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, self.hold * self.steps)
        done = max(0.0, (step - start) / max(1.0, self.steps - start))
        return self.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def world_seeds(stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """Return consecutive image seeds of a named stream; streams are 2**40 apart and never meet."""
    return np.arange(count, dtype=np.uint64) + np.uint64((stream << 40) + start)


def world_batch(stream: int, start: int, count: int, doses: Doses) -> tuple[Causes, Rendered]:
    """Draw and render `count` pictures of a world, classes in uniform random order."""
    seeds = world_seeds(stream, start, count)
    shapes = np.random.Generator(np.random.PCG64([stream, start, count])).integers(0, len(SHAPES), count)
    causes = draw_causes(shapes, seeds, doses)
    return causes, render(causes, seeds)


class Averaged:
    """An exponential moving average of parameters, for evaluation."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.modules = modules
        self.values = {name: [p.detach().clone() for p in m.parameters()] for name, m in modules.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the present weights, faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, module in self.modules.items():
            torch._foreach_lerp_(self.values[name], [p.detach() for p in module.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_into(self, modules: Mapping[str, nn.Module]) -> None:
        """Write the averages into modules of the same structure."""
        for name, module in modules.items():
            for parameter, value in zip(module.parameters(), self.values[name], strict=True):
                parameter.copy_(value)


def train(
    name: str,
    modules: Mapping[str, nn.Module],
    schedule: Schedule,
    loss_of: Callable[[int], torch.Tensor],
    folder: Path,
    *,
    average: Averaged | None = None,
    every: int = 500,
    on_checkpoint: Callable[[int], None] | None = None,
) -> None:
    """Train modules on `loss_of(step)` until the schedule ends, going on from the last checkpoint if there is one.

    Args:
        name: the part's name; the checkpoint is `folder/<name>.pt`.
        modules: everything that is trained.
        loss_of: the loss of one step; its randomness must come from the step number alone.
        average: updated after each step and kept in the checkpoint.
        every: steps between checkpoints.
        on_checkpoint: called after each checkpoint with the number of steps done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, schedule.lr, weight_decay=schedule.weight_decay)
    run = f"{name} {schedule}"
    first, saved = load_state(path, run)
    if saved:
        for key, module in modules.items():
            module.load_state_dict(saved["modules"][key])
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.values = saved["average"]
    begun, smooth = time.monotonic(), math.nan
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        torch.manual_seed(step)
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        optimizer.step()
        if average is not None:
            average.update(step)
        value = float(loss.detach())
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        if step % 100 == 99:
            pace = (time.monotonic() - begun) / (step + 1 - first)
            left = pace * (schedule.steps - step - 1)
            LOG.info("%s: step %d of %d, loss %.4f, %.0f ms a step, %.0f s left", name, step + 1,
                     schedule.steps, smooth, 1000 * pace, left)  # fmt: skip
        if step % every == every - 1 or step == schedule.steps - 1:
            state = {
                "modules": {key: m.state_dict() for key, m in modules.items()},
                "optimizer": optimizer.state_dict(),
                "average": None if average is None else average.values,
            }
            save_state(path, run, step + 1, state)
            if on_checkpoint is not None:
                on_checkpoint(step + 1)
