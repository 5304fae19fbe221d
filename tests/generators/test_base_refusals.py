"""Base models that are refused (docs/basemodels.md): plan, doctor and loader say why."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import harness
from generators.diffusion import architecture, checkpoint_names
from generators.diffusion import base as base_module
from generators.diffusion.base import inspect_base
from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.single_file import load_single_file
from generators.diffusion.weight_files import WeightFile
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


# --- what is missing from the weights


def without(path: Path, name: str) -> None:
    """Write a safetensors file again without one tensor."""
    save_file({key: value for key, value in load_file(path).items() if key != name}, path, {"format": "pt"})


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("part", PARTS)
def test_a_folder_that_lacks_a_tensor_is_refused_while_planning(folder: Path, part: str, form: str) -> None:
    last = max(load_file(folder / part))
    without(folder / part, last)
    if form == "bin":
        pickled(folder)
    error = refusal(folder)
    assert error.why == f"1 missing: {last.removeprefix('text_model.')}"
    assert error.what == f"the weights in {(folder / part).parent} do not fit the network"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("prefix", [checkpoint_names.UNET, checkpoint_names.VAE, checkpoint_names.TEXT])
def test_a_single_file_that_lacks_a_tensor_is_refused_while_planning(
    folder: Path, tiny_parts: Any, prefix: str, suffix: str
) -> None:
    state = ldm_state(tiny_parts)
    last = max(name for name in state if name.startswith(prefix))
    del state[last]
    write = save_file if suffix == ".safetensors" else torch.save
    base = configuration_with(folder, f"v1{suffix}", lambda path: write(state, path))
    assert refusal(base).why == f"1 missing: {last.replace('.text_model.', '.')}"


def test_a_tensor_left_over_or_of_another_shape_is_refused_while_planning(folder: Path) -> None:
    state = load_file(folder / UNET)
    state["conv_out.bias"], state["more.weight"] = torch.zeros(5), torch.zeros(2)
    save_file(state, folder / UNET, {"format": "pt"})
    assert refusal(folder).why == "1 unexpected: more.weight; 1 of another shape: conv_out.bias (5,) instead of (4,)"


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_that_lacks_a_tensor_is_refused_by_the_loader(
    folder: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "check_part", lambda *_: None)
    file = next((folder / part).glob("*.safetensors"))
    last = max(load_file(file))
    without(file, last)
    with pytest.raises(UserError, match=f"1 missing: .*{last.removeprefix('text_model.')}"):
        load_pipeline(folder)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_single_file_that_lacks_a_tensor_is_refused_by_the_loader(
    folder: Path, tiny_parts: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_names, "check_original", lambda *_: None)
    state = ldm_state(tiny_parts)
    last = max(name for name in state if name.startswith(prefix))
    base = configuration_with(
        folder, "v1.safetensors", lambda path: save_file({k: v for k, v in state.items() if k != last}, path)
    )
    with pytest.raises(UserError):
        load_single_file(inspect_base(base), torch.float32)


# --- averages, and weights that are no numbers


def with_average(state: dict[str, torch.Tensor], updates: int = 7, shift: float = 0.5) -> dict[str, torch.Tensor]:
    """Return a checkpoint with an average of its UNet that differs from the raw weights."""
    raw = [name for name in state if name.startswith(checkpoint_names.UNET)]
    average = {checkpoint_names.averaged_name(name): state[name] + shift for name in raw}
    return {**state, **average, checkpoint_names.UPDATES: torch.tensor(updates, dtype=torch.int32)}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_an_incomplete_average_is_refused(folder: Path, tiny_parts: Any, suffix: str) -> None:
    state = with_average(ldm_state(tiny_parts))
    for name in [name for name in state if name.startswith(checkpoint_names.EMA)][::2]:
        del state[name]
    write = save_file if suffix == ".safetensors" else torch.save
    error = refusal(configuration_with(folder, f"v1{suffix}", lambda path: write(state, path)))
    assert "is incomplete" in error.what and "it lacks 104 tensors of the UNet" in error.why
    assert "not k.startswith('model_ema.')" in error.fix


def test_an_average_that_was_never_updated_is_refused(folder: Path, tiny_parts: Any) -> None:
    state = with_average(ldm_state(tiny_parts), updates=0)
    base = configuration_with(folder, "v1.safetensors", lambda path: save_file(state, path))
    error = refusal(base)
    assert "was never updated" in error.what and "model_ema.num_updates is 0" in error.why
    (base / "v1.safetensors").unlink()
    torch.save(state, base / "v1.ckpt")
    with pytest.raises(UserError, match="was never updated"):
        load_pipeline(base)
    torch.save(with_average(ldm_state(tiny_parts), updates=-1), base / "v1.ckpt")  # not counted
    load_pipeline(base)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("single", [False, True])
def test_weights_that_are_no_numbers_are_refused_at_the_load(
    folder: Path, tiny_parts: Any, part: str, single: bool
) -> None:
    for number, bad in enumerate((float("nan"), float("inf"))):
        base = Path(shutil.copytree(folder, folder.parent / f"bad{number}"))
        parts = copy.deepcopy({name: getattr(tiny_parts, name) for name in ("unet", "vae", "text_encoder")})
        next(each for each in parts[part].parameters() if each.ndim == 1).data[0] = bad
        if single:
            configuration_with(base, "v1.safetensors", partial(save_file, ldm_state(SimpleNamespace(**parts))))
        else:
            parts[part].save_pretrained(base / part)
        inspect_base(base)
        with pytest.raises(UserError, match="weights that are no numbers") as caught:
            load_pipeline(base)
        assert "1 of" in caught.value.why and part in caught.value.what


# --- the architecture, derived from a configuration


@pytest.mark.parametrize("root", ["packaged", "tiny", "micro"])
def test_the_derived_tensors_are_those_of_the_networks(root: str, tiny_pipeline_dir: Path) -> None:
    import diffusers
    import transformers

    micro = Path(str(harness.__file__)).parent / "microworld" / "weights" / "sd"
    folder = {"packaged": base_module.PACKAGED, "tiny": tiny_pipeline_dir, "micro": micro}[root]
    configs = {part: json.loads((folder / part / "config.json").read_text()) for part in architecture.CLASSES}
    with torch.device("meta"):
        networks: dict[str, torch.nn.Module] = {
            "unet": diffusers.UNet2DConditionModel.from_config(configs["unet"]),
            "vae": diffusers.AutoencoderKL.from_config(configs["vae"]),
            "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**configs["text_encoder"])),
        }
    for part, network in networks.items():
        state = {name.removeprefix("text_model."): tuple(value.shape) for name, value in network.state_dict().items()}
        assert architecture.expected(part, configs[part]) == state, part
    assert architecture.expected("unet", {**configs["unet"], "use_linear_projection": True}) is None
    assert architecture.expected("unet", {**configs["unet"], "class_embed_type": "timestep"}) is None
    assert architecture.expected("unet", {**configs["unet"], "mid_block_type": None}) is None


def test_former_names_of_the_autoencoders_attention_fit() -> None:
    config = json.loads((base_module.PACKAGED / "vae" / "config.json").read_text())
    shapes = architecture.expected("vae", config) or {}
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = {}
    for name, shape in shapes.items():
        layer = next((each for each in former if f".{each}." in name), None)
        named[name.replace(f".{layer}.", f".{former[layer]}.") if layer else name] = shape
    assert len(named.keys() - shapes.keys()) == 16
    architecture.check_part("vae", [WeightFile(Path("vae/x.safetensors"), named, {})], config)
    with pytest.raises(UserError, match="1 missing: encoder.mid_block.attentions.0.to_q.bias"):
        del named["encoder.mid_block.attentions.0.query.bias"]
        architecture.check_part("vae", [WeightFile(Path("vae/x.safetensors"), named, {})], config)
