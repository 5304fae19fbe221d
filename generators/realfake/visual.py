"""The visual token: a CLIP feature in the last text position; which one, at synthesis."""

from __future__ import annotations

from torch import Tensor

from harness.api import UserError

RELEASED_BATCH = 24
"""Images of one synthesis batch of the published code, which treats those of each class in it by themselves."""


def released_batch(place: int, count: int) -> range:
    """Return the places of the images that share a published batch with one: runs of 24 among the ``count`` of its class.

    Assumes that batches begin with the first image of a class; the last one of a class may be shorter.
    """
    first = place - place % RELEASED_BATCH
    return range(first, min(first + RELEASED_BATCH, count))


def interleaved(features: Tensor) -> Tensor:
    """Return what the published code takes for the features of a batch, (B, width) to (B, width).

    It stacks them along the wrong axis, to (width, B), and reads that in order as B rows: row b holds the dimensions from
    b * width / B to (b + 1) * width / B of all images, one image after another within each dimension.
    """
    return features.T.reshape(features.shape)


def with_visual_token(hidden: Tensor, features: Tensor, scale: float = 1.0) -> Tensor:
    """Return text states whose last position is overwritten by a feature; all others stay as they are.

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
