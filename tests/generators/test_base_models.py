"""Base models that are read (docs/basemodels.md): the weights are those of the plain folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from generators.diffusion.base import inspect_base
from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.single_file import clip_tokenizer
from harness.core.errors import DataMissing
from harness.core.identity import content_key
from tests.generators.bases import UNET, configuration_with, edit, key, notes, pickled, refusal
from tests.generators.ldm import halve, ldm_state, same_weights

PAGE = Path(__file__).parents[2] / "docs" / "basemodels.md"
FILES = ("test_base_models.py", "test_base_refusals.py", "test_lora_files.py")


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
    assert notes(base) == (
        "weights from the single file v1.safetensors, configuration the folder's",
        "the UNet's average (model_ema.*), not its raw weights",
    )
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


# --- records and the page


def test_the_notes_of_a_base_stand_in_the_records_of_what_was_made_from_it(tmp_path: Path) -> None:
    from harness.run.facts import model_notes

    spec = {"name": "sd15", "params": {"models": {"base": ["fp16 weights of unet"]}}}
    made = content_key(spec)
    out = tmp_path / "synthesise" / f"sd15-{made[:16]}"
    out.mkdir(parents=True)
    (out / "manifest.json").write_text(json.dumps({"spec": spec, "key": made, "files": {}, "fingerprint": ""}))
    assert model_notes(tmp_path, {"checkpoint/dataset": made}) == ["sd15: base: fp16 weights of unet"]


def test_every_line_of_the_page_names_an_existing_test() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if re.match(r"\| (?!form|---)", line)]
    here = Path(__file__).parent
    known = {name for file in FILES for name in re.findall(r"def (test_\w+)", (here / file).read_text())}
    named = [re.findall(r"`(test_\w+)`", row[-1]) for row in rows]
    assert len(rows) >= 25 and all(named)
    assert {name for each in named for name in each} <= known
