"""Which device this machine has, and how many."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import UserError


def choose_device(device: str) -> tuple[str, int]:
    """Return the device and its number of slots; ``auto`` means CUDA where a GPU is visible. Imports no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (
        len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        if visible is None
        else len([g for g in visible.split(",") if g])
    )
    if device == "cuda" and not gpus:
        raise UserError("no GPU is visible", "device 'cuda' was asked for", "leave --device out, or run where a GPU is")
    if device in ("auto", "cuda") and gpus:
        return "cuda", gpus
    return "cpu", len(os.sched_getaffinity(0))
