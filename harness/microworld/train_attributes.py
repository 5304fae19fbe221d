"""Train the attribute classifier on the balanced world and measure its confusion."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from harness.microworld.causes import BALANCED
from harness.microworld.degrade import degrade_each
from harness.microworld.renderer import to_uint8
from harness.microworld.towers import HEADS, confusion_of, new_attribute_network
from harness.microworld.training import Schedule, train, world_batch

_STREAM = 41
SCHEDULE = Schedule(steps=1600, batch=96, lr=3e-3, weight_decay=0.02)
_RESTORED = 32  # pictures of each batch that have been through the autoencoder, as every generated one has


@torch.no_grad()
def _restore(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Return pictures in [0, 1] after a round trip through the autoencoder."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        restored = vae(images * 2 - 1).sample
    return (restored.float() / 2 + 0.5).clamp(0, 1)


def _loss(network: torch.nn.Module, vae: AutoencoderKL, step: int) -> torch.Tensor:
    network.train()
    causes, rendered = world_batch(_STREAM, step * SCHEDULE.batch, SCHEDULE.batch, BALANCED)
    generator = torch.Generator().manual_seed(step)
    strengths = torch.rand(SCHEDULE.batch, generator=generator) * 0.35
    strengths[torch.rand(SCHEDULE.batch, generator=generator) < 0.6] = -1
    strengths[:_RESTORED] = -1
    images = degrade_each(torch.from_numpy(rendered.images), strengths, generator)
    images[:_RESTORED] = _restore(vae, images[:_RESTORED])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(((images - 0.5) / 0.25).contiguous(memory_format=torch.channels_last))
    heads = logits.float().split(list(HEADS.values()), dim=1)
    total = torch.zeros(())
    for name, head in zip(HEADS, heads, strict=True):
        total = total + F.cross_entropy(head, torch.from_numpy(getattr(causes, name)))
    return total


def train_attributes(vae: AutoencoderKL, scratch: Path, destination: Path) -> None:
    """Train (or finish training) the classifier; write weights and confusion matrices in half precision.

    The confusion is measured on pictures of which half have been through the autoencoder.
    """
    torch.manual_seed(0)
    network = new_attribute_network().to(memory_format=torch.channels_last)
    train("attributes", {"attributes": network}, SCHEDULE, lambda step: _loss(network, vae, step), scratch)
    network.eval()
    causes, rendered = world_batch(_STREAM + 1, 0, 6000, BALANCED)
    images = torch.from_numpy(rendered.images)
    images[::2] = torch.cat([_restore(vae, part) for part in images[::2].split(100)])
    truth = {name: getattr(causes, name) for name in HEADS}
    confusion = confusion_of(network, to_uint8(images.numpy()), truth)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in network.state_dict().items()}
    state |= {f"confusion.{name}": torch.from_numpy(matrix).half() for name, matrix in confusion.items()}
    destination.mkdir(parents=True, exist_ok=True)
    save_file(state, destination / "attributes.safetensors")
