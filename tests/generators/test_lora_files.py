"""LoRA files in circulation: the fused weights are those of the stock pipeline, whatever names and alphas a file has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.diffusion.lora_files import read_lora
from generators.diffusion.lora_io import add_lora, apply_lora, fuse_lora, load_lora, save_lora
from generators.diffusion.pipeline import load_pipeline
from harness.core.errors import CorruptArtifact

RANK, ALPHA = 4, 6


def adapter(folder: Path, **config: Any) -> Any:
    """Return a UNet with a trained-looking adapter of PEFT."""
    from peft import LoraConfig

    unet = load_pipeline(folder).unet
    unet.add_adapter(
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_k", "to_v", "to_out.0"], **config)
    )
    generator = torch.Generator().manual_seed(0)
    for name, each in unet.named_parameters():
        if "lora_" in name:
            each.data.copy_(torch.randn(each.shape, generator=generator) * 0.3)
    return unet


def write_peft(unet: Any, out: Path) -> Path:
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    layers, metadata = get_peft_model_state_dict(unet), _collate_lora_metadata({"unet": unet})
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=layers, **metadata)
    return out / "pytorch_lora_weights.safetensors"


def write_adapter(unet: Any, out: Path) -> Path:
    unet.save_lora_adapter(out)
    return out / "pytorch_lora_weights.safetensors"


def write_kohya(unet: Any, out: Path) -> Path:
    tensors: dict[str, Tensor] = {}
    for name, value in load_file(write_adapter(unet, out / "peft")).items():
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{key}.{'lora_down' if part == 'lora_A' else 'lora_up'}.weight"] = value
        tensors[f"{key}.alpha"] = torch.tensor(float(ALPHA))
    save_file(tensors, out / "kohya.safetensors")
    return out / "kohya.safetensors"


def stock_weights(folder: Path, file: Path) -> dict[str, Tensor]:
    """Return the UNet after the stock pipeline has fused a LoRA file."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return dict(pipe.unet.state_dict())


WRITERS: dict[str, tuple[Callable[[Any, Path], Path], dict[str, Any]]] = {
    "peft": (write_peft, {}),
    "peft-alpha-pattern": (write_peft, {"alpha_pattern": {"attn2.to_q": 3}}),
    "peft-rslora": (write_peft, {"use_rslora": True}),
    "kohya": (write_kohya, {}),
}


@pytest.mark.parametrize("form", WRITERS)
def test_a_lora_file_fuses_to_the_weights_of_the_stock_pipeline(
    tiny_pipeline_dir: Path, tmp_path: Path, form: str
) -> None:
    writer, config = WRITERS[form]
    file = writer(adapter(tiny_pipeline_dir, **config), tmp_path)
    base = load_pipeline(tiny_pipeline_dir)
    fused = fuse_lora(base, load_lora(file)).unet.state_dict()
    stock = stock_weights(tiny_pipeline_dir, file)
    assert sum(not torch.equal(value, base.unet.state_dict()[name]) for name, value in fused.items()) == 32
    for name, value in fused.items():
        torch.testing.assert_close(value, stock[name], rtol=1e-5, atol=1e-6, msg=name)


PATTERNS = [{"to_q": 16, "attn1.to_q": 2}, {"attn1.to_q": 2, "to_q": 16}]


