"""Q-ALIGN as a quality scorer with image gradients, by this package's own forward pass.

The published score methods run under inference mode and so have no gradient; they also need one old version
of transformers and code from the hub. Here the forward pass is called directly: the frozen prompt around the
image, the logits of the last position at the five level ids, softmax in fp32 (Q-ALIGN, Wu et al., ICML 2024).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from generators.lbgen.preprocess import CLIP_MEAN, CLIP_STD
from generators.lbgen.quality.encoder import EncoderScorer
from generators.lbgen.quality.levels import select_levels
from generators.lbgen.quality.qalign_config import read_config
from generators.lbgen.quality.qalign_model import QAlignModel, build_on_meta
from generators.lbgen.quality.qalign_weights import check_vocabulary, load_weights


class QAlignScorer(EncoderScorer):
    """Score images with a Q-ALIGN model.

    Args:
        model: The model with its weights, all of one dtype on one device; it is frozen here.
    """

    def __init__(self, model: QAlignModel) -> None:
        weight = model.lm_head.weight
        super().__init__(
            size=model.cfg.vision.image_size,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            device=weight.device,
            dtype=weight.dtype,
        )
        self.model = model.eval().requires_grad_(False)

    def level_logits(self, pixels: Tensor) -> Tensor:
        """Return the (B, 5) level logits of the last position."""
        return select_levels(self.model(pixels))


def load_qalign(folder: Path, *, device: torch.device, dtype: torch.dtype) -> QAlignScorer:
    """Load Q-ALIGN from a folder with config.json, weight shards and tokenizer file; no code is run from it.

    Args:
        folder: Model folder.
        device: Where the model runs; 16.4 GB of fp16 weights at the published size.
        dtype: What the weights are cast to; they are published in fp16.

    Returns:
        The frozen scorer.
    """
    cfg = read_config(folder)
    check_vocabulary(folder)
    model = build_on_meta(cfg)
    load_weights(model, folder, device=device, dtype=dtype)
    return QAlignScorer(model)
