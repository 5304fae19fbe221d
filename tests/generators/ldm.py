"""Writes a pipeline's weights under the original names, as single-file checkpoints have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from generators.diffusion.original_names import unet_name, vae_name


def ldm_state(networks: Any, prefixed: bool = True) -> dict[str, Tensor]:
    """Return the state dict of a single-file checkpoint.

    Args:
        networks: Anything with ``unet``, ``vae`` and ``text_encoder``.
        prefixed: Whether the text encoder's names begin with ``text_model.``
    """
    unet, vae = networks.unet, networks.vae
    above = {i for i, kind in enumerate(unet.config.up_block_types) if kind.startswith("CrossAttn")}
    layers, blocks = unet.config.layers_per_block, len(vae.config.block_out_channels)
    state = {f"model.diffusion_model.{unet_name(k, layers, above)}": v for k, v in unet.state_dict().items()}
    for name, value in vae.state_dict().items():
        new = vae_name(name, blocks)
        square = "attn_1." in new and value.ndim == 2
        state[f"first_stage_model.{new}"] = value[:, :, None, None] if square else value
    middle = "text_model." if prefixed else ""
    for name, value in networks.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.{middle}{name.removeprefix('text_model.')}"] = value
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(4)[None]
    state["betas"] = torch.zeros(3)
    return {name: value.contiguous() for name, value in state.items()}


def same_weights(one: Any, two: Any) -> bool:
    """Return whether two pipelines hold equal tensors in all networks."""
    for part in ("unet", "vae", "text_encoder"):
        left, right = (getattr(each, part).state_dict() for each in (one, two))
        if left.keys() != right.keys() or not all(torch.equal(left[name], right[name]) for name in left):
            return False
    return True


def halve(folder: Path) -> None:
    """Turn every weight file of a pipeline folder into its fp16 variant."""
    from safetensors.torch import save_file

    for path in sorted(folder.rglob("*.safetensors")):
        tensors = {name: value.half() for name, value in load_file(path).items()}
        save_file(tensors, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
