"""Every load is whole: what the network holds is what the file holds, and anything else is an error with names."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from generators.diffusion.pipeline import load_pipeline
from generators.lbgen.encoders import load_open_clip
from generators.lbgen.quality.load import load_quality
from harness.core.errors import UserError
from harness.core.weights import check_state, create_open_clip, load_pretrained
from harness.microworld.towers import clip_folder, quality_folder, sd_folder

PARTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
OTHER_LAYOUT = "text_model."


def assert_equal_to_file(network: Any, path: Path) -> None:
    """Every parameter, by the name without the optional prefix, has the file's value, and none is left over."""
    held = {name.removeprefix(OTHER_LAYOUT): value for name, value in load_file(path).items()}
    there = {name.removeprefix(OTHER_LAYOUT): value.detach() for name, value in network.named_parameters()}
    assert there and set(there) <= set(held), sorted(set(there) - set(held))[:3]
    for name, value in there.items():
        assert torch.equal(value, held[name].to(value.dtype)), name


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without_first(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = sorted(state)[0]
    return {name: value for name, value in state.items() if name != first}


def with_another(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**state, "left.over": torch.zeros(1)}


def with_another_shape(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = sorted(state)[0]
    return {**state, first: torch.zeros(*(side + 1 for side in state[first].shape))}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_folder(), tmp_path / "sd"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_shipped_pipeline_holds_its_files(dtype: torch.dtype) -> None:
    parts = load_pipeline(sd_folder(), dtype=dtype)
    for name, file in PARTS.items():
        network = getattr(parts, name)
        assert {value.dtype for value in network.parameters()} == {dtype}
        assert_equal_to_file(network, sd_folder() / name / file)


@pytest.mark.parametrize("prefix", ["", OTHER_LAYOUT])
def test_a_text_encoder_loads_with_and_without_the_prefix(pipeline: Path, prefix: str) -> None:
    """transformers wrote `text_model.` before each name up to 5.5 and none from 5.6 on."""
    path = pipeline / "text_encoder" / PARTS["text_encoder"]
    rewrite(path, lambda state: {prefix + name.removeprefix(OTHER_LAYOUT): value for name, value in state.items()})
    assert_equal_to_file(load_pipeline(pipeline).text_encoder, path)


@pytest.mark.parametrize("part", list(PARTS))
@pytest.mark.parametrize("change", [without_first, with_another, with_another_shape])
def test_a_pipeline_that_lacks_or_adds_a_tensor_is_refused(
    pipeline: Path, part: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = pipeline / part / PARTS[part]
    first = sorted(load_file(path))[0].removeprefix(OTHER_LAYOUT)
    rewrite(path, change)
    with pytest.raises(UserError, match="do not fit the network") as caught:
        load_pipeline(pipeline)
    told = caught.value.what + caught.value.why
    assert part in told and (first in told or "left.over" in told), told


def test_pictures_of_the_shipped_pipeline_show_their_names() -> None:
    """With random text encodings the pictures are of any class: right one time in twelve."""
    from generators.diffusion.pipeline import encode_prompts
    from generators.diffusion.sampling import image_noise, sample_images
    from harness.core.classes import load_classes
    from tests.harness.microworld.measures import naming_accuracy

    parts, names = load_pipeline(sd_folder()), load_classes("micro").names
    noise = torch.stack([image_noise(seed, parts.latent_shape) for seed in range(len(names))])
    images = sample_images(parts, encode_prompts(parts, names), encode_prompts(parts, [""])[0], noise, steps=10)
    assert naming_accuracy(images.transpose(0, 3, 1, 2), np.arange(len(names))) >= 0.6


def test_the_tokenizer_of_the_shipped_pipeline() -> None:
    """Begin, one token per word, end, padding: the ids that the text encoder was trained with."""
    vocabulary = json.loads((sd_folder() / "tokenizer" / "vocab.json").read_text())
    tokens = load_pipeline(sd_folder()).tokenizer(
        ["photo of disc"], padding="max_length", max_length=24, truncation=True, return_tensors="np"
    )  # fmt: skip
    begin, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    words = [vocabulary[f"{word}</w>"] for word in ("photo", "of", "disc")]
    assert tokens.input_ids[0].tolist() == [begin, *words, *[end] * 20]


def test_a_safety_checker_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPVisionConfig

    vision = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                              image_size=16, patch_size=8)  # fmt: skip
    config = CLIPConfig(vision_config=vision.to_dict(), projection_dim=8)
    StableDiffusionSafetyChecker(config).save_pretrained(tmp_path)
    load_pretrained(StableDiffusionSafetyChecker, tmp_path)
    rewrite(tmp_path / "model.safetensors", without_first)
    with pytest.raises(UserError, match="concept_embeds"):
        load_pretrained(StableDiffusionSafetyChecker, tmp_path)


@pytest.mark.parametrize("folder", [clip_folder("base"), clip_folder("large"), quality_folder()], ids=lambda p: p.name)
def test_the_shipped_clips_hold_their_files(folder: Path) -> None:
    model = create_open_clip(f"local-dir:{folder}", None)
    assert_equal_to_file(model, folder / "open_clip_model.safetensors")


@pytest.mark.parametrize("load", [
    lambda name: load_open_clip(name), lambda name: load_quality(f"open-clip:{name}", "cpu", torch.float32),
], ids=["reward", "quality"])  # fmt: skip
@pytest.mark.parametrize("change", [without_first, with_another, with_another_shape])
def test_a_clip_that_lacks_or_adds_a_tensor_is_refused(
    tmp_path: Path, load: Callable[[str], Any], change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    folder = Path(shutil.copytree(clip_folder("base"), tmp_path / "clip"))
    first = sorted(load_file(folder / "open_clip_model.safetensors"))[0]
    rewrite(folder / "open_clip_model.safetensors", change)
    with pytest.raises(UserError, match="do not fit the network") as caught:
        load(f"local-dir:{folder}")
    assert caught.value.code == 2 and (first in str(caught.value) or "left.over" in str(caught.value))


@pytest.mark.parametrize("name", ["visual.positional_embedding", "positional_embedding"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_position_embeddings_of_another_size_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    """open_clip interpolates them and says nothing."""
    import open_clip

    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    state = open_clip.CLIP(**config).state_dict()
    path = tmp_path / f"open_clip_model{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(state, path)
    create_open_clip(f"local-dir:{tmp_path}", None)
    save({**state, name: torch.zeros(37, state[name].shape[1])}, path)
    with pytest.raises(UserError, match="of another shape") as caught:
        create_open_clip(f"local-dir:{tmp_path}", None)
    assert f"{name} (37, " in caught.value.why and path.name in caught.value.what


def test_an_activation_that_the_weights_were_not_trained_with_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip only warns of OpenAI's weights in an architecture without QuickGELU."""
    import open_clip

    def create_model(name: str, **options: object) -> object:
        warnings.warn("QuickGELU mismatch between final model config and pretrained tag", UserWarning, stacklevel=2)
        return object()

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(UserError, match="does not fit its weights") as caught:
        load_open_clip("ViT-L-14", "openai")
    assert "ViT-L-14-quickgelu" in caught.value.fix


def test_check_state_names_each_kind_of_difference() -> None:
    here = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check_state(here, here, "file")
    with pytest.raises(UserError) as caught:
        check_state({"b": torch.zeros(4), "c": torch.zeros(1)}, here, "some/file")
    assert "some/file" in caught.value.what
    assert caught.value.why == "1 missing: a; 1 unexpected: c; 1 of another shape: b (4,) instead of (3,)"
