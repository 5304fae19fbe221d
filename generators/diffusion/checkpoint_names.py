"""What the names in a single-file checkpoint say of the model in it (no torch)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from generators.diffusion.architecture import check_original
from generators.diffusion.weight_files import WeightFile, is_zero
from harness.api import UserError

CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
"""What stands before the names of each part of Stable Diffusion 1.x."""
EMA = "model_ema.diffusion_model"
"""What stands before the averaged weights of a UNet; dots are left out in the rest of their names."""
UPDATES = "model_ema.num_updates"
"""How often the average was updated; -1 if that was not counted."""
_FOREIGN = (
    ("conditioner.embedders.", "it has SDXL's text encoders"),
    ("cond_stage_model.model.", "it has Stable Diffusion 2's text encoder (OpenCLIP)"),
    ("model.diffusion_model.joint_blocks.", "it has Stable Diffusion 3's transformer"),
    ("model.diffusion_model.double_blocks.", "it has FLUX's transformer"),
    ("control_model.", "it is a ControlNet"),
)
_LORA = ("lora_unet_", "lora_te_", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", "lora_down", "lora_up")
_DIFFUSERS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.")
_FIX = (
    "give the whole checkpoint of Stable Diffusion 1.5, such as v1-5-pruned-emaonly.safetensors, or a pipeline folder"
)


def check_checkpoint(file: WeightFile, configs: Mapping[str, Mapping[str, Any]], packaged: bool) -> None:
    """Check that a file holds a whole Stable Diffusion 1.x in the original names, of the configuration's shapes.

    Args:
        file: The header of the checkpoint.
        configs: Configurations of ``unet``, ``vae`` and ``text_encoder``.
        packaged: Whether these are those of Stable Diffusion 1.5 itself.

    Raises:
        UserError: it holds something else, or not all of it, which is named.
    """
    for prefix, why in _FOREIGN:
        if file.below(prefix):
            _refuse(file, f"{why} ({file.below(prefix)[0]})", _FIX)
    if file.having(*_LORA):
        _refuse(
            file, f"it holds a LoRA ({file.having(*_LORA)[0]})", "give the base model; a LoRA alone makes no images"
        )
    absent = [
        word
        for word, prefix in (("UNet", UNET), ("autoencoder", VAE), ("text encoder", TEXT))
        if not file.below(prefix)
    ]
    if len(absent) == 3:
        known = file.below(*_DIFFUSERS, "encoder.", "decoder.", "text_model.")
        first = next(iter(file.shapes))
        why = (
            f"it holds one part of a pipeline in diffusers' names ({known[0]})"
            if known
            else f"its names are unknown, such as {first}"
        )
        _refuse(file, why, "give the pipeline's folder, the one with model_index.json" if known else _FIX)
    if absent:
        _refuse(file, f"it holds no {' and no '.join(absent)}", _FIX)
    for name, (axis, size, what) in _expected(configs).items():
        shape = file.shapes.get(name)
        if shape is not None and (len(shape) <= axis or shape[axis] != size):
            _other_shape(file, f"{what} is {shape[axis] if len(shape) > axis else shape}, not {size}", packaged)
    check_original(file, configs, {"unet": UNET, "vae": VAE, "text_encoder": TEXT})


def averaged_name(name: str) -> str:
    """Return the name of the average of a UNet's tensor."""
    return EMA + name.removeprefix(UNET).replace(".", "")


def has_average(file: WeightFile) -> bool:
    """Return whether a checkpoint holds an average of its UNet, which must be whole and updated.

    Raises:
        UserError: a part of it is missing, or it holds the weights at the start of the training.
    """
    if not file.below(EMA):
        return False
    shapes = file.shapes
    lacking = [each for each in file.below(UNET) if shapes.get(averaged_name(each), ()) != shapes[each]]
    refuse_doubtful_average(file.path, lacking, untouched=UPDATES in shapes and is_zero(file.path, UPDATES))
    return True


def refuse_doubtful_average(path: Path, lacking: Collection[str], untouched: bool) -> None:
    """Refuse an average that is not whole, or holds no training yet: the same rule as for checkpoints of classifiers.

    Raises:
        UserError: one of the two.
    """
    fix = (
        "to use the raw weights, save the file without its average: safetensors.torch.save_file({k: v for k, v in "
        "load_file(FILE).items() if not k.startswith('model_ema.')}, OUT); or fetch the whole file again"
    )
    if lacking:
        why = f"it lacks {len(lacking)} tensors of the UNet, or has them in another shape, such as {min(lacking)}"
        raise UserError(f"the average (model_ema.*) in {path} is incomplete", why, fix)
    if untouched:
        why = f"its counter {UPDATES} is 0: these are the weights at the start of the training"
        raise UserError(f"the average (model_ema.*) in {path} was never updated", why, fix)


def _expected(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int, str]]:
    """Return tensor to axis, expected size and what that is."""
    unet, vae, text = (configs[name] for name in ("unet", "vae", "text_encoder"))
    return {
        f"{UNET}input_blocks.0.0.weight": (1, unet["in_channels"], "the number of the UNet's input channels"),
        f"{UNET}out.2.weight": (1, unet["block_out_channels"][0], "the UNet's width"),
        f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": (
            1, unet["cross_attention_dim"], "the width of the text features that the UNet attends to"
        ),
        f"{VAE}decoder.conv_in.weight": (1, vae["latent_channels"], "the number of the autoencoder's latent channels"),
        f"{VAE}encoder.conv_in.weight": (0, vae["block_out_channels"][0], "the autoencoder's width"),
        f"{TEXT}text_model.embeddings.token_embedding.weight": (0, text["vocab_size"], "the text encoder's vocabulary"),
        f"{TEXT}text_model.final_layer_norm.weight": (0, text["hidden_size"], "the text encoder's width"),
    }  # fmt: skip


def _other_shape(file: WeightFile, why: str, packaged: bool) -> NoReturn:
    if not packaged:
        _refuse(file, f"{why}, as the configuration beside it says", "put it beside the configuration of its own model")
    _refuse(
        file,
        f"{why}, as in Stable Diffusion 1.5; no configuration was given",
        "give a folder that holds this file and the configuration of its model (model_index.json, */config.json, tokenizer), or "
        f"convert it: StableDiffusionPipeline.from_single_file('{file.path.name}', config=FOLDER).save_pretrained(BASE)",
    )


def _refuse(file: WeightFile, why: str, fix: str) -> NoReturn:
    raise UserError(f"{file.path} cannot be the base model", why, fix)
