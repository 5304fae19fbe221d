"""Base models that are refused (docs/basemodels.md): plan, doctor and loader say why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from generators.diffusion.base import inspect_base
from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.single_file import load_single_file
from harness.core.errors import UserError
from tests.generators.bases import PARTS, UNET, configuration_with, edit, notes, pickled, refusal
from tests.generators.ldm import ldm_state

# --- refused


def test_missing_tokenizer_files_are_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    assert refusal(folder).why.startswith("vocab.json and merges.txt are missing")


def test_an_adapter_in_the_unet_is_refused(folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    pipe.save_pretrained(tmp_path / "loaded")
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "fused")
    for name in ("loaded", "fused"):
        error = refusal(tmp_path / name)
        assert "saved while a LoRA was loaded" in error.what and "base_layer" in error.why
        assert "unload_lora_weights()" in error.fix
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "unloaded")
    assert notes(tmp_path / "unloaded") == ()


@pytest.mark.parametrize(
    ("file", "values", "why"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "v-prediction: Stable Diffusion 2"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02, "_class_name": "DDIMScheduler"}, "beta_end is 0.02"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "SDXL"),
        ("model_index.json", {"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}, "transformer"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("unet/config.json", {"cross_attention_dim": 2048}, "SDXL"),
        ("unet/config.json", {"cross_attention_dim": 24}, "its text encoder makes 16"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("vae/config.json", {"latent_channels": 16}, "16 latent channels"),
    ],
)  # fmt: skip
def test_other_models_are_refused_by_their_configuration(
    folder: Path, file: str, values: dict[str, Any], why: str
) -> None:
    edit(folder / file, **values)
    error = refusal(folder)
    assert "not Stable Diffusion 1.5" in error.what and why in error.why


def test_weights_of_another_model_under_the_configuration_are_refused(folder: Path) -> None:
    state = load_file(folder / UNET)
    name = next(name for name in state if name.endswith("attn2.to_k.weight"))
    save_file({**state, name: torch.zeros(16, 1024)}, folder / UNET)
    assert "takes 1024 channels" in refusal(folder).why


def truncate(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 8)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (truncate, "is truncated"),
        (pointer, "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<!DOCTYPE html><p>Log in"), "is a web page"),
        (lambda path: torch.save({"a.weight": torch.zeros(2)}, path), "is not a safetensors file"),
        (lambda path: path.write_bytes(bytes(range(256)) * 9), "not a safetensors file"),
        (lambda path: save_file({"conv_in.weight": torch.zeros(2, 4).to(torch.float8_e4m3fn)}, path), "quantised"),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_damaged_and_undownloaded_files_are_named(
    folder: Path, part: str, damage: Callable[[Path], Any], what: str
) -> None:
    damage(folder / part)
    error = refusal(folder)
    assert what in error.what and str(folder / part) in error.what


@pytest.mark.parametrize(
    "file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]
)
def test_a_pointer_in_place_of_a_configuration_is_named(folder: Path, file: str) -> None:
    pointer(folder / file)
    assert "is a Git LFS pointer" in refusal(folder).what


def test_a_damaged_bin_file_is_named(folder: Path) -> None:
    pickled(folder)
    truncate(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "truncated or not a weight file" in refusal(folder).what


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_flax_model.msgpack")
    error = refusal(folder)
    assert "no weights in" in error.what and "diffusion_flax_model.msgpack" in error.why
    shutil.rmtree(folder / "vae")
    assert "no usable vae" in refusal(folder).what


def test_a_folder_of_checkpoints_is_refused_with_their_names(folder: Path, tiny_parts: Any, tmp_path: Path) -> None:
    base = configuration_with(folder, "a.safetensors", lambda path: save_file(ldm_state(tiny_parts), path))
    shutil.copy(base / "a.safetensors", base / "b.safetensors")
    assert "a.safetensors, b.safetensors" in refusal(base).why
    (tmp_path / "models").mkdir()
    shutil.move(base / "a.safetensors", tmp_path / "models" / "a.safetensors")
    assert str(tmp_path / "models" / "a.safetensors") in refusal(tmp_path / "models").fix


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",), "SDXL's text encoders"),
        (("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight"), "Stable Diffusion 2's text encoder"),
        (("model.diffusion_model.joint_blocks.0.x.weight",), "Stable Diffusion 3's transformer"),
        (("control_model.input_blocks.0.0.weight",), "ControlNet"),
        (("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",), "it holds a LoRA"),
        (("conv_in.weight", "mid_block.attentions.0.norm.weight"), "one part of a pipeline in diffusers' names"),
        (("layer1.0.conv1.weight",), "its names are unknown, such as layer1.0.conv1.weight"),
        (("model.diffusion_model.input_blocks.0.0.weight",), "no autoencoder and no text encoder"),
    ],
)  # fmt: skip
def test_single_files_of_something_else_are_named(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    file = tmp_path / "v1-5-pruned-emaonly.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, file)
    error = refusal(file)
    assert "cannot be the base model" in error.what and why in error.why


def test_a_single_file_of_other_shapes_is_refused_under_a_configuration(folder: Path, tiny_parts: Any) -> None:
    state = ldm_state(tiny_parts)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    base = configuration_with(
        folder, "inpainting.safetensors", lambda path: save_file({**state, name: torch.zeros(16, 9, 3, 3)}, path)
    )
    assert "input channels is 9, not 4" in refusal(base).why


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_that_lacks_a_tensor_is_refused_by_the_loader(folder: Path, part: str) -> None:
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    last = max(state)
    save_file({name: tensor for name, tensor in state.items() if name != last}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"1 missing: .*{last.removeprefix('text_model.')}"):
        load_pipeline(folder)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_single_file_that_lacks_a_tensor_is_refused_by_the_loader(folder: Path, tiny_parts: Any, prefix: str) -> None:
    state = ldm_state(tiny_parts)
    last = max(name for name in state if name.startswith(prefix))
    base = configuration_with(
        folder, "v1.safetensors", lambda path: save_file({k: v for k, v in state.items() if k != last}, path)
    )
    with pytest.raises(UserError):
        load_single_file(inspect_base(base), torch.float32)
