"""The noise schedule and sampler of Stable Diffusion 1.5, and what a pipeline's scheduler file may say (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.api import UserError

SD15_SCHEDULER: Mapping[str, Any] = MappingProxyType(
    {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "trained_betas": None,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
    }
)
"""Values published with Stable Diffusion 1.5; mirrors have changed scheduler files before, so they are checked."""
PUBLISHED = "PNDMScheduler"
_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
"""What the UNet was trained with; the other values choose a sampler."""
_UNSTATED = MappingProxyType({"trained_betas": None, "prediction_type": "epsilon", "timestep_spacing": "leading"})
"""What a file that leaves a value out means by it."""


def check_scheduler(config: Mapping[str, Any]) -> str:
    """Compare a scheduler's configuration with Stable Diffusion 1.5's.

    The noise schedule belongs to the weights and must be the published one. The sampler belongs to the recipe, which names
    it: a file that names another class is no obstacle, since that class is not used.

    Returns:
        A sentence about a scheduler that the file names and the recipe does not use; empty for the published one.

    Raises:
        UserError: a value differs; it is named.
    """
    kind = config.get("_class_name")
    keys = SD15_SCHEDULER if kind == PUBLISHED else _SCHEDULE
    values = {key: config.get(key, _UNSTATED.get(key)) for key in keys}
    wrong = [f"{key} is {value!r}" for key, value in values.items() if value != SD15_SCHEDULER[key]]
    wrong += [f"{key} is on" for key in ("clip_sample",) if config.get(key) and kind == PUBLISHED]
    wrong += [f"{key} is on" for key in ("rescale_betas_zero_snr",) if config.get(key)]
    if wrong:
        named = [] if kind == PUBLISHED else [f"the class is {kind!r}"]
        hint = " (v-prediction: Stable Diffusion 2)" if config.get("prediction_type") == "v_prediction" else ""
        raise UserError(
            "the scheduler is not Stable Diffusion 1.5's",
            "; ".join(named + wrong) + hint,
            f"use a pipeline with the noise schedule {dict(SD15_SCHEDULER)}",
        )
    if kind == PUBLISHED:
        return ""
    return f"its scheduler file names {kind}, which is not used: the recipe's sampler on the same noise schedule is"
