"""Names and shapes of the tensors that a configuration of Stable Diffusion 1.x asks for: derived without torch, while planning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from generators.diffusion.original_names import unet_name, vae_name
from generators.diffusion.weight_files import Shape, WeightFile
from harness.api import UserError, refuse_partial

Shapes = dict[str, Shape]
TEXT_PREFIX = "text_model."
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_FORMER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names of the autoencoder's attention before diffusers 0.18, which diffusers still reads."""
_UNET_SIZES: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
    "cross_attention_dim": 1280, "norm_num_groups": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
_UNET_PLAIN = {
    "mid_block_type": "UNetMidBlock2DCrossAttn", "resnet_time_scale_shift": "default", "transformer_layers_per_block": 1,
    "time_embedding_type": "positional", "attention_type": "default", "conv_in_kernel": 3, "conv_out_kernel": 3,
}  # fmt: skip
_UNET_FREE = {
    "sample_size", "center_input_sample", "flip_sin_to_cos", "freq_shift", "downsample_padding", "mid_block_scale_factor", "dropout",
    "act_fn", "norm_eps", "attention_head_dim", "num_attention_heads", "upcast_attention", "resnet_out_scale_factor",
    "resnet_skip_time_act", "addition_embed_type_num_heads",
}  # fmt: skip
_VAE_SIZES: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (64,), "layers_per_block": 1, "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",), "mid_block_add_attention": True,
}  # fmt: skip
_VAE_PLAIN = {"use_quant_conv": True, "use_post_quant_conv": True}
_VAE_FREE = {"act_fn", "sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"}
_TEXT_SIZES = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
}
_BLOCKS = (
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "DownEncoderBlock2D",
    "UpDecoderBlock2D",
)


_MOST_LAYERS = 1000


def expected(part: str, config: Mapping[str, Any]) -> Shapes | None:
    """Return the tensors of a part by their names in diffusers, those of the text encoder without ``text_model.``

    Args:
        part: ``unet`` (``UNet2DConditionModel``), ``vae`` (``AutoencoderKL``) or ``text_encoder`` (``CLIPTextModel``).
        config: Its configuration; a size that is left out has the default of the library.

    Returns:
        Name to shape; None if the configuration asks for something that Stable Diffusion 1.x does not have.
    """
    for key in ("num_hidden_layers", "layers_per_block"):
        if not isinstance(config.get(key, 1), int) or not 0 < config.get(key, 1) <= _MOST_LAYERS:
            raise UserError(
                f"the configuration of the {part} is damaged",
                f"{key} is {str(config[key])[:40]}",
                "download the model again",
            )
    if part == "text_encoder":
        return _text(_TEXT_SIZES | {key: config[key] for key in _TEXT_SIZES if key in config})
    sizes, plain, free = (
        (_UNET_SIZES, _UNET_PLAIN, _UNET_FREE) if part == "unet" else (_VAE_SIZES, _VAE_PLAIN, _VAE_FREE)
    )
    if not _is_plain(config, plain, {*free, *sizes}):
        return None
    sizes = sizes | {key: config[key] for key in sizes if key in config}
    blocks = {*sizes["down_block_types"], *sizes["up_block_types"]}
    ints = (sizes[key] for key in ("layers_per_block", "norm_num_groups", "cross_attention_dim") if key in sizes)
    if not blocks <= {*_BLOCKS} or not all(isinstance(each, int) for each in ints):
        return None
    return _unet(sizes) if part == "unet" else _vae(sizes)


def check_part(part: str, files: Sequence[WeightFile], config: Mapping[str, Any]) -> None:
    """Compare the headers of a part in a pipeline folder with its configuration, as far as that is Stable Diffusion 1.x.

    Raises:
        UserError: a tensor is missing, left over, or of another shape.
    """
    wanted = expected(part, config)
    held = {_current(part, name): shape for file in files for name, shape in file.shapes.items()}
    if wanted is not None:
        _compare(files[0].path.parent, held, wanted, whole=part != "text_encoder")


