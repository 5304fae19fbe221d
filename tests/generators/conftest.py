"""Tiny random models in the real file formats, shared by the generator tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

TINY_IMAGE = 16
"""Side of the tiny pipeline's images in pixels; its latents are 4 x 8 x 8."""


def tiny_unet_config() -> dict[str, Any]:
    """Return the configuration of a UNet with self- and cross-attention in two places."""
    return {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }


def write_tiny_pipeline(folder: Path) -> Path:
    """Write a StableDiffusionPipeline folder with random weights and Stable Diffusion 1.5's scheduler."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=len(words) - 2,
                eos_token_id=len(words) - 1,
                pad_token_id=len(words) - 1,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=TINY_IMAGE,
            mid_block_add_attention=False,
        )
        unet = UNet2DConditionModel(**tiny_unet_config())
    scheduler = PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def write_tiny_clip(folder: Path) -> Path:
    """Write an open_clip folder (config and safetensors) with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {
        "size": 32,
        "mode": "RGB",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file(
        {name: each.contiguous() for name, each in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random Stable Diffusion pipeline."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random open_clip model."""
    return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def tiny_parts(tiny_pipeline_dir: Path) -> Any:
    """Return the loaded tiny pipeline; nothing may change it."""
    from generators.diffusion.pipeline import load_pipeline

    return load_pipeline(tiny_pipeline_dir)


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_dir: Path) -> Any:
    """Return the loaded tiny CLIP tower."""
    from generators.lbgen.encoders import load_open_clip

    return load_open_clip(f"local-dir:{tiny_clip_dir}")


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny pipeline, to be changed."""
    return Path(shutil.copytree(tiny_pipeline_dir, tmp_path / "sd"))
