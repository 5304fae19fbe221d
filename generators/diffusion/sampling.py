"""Synthesis: guided sampling with one doubled UNet call per step, from per-image noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from generators.diffusion.pipeline import DiffusionParts
from harness.api import UserError

MICRO_BATCH = 16
"""Images in one UNet call. Always filled up to this number, because kernels may change low bits with the batch size."""


def image_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Return N(0, 1) noise of one image in float32, drawn on the CPU so that every device starts from the same."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def guided_noise(
    unet: Any, latents: Tensor, timestep: Tensor | int, cond: Tensor, uncond: Tensor, guidance: float
) -> Tensor:
    """Return eps_u + guidance (eps_c - eps_u) from one doubled UNet call, unconditional half first.

    Args:
        unet: The noise predictor.
        latents: (B, C, H, W); the result has its dtype.
        timestep: Training timestep, 0..999.
        cond: (B, tokens, width) prompt embeddings.
        uncond: (tokens, width) embedding of the empty prompt.
        guidance: Guidance scale w; 1 would switch guidance off.
    """
    text = torch.cat([uncond.expand_as(cond), cond])
    doubled = torch.cat([latents, latents]).to(text.dtype)
    noise = unet(doubled, timestep, encoder_hidden_states=text).sample.to(latents.dtype)
    without, with_prompt = noise.chunk(2)
    return without + guidance * (with_prompt - without)


def decode_latents(parts: DiffusionParts, latents: Tensor) -> Tensor:
    """Return images in nominal [0, 1], not clamped, (B, 3, H, W); decoded one at a time to bound memory."""
    scaled = (latents / parts.scaling_factor).to(parts.dtype)
    images = [parts.vae.decode(one).sample for one in scaled.split(1)]
    return torch.cat(images).to(latents.dtype) / 2 + 0.5


def to_uint8(images: Tensor) -> np.ndarray:
    """Return (B, H, W, 3) uint8 from (B, 3, H, W) in [0, 1]: clamped, then rounded.

    Raises:
        UserError: a value is not finite; it would become black.
    """
    if not bool(torch.isfinite(images).all()):
        raise UserError(
            "a synthesised image is not finite",
            "the UNet or the autoencoder overflowed, as float16 does with some weights",
            "set precision=fp32 or precision=bf16 for this generator, or use weights made for half precision",
        )
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def make_scheduler(parts: DiffusionParts, name: Literal["pndm", "ddpm"], steps: int) -> Any:
    """Return a scheduler over ``steps`` steps built from the pipeline's own configuration.

    PNDM with the Runge-Kutta start skipped repeats its second timestep: 50 steps are 51 UNet calls.
    """
    from diffusers import PNDMScheduler

    config = {key: value for key, value in parts.scheduler_config.items() if not key.startswith("_")}
    scheduler = training_scheduler(parts) if name == "ddpm" else PNDMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler


def training_scheduler(parts: DiffusionParts) -> Any:
    """Return the ancestral scheduler of the pipeline's betas: adds training noise, and samples with fixed small variance."""
    from diffusers import DDPMScheduler

    shared = {key: parts.scheduler_config[key] for key in DDPMScheduler().config if key in parts.scheduler_config}
    shared = {key: value for key, value in shared.items() if not key.startswith("_")}
    return DDPMScheduler(**shared | {"variance_type": "fixed_small", "clip_sample": False})