def check_original(file: WeightFile, configs: Mapping[str, Mapping[str, Any]], prefixes: Mapping[str, str]) -> None:
    """Compare the header of a single-file checkpoint with the configurations of its parts.

    Args:
        file: The header.
        configs: Configuration of each part.
        prefixes: What stands before the original names of each part.

    Raises:
        UserError: a tensor is missing or of another shape.
    """
    for part, prefix in prefixes.items():
        wanted = expected(part, configs[part])
        if wanted is None:
            continue
        held = {
            prefix + name.removeprefix(prefix).removeprefix(TEXT_PREFIX): file.shapes[name]
            for name in file.below(prefix)
        }
        original = _original(part, configs[part])
        _compare(file.path, held, {prefix + original(name): shape for name, shape in wanted.items()}, whole=False)


def _current(part: str, name: str) -> str:
    if part == "text_encoder":
        return name.removeprefix(TEXT_PREFIX)
    former = next((each for each in _FORMER if part == "vae" and ".attentions." in name and each in name), None)
    return name.replace(former, _FORMER[former]) if former else name


def _original(part: str, config: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the function from a name in diffusers to the original one of a part."""
    if part == "unet":
        kinds = config.get("up_block_types", _UNET_SIZES["up_block_types"])
        above = {index for index, kind in enumerate(kinds) if kind.startswith("CrossAttn")}
        layers = config.get("layers_per_block", _UNET_SIZES["layers_per_block"])
        return lambda name: unet_name(name, layers, above)
    blocks = len(config.get("block_out_channels", _VAE_SIZES["block_out_channels"]))
    return (lambda name: vae_name(name, blocks)) if part == "vae" else (lambda name: name)


def _compare(source: object, held: Mapping[str, Shape | None], wanted: Shapes, whole: bool) -> None:
    """Refuse what is missing or of another shape, and with `whole` what is left over; a pickle's texts are no whole list."""
    odd = [
        f"{name} {held[name]} instead of {shape}"
        for name, shape in wanted.items()
        if held.get(name) not in (None, shape, (*shape, 1, 1))  # projections may be stored as convolutions
    ]
    rest = held.keys() - wanted.keys() if whole and None not in held.values() else ()
    refuse_partial(source, wanted.keys() - held.keys(), rest, odd)


def _is_plain(config: Mapping[str, Any], plain: Mapping[str, Any], known: Collection[str]) -> bool:
    return all(
        key in known or key.startswith("_") or value is None or value is False or plain.get(key) == value
        for key, value in config.items()
    ) and all(config.get(key, value) == value for key, value in plain.items())


def _conv(name: str, out: int, into: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def _linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _resnet(name: str, into: int, out: int, time: int = 0) -> Shapes:
    return {
        **_norm(f"{name}.norm1", into), **_conv(f"{name}.conv1", out, into),
        **(_linear(f"{name}.time_emb_proj", out, time) if time else {}),
        **_norm(f"{name}.norm2", out), **_conv(f"{name}.conv2", out, out),
        **(_conv(f"{name}.conv_shortcut", out, into, 1) if into != out else {}),
    }  # fmt: skip


def _transformer(name: str, width: int, text: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    found = {
        **_norm(f"{name}.norm", width),
        **_conv(f"{name}.proj_in", width, width, 1),
        **_conv(f"{name}.proj_out", width, width, 1),
        **_linear(f"{block}.ff.net.0.proj", 8 * width, width),
        **_linear(f"{block}.ff.net.2", width, 4 * width),
    }
    for index in (1, 2, 3):
        found |= _norm(f"{block}.norm{index}", width)
    for attention, source in (("attn1", width), ("attn2", text)):
        found |= _linear(f"{block}.{attention}.to_q", width, width, bias=False)
        found |= _linear(f"{block}.{attention}.to_k", width, source, bias=False)
        found |= _linear(f"{block}.{attention}.to_v", width, source, bias=False)
        found |= _linear(f"{block}.{attention}.to_out.0", width, width)
    return found


def _unet(sizes: Mapping[str, Any]) -> Shapes:
    widths, layers, text = list(sizes["block_out_channels"]), sizes["layers_per_block"], sizes["cross_attention_dim"]
    first, last, time = widths[0], widths[-1], 4 * widths[0]
    found = {
        **_conv("conv_in", first, sizes["in_channels"]),
        **_linear("time_embedding.linear_1", time, first), **_linear("time_embedding.linear_2", time, time),
        **_norm("conv_norm_out", first), **_conv("conv_out", sizes["out_channels"], first),
        **_resnet("mid_block.resnets.0", last, last, time), **_resnet("mid_block.resnets.1", last, last, time),
        **_transformer("mid_block.attentions.0", last, text),
    }  # fmt: skip
    skips = [first]
    for index, (kind, width) in enumerate(zip(sizes["down_block_types"], widths, strict=True)):
        block = f"down_blocks.{index}"
        for layer in range(layers):
            found |= _resnet(f"{block}.resnets.{layer}", skips[-1], width, time)
            if kind.startswith("CrossAttn"):
                found |= _transformer(f"{block}.attentions.{layer}", width, text)
            skips.append(width)
        if index < len(widths) - 1:
            found |= _conv(f"{block}.downsamplers.0.conv", width, width)
            skips.append(width)
    below = last
    for index, (kind, width) in enumerate(zip(sizes["up_block_types"], widths[::-1], strict=True)):
        block = f"up_blocks.{index}"
        for layer in range(layers + 1):
            found |= _resnet(f"{block}.resnets.{layer}", below + skips.pop(), width, time)
            if kind.startswith("CrossAttn"):
                found |= _transformer(f"{block}.attentions.{layer}", width, text)
            below = width
        if index < len(widths) - 1:
            found |= _conv(f"{block}.upsamplers.0.conv", width, width)
    return found


def _vae(sizes: Mapping[str, Any]) -> Shapes:
    widths, layers, latent = list(sizes["block_out_channels"]), sizes["layers_per_block"], sizes["latent_channels"]
    found = {
        **_half("encoder", sizes["in_channels"], widths, layers, 2 * latent, "down_blocks", "downsamplers"),
        **_half("decoder", latent, widths[::-1], layers + 1, sizes["out_channels"], "up_blocks", "upsamplers"),
        **_conv("quant_conv", 2 * latent, 2 * latent, 1), **_conv("post_quant_conv", latent, latent, 1),
    }  # fmt: skip
    for half in ("encoder", "decoder"):
        middle = f"{half}.mid_block"
        found |= _resnet(f"{middle}.resnets.0", widths[-1], widths[-1])
        found |= _resnet(f"{middle}.resnets.1", widths[-1], widths[-1])
        if sizes["mid_block_add_attention"]:
            found |= _norm(f"{middle}.attentions.0.group_norm", widths[-1])
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= _linear(f"{middle}.attentions.0.{layer}", widths[-1], widths[-1])
    return found


def _half(name: str, into: int, widths: Sequence[int], layers: int, out: int, blocks: str, samplers: str) -> Shapes:
    """Return the tensors of an encoder or decoder but those of its middle."""
    found = {
        **_conv(f"{name}.conv_in", widths[0], into),
        **_norm(f"{name}.conv_norm_out", widths[-1]), **_conv(f"{name}.conv_out", out, widths[-1]),
    }  # fmt: skip
    before = widths[0]
    for index, width in enumerate(widths):
        for layer in range(layers):
            found |= _resnet(f"{name}.{blocks}.{index}.resnets.{layer}", before, width)
            before = width
        if index < len(widths) - 1:
            found |= _conv(f"{name}.{blocks}.{index}.{samplers}.0.conv", width, width)
    return found


def _text(sizes: Mapping[str, int]) -> Shapes:
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    found: Shapes = {
        "embeddings.token_embedding.weight": (sizes["vocab_size"], width),
        "embeddings.position_embedding.weight": (sizes["max_position_embeddings"], width),
        **_norm("final_layer_norm", width),
    }
    for index in range(sizes["num_hidden_layers"]):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{layer}.self_attn.{name}", width, width)
        found |= _linear(f"{layer}.mlp.fc1", inner, width) | _linear(f"{layer}.mlp.fc2", width, inner)
        found |= _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
    return found
