"""The LoRA of RealFake: min-SNR weights plus distribution matching, text and visual token together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from generators.diffusion.cost import updates_of
from generators.diffusion.finetune import LOG, Finetune, Schedule
from generators.diffusion.lora_io import FILE_NAME, add_lora, save_lora, sharing_copy
from generators.diffusion.pipeline import DiffusionParts, encode_prompts
from generators.diffusion.real_images import RealImages, crop_for_training
from generators.realfake import captions, features
from generators.realfake.losses import realfake_loss
from generators.realfake.prompts import class_name, training_text
from generators.realfake.settings import RealFakeSettings
from generators.realfake.visual import with_visual_token
from harness.api import Context


class CaptionedImages:
    """Real images, randomly cropped, with their caption and their visual token; neither is ever dropped."""

    def __init__(
        self, images: RealImages, parts: DiffusionParts, texts: Sequence[str], image_features: np.ndarray, scale: float
    ) -> None:
        self.scale = scale
        self.images, self.parts, self.texts = images, parts, texts
        self.features = torch.from_numpy(image_features.astype(np.float32))

    def __len__(self) -> int:
        return len(self.images)

    def image(self, position: int, generator: torch.Generator) -> Tensor:
        """Return one image."""
        return crop_for_training(self.images.picture(position), self.parts.image_size, "random", generator)

    def condition(self, positions: Sequence[int]) -> Tensor:
        """Return text states with the visual token in the last position."""
        hidden = encode_prompts(self.parts, [self.texts[position] for position in positions])
        return with_visual_token(hidden, self.features[list(positions)].to(hidden.device), self.scale)


def train_lora(ctx: Context, parts: DiffusionParts, settings: RealFakeSettings) -> None:
    """Train the LoRA and write it to the artifact; resumes from its last checkpoint."""
    images, rows = RealImages.of(ctx), captions.read_captions(ctx.inputs["captions"].path(captions.FILE))
    names = [class_name(i, n) for i, n in zip(ctx.classes.ids, ctx.classes.names, strict=True)]
    texts = [training_text(names[row["class_index"]], row["caption"]) for row in rows]
    found = np.load(ctx.inputs["features"].path(features.FILE))
    unet = sharing_copy(parts.unet)
    lora = add_lora(unet, settings.rank, ctx.seed("realfake-lora"))
    run = Finetune(
        parts,
        unet,
        lora,
        CaptionedImages(images, parts, texts, found, settings.token_scale),
        Schedule(updates_of(settings.epochs, len(images), settings.batch), settings.batch, settings.batch, settings.lr),
        partial(realfake_loss, matching=settings.matching),
        seed=ctx.seed("realfake"),
        facts={"key": ctx.cell.key},
    )
    run.run(ctx.scratch / "realfake", ctx.out / LOG, ctx.progress)
    save_lora(ctx.out / FILE_NAME, lora)
    run.finish(ctx.scratch / "realfake")
