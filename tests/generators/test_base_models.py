"""Base models as people have them (docs/basemodels.md): what is read equals the plain folder, what is refused says why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from generators.diffusion.base import inspect_base
from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.single_file import clip_tokenizer, load_single_file
from harness.cli.modelcheck import model_findings
from harness.core.errors import DataMissing, UserError
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from tests.generators.ldm import halve, ldm_state, same_weights

PAGE = Path(__file__).parents[2] / "docs" / "basemodels.md"
UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PARTS = (UNET, VAE, TEXT)


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny pipeline, to be changed."""
    return Path(shutil.copytree(tiny_pipeline_dir, tmp_path / "sd"))


def plan_of(base: Path) -> Plan:
    """Return the plan of `sd15` on a base model, as the command line makes it."""
    profile = load_profile("micro", [f"generators.sd15.base={base}"]).profile
    return Planner(Selection(profile, "sd15", "in-domain")).build()


def refusal(base: Path) -> UserError:
    """Return why a base is refused; plan and doctor say the same, and the loader refuses too."""
    with pytest.raises(UserError) as caught:
        inspect_base(base)
    error = caught.value
    plan = plan_of(base)
    assert not plan.cells
    assert [entry.reason for entry in plan.not_run] == [f"{error.what}: {error.why}; {error.fix}"]
    problems = [
        each for each in model_findings("micro", (), [f"generators.sd15.base={base}"]) if each.status == "problem"
    ]
    assert [(each.text, each.fix) for each in problems] == [(f"{error.what}: {error.why} [sd15]", error.fix)]
    with pytest.raises(UserError):
        load_pipeline(base)
    return error


