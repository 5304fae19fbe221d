"""Train the attribute classifier on the balanced world and measure its confusion."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from harness.microworld.causes import BALANCED
from harness.microworld.degrade import degrade_each
from harness.microworld.renderer import to_uint8
from harness.microworld.towers import HEADS, confusion_of, new_attribute_network
from harness.microworld.training import Schedule, train, world_batch

_STREAM = 41
SCHEDULE = Schedule(steps=1600, batch=96, lr=3e-3, weight_decay=0.02)


def _loss(network: torch.nn.Module, step: int) -> torch.Tensor:
    network.train()
    causes, rendered = world_batch(_STREAM, step * SCHEDULE.batch, SCHEDULE.batch, BALANCED)
    generator = torch.Generator().manual_seed(step)
    strengths = torch.rand(SCHEDULE.batch, generator=generator) * 0.35
    strengths[torch.rand(SCHEDULE.batch, generator=generator) < 0.6] = -1
    images = degrade_each(torch.from_numpy(rendered.images), strengths, generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(((images - 0.5) / 0.25).contiguous(memory_format=torch.channels_last))
    heads = logits.float().split(list(HEADS.values()), dim=1)
    total = torch.zeros(())
    for name, head in zip(HEADS, heads, strict=True):
        total = total + F.cross_entropy(head, torch.from_numpy(getattr(causes, name)))
    return total


def train_attributes(scratch: Path, destination: Path) -> None:
    """Train (or finish training) the classifier; write weights and confusion matrices in half precision."""
    torch.manual_seed(0)
    network = new_attribute_network().to(memory_format=torch.channels_last)
    train("attributes", {"attributes": network}, SCHEDULE, lambda step: _loss(network, step), scratch)
    network.eval()
    causes, rendered = world_batch(_STREAM + 1, 0, 6000, BALANCED)
    truth = {name: getattr(causes, name) for name in HEADS}
    confusion = confusion_of(network, to_uint8(rendered.images), truth)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in network.state_dict().items()}
    state |= {f"confusion.{name}": torch.from_numpy(matrix).half() for name, matrix in confusion.items()}
    destination.mkdir(parents=True, exist_ok=True)
    save_file(state, destination / "attributes.safetensors")
