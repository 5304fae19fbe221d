"""The state of a training: everything that its resumable checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness.backbones.checkpoint import BackboneInfo, write_backbone
from harness.backbones.recipe import PretrainSettings
from harness.core.errors import TrainingFailed
from harness.core.files import atomic_file
from harness.core.resume import load_state, save_state


class TrainingState:
    """Hold network, weight average, optimiser and log, and move them to and from disk.

    No generator state is kept: every draw is a function of the seed and the step.

    Args:
        settings: The recipe.
        model: The network, with its initial weights.
        classes: Ordered class ids.
        samples: Number of training images.
        seed: Training seed.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        model: torch.nn.Module,
        classes: Sequence[str],
        samples: int,
        seed: int,
    ) -> None:
        self.settings, self.model, self.classes, self.step = settings, model, tuple(classes), 0
        self.facts = {**settings.record(), "seed": seed, "samples": samples}
        self.optimizer = torch.optim.AdamW(decay_groups(model, settings.weight_decay), settings.lr, fused=True)
        self.ema = {key: value.clone() for key, value in model.state_dict().items()}
        self.log: list[dict[str, float]] = []
        self._sum = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
        self._count = 0

    def update(self, loss: torch.Tensor, rate: float) -> None:
        """Take one optimiser step at learning rate `rate` and move the weight average."""
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        self._sum += loss.detach().double()
        self._count += 1
        decay = self.settings.ema_decay
        if self.settings.ema_warmup:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.ema[key].lerp_(value, 1 - decay)  # batch statistics too
                else:
                    self.ema[key].copy_(value)  # counters

    def mean_loss(self) -> float:
        """Return the mean loss of the present epoch so far, or of the last epoch between two.

        Raises:
            TrainingFailed: A loss of this epoch was not finite.
        """
        if self._count == 0:
            return self.log[-1]["loss"]
        mean = float(self._sum) / self._count
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise TrainingFailed(
                f"the training loss of {self.settings.arch} is not finite at step {self.step}",
                f"learning rate {self.settings.lr:g} in {self.settings.precision}, or damaged images",
                "lower the learning rate or lengthen the warm-up, then start the same command again",
            )
        return mean

    def close_epoch(self, epoch: int, rate: float) -> None:
        """Write the log entry of a finished epoch."""
        self.log.append({"epoch": epoch, "step": self.step, "loss": self.mean_loss(), "lr": rate})
        self._sum.zero_()
        self._count = 0

    @property
    def _run(self) -> str:
        return json.dumps([self.facts, self.classes])

    def save(self, path: Path) -> None:
        """Write the checkpoint; a training that went wrong leaves the last good one."""
        self.mean_loss()
        content = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "log": self.log,
            "loss_sum": self._sum,
            "loss_count": self._count,
        }
        save_state(path, self._run, self.step, content)

    def resume(self, path: Path) -> None:
        """Take everything from a checkpoint, if there is one.

        Raises:
            UserError: The checkpoint is damaged or belongs to another training.
        """
        self.step, content = load_state(path, self._run, self._sum.device)
        if content:
            self.model.load_state_dict(content["model"])
            self.ema = content["ema"]
            self.optimizer.load_state_dict(content["optimizer"])
            self.log = content["log"]
            self._sum, self._count = content["loss_sum"], content["loss_count"]

    def finish(self, folder: Path, kwargs: dict[str, Any], world: int) -> None:
        """Write the backbone folder with its log."""
        with atomic_file(folder / "log.jsonl") as stream:
            stream.writelines(json.dumps(entry, sort_keys=True).encode() + b"\n" for entry in self.log)
        s = self.settings
        info = BackboneInfo(
            arch=s.arch,
            kwargs=kwargs,
            classes=self.classes,
            mean=s.mean,
            std=s.std,
            image_size=s.image_size,
            interpolation="bicubic",
            weights="ema",
            recipe={**self.facts, "world_size": world, "steps": self.step},
        )
        write_backbone(folder, info, {"raw": self.model.state_dict(), "ema": self.ema})


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters: no decay on one-dimensional ones, on the class token and on the positions."""
    listed = getattr(model, "no_weight_decay", None)
    names: set[str] = set(listed()) if listed is not None else set()
    named = list(model.named_parameters())
    plain = [p for name, p in named if p.ndim > 1 and name not in names]
    free = [p for name, p in named if p.ndim <= 1 or name in names]
    return [{"params": plain, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
