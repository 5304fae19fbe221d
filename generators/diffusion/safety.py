"""Stable Diffusion's safety checker: flagged images are made all black, as its pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.api import DataMissing, UserError, first_line, load_pretrained


class SafetyChecker:
    """The published checker: a CLIP image encoder that compares a picture with a list of concepts.

    Args:
        source: Folder with ``config.json``, weights and perhaps ``preprocessor_config.json``, or ``hub:OWNER/NAME@COMMIT``.
        device: Where it runs.

    Raises:
        UserError: a hub id without a commit.
        DataMissing: it cannot be loaded.
    """

    def __init__(self, source: str, device: str = "cpu") -> None:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPImageProcessor

        name, _, revision = (
            source.removeprefix("hub:").partition("@") if source.startswith("hub:") else (source, "", "")
        )
        if source.startswith("hub:") and not revision:
            raise UserError(
                f"the safety checker {source} is not pinned", "a moving revision cannot be reproduced", "add @COMMIT"
            )
        if not source.startswith("hub:") and not Path(source).is_dir():
            raise DataMissing(
                f"no safety checker at {source}", "there is no such folder", "give its folder or hub:OWNER/NAME@COMMIT"
            )
        try:
            model = load_pretrained(StableDiffusionSafetyChecker, name, revision=revision or None)
        except OSError as error:
            raise DataMissing(
                f"no safety checker at {source}", first_line(error), "give its folder or hub:OWNER/NAME@COMMIT"
            ) from error
        self.model: Any = model.to(device).eval()
        side = int(model.config.vision_config.image_size)
        self.processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        self.device = device

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H, W, 3) uint8 as it is, or all black where it is flagged; one at a time."""
        pixels = self.processor(images=image, return_tensors="pt").pixel_values.to(self.device)
        _, flagged = self.model(clip_input=pixels, images=[image.copy()])
        return np.zeros_like(image) if bool(flagged[0]) else image
