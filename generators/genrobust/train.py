"""The fine-tune of the whole UNet on real images with class-name captions (arXiv 2302.02503, run parameters of the release)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.diffusion.cost import updates_of
from generators.diffusion.finetune import LOG, Finetune, Schedule, noise_prediction_loss
from generators.diffusion.pipeline import DiffusionParts, encode_prompts
from generators.diffusion.real_images import RealImages, crop_for_training
from generators.genrobust.settings import GenRobustFtSettings
from harness.api import Context, CorruptArtifact, atomic_path, check_state

ACCUMULATED = 4
"""Micro-steps of one published update: its cosine takes one step for four of them, over a horizon that counts them all."""


def schedule_of(settings: GenRobustFtSettings, images: int) -> Schedule:
    """Return length, batch and learning rate of the fine-tune on so many real images."""
    return Schedule(
        updates_of(settings.epochs, images, settings.batch),
        settings.batch,
        settings.micro_batch,
        settings.lr,
        decay="cosine",
        horizon=ACCUMULATED if settings.schedule == "official" else 1,
    )


class NamedImages:
    """Real images, centre-cropped, with a caption made of the class name; captions are never dropped."""

    def __init__(self, images: RealImages, parts: DiffusionParts, captions: Sequence[str]) -> None:
        self.images, self.size = images, parts.image_size
        self.embeddings = encode_prompts(parts, captions)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, position: int, generator: torch.Generator) -> Tensor:
        """Return one image."""
        return crop_for_training(self.images.picture(position), self.size, "centre", generator)

    def condition(self, positions: Sequence[int]) -> Tensor:
        """Return the embeddings of the captions."""
        return self.embeddings[[self.images.labels[position] for position in positions]]


def train_unet(ctx: Context, parts: DiffusionParts, settings: GenRobustFtSettings, file_name: str) -> None:
    """Train a copy of the UNet in float32 and write it to the artifact; resumes from its last checkpoint.

    Loss: plain noise prediction at uniform time steps, no weighting; AdamW, cosine, clip 1.
    """
    images = RealImages.of(ctx)
    captions = [settings.caption.replace("{name}", name) for name in ctx.classes.names]
    unet = copy.deepcopy(parts.unet).float().requires_grad_(True)
    parameters = dict(unet.named_parameters())
    run = Finetune(
        parts,
        unet,
        parameters,
        NamedImages(images, parts, captions),
        schedule_of(settings, len(images)),
        noise_prediction_loss,
        seed=ctx.seed("genrobust-ft"),
        facts={"key": ctx.cell.key},
    )
    run.run(ctx.scratch / "genrobust", ctx.out / LOG, ctx.progress)
    kept = {name: value.detach().to(parts.dtype).cpu().contiguous() for name, value in parameters.items()}
    with atomic_path(ctx.out / file_name) as temporary:
        save_file(kept, temporary, metadata={"format": "pt"})
    run.finish(ctx.scratch / "genrobust")


def with_unet(parts: DiffusionParts, path: Path) -> DiffusionParts:
    """Return parts with the UNet's weights replaced.

    Raises:
        CorruptArtifact: the file cannot be read, or does not fit the UNet.
    """
    unet = copy.deepcopy(parts.unet)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(f"{path} cannot be read", str(error), "run the fit again") from error
    check_state(state, unet.state_dict(), path, "run the fit again", CorruptArtifact)
    unet.load_state_dict(state)
    return dataclasses.replace(parts, unet=unet)
