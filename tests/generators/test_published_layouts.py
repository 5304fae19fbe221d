"""The strict load takes Stable Diffusion 1.5's files as they were published: old names, and a buffer nobody reads."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.sampling import to_uint8
from harness.core.errors import UserError
from harness.core.weights import load_pretrained
from harness.microworld.towers import sd_folder


def test_position_ids_of_the_text_encoder_are_no_weight(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd_folder(), tmp_path / "sd"))
    path = folder / "text_encoder" / "model.safetensors"
    held = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(path).items()}
    positions = len(held["text_model.embeddings.position_embedding.weight"])
    save_file(
        {**held, "text_model.embeddings.position_ids": torch.arange(positions)[None]}, path, metadata={"format": "pt"}
    )
    network = load_pipeline(folder).text_encoder
    for name, value in network.named_parameters():
        assert torch.equal(value, held[f"text_model.{name.removeprefix('text_model.')}"]), name


def test_attention_of_the_autoencoder_under_its_old_names(tmp_path: Path) -> None:
    """``query``, ``key``, ``value`` and ``proj_attn``, as diffusers wrote them until 2023."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    network = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16)
    network.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {
        re.sub(r"\b(to_q|to_k|to_v|to_out\.0)\b", lambda found: old[found[0]], name)
        if "attentions" in name
        else name: value
        for name, value in load_file(path).items()
    }
    assert any(".query." in name for name in renamed)
    save_file(renamed, path, metadata={"format": "pt"})
    again = load_pretrained(AutoencoderKL, tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)], ids=["empty folder", "configuration only"])
def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """transformers makes one of two tokens of it, for which all prompts are equal."""
    folder = Path(shutil.copytree(sd_folder(), tmp_path / "sd"))
    for file in (folder / "tokenizer").iterdir():
        if file.name not in kept:
            file.unlink()
    with pytest.raises(UserError, match="the tokenizer in"):
        load_pipeline(folder)


def test_pixels_that_are_not_finite_are_no_picture() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert to_uint8(images).shape == (2, 4, 4, 3)
    for value in (float("nan"), float("inf")):
        images[1, 2, 3, 0] = value
        with pytest.raises(UserError, match="not finite"):
            to_uint8(images)
