"""The ancestral training sampler: coefficients, the choice of trained steps, and replayable noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.api import UserError, derive_seed

NoisePredictor = Callable[[Tensor, int], Tensor]
"""(latents, timestep) -> guided noise estimate."""


@dataclass(frozen=True)
class Step:
    """One update x_prev = a x + b eps + sigma z."""

    timestep: int
    a: float
    b: float
    sigma: float


def alpha_bars(config: Mapping[str, Any]) -> Tensor:
    """Return the cumulative products of 1 - beta over the 1000 training timesteps, in float64.

    The betas are "scaled linear": beta_i = (sqrt(first) + i / 999 (sqrt(last) - sqrt(first)))^2.
    """
    first, last = float(config["beta_start"]) ** 0.5, float(config["beta_end"]) ** 0.5
    betas = torch.linspace(first, last, int(config["num_train_timesteps"]), dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def ancestral_steps(count: int, config: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the DDPM updates for ``count`` evenly spaced timesteps, the noisiest first (fixed small variance).

    With alpha = abar_t / abar_prev and beta = 1 - alpha: a = 1/sqrt(alpha), b = -beta / sqrt(alpha (1 - abar_t)),
    sigma^2 = beta (1 - abar_prev) / (1 - abar_t), at least 1e-20 (Ho et al., 2020, eq. 7 and 11).
    """
    bars = alpha_bars(config)
    stride = len(bars) // count
    steps = []
    for timestep in range((count - 1) * stride + int(config["steps_offset"]), -1, -stride):
        before = timestep - stride
        bar, bar_before = bars[timestep].item(), bars[before].item() if before >= 0 else 1.0
        alpha = bar / bar_before
        variance = max((1 - alpha) * (1 - bar_before) / (1 - bar), 1e-20)
        steps.append(Step(timestep, alpha**-0.5, -(1 - alpha) / (alpha * (1 - bar)) ** 0.5, variance**0.5))
    return tuple(steps)


def start_choices(steps: int, trained: int) -> int:
    """Return how many common offsets there are: the interval between trained steps.

    Raises:
        UserError: ``trained`` does not divide ``steps``, so the steps cannot be spread evenly.
    """
    if not 1 <= trained <= steps or steps % trained:
        raise UserError(
            f"{trained} trained steps of {steps} cannot be spread evenly",
            "the number of trained steps must divide the number of steps",
            "choose a divisor, such as 5 of 50",
        )
    return steps // trained


def trained_steps(steps: int, trained: int, start: int) -> tuple[int, ...]:
    """Return the indices that carry gradient: ``start``, ``start + T/K``, ..., K of them."""
    interval = start_choices(steps, trained)
    if not 0 <= start < interval:
        raise ValueError(f"start {start} is outside [0, {interval})")
    return tuple(range(start, steps, interval))


def draw_start(seed: int, step: int, steps: int, trained: int) -> int:
    """Return the common offset of one optimizer step, uniform on [0, T/K), equal in every process."""
    generator = torch.Generator().manual_seed(derive_seed("lbgen-start", seed, step))
    return int(torch.randint(start_choices(steps, trained), (1,), generator=generator))


class SampleNoise:
    """Noise of a few samples of one optimizer step: first the start latents, then one draw per denoising step.

    Every sample has its own generator, seeded by (seed, step, sample), so its noise depends neither on its neighbours
    nor on the number of processes, and making the object anew replays it.
    """

    def __init__(self, seed: int, step: int, samples: Sequence[int], shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._generators = [
            torch.Generator().manual_seed(derive_seed("lbgen-noise", seed, step, sample)) for sample in samples
        ]

    def draw(self) -> Tensor:
        """Return the next (B, C, H, W) float32 noise."""
        return torch.stack([torch.randn(self._shape, generator=each) for each in self._generators])


@dataclass(frozen=True)
class Trajectory:
    """The end of a sampling run and the latents before the steps that were asked for."""

    final: Tensor
    kept: Mapping[int, Tensor]


@torch.no_grad()
def sample_trajectory(
    predict: NoisePredictor,
    steps: Sequence[Step],
    latents: Tensor,
    draw: Callable[[], Tensor] | None = None,
    keep: Collection[int] = (),
) -> Trajectory:
    """Sample without a graph and keep the latents before the steps in ``keep``.

    Args:
        predict: Guided noise prediction.
        steps: The updates.
        latents: Start latents (B, C, H, W).
        draw: Returns the noise of the next step; None injects none.
        keep: Indices of the steps whose input is kept.
    """
    kept = {}
    for index, step in enumerate(steps):
        if index in keep:
            kept[index] = latents
        latents = step.a * latents + step.b * predict(latents, step.timestep)
        if draw is not None:
            latents = latents + step.sigma * draw().to(latents)
    return Trajectory(latents, kept)
