"""Fine-tunes on real images: noise prediction at random time steps, resumable, independent of everything but the seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from generators.diffusion.pipeline import DiffusionParts
from generators.diffusion.sampling import training_scheduler
from harness.api import (
    TrainingFailed,
    UserError,
    content_key,
    derive_seed,
    load_state,
    remove_tree,
    save_state,
    write_text,
)

LOG = "training-log.jsonl"
CHECKPOINT = "checkpoint.pt"
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(predicted noise, true noise, signal-to-noise ratios (B,)) -> scalar."""


class Examples(Protocol):
    """What is trained on."""

    def __len__(self) -> int: ...

    def image(self, position: int, generator: torch.Generator) -> Tensor:
        """Return one image, (3, H, W) in [-1, 1]; the generator draws its crop and flip."""

    def condition(self, positions: Sequence[int]) -> Tensor:
        """Return what the UNet attends to, (B, tokens, width)."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    updates: int
    batch: int
    micro_batch: int
    """Images through the UNet together; their losses are averaged over the batch."""
    lr: float
    decay: str = "constant"
    """``constant`` or ``cosine`` (no warm-up)."""
    horizon: float = 1.0
    """Length of the cosine in runs: 1 decays to zero, 4 ends a quarter of the way, at 0.854 of the first rate."""
    weight_decay: float = 0.01
    clip: float = 1.0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        """Refuse a batch that is not made of whole micro-batches."""
        if self.batch % self.micro_batch:
            raise UserError(
                f"a batch of {self.batch} in micro-batches of {self.micro_batch}",
                "an update is made of whole micro-batches, so that every image has the same weight",
                "choose a micro-batch that divides the batch",
            )

    def rate(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        if self.decay == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * update / (self.horizon * self.updates)))


def position_at(count: int, seed: int, place: int) -> int:
    """Return which image comes at a place of the endless stream of shuffled passes."""
    return _order(count, seed, place // count)[place % count]


def _order(count: int, seed: int, epoch: int) -> list[int]:
    key = (count, seed, epoch)
    if key not in _ORDERS:
        _ORDERS.clear()
        order = list(range(count))
        random.Random(derive_seed("finetune-order", seed, epoch)).shuffle(order)
        _ORDERS[key] = order
    return _ORDERS[key]


_ORDERS: dict[tuple[int, int, int], list[int]] = {}


@dataclass(frozen=True)
class Noised:
    """One micro-batch, ready for the UNet."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    ratios: Tensor
    """Signal-to-noise ratio abar / (1 - abar) of each image's time step."""