def notes(base: Path) -> tuple[str, ...]:
    """Return what is noted of a base that is read: by the plan, by doctor, and in the keys of its cells."""
    found = inspect_base(base).notes
    plan = plan_of(base)
    cell = next(cell for cell in plan.cells.values() if cell.kind == "synthesise")
    assert cell.params.get("models", {}).get("base", []) == list(found)
    assert [note for note in plan.notes if "base" in note] == [f"sd15: base: {note}" for note in found]
    findings = list(model_findings("micro", (), [f"generators.sd15.base={base}"]))
    (line,) = [each.text for each in findings if str(base) in each.text]
    assert all(note in line for note in found) and all(each.status == "ok" for each in findings)
    return found


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled(folder: Path) -> None:
    for path in sorted(folder.rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def key(base: Path) -> str:
    return next(key for key, cell in plan_of(base).cells.items() if cell.kind == "synthesise")


# --- read


def test_a_plain_folder_is_read_without_a_note(folder: Path, tiny_parts: Any) -> None:
    assert notes(folder) == () and same_weights(load_pipeline(folder), tiny_parts)


def test_fp16_files_alone_are_read_and_noted(folder: Path, tiny_parts: Any) -> None:
    plain = key(folder)
    halve(folder)
    assert notes(folder) == ("fp16 weights of unet, vae, text_encoder",)
    parts = load_pipeline(folder)
    for part in ("unet", "vae", "text_encoder"):
        for name, value in getattr(parts, part).state_dict().items():
            wanted = getattr(tiny_parts, part).state_dict()[name]
            assert value.dtype == wanted.dtype and torch.equal(value, wanted.half().to(wanted.dtype)), name
    assert key(folder) != plain


def test_full_precision_is_taken_where_both_are_there(folder: Path, tiny_parts: Any, tmp_path: Path) -> None:
    half = Path(shutil.copytree(folder, tmp_path / "half"))
    halve(half)
    shutil.copytree(half, folder, dirs_exist_ok=True)
    assert notes(folder) == () and same_weights(load_pipeline(folder), tiny_parts)


def test_bin_files_alone_are_read_as_tensors_and_noted(folder: Path, tiny_parts: Any) -> None:
    pickled(folder)
    assert notes(folder) == (".bin (read as tensors only) weights of unet, vae, text_encoder",)
    assert same_weights(load_pipeline(folder), tiny_parts)


def test_safetensors_are_preferred_to_bin_files(folder: Path, tiny_parts: Any) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not looked at")
    assert notes(folder) == () and same_weights(load_pipeline(folder), tiny_parts)


def test_a_base_without_safety_checker_and_feature_extractor_is_read(folder: Path, tiny_parts: Any) -> None:
    named = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    edit(folder / "model_index.json", **named)
    assert notes(folder) == () and same_weights(load_pipeline(folder), tiny_parts)


def test_another_scheduler_gives_way_to_the_recipes_and_is_noted(folder: Path, tiny_parts: Any) -> None:
    from diffusers import EulerDiscreteScheduler

    EulerDiscreteScheduler.from_config(dict(tiny_parts.scheduler_config)).save_pretrained(folder / "scheduler")
    (note,) = notes(folder)
    assert "EulerDiscreteScheduler, which is not used" in note
    parts = load_pipeline(folder)
    wanted = {name: value for name, value in tiny_parts.scheduler_config.items() if name != "_diffusers_version"}
    assert dict(parts.scheduler_config) == wanted


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(folder: Path, tiny_parts: Any, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(each for each in folder.rglob("*") if each.is_file())):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(blobs / str(number))
    assert notes(snapshot) == () and same_weights(load_pipeline(snapshot), tiny_parts)
    assert str(snapshot) in refusal(tmp_path / "models--a--b").fix
    (snapshot / UNET).resolve().unlink()
    with pytest.raises(DataMissing) as caught:
        inspect_base(snapshot)
    assert "which does not exist" in caught.value.why


def configuration_with(folder: Path, file: str, write: Callable[[Path], None]) -> Path:
    """Turn a pipeline folder into its configuration with a single file beside it."""
    for path in PARTS:
        (folder / path).unlink()
    write(folder / file)
    return folder


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_single_file_with_its_configuration_is_read(folder: Path, tiny_parts: Any, prefixed: bool) -> None:
    base = configuration_with(folder, "v1.safetensors", lambda path: save_file(ldm_state(tiny_parts, prefixed), path))
    assert notes(base) == ("weights from the single file v1.safetensors, configuration the folder's",)
    assert same_weights(load_pipeline(base), tiny_parts)


class Callback:
    """Stands for what training tools leave in a checkpoint."""


@pytest.mark.parametrize("legacy", [False, True])
def test_a_ckpt_file_is_read_as_tensors_only(folder: Path, tiny_parts: Any, legacy: bool) -> None:
    content: dict[str, Any] = {"state_dict": ldm_state(tiny_parts), "global_step": 3}
    if not legacy:
        content["callbacks"] = {Callback: {"best": Callback()}}
    base = configuration_with(
        folder, "v1.ckpt", lambda path: torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    )
    assert notes(base) == ("weights from the single file v1.ckpt, configuration the folder's",)
    assert same_weights(load_pipeline(base), tiny_parts)


def test_the_average_is_taken_of_a_single_file_that_holds_both(folder: Path, tiny_parts: Any) -> None:
    state = ldm_state(tiny_parts)
    prefix = "model.diffusion_model."
    for name in [name for name in state if name.startswith(prefix)]:
        state["model_ema.diffusion_model" + name.removeprefix(prefix).replace(".", "")] = state[name]
        state[name] = torch.zeros_like(state[name])
    base = configuration_with(folder, "v1.safetensors", lambda path: save_file(state, path))
    assert same_weights(load_pipeline(base), tiny_parts)


def test_a_single_file_alone_is_read_with_the_packaged_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged shapes, with every width divided; the tokenizer is CLIP's own."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from generators.diffusion import base, checkpoint_names

    small = Path(shutil.copytree(base.PACKAGED, tmp_path / "small"))
    edit(small / "unet/config.json", block_out_channels=[32, 32, 64, 64], cross_attention_dim=32, sample_size=8)
    edit(small / "vae/config.json", block_out_channels=[32, 32, 32, 32], sample_size=64)
    edit(
        small / "text_encoder/config.json",
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    configs = [json.loads((small / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")]
    networks = SimpleNamespace(
        unet=UNet2DConditionModel.from_config(configs[0]),
        vae=AutoencoderKL.from_config(configs[1]),
        text_encoder=CLIPTextModel(CLIPTextConfig(**configs[2])),
    )
    file = tmp_path / "v1-5-pruned-emaonly.safetensors"
    save_file(ldm_state(networks), file)
    error = refusal(file)
    assert "not 320" in error.why and "no configuration was given" in error.why
    assert "from_single_file" in error.fix and "save_pretrained" in error.fix
    monkeypatch.setattr(base, "PACKAGED", small)
    assert notes(file) == (
        "weights from the single file v1-5-pruned-emaonly.safetensors, configuration the packaged one of Stable Diffusion 1.5",
    )
    parts = load_pipeline(file)
    assert same_weights(parts, networks) and len(parts.tokenizer) == 49408
    assert checkpoint_names.EMA


def test_the_packaged_configuration_is_stable_diffusion_1_5() -> None:
    """Parameter counts and number of original names, on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from generators.diffusion.base import PACKAGED
    from generators.diffusion.checkpoint_names import check_checkpoint
    from generators.diffusion.weight_files import WeightFile

    configs = {
        part: json.loads((PACKAGED / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    }
    with torch.device("meta"):
        networks = SimpleNamespace(
            unet=UNet2DConditionModel.from_config(configs["unet"]),
            vae=AutoencoderKL.from_config(configs["vae"]),
            text_encoder=CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        )
        state = ldm_state(networks)
    counts = [sum(each.numel() for each in getattr(networks, part).parameters()) for part in configs]
    assert counts == [859_520_964, 83_653_863, 123_060_480]
    assert sum(name.startswith("model.diffusion_model.") for name in state) == 686
    check_checkpoint(
        WeightFile(Path("v1-5.safetensors"), {k: tuple(v.shape) for k, v in state.items()}, {}), configs, True
    )


def test_the_packaged_tokenizer_is_clips() -> None:
    """Ids of CLIP's vocabulary: published examples."""
    tokenizer = clip_tokenizer()
    ids = tokenizer("a photo of a cat", padding="max_length", max_length=8).input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert tokenizer.model_max_length == 77


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


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_single_file_that_lacks_a_tensor_is_refused_by_the_loader(folder: Path, tiny_parts: Any, prefix: str) -> None:
    state = ldm_state(tiny_parts)
    last = max(name for name in state if name.startswith(prefix))
    base = configuration_with(
        folder, "v1.safetensors", lambda path: save_file({k: v for k, v in state.items() if k != last}, path)
    )
    with pytest.raises(UserError):
        load_single_file(inspect_base(base), torch.float32)


# --- records and the page


def test_the_notes_of_a_base_stand_in_the_records_of_what_was_made_from_it(tmp_path: Path) -> None:
    from harness.run.facts import model_notes

    out = tmp_path / "synthesise" / ("sd15-" + "a" * 16)
    out.mkdir(parents=True)
    spec = {"name": "sd15", "params": {"models": {"base": ["fp16 weights of unet"]}}}
    (out / "manifest.json").write_text(json.dumps({"spec": spec, "key": "", "files": {}, "fingerprint": ""}))
    assert model_notes(tmp_path, {"checkpoint/dataset": "a" * 64}) == ["sd15: base: fp16 weights of unet"]


def test_every_line_of_the_page_names_an_existing_test() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if re.match(r"\| (?!form|---)", line)]
    here = Path(__file__).parent
    known = {
        name
        for file in ("test_base_models.py", "test_lora_files.py")
        for name in re.findall(r"def (test_\w+)", (here / file).read_text())
    }
    named = [re.findall(r"`(test_\w+)`", row[-1]) for row in rows]
    assert len(rows) >= 25 and all(named)
    assert {name for each in named for name in each} <= known
