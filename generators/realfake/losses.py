"""RealFake's training loss: min-SNR weights, and the batch residual as distribution matching."""

from __future__ import annotations

from torch import Tensor

GAMMA = 5.0
MATCHING = 0.003
"""Weight of the squared batch *sum*; at the published batch of 8 this is 0.192 on the squared batch mean."""


def min_snr_weights(ratios: Tensor, gamma: float = GAMMA) -> Tensor:
    """Return w = min(SNR, gamma) / SNR for noise prediction (Hang et al., ICCV 2023), (B,)."""
    return ratios.clamp(max=gamma) / ratios


def matching_term(predicted: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
    """Return L_dm: the mean over channels and positions of the squared batch sum of weighted residuals.

    With the identity as feature map this is B^2 times a squared mean discrepancy between true and predicted noise.

    Args:
        predicted: (B, C, H, W).
        noise: (B, C, H, W), the true noise.
        weights: (B,) min-SNR weights; they enter linearly.
    """
    residual = weights.view(-1, 1, 1, 1) * (predicted - noise)
    return residual.sum(0).square().mean()


def realfake_loss(predicted: Tensor, noise: Tensor, ratios: Tensor, matching: float = MATCHING) -> Tensor:
    """Return L = mean_b w_b <(e_b - eps_b)^2> + matching <(sum_b w_b (e_b - eps_b))^2>."""
    weights = min_snr_weights(ratios).to(predicted)
    squared = (predicted - noise).square().flatten(1).mean(1)
    return (weights * squared).mean() + matching * matching_term(predicted, noise, weights)
