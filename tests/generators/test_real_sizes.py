"""Real-size networks from their published configurations, on the meta device: the parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 768,
    "block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8, "norm_num_groups": 32,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
VAE = {
    "sample_size": 512, "latent_channels": 4, "layers_per_block": 2, "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 32,
}  # fmt: skip
TEXT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "vocab_size": 49408, "max_position_embeddings": 77, "projection_dim": 768,
}  # fmt: skip
VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 14, "image_size": 224, "projection_dim": 768,
}  # fmt: skip


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "expected"), [
    ("unet", 859_520_964), ("vae", 83_653_863), ("text_encoder", 123_060_480), ("clip", 427_616_513),
])  # fmt: skip
def test_real_size_constructors_have_the_published_parameter_counts(name: str, expected: int) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

    builders = {
        "unet": lambda: UNet2DConditionModel.from_config(UNET),
        "vae": lambda: AutoencoderKL.from_config(VAE),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**TEXT)),
        "clip": lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=768)),
    }
    with torch.device("meta"):
        model = builders[name]()
    assert count(model) == expected and next(model.parameters()).device.type == "meta"


def test_the_tower_of_the_visual_token_has_the_same_size() -> None:
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model("ViT-L-14-quickgelu", pretrained=None, device="meta")
    assert count(model) == 427_616_513