class Finetune:
    """A fine-tune of some of a UNet's parameters."""

    def __init__(
        self,
        parts: DiffusionParts,
        unet: Any,
        parameters: Mapping[str, nn.Parameter],
        examples: Examples,
        schedule: Schedule,
        loss: Loss,
        *,
        seed: int,
        facts: Mapping[str, Any],
    ) -> None:
        """Prepare a fine-tune.

        Args:
            parts: The pipeline; its autoencoder makes the latents.
            unet: The network, with the parameters in it.
            parameters: What is trained, by saved name.
            examples: Images and conditions.
            schedule: Length, batch and learning rate.
            loss: Of one micro-batch.
            seed: Decides order, crops, flips, noise and time steps.
            facts: Whatever else decides the result; a checkpoint of other facts is refused.
        """
        self.parts, self.unet, self.parameters = parts, unet, dict(parameters)
        self.examples, self.schedule, self.loss, self.seed = examples, schedule, loss, seed
        self.scheduler = training_scheduler(parts)
        self.trained = list(self.parameters.values())
        self.optimizer = torch.optim.AdamW(self.trained, schedule.lr, weight_decay=schedule.weight_decay)
        self.config = content_key([dict(facts), vars(schedule), seed, len(examples), str(parts.dtype)])

    def run(self, scratch: Path, log: Path, progress: Callable[[int, int, str], None]) -> None:
        """Train to the end, going on from the checkpoint, if there is one.

        Raises:
            TrainingFailed: a loss or gradient is not finite; the last checkpoint stays.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        lines = self._resume(scratch)
        for update in range(len(lines), self.schedule.updates):
            lines.append(json.dumps(self._update(update), sort_keys=True))
            done = update + 1
            if done % self.schedule.checkpoint_every == 0 and done < self.schedule.updates:
                save_state(scratch / CHECKPOINT, self.config, done, self._state(lines))
            progress(done, self.schedule.updates, "updates")
        write_text(log, "\n".join(lines) + "\n")

    def finish(self, scratch: Path) -> None:
        """Drop the checkpoint, once the result is safe."""
        remove_tree(scratch)

    def _update(self, update: int) -> dict[str, Any]:
        size, batch = self.schedule.micro_batch, self.schedule.batch
        total = 0.0
        for first in range(0, batch, size):
            places = range(update * batch + first, update * batch + first + size)
            positions = [position_at(len(self.examples), self.seed, place) for place in places]
            loss = self._loss(positions, places) * (size / batch)
            loss.backward()
            total += float(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(self.trained, self.schedule.clip))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise TrainingFailed(
                f"the fine-tune met a loss or gradient that is not finite in update {update}",
                f"loss {total}, gradient norm {norm}",
                "lower the learning rate or use a wider number format; the run resumes from its last checkpoint",
            )
        rate = self.schedule.rate(update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"update": update, "loss": total, "gradient_norm": norm, "lr": rate}

    def _loss(self, positions: Sequence[int], places: Sequence[int]) -> Tensor:
        batch = self.noised(positions, places)
        condition = self.examples.condition(positions).to(self.parts.device)
        device, half = self.parts.device.type, self.parts.dtype != torch.float32
        with torch.autocast(device, torch.bfloat16, enabled=half):
            predicted = self.unet(batch.latents, batch.timesteps, encoder_hidden_states=condition).sample
        return self.loss(predicted.float(), batch.noise, batch.ratios)

    @torch.no_grad()
    def noised(self, positions: Sequence[int], places: Sequence[int]) -> Noised:
        """Return noised latents of some images.

        Every image of the stream has a generator of its own that draws, in this order, flip, crop, posterior, noise
        and time step, so nothing depends on batches or restarts.
        """
        generators = [torch.Generator().manual_seed(derive_seed("finetune", self.seed, place)) for place in places]
        latents, noises, steps = [], [], []
        for position, generator in zip(positions, generators, strict=True):
            image = self.examples.image(position, generator)[None].to(self.parts.device, self.parts.dtype)
            latents.append(sample_posterior(self.parts, image, generator))
            noises.append(torch.randn(self.parts.latent_shape, generator=generator))
            steps.append(torch.randint(self.scheduler.config.num_train_timesteps, (), generator=generator))
        noise = torch.stack(noises).to(self.parts.device)
        timesteps = torch.stack(steps)
        bars = self.scheduler.alphas_cumprod[timesteps].to(self.parts.device)
        noisy = self.scheduler.add_noise(torch.cat(latents), noise, timesteps.to(self.parts.device))
        return Noised(noisy, noise, timesteps.to(self.parts.device), bars / (1 - bars))

    def _state(self, lines: list[str]) -> dict[str, Any]:
        weights = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return {"weights": weights, "optimizer": self.optimizer.state_dict(), "log": lines}

    def _resume(self, scratch: Path) -> list[str]:
        _, found = load_state(scratch / CHECKPOINT, self.config)
        if not found:
            return []
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found["weights"][name])
        self.optimizer.load_state_dict(found["optimizer"])
        lines: list[str] = found["log"]
        return lines


def sample_posterior(parts: DiffusionParts, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return scaled float32 latents (B, C, h, w) drawn from the autoencoder's posterior; the draw is made on the CPU."""
    posterior = parts.vae.encode(images.to(parts.dtype)).latent_dist
    mean, deviation = posterior.mean.float(), posterior.std.float()
    drawn = torch.randn(mean.shape, generator=generator).to(mean.device)
    return (mean + deviation * drawn) * parts.scaling_factor


def noise_prediction_loss(predicted: Tensor, noise: Tensor, ratios: Tensor) -> Tensor:
    """Return the mean squared error of the noise (Ho et al., 2020); the ratios do not count."""
    return (predicted - noise).square().mean()
