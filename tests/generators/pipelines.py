"""Tiny random text-to-image pipelines of four families, in the form that save_pretrained writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.generators.conftest import write_tiny_pipeline

_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_WORDS = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
_LENGTH = 16


def _clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(_WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=_LENGTH)


def _clip_text(width: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(_WORDS),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_LENGTH,
        bos_token_id=len(_WORDS) - 2,
        eos_token_id=len(_WORDS) - 1,
        pad_token_id=len(_WORDS) - 1,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in _LETTERS)]
    return T5Tokenizer(vocab=words, extra_ids=0, model_max_length=_LENGTH)


def _t5_text() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=4 + len(_LETTERS),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            relative_attention_num_buckets=8,
        )
    )


def _autoencoder(channels: int, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=16,
        mid_block_add_attention=False,
        **options,
    )


def write_sd(folder: Path) -> Path:
    """Write the tiny Stable Diffusion 1.x pipeline of the other tests."""
    return write_tiny_pipeline(folder)


def write_sdxl(folder: Path) -> Path:
    """Write a pipeline with two text encoders and the sizes of images among its conditions, as Stable Diffusion XL."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 1),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    StableDiffusionXLPipeline(
        vae=_autoencoder(4),
        text_encoder=_clip_text(16),
        text_encoder_2=_clip_text(16, projected=True),
        tokenizer=_clip_tokenizer(folder / "tokenizer"),
        tokenizer_2=_clip_tokenizer(folder / "tokenizer_2"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def write_pixart(folder: Path) -> Path:
    """Write a diffusion transformer that attends to T5 features, as PixArt-Sigma."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        use_additional_conditions=False,
    )
    PixArtSigmaPipeline(
        _t5_tokenizer(), _t5_text(), _autoencoder(4), transformer, DPMSolverMultistepScheduler()
    ).save_pretrained(folder)
    return folder


def write_flux(folder: Path) -> Path:
    """Write a flow-matching transformer on packed latents with CLIP and T5 features, as FLUX.1."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(4, shift_factor=0.1, scaling_factor=0.36, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip_text(16),
        tokenizer=_clip_tokenizer(folder / "tokenizer"),
        text_encoder_2=_t5_text(),
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "StableDiffusionPipeline": write_sd,
    "StableDiffusionXLPipeline": write_sdxl,
    "PixArtSigmaPipeline": write_pixart,
    "FluxPipeline": write_flux,
}


def write_family(kind: str, folder: Path) -> Path:
    """Write a tiny pipeline with random weights from a fixed seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        return FAMILIES[kind](folder)
