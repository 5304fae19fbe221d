"""The LoRA of lbGen's recipe and its file."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from generators.diffusion.lora_files import pairs
from generators.diffusion.lora_io import (
    FILE_NAME,
    add_lora,
    fuse_lora,
    load_lora,
    lora_parameters,
    refresh_fused,
    restore_lora,
    save_lora,
    sharing_copy,
)
from generators.diffusion.pipeline import load_pipeline
from harness.core.errors import CorruptArtifact, DataMissing

SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""Stable Diffusion 1.5's UNet; everything else is the class's default."""


@pytest.fixture()
def adapted(tiny_pipeline_dir):
    """Return tiny parts with a trained-looking adapter, and its parameters."""
    parts = load_pipeline(tiny_pipeline_dir)
    lora = add_lora(parts.unet, 4, seed=3)
    generator = torch.Generator().manual_seed(0)
    for each in lora.values():
        each.data.copy_(torch.randn(each.shape, generator=generator) * 0.3)
    return parts, lora


def unet_output(unet):
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    with torch.no_grad():
        return unet(latents, 501, encoder_hidden_states=text).sample


@pytest.mark.parametrize(("rank", "count"), [(128, 25_509_888), (32, 6_377_472)])
def test_the_lora_has_the_papers_layers_and_number_of_parameters(rank, count):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_UNET).requires_grad_(False)
        assert sum(each.numel() for each in unet.parameters()) == 859_520_964
        lora = add_lora(unet, rank, seed=0)
    assert len(lora) == 256
    assert sum(each.numel() for each in lora.values()) == count
    assert sum(each.numel() for each in unet.parameters() if each.requires_grad) == count
    layers = {name.removesuffix(".down.weight").removesuffix(".up.weight") for name in lora}
    assert len(layers) == 128
    assert all(name.startswith("unet.") for name in lora)
    assert {name.rsplit(".lora.", 1)[1] for name in lora} == {"down.weight", "up.weight"}


def test_the_lora_starts_at_zero_with_seeded_down_weights(tiny_pipeline_dir):
    unet = load_pipeline(tiny_pipeline_dir).unet
    lora = add_lora(unet, 64, seed=0)
    downs = torch.cat([each.flatten() for name, each in lora.items() if name.endswith("down.weight")])
    assert downs.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert all((each == 0).all() for name, each in lora.items() if name.endswith("up.weight"))
    scalings = [module.scaling["default"] for module in unet.modules() if hasattr(module, "scaling")]
    assert scalings == [1.0] * (len(lora) // 2)
    again = add_lora(load_pipeline(tiny_pipeline_dir).unet, 64, seed=0)
    assert all(torch.equal(lora[name], again[name]) for name in lora)


def test_diffusers_reads_the_lora_file_to_the_same_outputs(adapted, tiny_pipeline_dir, tmp_path):
    from diffusers import StableDiffusionPipeline

    parts, lora = adapted
    save_lora(tmp_path / FILE_NAME, lora)
    with safe_open(tmp_path / FILE_NAME, "pt") as stored:
        assert stored.metadata() == {"format": "pt"}
        assert {stored.get_tensor(name).dtype for name in list(stored.keys())} == {torch.float32}
    stock = StableDiffusionPipeline.from_pretrained(tiny_pipeline_dir, safety_checker=None)
    before = unet_output(stock.unet)
    stock.load_lora_weights(tmp_path)
    after = unet_output(stock.unet)
    torch.testing.assert_close(after, unet_output(parts.unet), rtol=1e-5, atol=1e-6)
    assert (after - before).abs().max() > 1e-2


def test_a_saved_and_restored_lora_is_the_same_bytes(adapted, tiny_pipeline_dir, tmp_path):
    _, lora = adapted
    save_lora(tmp_path / "one.safetensors", lora)
    fresh = load_pipeline(tiny_pipeline_dir).unet
    target = add_lora(fresh, 4, seed=99)
    restore_lora(target, load_lora(tmp_path / "one.safetensors"))
    assert list(fresh.peft_config) == ["default"]
    save_lora(tmp_path / "two.safetensors", lora_parameters(fresh))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_fused_weights_equal_the_adapter(adapted, tiny_pipeline_dir):
    parts, lora = adapted
    base = load_pipeline(tiny_pipeline_dir)
    untouched = unet_output(base.unet)
    fused = fuse_lora(base, {name: each.detach() for name, each in lora.items()})
    torch.testing.assert_close(unet_output(fused.unet), unet_output(parts.unet), rtol=1e-5, atol=1e-5)
    assert torch.equal(unet_output(base.unet), untouched)
    refresh_fused(base.unet, parts.unet)
    assert torch.equal(unet_output(base.unet), unet_output(fused.unet))


def test_a_null_adapter_fuses_to_the_base_bit_for_bit(tiny_pipeline_dir):
    base = load_pipeline(tiny_pipeline_dir)
    lora = add_lora(load_pipeline(tiny_pipeline_dir).unet, 4, seed=1)
    fused = fuse_lora(base, {name: each.detach() for name, each in lora.items()})
    assert torch.equal(unet_output(fused.unet), unet_output(base.unet))


def test_bad_lora_files_are_refused(adapted, tmp_path):
    parts, lora = adapted
    with pytest.raises(DataMissing):
        load_lora(tmp_path / "none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        load_lora(tmp_path / "torn.safetensors")
    name = next(iter(lora))
    save_file({name: lora[name].detach().clone()}, tmp_path / "half.safetensors")
    with pytest.raises(CorruptArtifact, match="not a UNet LoRA"):
        load_lora(tmp_path / "half.safetensors")
    with pytest.raises(CorruptArtifact, match="do not fit"):
        restore_lora(lora, {name: torch.zeros(1)})
    wrong = {
        "unet.nowhere.lora.down.weight": torch.zeros(1, 2),
        "unet.nowhere.lora.up.weight": torch.zeros(2, 1),
    }
    with pytest.raises(CorruptArtifact, match="does not fit"):
        fuse_lora(parts, wrong)


def test_copies_share_every_tensor_that_stays_as_it_is(tiny_pipeline_dir):
    """A UNet of Stable Diffusion 1.5 has 3.4 GB in float32; only adapted layers may be there twice."""
    parts = load_pipeline(tiny_pipeline_dir)
    before = {name: value.clone() for name, value in parts.unet.state_dict().items()}
    lora = {
        name: each.detach() + 0.1 for name, each in add_lora(load_pipeline(tiny_pipeline_dir).unet, 4, seed=1).items()
    }
    adapted = {path + ".weight" for path, _, _ in pairs(lora)}
    fused = fuse_lora(parts, lora).unet
    own = sharing_copy(parts.unet, [path for path, _, _ in pairs(lora)])
    base = dict(parts.unet.named_parameters())
    for copied in (fused, own):
        assert {name for name, each in copied.named_parameters() if each is not base[name]} == adapted
    beside = sharing_copy(parts.unet)
    add_lora(beside, 4, seed=1)
    kept = {name.replace(".base_layer", ""): each for name, each in beside.named_parameters() if "lora_" not in name}
    assert all(each is base[name] for name, each in kept.items()) and kept.keys() == base.keys()
    assert not any("lora_" in name for name, _ in parts.unet.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in parts.unet.state_dict().items())
