"""One optimizer update: gradients checked, clipped, and applied or, where a loss scale made them overflow, skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from harness.api import TrainingFailed

OFF = GradScaler("cpu", enabled=False)
"""Scales nothing and skips nothing."""


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    clip: float,
    record: dict[str, Any],
    scaler: GradScaler = OFF,
) -> float | None:
    """Clip and apply gradients to exactly these parameters.

    With a loss scale the gradients are divided by it first. Where they are not finite nothing is applied and the scale is
    halved; scale and outcome are added to the record.

    Args:
        optimizer: The optimizer of the parameters.
        parameters: What is trained.
        gradients: One for each parameter, multiplied by the loss scale.
        clip: Largest global norm.
        record: The step's log record.
        scaler: The loss scaler; by default off.

    Returns:
        The global norm before the clip; None where the update was skipped.

    Raises:
        TrainingFailed: a loss is not finite, or the gradients are not at a loss scale that cannot be lowered.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(parameters, clip))
    bad = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    skipped = scaler.is_enabled() and not math.isfinite(norm)
    if not math.isfinite(norm) and scaler.get_scale() <= 1:
        bad.append("gradient norm")
    if bad:
        raise TrainingFailed(
            f"the fine-tune met a {bad[0]} that is not finite in step {record['step']}",
            "the losses or their gradients overflowed",
            "lower the learning rate or use a wider number format; the run resumes from its last checkpoint",
        )
    if scaler.is_enabled():
        record |= {"loss_scale": scaler.get_scale(), "skipped": skipped}
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return None if skipped else norm
