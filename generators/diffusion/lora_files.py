"""LoRA files in circulation, turned into the one form used here: pairs of down and up, with alpha = rank."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from harness.api import CorruptArtifact, parse_json, refuse_malformed

DOWN, UP = ".lora.down.weight", ".lora.up.weight"
_DOWNS = (DOWN, ".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", "_lora.down.weight")
_UPS = (UP, ".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", "_lora.up.weight")
"""Endings by diffusers up to 0.3x, PEFT, PEFT within a model, kohya's scripts, and diffusers' attention processors."""
_ALPHA = ".alpha"
_METADATA = "lora_adapter_metadata"
_TEXT = ("lora_te", "text_encoder.", "text_encoder_2.", "te1.", "te2.")
_OTHER = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "lora_mid", "oft_", "glora")
_LAYER = r"(?:attn[12])[._](?:to_q|to_k|to_v|to_out[._]0)"
_KOHYA = re.compile(
    rf"lora_unet_((?:down|up)_blocks_\d+|mid_block)_attentions_(\d+)_transformer_blocks_(\d+)_({_LAYER})"
)
_PATH = re.compile(rf"(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+\.transformer_blocks\.\d+\.{_LAYER}")
_PATTERN = re.compile(r"\^?(\.\*)?[\w.\\|-]{1,200}(\.\*)?\$?")
"""Names of layers as PEFT writes them, and alternatives of such; other regular expressions could take for ever."""
_WRAPPED = "base_model.model."
_CONFIG = "adapter_config.json"
_FIX = "use a LoRA on the attention layers of Stable Diffusion 1.5's UNet, or fuse it into the base model and save that"


def read_lora(path: Path) -> dict[str, Tensor]:
    """Read a LoRA of the UNet's attention from a safetensors file, or from a ``.bin`` file as tensors only.

    Read are the names of diffusers (``lora.down``; ``lora_A`` with alpha in the file's metadata), of its former attention
    processors, of PEFT's ``save_pretrained`` (alpha in ``adapter_config.json`` beside the file), and of kohya's scripts
    (``lora_unet_*`` with tensors of alpha). Each layer has its own alpha and rank.

    Returns:
        ``unet.PATH.lora.down.weight`` (rank, in) and ``unet.PATH.lora.up.weight`` (out, rank), sorted. Where alpha is not the
        rank, ``up`` is multiplied by alpha / rank (by alpha / sqrt(rank) with rsLoRA), in float32.

    Raises:
        CorruptArtifact: it cannot be read, or holds something that has no place here.
        UserError: its settings have an unexpected form.
    """
    with refuse_malformed(path, "check the file"):
        return _checked(path)


def _checked(path: Path) -> dict[str, Tensor]:
    tensors, metadata = _read(path)
    if tensors and all(name.startswith(_WRAPPED) for name in tensors):
        tensors, metadata = {name.removeprefix(_WRAPPED): each for name, each in tensors.items()}, _beside(path)
    _refuse_other_kinds(path, tensors)
    downs, ups, alphas = _sorted_out(path, tensors)
    if downs.keys() != ups.keys() or not downs:
        raise CorruptArtifact(f"{path} is not a UNet LoRA", "its names are not pairs of down and up", "check the file")
    found = {}
    for name, down in sorted(downs.items()):
        _check_pair(path, name, down, ups[name])
        scale = _scale(path, name, down.shape[0], alphas, metadata)
        found[f"unet.{name}{DOWN}"] = down
        found[f"unet.{name}{UP}"] = ups[name] if scale == 1 else ups[name].float() * scale
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        if path.suffix == ".bin":
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}, {}
        with safe_open(path, framework="pt") as file:
            raw = parse_json((file.metadata() or {}).get(_METADATA, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, raw  # noqa: SIM118
    except Exception as error:  # safetensors and unpicklers raise undocumented types
        raise CorruptArtifact(f"{path} cannot be read", str(error), "delete it and run the fit again") from error


def _beside(path: Path) -> dict[str, Any]:
    """Return the settings of an adapter saved by PEFT, which keeps alpha in a file of its own."""
    try:
        found: dict[str, Any] = parse_json((path.parent / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(
            f"{path} cannot be used alone",
            f"PEFT saved it, and its alpha is in {_CONFIG}, which cannot be read beside it",
            f"put {_CONFIG} into the same folder",
        ) from error
    return found


def _check_pair(path: Path, name: str, down: Tensor, up: Tensor) -> None:
    """Check that two tensors are matrices of one rank, and numbers."""
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        why = f"its shapes are {tuple(down.shape)} and {tuple(up.shape)}"
        raise CorruptArtifact(f"{path}: down and up of {name} do not make a product", why, "check the file")
    if not all(bool(torch.isfinite(each).all()) for each in (down, up)):
        raise CorruptArtifact(
            f"{path} holds weights that are no numbers", f"NaN or infinite values in {name}", "take another file"
        )


def _refuse_other_kinds(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for marks, why in (
        (_TEXT, "it also changes the text encoder"),
        (_OTHER, "it is no plain LoRA (LoHa, LoKr, DoRA, ...)"),
    ):
        if named := sorted(name for name in tensors if any(mark in name for mark in marks)):
            raise CorruptArtifact(f"{path} cannot be used", f"{why}: {named[0]}", _FIX)


def _sorted_out(
    path: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """Return down and up matrices and alphas by path of the layer."""
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for name, tensor in tensors.items():
        layer = next((name.removesuffix(end) for end in (*_DOWNS, *_UPS, _ALPHA) if name.endswith(end)), None)
        if layer is None:
            raise CorruptArtifact(
                f"{path} is not a UNet LoRA", f"its names are not pairs of down and up: {name}", "check the file"
            )
        place = _place(path, layer)
        if name.endswith(_ALPHA):
            alphas[place] = float(tensor)
        else:
            (downs if name.endswith(_DOWNS) else ups)[place] = tensor
    return downs, ups, alphas


def _place(path: Path, layer: str) -> str:
    """Return a layer's path in the UNet."""
    if found := _KOHYA.fullmatch(layer):
        block, attention, transformer, name = found.groups()
        block = re.sub(r"_(\d+)$", r".\1", block)
        name = name.replace("_to_", ".to_").replace("to_out_0", "to_out.0")
        return f"{block}.attentions.{attention}.transformer_blocks.{transformer}.{name}"
    plain = layer.removeprefix("unet.").replace(".processor.to_out", ".to_out.0").replace(".processor.", ".")
    if _PATH.fullmatch(plain):
        return plain
    raise CorruptArtifact(f"{path} cannot be used", f"it changes layers other than the UNet's attention: {layer}", _FIX)


def _scale(path: Path, name: str, rank: int, alphas: Mapping[str, float], metadata: Mapping[str, Any]) -> float:
    """Return what the product of up and down is multiplied by; without a statement alpha is the rank."""
    own = {key.removeprefix("unet."): value for key, value in metadata.items()}
    if own.get("use_dora"):
        raise CorruptArtifact(f"{path} cannot be used", "it is a DoRA", _FIX)
    patterns = own.get("alpha_pattern") or {}  # the first that matches counts, as in PEFT
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise CorruptArtifact(
                f"{path} cannot be used", f"its alpha_pattern holds {pattern[:80]!r}, no name of layers", _FIX
            )
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", name))
    alpha = alphas.get(name, next(fitting, own.get("lora_alpha", rank)))
    return float(alpha / (rank**0.5 if own.get("use_rslora") else rank))


def pairs(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the path of each layer with its down and up."""
    for name in sorted(weights):
        if name.endswith(DOWN):
            yield name.removeprefix("unet.").removesuffix(DOWN), weights[name], weights[name.removesuffix(DOWN) + UP]
