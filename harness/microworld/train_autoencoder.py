"""Train the autoencoder of the small Stable Diffusion and standardise its latents."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from harness.microworld.causes import BALANCED, WEB, Doses
from harness.microworld.training import Schedule, train, world_batch

_STREAM = 11
# A strong pull to the prior first: two of the four channels stay idle and the other two carry all large structure.
# Then a weak one, with little noise: the idle channels learn the detail.
COARSE = Schedule(steps=3200, batch=16, lr=2e-3, warmup=300, weight_decay=1e-4)
DETAIL = Schedule(steps=1500, batch=16, lr=1.5e-3, warmup=100, weight_decay=1e-4)
_COARSE_KL, _DETAIL_KL = 2e-5, 1e-6
_DETAIL_LOG_VARIANCE = -4.0
_MIXED = Doses.all(0.3)  # between the two worlds, so that neither is favoured


def new_autoencoder() -> AutoencoderKL:
    """Build the untrained autoencoder: 64 px to 16 x 16 latents of 4 channels, 0.65 M parameters."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 32, 64), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8, sample_size=64, mid_block_add_attention=False,
    )  # fmt: skip


def _edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def _loss(model: AutoencoderKL, start: int, count: int, kl_weight: float) -> torch.Tensor:
    _, rendered = world_batch(_STREAM, start, count, _MIXED)
    images = torch.from_numpy(rendered.images) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = model.encode(images).latent_dist
        restored = model.decode(posterior.sample()).sample
    restored = restored.float()
    edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(restored), _edges(images), strict=True))
    pixels = F.l1_loss(restored, images) + F.mse_loss(restored, images)
    return pixels + 0.5 * edges + kl_weight * posterior.kl().float().mean()


@torch.no_grad()
def standardise(model: AutoencoderKL) -> float:
    """Give each latent channel mean 0 and deviation 1 by an exact change of the 1 x 1 convolutions; return the deviation.

    The noise schedule leaves 7 % of the signal at its last step, so a mean far from 0 would leak into sampling.
    """
    _, rendered = world_batch(_STREAM + 1, 0, 1000, WEB)
    images = torch.from_numpy(rendered.images) * 2 - 1
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in images.split(100)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post = model.quant_conv, model.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
    quant.weight[:4] /= std[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) / std
    quant.bias[4:] -= 2 * std.log()
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in images.split(100)])
    return float(latents.std())


@torch.no_grad()
def restoration_error(model: AutoencoderKL, count: int = 200) -> float:
    """Return the mean absolute error, in [0, 1] units, of restored balanced-world pictures."""
    _, rendered = world_batch(_STREAM + 2, 0, count, BALANCED)
    images = torch.from_numpy(rendered.images) * 2 - 1
    parts = [model(part).sample.clamp(-1, 1) for part in images.split(100)]
    return float((torch.cat(parts) - images).abs().mean() / 2)


def train_autoencoder(scratch: Path) -> AutoencoderKL:
    """Train (or finish training) the autoencoder and return it with standardised latents."""
    torch.manual_seed(0)
    model = new_autoencoder()
    n = COARSE.batch
    train("vae", {"vae": model}, COARSE, lambda step: _loss(model, step * n, n, _COARSE_KL), scratch)
    standardise(model)
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = _DETAIL_LOG_VARIANCE
    first = COARSE.steps * n
    train(
        "vae_detail", {"vae": model}, DETAIL,
        lambda step: _loss(model, first + step * n, n, _DETAIL_KL), scratch,
    )  # fmt: skip
    model.eval()
    model.register_to_config(scaling_factor=1 / standardise(model))
    return model
