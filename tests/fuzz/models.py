"""Readers of models: pipelines, checkpoints, adapters, and the configurations beside them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.bench import Reader, put

_SD = Path(__file__).parents[2] / "harness" / "microworld" / "weights" / "sd"


def _pipeline(name: str) -> Callable[[Path], Path]:
    """Write a pipeline folder of links to the embedded one, with one file of its own."""

    def make(folder: Path) -> Path:
        for path in sorted(_SD.rglob("*")):
            if path.is_file():
                place = folder / path.relative_to(_SD)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
        own = folder / name
        content = own.read_bytes()
        own.unlink()
        return put(folder, name, content)

    return make


def _sharded(folder: Path) -> Path:
    _pipeline("unet/config.json")(folder)
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("part-1.safetensors"))
    index = {"metadata": {}, "weight_map": {"a": "part-1.safetensors", "b": "part-1.safetensors"}}
    return put(folder, "unet/diffusion_pytorch_model.safetensors.index.json", json.dumps(index))


def _inspect_base(steps_up: int) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from generators.diffusion.base import inspect_base

        return inspect_base(path.parents[steps_up])

    return read


def _inspect_pipeline(path: Path) -> object:
    from generators.diffusion.auto import inspect_pipeline

    return inspect_pipeline(path.parent)


def _single(suffix: str) -> Callable[[Path], Path]:
    """Write a few tensors under the names of a single-file checkpoint."""

    def make(folder: Path) -> Path:
        import torch
        from safetensors.torch import save

        names = (
            "model.diffusion_model.out.2.weight",
            "first_stage_model.encoder.conv_in.bias",
            "cond_stage_model.a.weight",
        )
        state = {name: torch.arange(6.0).reshape(2, 3) for name in names}
        if suffix == "safetensors":
            return put(folder, "sd.safetensors", save(state))
        return put(folder, "sd.ckpt", _saved({"state_dict": state, "global_step": 3}, legacy=suffix == "old"))

    return make


def _saved(content: Any, legacy: bool = False) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _read_single(path: Path) -> object:
    from generators.diffusion.base import inspect_base
    from generators.diffusion.single_file import _read
    from harness.core.errors import UserError

    try:
        inspect_base(path)
    except UserError as error:
        first = error
    else:
        first = None
    _read(path)
    return first


def _lora(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch
        from safetensors.torch import save

        layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
        ends = ("lora_A.weight", "lora_B.weight")
        state = {f"{layer}.{end}": torch.ones(shape) for end, shape in zip(ends, ((2, 4), (4, 2)), strict=True)}
        facts = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 2}, "unet.use_rslora": True}
        if kind == "peft":
            put(
                folder,
                "lora.safetensors",
                save({f"base_model.model.{name.removeprefix('unet.')}": each for name, each in state.items()}),
            )
            return put(
                folder, "adapter_config.json", json.dumps({"lora_alpha": 4, "alpha_pattern": {"to_q": 2}, "r": 2})
            )
        if kind == "bin":
            return put(folder, "lora.bin", _saved(state | {f"{layer}.alpha": torch.tensor(2.0)}))
        return put(folder, "lora.safetensors", save(state, metadata={"lora_adapter_metadata": json.dumps(facts)}))

    return make


def _read_lora(path: Path) -> object:
    from generators.diffusion.lora_files import read_lora

    return read_lora(path.parent / "lora.safetensors" if path.name == "adapter_config.json" else path)


def _qalign(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch
        from safetensors.torch import save_file

        from tests.generators.test_qalign_scorer import TINY

        put(folder, "config.json", json.dumps(TINY))
        folder.mkdir(exist_ok=True)
        save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
        put(folder, "model.safetensors.index.json", json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
        put(folder, "tokenizer.json", json.dumps({"model": {"vocab": {"<s>": 1, "x": 2}}}))
        if name == "tokenizer.model":
            put(
                folder,
                name,
                b"".join(b"\n" + bytes([len(t) + 2]) + b"\n" + bytes([len(t)]) + t for t in (b"<unk>", b"<s>", b"ab")),
            )
        return folder / name

    return make


def _read_qalign(path: Path) -> object:
    from generators.lbgen.quality import qalign_config, qalign_weights

    reads = {"config.json": qalign_config.read_config, "model.safetensors.index.json": qalign_weights.find_shards}
    return reads.get(path.name, qalign_weights._read_vocabulary)(path.parent)


def _checkpoint(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import argparse

        import torch
        from safetensors.torch import save

        from harness.backbones.models import create

        torch.manual_seed(0)
        state = dict(list(create("resnet10", 4).state_dict().items())[:6])
        if kind == "safetensors":
            return put(folder, "net.safetensors", save(state))
        content = {
            "state_dict": state,
            "epoch": 3,
            "args": argparse.Namespace(arch="resnet10"),
            "class_to_idx": {"a": 0, "b": 1},
        }
        return put(folder, "net.pth", _saved(content, legacy=kind == "old"))

    return make


def _read_checkpoint(path: Path) -> object:
    from harness.backbones.files import read_checkpoint
    from harness.backbones.labels import labels_in
    from harness.core.intact import zip_damage

    zip_damage(path)
    return list(labels_in(read_checkpoint(path)))


def _resume(folder: Path) -> Path:
    import torch

    from harness.core.resume import save_state

    folder.mkdir(exist_ok=True)
    save_state(folder / "state.pt", "run", 3, {"weights": torch.ones(4), "log": [1, 2], "name": "x"})
    return folder / "state.pt"


def _load_state(path: Path) -> object:
    from harness.core.resume import load_state

    return load_state(path, "run")


def _timm(folder: Path) -> Path:
    import torch
    from safetensors.torch import save

    put(folder, "model.safetensors", save({"fc.weight": torch.ones(2, 3)}))
    feed = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bicubic", "tag": "a1_in1k",
            "test_input_size": [3, 96, 96]}  # fmt: skip
    config = {
        "architecture": "resnet18",
        "num_classes": 2,
        "model_args": {"img_size": 64},
        "label_names": ["a", "b"],
        "pretrained_cfg": feed,
    }
    return put(folder, "config.json", json.dumps(config))


def _find_source(path: Path) -> object:
    from harness.backbones.folders import find_source

    return find_source(str(path.parent), ""), find_source(str(path.parent / "model.safetensors"), "resnet18")


def _backbone(folder: Path) -> Path:
    record = {"arch": "resnet10", "kwargs": {}, "classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 32, "format": 1,
              "interpolation": "bicubic", "weights": "ema", "recipe": {"epochs": 1}, "crop": 0.9,
              "precision": "fp32", "warnings": []}  # fmt: skip
    put(folder, "ema.safetensors", b"")
    return put(folder, "backbone.json", json.dumps(record))


def _read_backbone(path: Path) -> object:
    from harness.backbones.checkpoint import read_info
    from harness.backbones.preprocessing import backbone_facts
    from harness.core.errors import UserError

    with contextlib.suppress(UserError):
        backbone_facts(path.parent / "ema.safetensors")
    return read_info(path.parent)


def _clip(folder: Path) -> Path:
    import open_clip

    put(folder, "open_clip_model.safetensors", b"x")
    return put(
        folder,
        "open_clip_config.json",
        json.dumps({"model_cfg": open_clip.get_model_config("RN50"), "preprocess_cfg": {}}),
    )


def _find_clip(path: Path) -> object:
    from harness.core.clip_files import find_clip

    return find_clip("RN50", str(path.parent / "open_clip_model.safetensors"))


def _processor(folder: Path) -> Path:
    put(folder, "config.json", json.dumps({"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}))
    facts = {"image_processor_type": "ConvNextImageProcessor", "do_resize": True, "size": {"shortest_edge": 224}, "crop_pct": 0.875,
             "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "resample": 3}  # fmt: skip
    return put(folder, "preprocessor_config.json", json.dumps(facts))


def _read_processor(path: Path) -> object:
    from harness.backbones.processors import inputs_of

    return inputs_of(path.parent)


def readers() -> Iterator[Reader]:
    """Yield the readers of models."""
    yield Reader("pipeline: model_index.json", _pipeline("model_index.json"), _inspect_base(0), "json")
    yield Reader(
        "pipeline: scheduler_config.json", _pipeline("scheduler/scheduler_config.json"), _inspect_base(1), "json"
    )
    yield Reader("pipeline: a network's config.json", _pipeline("unet/config.json"), _inspect_base(1), "json")
    yield Reader(
        "pipeline: text encoder's config.json", _pipeline("text_encoder/config.json"), _inspect_base(1), "json"
    )
    yield Reader("pipeline: weights", _pipeline("vae/diffusion_pytorch_model.safetensors"), _inspect_base(1))
    yield Reader("pipeline: index of shards", _sharded, _inspect_base(1), "json")
    yield Reader("diffusers: model_index.json", _pipeline("model_index.json"), _inspect_pipeline, "json")
    for kind in ("ckpt", "old", "safetensors"):
        yield Reader(f"single-file checkpoint ({kind})", _single(kind), _read_single)
    for kind in ("safetensors", "bin"):
        yield Reader(f"LoRA ({kind})", _lora(kind), _read_lora)
    yield Reader("LoRA: adapter_config.json", _lora("peft"), _read_lora, "json")
    yield Reader("Q-ALIGN: config.json", _qalign("config.json"), _read_qalign, "json")
    yield Reader("Q-ALIGN: index of shards", _qalign("model.safetensors.index.json"), _read_qalign, "json")
    yield Reader("Q-ALIGN: tokenizer.json", _qalign("tokenizer.json"), _read_qalign, "json")
    yield Reader("Q-ALIGN: tokenizer.model", _qalign("tokenizer.model"), _read_qalign)
    for kind in ("zip", "old", "safetensors"):
        yield Reader(f"checkpoint ({kind})", _checkpoint(kind), _read_checkpoint)
    yield Reader("checkpoint of a loop", _resume, _load_state)
    yield Reader("timm: config.json", _timm, _find_source, "json")
    yield Reader("backbone.json", _backbone, _read_backbone, "json")
    yield Reader("open_clip_config.json", _clip, _find_clip, "json")
    yield Reader("preprocessor_config.json", _processor, _read_processor, "json")
