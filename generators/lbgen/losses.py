"""The losses of lbGen (CVPR 2025): adversarial L_en, individual L_in, quality L_q, and the discriminator's.

Signs: a logit is high when the discriminator takes its input for an image; text is "real" (label 0), image "fake"
(label 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, softplus


def discriminator_loss(image_logits: Tensor, text_logits: Tensor) -> Tensor:
    """Return L_D: binary cross-entropy over both sides, minus half of the paper's L_en for equal counts."""
    return torch.cat([softplus(-image_logits).flatten(), softplus(text_logits).flatten()]).mean()


def alignment_loss(image_logits: Tensor, form: Literal["non-saturating", "saturating"] = "non-saturating") -> Tensor:
    """Return the generator's side of L_en.

    Non-saturating (the released code): mean softplus(z). Saturating (the paper's min-max): mean ln sigmoid(z), whose
    gradient vanishes once the discriminator wins.
    """
    return softplus(image_logits).mean() if form == "non-saturating" else -softplus(-image_logits).mean()


def entire_alignment_value(image_logits: Tensor, text_logits: Tensor) -> Tensor:
    """Return the paper's L_en = E ln D(text) + E ln(1 - D(image)), where D is the probability of being text."""
    return -softplus(text_logits).mean() - softplus(-image_logits).mean()


def individual_loss(image_features: Tensor, caption_features: Tensor) -> Tensor:
    """Return L_in = mean over images of 1 - cos(image, its own caption)."""
    return (1 - cosine_similarity(image_features, caption_features, dim=-1)).mean()


def quality_loss(scores: Tensor) -> Tensor:
    """Return L_q = 1 - mean score / 5, for scores from 1 to 5."""
    return 1 - scores.mean() / 5
