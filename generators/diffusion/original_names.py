"""The original names of Stable Diffusion 1.x, as single-file checkpoints have them, from those of diffusers (no torch)."""

from __future__ import annotations

import re

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