@torch.inference_mode()
def sample_images(
    parts: DiffusionParts,
    cond_embeddings: Tensor,
    uncond: Tensor,
    noise: Tensor,
    *,
    steps: int = 50,
    guidance: float = 2.0,
    scheduler: Literal["pndm", "ddpm"] = "pndm",
    step_seeds: Sequence[int] | None = None,
    micro_batch: int = MICRO_BATCH,
) -> np.ndarray:
    """Return (B, H, W, 3) uint8 images (lbGen, CVPR 2025, appendix D: PNDM, 50 steps, guidance 2.0).

    An image depends on its own embedding and noise only, not on the others in the call: every UNet call has
    ``micro_batch`` images, the last one padded, and decoding goes image by image.

    Args:
        parts: The pipeline.
        cond_embeddings: (B, tokens, width).
        uncond: (tokens, width), the empty prompt.
        noise: (B, C, H, W) float32 start noise, see ``image_noise``.
        steps: Requested sampler steps.
        guidance: Guidance scale.
        scheduler: ``pndm``, or ``ddpm`` (ancestral, the sampler of lbGen's training).
        step_seeds: One seed per image for the noise that ``ddpm`` adds in every step; ``pndm`` adds none and ignores them.
        micro_batch: Images per UNet call.
    """
    if scheduler == "ddpm" and step_seeds is None:
        raise ValueError("the ddpm sampler needs one step seed per image")
    images = []
    for rows in _chunks(len(noise), micro_batch):
        seeds = None if scheduler == "pndm" or step_seeds is None else [step_seeds[row] for row in rows]
        rows_padded = rows + [rows[-1]] * (micro_batch - len(rows))
        cond, start = cond_embeddings[rows_padded], noise[rows_padded].to(parts.device)
        latents = _sample(parts, cond, uncond, start, make_scheduler(parts, scheduler, steps), guidance, seeds)
        images.append(to_uint8(decode_latents(parts, latents[: len(rows)])))
    return np.concatenate(images)


def unipc_timesteps(parts: DiffusionParts, steps: int, strength: float) -> tuple[Any, Tensor]:
    """Return a UniPC scheduler over evenly spaced steps, and those that are executed from an image.

    Of ``steps`` scheduled steps the last int(steps * strength) are executed: 22 of 30 at strength 0.75. The last one ends
    at the noise of time step 0, sigma 0.029, where UniPC ended when RealFake was made (2023); today's default ends at zero.
    """
    from diffusers import UniPCMultistepScheduler

    shared = {key: parts.scheduler_config[key] for key in ("num_train_timesteps", "beta_start", "beta_end")}
    scheduler = UniPCMultistepScheduler(
        **shared,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(steps)
    first = steps - min(int(steps * strength), steps)
    scheduler.set_begin_index(first)
    return scheduler, scheduler.timesteps[first:]


@dataclass(frozen=True)
class ImageStart:
    """Where img2img starts: from noised latents of images."""

    latents: Tensor
    """(B, C, h, w) float32, scaled."""
    noise: Tensor
    """(B, C, h, w) float32, see ``image_noise``."""
    strength: float
    """Share of the schedule that is executed; 1 would start from almost pure noise."""


@torch.inference_mode()
def sample_from_images(
    parts: DiffusionParts,
    cond_embeddings: Tensor,
    uncond: Tensor,
    start: ImageStart,
    *,
    steps: int,
    guidance: float,
    micro_batch: int = MICRO_BATCH,
) -> np.ndarray:
    """Return (B, H, W, 3) uint8 images denoised with UniPC from noised latents of images.

    As in ``sample_images``, an image depends on its own inputs only.
    """
    images = []
    for rows in _chunks(len(start.noise), micro_batch):
        padded = rows + [rows[-1]] * (micro_batch - len(rows))
        scheduler, timesteps = unipc_timesteps(parts, steps, start.strength)
        first = timesteps[:1].repeat(micro_batch)
        noise = start.noise[padded].to(parts.device)
        latents = scheduler.add_noise(start.latents[padded].to(parts.device), noise, first)
        cond = cond_embeddings[padded]
        for timestep in timesteps:
            predicted = guided_noise(parts.unet, latents, timestep.to(parts.device), cond, uncond, guidance)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        images.append(to_uint8(decode_latents(parts, latents[: len(rows)])))
    return np.concatenate(images)


def _chunks(total: int, size: int) -> Iterator[list[int]]:
    for first in range(0, total, size):
        yield list(range(first, min(first + size, total)))


def _sample(
    parts: DiffusionParts,
    cond: Tensor,
    uncond: Tensor,
    latents: Tensor,
    scheduler: Any,
    guidance: float,
    seeds: Sequence[int] | None,
) -> Tensor:
    generators = None
    if seeds is not None:
        padded = [*seeds, *[seeds[-1]] * (len(latents) - len(seeds))]
        generators = [torch.Generator().manual_seed(seed) for seed in padded]
    for timestep in scheduler.timesteps:
        noise = guided_noise(parts.unet, latents, timestep.to(parts.device), cond, uncond, guidance)
        extra = {} if generators is None else {"generator": generators}
        latents = scheduler.step(noise, timestep, latents, **extra).prev_sample
    return latents
