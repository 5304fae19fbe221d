"""A quality scorer from any open_clip model: five level prompts in place of Q-ALIGN.

**Deviation from the paper.** lbGen (CVPR 2025) scores quality with Q-ALIGN, an 8-billion-parameter language
model tuned on human opinion scores. This scorer asks a contrastive model which of "excellent photo", "good
photo", "fair photo", "poor photo" and "bad photo" fits best and takes the same expectation over the five
levels. It needs no extra model and follows gross degradations, but it is not calibrated to human opinion; a
run that uses it is not the paper's recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generators.lbgen.quality.encoder import EncoderScorer
from generators.lbgen.quality.levels import LEVELS
from harness.api import DataMissing, UserError, create_open_clip

LEVEL_PROMPTS = tuple(f"{level} photo" for level in LEVELS)


class OpenClipLevelScorer(EncoderScorer):
    """Score images by five level prompts on a frozen open_clip model: a deviation from the paper (see above).

    Args:
        model: An open_clip model as `open_clip.create_model` returns it.
        tokenizer: Its tokenizer: list of strings to token ids.
        device: Where the scorer runs.
        dtype: Dtype of the weights.
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        import open_clip

        cfg = open_clip.get_model_preprocess_cfg(model)
        side = cfg["size"]
        size = int(side if isinstance(side, int) else side[0])
        if cfg["interpolation"] != "bicubic":
            raise UserError(
                "unsupported open_clip quality encoder",
                f"its preprocessing asks for {cfg['interpolation']} interpolation, not bicubic",
                "choose a model with bicubic preprocessing",
            )
        super().__init__(size=size, mean=cfg["mean"], std=cfg["std"], device=device, dtype=dtype)
        self._model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        with torch.no_grad():
            tokens = tokenizer(list(LEVEL_PROMPTS)).to(device)
            self._text: Tensor = self._model.encode_text(tokens, normalize=True)
            self._scale: Tensor = self._model.logit_scale.exp()

    def level_logits(self, pixels: Tensor) -> Tensor:
        """Return (B, 5) temperature-scaled cosines between the images and the level prompts."""
        features: Tensor = self._model.encode_image(pixels, normalize=True)
        return self._scale * features @ self._text.T


def load_open_clip(
    name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype
) -> OpenClipLevelScorer:
    """Load a five-level scorer from open_clip.

    Args:
        name: "local-dir:PATH" of a folder with open_clip_config.json and weights, or an open_clip model name.
        pretrained: Weight tag or file of a named model; None for a folder.
        device: Where the scorer runs.
        dtype: Dtype of the weights.

    Returns:
        The scorer, frozen.
    """
    import open_clip

    try:
        model = create_open_clip(name, pretrained)
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError) as err:
        raise DataMissing(
            f"cannot load the open_clip quality encoder {name!r} ({pretrained or 'folder'})",
            str(err),
            "give local-dir:PATH of a folder with open_clip_config.json and weights, or NAME@PRETRAINED",
        ) from err
    return OpenClipLevelScorer(model, tokenizer, device=device, dtype=dtype)
