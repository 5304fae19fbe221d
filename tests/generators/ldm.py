"""Writes a pipeline's weights under the original names, as single-file checkpoints have them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def unet_name(name: str, layers: int, attention_above: set[int]) -> str:
    """Return the original name of a tensor of diffusers' UNet.

    Args:
        name: Its name in diffusers.
        layers: ``layers_per_block``.
        attention_above: Indices of the up blocks with attention.
    """
    for plain, original in _TOP.items():
        if name.startswith(plain + "."):
            return name.replace(plain, original, 1)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = found.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{_rest(rest)}"
    side, block, kind, index, rest = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    ).groups()  # type: ignore[union-attr]
    at, step = int(block), int(index)
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (at + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{(layers + 1) * at + layers}.{2 if at in attention_above else 1}.{rest}"
    inner = 1 if kind == "attentions" else 0
    if side == "down":
        return f"input_blocks.{(layers + 1) * at + step + 1}.{inner}.{_rest(rest)}"
    return f"output_blocks.{(layers + 1) * at + step}.{inner}.{_rest(rest)}"


def _rest(rest: str) -> str:
    first, dot, last = rest.partition(".")
    return _RESNET.get(first, first) + dot + last


def vae_name(name: str, blocks: int) -> str:
    """Return the original name of a tensor of diffusers' autoencoder with so many blocks."""
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block.", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.", lambda m: f"decoder.up.{blocks - 1 - int(m[1])}.block.", name
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"decoder.up.{blocks - 1 - int(m[1])}.upsample.", name
    )
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_shortcut", "nin_shortcut")
    for plain, original in (
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        name = name.replace(f"attn_1.{plain}.", f"attn_1.{original}.")
    return name.replace("conv_norm_out", "norm_out")


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
