"""The gradient of a loss on the final latents with respect to the generator, one UNet call at a time.

Sampling is x_prev = a x + b eps(x) + sigma z. For a trained set S and v = dL/dx_final the gradient is
sum over k in S of (v^T prod_{j > k} M_j) b_k d eps_k / d theta, with M_j = a_j I where j is not in S and
M_j = a_j I + b_j d eps_j / d x_j where it is. Walking backwards needs the kept latents only, so the peak memory is
that of one UNet graph instead of K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from generators.diffusion.pipeline import DiffusionParts
from generators.diffusion.sampling import decode_latents
from generators.lbgen.sampler import NoisePredictor, Step


def staged_adjoint(
    predict: NoisePredictor,
    steps: Sequence[Step],
    kept: Mapping[int, Tensor],
    gradient: Tensor,
    parameters: Sequence[Tensor],
    *,
    latent_jacobian: bool = True,
) -> tuple[Tensor, ...]:
    """Return dL/d parameters for the trained steps, equal to autograd's to rounding.

    Args:
        predict: The same guided prediction that made the trajectory.
        steps: All updates of the sampler.
        kept: Latents before each trained step, by its index.
        gradient: dL/dx_final.
        parameters: Leaves of the noise predictor.
        latent_jacobian: Let the gradient also flow through the predictor's latent input (never through that of the
            first trained step, before which nothing is trained); off: the stop-gradient variant.
    """
    first = min(kept)
    total = [torch.zeros_like(each) for each in parameters]
    for index in range(len(steps) - 1, first - 1, -1):
        step = steps[index]
        if index not in kept:
            gradient = step.a * gradient
        else:
            inputs = kept[index].detach().requires_grad_(latent_jacobian and index > first)
            with torch.enable_grad():
                noise = predict(inputs, step.timestep)
            *pulled, through = scaled_pullback(noise, step.b * gradient, [*parameters, inputs])
            total = [old + new for old, new in zip(total, pulled, strict=True)]
            gradient = step.a * gradient + through
    return tuple(total)


def scaled_pullback(output: Tensor, gradient: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return gradient^T d output / d input for each input, zero where there is no dependence.

    The gradient is scaled to order one by a power of two and back, which is exact in float32 and bfloat16. In float16 it
    goes through as it is: there the loss scale sets its size, and an overflow must show in the result to skip the update.
    """
    wanted = [each for each in inputs if each.requires_grad]
    largest = gradient.detach().abs().max().item()
    scales = output.dtype != torch.float16 and 0 < largest < math.inf
    scale = 2.0 ** -math.floor(math.log2(largest)) if scales else 1.0
    found = torch.autograd.grad(output, wanted, (gradient * scale).to(output.dtype), allow_unused=True)
    pulled = {id(each): value for each, value in zip(wanted, found, strict=True) if value is not None}
    return [pulled[id(each)] / scale if id(each) in pulled else torch.zeros_like(each) for each in inputs]


def image_pullback(parts: DiffusionParts, latents: Tensor, image_gradient: Tensor) -> Tensor:
    """Return dL/d latents from dL/d images through the decoder, one image's graph at a time."""
    pulled = []
    for latent, gradient in zip(latents.split(1), image_gradient.split(1), strict=True):
        leaf = latent.detach().requires_grad_(True)
        with torch.enable_grad():
            image = decode_latents(parts, leaf)
        pulled += scaled_pullback(image, gradient, [leaf])
    return torch.cat(pulled)


def autograd_trajectory(
    predict: NoisePredictor,
    steps: Sequence[Step],
    latents: Tensor,
    trained: Sequence[int],
    draw: Callable[[], Tensor] | None = None,
    *,
    latent_jacobian: bool = True,
) -> Tensor:
    """Return the final latents with one end-to-end graph: the oracle that ``staged_adjoint`` is compared with.

    Before the first trained step nothing is recorded; untrained steps after it are linear in the latents.
    """
    first = min(trained)
    for index, step in enumerate(steps):
        with torch.set_grad_enabled(index >= first):
            through = latent_jacobian and index in trained and index > first
            inputs = latents if through else latents.detach()
            with torch.set_grad_enabled(index in trained):
                noise = predict(inputs, step.timestep)
            latents = step.a * latents + step.b * noise
            if draw is not None:
                latents = latents + step.sigma * draw().to(latents)
    return latents
