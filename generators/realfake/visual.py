"""The visual token: an image's CLIP feature in the last text position."""

from __future__ import annotations

from torch import Tensor

from harness.errors import UserError


def with_visual_token(hidden: Tensor, features: Tensor, scale: float = 1.0) -> Tensor:
    """Return text states whose last position is overwritten by the image's feature; all others stay as they are.

    Args:
        hidden: (B, tokens, width) states of the text encoder (77 tokens of 768 for Stable Diffusion 1.5).
        features: (B, width).
        scale: Factor on the features; 1 is the published value.

    Raises:
        UserError: the feature has another width than the text.
    """
    if hidden.shape[-1] != features.shape[-1]:
        raise UserError(
            "the CLIP feature does not fit into the text",
            f"its width is {features.shape[-1]}, the text's {hidden.shape[-1]}",
            "use a CLIP whose projection is as wide as the pipeline's text encoder (ViT-L/14 for Stable Diffusion 1.5)",
        )
    joined = hidden.clone()
    joined[:, -1] = scale * features.to(joined)
    return joined
