"""The five levels, the frozen prompt and the expectation that turns level logits into a score.

Level words, weights and prompt are those of Q-ALIGN (Wu et al., ICML 2024). The token ids are those of the
LLaMA-2 SentencePiece vocabulary; a model folder's own vocabulary is checked against them before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = ("excellent", "good", "fair", "poor", "bad")
LEVEL_WEIGHTS = (5.0, 4.0, 3.0, 2.0, 1.0)
LEVEL_TOKEN_IDS = (15129, 1781, 6534, 6460, 4319)

IMAGE_PLACEHOLDER = "<|image|>"
CHUNK_BEFORE_IMAGE = "USER: How would you rate the quality of this image?\n"
CHUNK_AFTER_IMAGE = "\nASSISTANT: The quality of the image is"
PROMPT = CHUNK_BEFORE_IMAGE + IMAGE_PLACEHOLDER + CHUNK_AFTER_IMAGE

BOS_TOKEN_ID = 1
# The chunks around the image are tokenised apart, so the second starts with a lone space piece (29871).
TOKENS_BEFORE_IMAGE = (3148, 1001, 29901, 1128, 723, 366, 6554, 278, 11029, 310, 445, 1967, 29973, 13)
TOKENS_AFTER_IMAGE = (29871, 13, 22933, 9047, 13566, 29901, 450, 11029, 310, 278, 1967, 338)


def expected_level(level_logits: Tensor) -> Tensor:
    """Return the softmax expectation of the level weights, computed in fp32 or wider.

    Args:
        level_logits: (B, 5) logits in the order of `LEVELS`.

    Returns:
        (B,) scores Q in [1, 5].
    """
    import torch

    if level_logits.ndim != 2 or level_logits.shape[1] != len(LEVELS):
        raise ValueError(f"level logits must be (B, {len(LEVELS)}), got {tuple(level_logits.shape)}")
    wide = level_logits.to(torch.promote_types(level_logits.dtype, torch.float32))
    weights = torch.tensor(LEVEL_WEIGHTS, dtype=wide.dtype, device=wide.device)
    return (torch.softmax(wide, dim=1) * weights).sum(dim=1)


def select_levels(logits: Tensor) -> Tensor:
    """Pick the five level columns out of vocabulary logits.

    Args:
        logits: (B, V) logits over the LLaMA-2 vocabulary.

    Returns:
        (B, 5) in the order of `LEVELS`.
    """
    return logits[:, list(LEVEL_TOKEN_IDS)]