@pytest.mark.parametrize(("pattern", "ranks"), [(PATTERNS[0], True), (PATTERNS[1], False)], ids=["general", "special"])
def test_of_patterns_that_overlap_the_first_counts_as_in_the_stock_pipeline(
    tiny_pipeline_dir: Path, tmp_path: Path, pattern: dict[str, int], ranks: bool
) -> None:
    """The writer of diffusers sorts patterns; other programs leave them in their own order."""
    if not ranks and Version(diffusers.__version__) < Version("0.40"):
        pytest.skip("the stock pipeline reads overlapping patterns without ranks from diffusers 0.40 on")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    own = {"rank_pattern": {name: alpha // 2 for name, alpha in pattern.items()}} if ranks else {}
    tensors = load_file(write_peft(adapter(tiny_pipeline_dir, alpha_pattern=pattern, **own), tmp_path))
    facts = {"r": RANK, "lora_alpha": ALPHA, "target_modules": targets, "alpha_pattern": pattern, **own}
    text = json.dumps({f"unet.{name}": value for name, value in facts.items()})
    file = tmp_path / "patterns.safetensors"
    save_file(tensors, file, metadata={"format": "pt", "lora_adapter_metadata": text})
    fused = fuse_lora(load_pipeline(tiny_pipeline_dir), load_lora(file)).unet.state_dict()
    for name, value in stock_weights(tiny_pipeline_dir, file).items():
        torch.testing.assert_close(fused[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_an_adapter_saved_by_its_unet_fuses_to_the_same_weights(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    unet = adapter(tiny_pipeline_dir)
    alone, packed = load_lora(write_adapter(unet, tmp_path / "a")), load_lora(write_peft(unet, tmp_path / "b"))
    assert alone.keys() == packed.keys() and all(torch.equal(alone[name], packed[name]) for name in alone)


def test_names_of_former_attention_processors_are_the_same_layers(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    lora = {name: each.detach() for name, each in add_lora(load_pipeline(tiny_pipeline_dir).unet, RANK, seed=3).items()}
    save_lora(tmp_path / "new.safetensors", lora)
    old = {}
    for name, value in lora.items():
        layer, _, rest = name.removeprefix("unet.").rpartition(".lora.")
        block, _, projection = layer.removesuffix(".0").rpartition(".")
        old[f"{block}.processor.{projection}_lora.{rest}"] = value
    torch.save(old, tmp_path / "pytorch_lora_weights.bin")
    read, new = load_lora(tmp_path / "pytorch_lora_weights.bin"), load_lora(tmp_path / "new.safetensors")
    assert read.keys() == new.keys() and all(torch.equal(read[name], new[name]) for name in new)


def test_without_a_stated_alpha_it_is_the_rank_and_the_tensors_stay_as_they_are(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    unet = adapter(tiny_pipeline_dir)
    tensors = load_file(write_peft(unet, tmp_path))
    save_file(tensors, tmp_path / "bare.safetensors")
    read = load_lora(tmp_path / "bare.safetensors")
    for name, value in tensors.items():
        key = name.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
        assert torch.equal(read[key], value)


def test_half_precision_adapters_carry_the_same_scale(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    file = write_peft(adapter(tiny_pipeline_dir), tmp_path)
    beside = apply_lora(load_pipeline(tiny_pipeline_dir, dtype=torch.bfloat16), load_lora(file)).unet
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = beside.get_submodule(name)
    delta = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    fused = fuse_lora(load_pipeline(tiny_pipeline_dir), load_lora(file)).unet.get_submodule(name).weight
    wanted = fused - load_pipeline(tiny_pipeline_dir).unet.get_submodule(name).weight
    torch.testing.assert_close(delta.float(), wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("ranks", [{"to_q": 4, "to_v": 4}, {"to_q": 2, "to_k": 4, "to_v": 4, "to_out.0": 8}], ids=str)
def test_half_precision_takes_a_lora_on_some_layers_and_of_several_ranks(
    tiny_pipeline_dir: Path, tmp_path: Path, ranks: dict[str, int]
) -> None:
    base, half = (load_pipeline(tiny_pipeline_dir, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    save_file(kohya(base.unet, lambda layer: (ranks.get(ending(layer), 0), 3.0)), tmp_path / "lora.safetensors")
    weights = load_lora(tmp_path / "lora.safetensors")
    beside, fused = apply_lora(half, weights, 0.5).unet, apply_lora(base, weights, 0.5).unet
    for layer in attention(base.unet):
        plain, adapted = base.unet.get_submodule(layer).weight, beside.get_submodule(layer)
        assert hasattr(adapted, "lora_A") == (ending(layer) in ranks), layer
        if ending(layer) in ranks:
            delta = adapted.scaling["default"] * adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight
            wanted = fused.get_submodule(layer).weight - plain
            torch.testing.assert_close(delta.float(), wanted, rtol=2e-2, atol=2e-2, msg=layer)
    wrong = {name: value[:, :-1] if "to_q.lora.down" in name else value for name, value in weights.items()}
    with pytest.raises(CorruptArtifact, match="does not fit the UNet"):
        apply_lora(half, wrong)


def attention(unet: Any) -> list[str]:
    return [name for name, _ in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]


def ending(layer: str) -> str:
    return "to_out.0" if layer.endswith("to_out.0") else layer.rpartition(".")[2]


def kohya(unet: Any, of: Callable[[str], tuple[int, float | None]]) -> dict[str, Tensor]:
    """Return a file of kohya's scripts; `of` gives the rank (0: none) and alpha (None: not stated) of a layer."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for layer in attention(unet):
        (out, width), (rank, alpha) = unet.get_submodule(layer).weight.shape, of(layer)
        key = "lora_unet_" + layer.replace(".", "_")
        if rank:
            tensors[f"{key}.lora_down.weight"] = torch.randn(rank, width, generator=generator) * 0.3
            tensors[f"{key}.lora_up.weight"] = torch.randn(out, rank, generator=generator) * 0.3
            if alpha is not None:
                tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def test_each_layer_of_a_kohya_file_has_its_own_alpha_and_rank(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    """By kohya's definition (`LoRAModule`): alpha / rank of the module, alpha = rank if not stated; diffusers departs from it."""
    own: dict[str, tuple[int, float | None]] = {
        "to_q": (2, 1.0), "to_k": (4, 4.0), "to_v": (4, None), "to_out.0": (4, 1.0)
    }  # fmt: skip
    base = load_pipeline(tiny_pipeline_dir)
    tensors = kohya(base.unet, lambda layer: own[ending(layer)])
    save_file(tensors, tmp_path / "lora.safetensors")
    fused = fuse_lora(base, load_lora(tmp_path / "lora.safetensors")).unet
    for layer in attention(base.unet):
        key, (rank, alpha) = "lora_unet_" + layer.replace(".", "_"), own[ending(layer)]
        product = tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"]
        wanted = base.unet.get_submodule(layer).weight + (1 if alpha is None else alpha / rank) * product
        torch.testing.assert_close(fused.get_submodule(layer).weight, wanted, msg=layer)


def test_an_adapter_saved_by_peft_fuses_to_the_weights_that_peft_merges(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_pipeline(tiny_pipeline_dir)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_k"], rank_pattern={"to_k": 2}, init_lora_weights=False
    )
    wrapped: Any = get_peft_model(load_pipeline(tiny_pipeline_dir).unet, config)
    wrapped.save_pretrained(tmp_path)
    fused = fuse_lora(base, load_lora(tmp_path / "adapter_model.safetensors")).unet.state_dict()
    merged = wrapped.merge_and_unload().state_dict()
    assert sum(not torch.equal(value, fused[name]) for name, value in base.unet.state_dict().items()) == 16
    for name, value in merged.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-5, atol=1e-6, msg=name)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CorruptArtifact) as caught:
        read_lora(tmp_path / "adapter_model.safetensors")
    assert "its alpha is in adapter_config.json" in caught.value.why


@pytest.mark.parametrize(
    ("down", "up", "what"),
    [
        (torch.ones(2, 4), torch.ones(4, 3), "do not make a product"),
        (torch.ones(2, 4, 1, 1), torch.ones(4, 2, 1, 1), "do not make a product"),
        (torch.full((2, 4), float("nan")), torch.ones(4, 2), "no numbers"),
    ],
)
def test_lora_matrices_without_a_product_are_refused(tmp_path: Path, down: Tensor, up: Tensor, what: str) -> None:
    tensors = {f"unet.{ATTENTION}.lora_A.weight": down, f"unet.{ATTENTION}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(CorruptArtifact, match=what):
        read_lora(tmp_path / "lora.safetensors")


ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((f"unet.{ATTENTION}.lora_A.weight", "text_encoder.text_model.encoder.layers.0.lora_A.weight"), "text encoder"),
        (("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",), "text encoder"),
        (
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2.lora_down.weight",),
            "other than the UNet's attention",
        ),
        (("lora_unet_input_blocks_1_1_proj_in.lora_down.weight",), "other than the UNet's attention"),
        ((f"unet.{ATTENTION}.hada_w1_a",), "no plain LoRA"),
        ((f"unet.{ATTENTION}.lora_magnitude_vector",), "no plain LoRA"),
    ],
)
def test_lora_files_that_change_more_are_refused(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "lora.safetensors")
    with pytest.raises(CorruptArtifact) as caught:
        read_lora(tmp_path / "lora.safetensors")
    assert why in caught.value.why and names[-1].partition(".lora_")[0] in caught.value.why


def test_a_dora_is_refused_by_its_metadata(tmp_path: Path) -> None:
    tensors = {f"unet.{ATTENTION}.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.use_dora": True, "unet.lora_alpha": 2})}
    save_file(tensors, tmp_path / "lora.safetensors", metadata=metadata)
    with pytest.raises(CorruptArtifact, match="cannot be used"):
        read_lora(tmp_path / "lora.safetensors")
