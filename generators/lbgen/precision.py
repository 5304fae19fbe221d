"""The number format of the fine-tune: weights and activations of the frozen models, and the loss scale of float16.

In half precision the frozen models hold their weights in it and the UNet runs under autocast. Latents, guidance, the sampler,
the LoRA, the discriminator, all losses and both optimizers stay in float32.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.amp import GradScaler

from generators.diffusion.pipeline import DiffusionParts
from generators.lbgen.settings import Precision


def fit_dtype(precision: Precision, device: str) -> torch.dtype:
    """Return the type of a fine-tune's weights; a processor computes fp16 as float32, as in synthesis."""
    half = torch.float32 if device == "cpu" else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": half}[precision]


def in_precision(parts: DiffusionParts, dtype: torch.dtype) -> DiffusionParts:
    """Return a freshly loaded pipeline in another type; its modules are converted in place."""
    if dtype == parts.dtype:
        return parts
    # The method of nn.Module: that of diffusers warns of modules that must stay in float32, of which there are none here.
    converted = {name: nn.Module.to(getattr(parts, name), dtype) for name in ("text_encoder", "vae", "unet")}
    return dataclasses.replace(parts, **converted, dtype=dtype, _prompts={})


def autocast(parts: DiffusionParts) -> AbstractContextManager[object]:
    """Return the context of the UNet's calls: autocast in half precision, nothing in float32."""
    if parts.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(parts.device.type, parts.dtype)


def loss_scaler(parts: DiffusionParts) -> GradScaler:
    """Return the loss scaler of the LoRA: on in float16 only, where small gradients would underflow.

    PyTorch's rules: the scale begins at 65536, an update whose gradients are not finite is skipped and halves it, 2000
    updates without one double it.
    """
    scaler = GradScaler(parts.device.type, enabled=parts.dtype == torch.float16)
    scaler.scale(torch.zeros((), device=parts.device))  # makes its state, also in a process that has no micro-batch
    return scaler
