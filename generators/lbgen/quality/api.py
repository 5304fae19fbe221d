"""The interface every quality scorer has, whether it lives in this process or in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class QualityScorer(Protocol):
    """Score images on the five-level scale of Q-ALIGN (Wu et al., ICML 2024)."""

    def score(self, images: Tensor) -> Tensor:
        """Return the expected level of each image, differentiable with respect to the images.

        Args:
            images: (B, 3, H, W), square, floating, nominally in [0, 1] and not clamped.

        Returns:
            (B,) in [1, 5], at least fp32, on the device of the images.
        """
        ...

    def score_and_grad(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores and the gradient of their sum, both without a graph.

        This is all that the staged adjoint needs, so a scorer in its own process can implement it.

        Args:
            images: (B, 3, H, W) as for `score`.

        Returns:
            Scores (B,) and d(sum of scores)/d(images) with the shape and dtype of the images.
        """
        ...
