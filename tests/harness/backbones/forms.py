"""Checkpoint files as trainers, libraries and hubs write them: tiny ones, each of exactly its form."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from harness.backbones.models import create
from harness.core.classes import load_classes

State = dict[str, torch.Tensor]
IDS = ("n01558993", "n01692333", "n01729322", "n01735189")
NINE = ("00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect", "06_musical instrument", "07_primate",
        "08_fish")  # fmt: skip
IN1K = load_classes("imagenet1k")
NAMES = tuple(ImageNetInfo("imagenet-1k").index_to_description(place, detailed=False) for place in range(1000))
"""WordNet's lemmas, as networks of transformers list them."""
HALF = (0.5, 0.5, 0.5)


class Progress:
    """A class of a training's own, pickled with its checkpoint."""

    best = 3


@dataclass(frozen=True)
class Form:
    """One form: how it is written, and what is asked for on the command line.

    Attributes:
        write: Called with a folder and the source network; writes the form, and returns what ``--checkpoint`` says.
        arch: ``--arch``.
        source: Network that is written; empty: as ``arch``.
        outputs: Outputs of the source network.
        kwargs: Constructor arguments of the source network.
        chosen: Options of the preprocessing.
        weights: ``--weights``.
        classes: Ids of the class list.
        features: Whether features are compared, because the file has no head.
        expected: Values of the preprocessing that must come out.
        kind: Which weights must be taken.
        head: ``--head``.
    """

    write: Callable[[Path, torch.nn.Module], object]
    arch: str = "resnet10"
    source: str = ""
    outputs: int = 4
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=lambda: {"image_size": 32})
    weights: str | None = None
    classes: tuple[str, ...] = IDS
    features: bool = False
    expected: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "raw"
    head: str = ""


def network(arch: str, outputs: int = 4, seed: int = 0, **kwargs: Any) -> torch.nn.Module:
    """Return a network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(seed)
    net = create(arch, outputs, **kwargs)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return net.eval()


def other() -> State:
    """Return the weights of a second network, which must not be taken."""
    return network("resnet10", seed=9).state_dict()


def prefixed(state: State, prefix: str) -> State:
    """Put a prefix before all names."""
    return {prefix + key: value for key, value in state.items()}


def saved(
    content: Callable[[State], object], name: str = "c.pth", **options: Any
) -> Callable[[Path, torch.nn.Module], Path]:
    """Return a writer of a file of torch."""

    def write(folder: Path, net: torch.nn.Module) -> Path:
        torch.save(content(net.state_dict()), folder / name, **options)
        return folder / name

    return write


def without(state: State, *ends: str) -> State:
    """Leave out what ends, or begins, with one of the words."""
    return {key: value for key, value in state.items() if not key.endswith(ends) and not key.startswith(ends)}


def half(folder: Path, net: torch.nn.Module) -> Path:
    """Write the weights in float16, and round the network to them."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    net.load_state_dict(state)
    return saved(lambda _: state)(folder, net)


def averaged(state: State) -> object:
    """Return what torchvision's reference script writes with ``--model-ema``."""
    net, start = network("resnet10"), network("resnet10", seed=9)
    net.load_state_dict(state)
    ema = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    ema.update_parameters(net)
    return {"model": start.state_dict(), "model_ema": ema.state_dict(), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
            "args": argparse.Namespace(lr=0.1), "epoch": 3}  # fmt: skip


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def statistics(state: State) -> State:
    """Return the batch-norm statistics alone."""
    return {key: value for key, value in state.items() if key.endswith(BUFFERS)}


def never_averaged() -> State:
    """Return an average of torch that was made before the training and never updated."""
    return torch.optim.swa_utils.AveragedModel(network("resnet10", seed=9), use_buffers=True).state_dict()


def infix(state: State, word: str) -> State:
    """Put a wrapper's word behind the name of each stage."""
    return {
        key.replace("layer1.", f"layer1.{word}.").replace("layer3.", f"layer3.{word}."): v for key, v in state.items()
    }


def mmengine(state: State) -> object:
    """Return what MMEngine writes with its EMA hook: the two are exchanged when a checkpoint is saved."""
    raw = {"steps": torch.tensor(5), **prefixed(with_mm_head(other()), "module.")}
    return {"meta": {"epoch": 1}, "state_dict": with_mm_head(state), "ema_state_dict": raw, "message_hub": {}}


def with_mm_head(state: State) -> State:
    """Return the names of mmpretrain's ResNet classifier."""
    return {f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()}


def mm_config(change: Callable[[str], str] = str) -> Callable[[Path, torch.nn.Module], Path]:
    """Return a writer of an mmpretrain checkpoint with its configuration, as text."""
    text = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=50, style='pytorch', out_indices=(3, )),
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[51.0, 51.0, 51.0], to_rgb=True))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=40, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs')]
data_preprocessor = {'mean': [127.5, 127.5, 127.5], 'std': [51.0, 51.0, 51.0], 'to_rgb': True}
"""
    return saved(lambda s: {"meta": {"epoch": 1, "cfg": change(text)}, "state_dict": with_mm_head(s)})


def dino(state: State) -> object:
    """Return a checkpoint of DINO's training: two networks, each with a projection head that is no classifier."""
    projection = {"head.mlp.0.weight": torch.ones(8, 256), "head.last_layer.weight_g": torch.ones(9, 1)}

    def part(body: State) -> State:
        return prefixed({**prefixed(without(body, "fc."), "backbone."), **projection}, "module.")

    return {"student": part(other()), "teacher": part(state), "epoch": 1, "args": argparse.Namespace(lr=1.0)}


def dino_with_head(folder: Path, net: torch.nn.Module) -> Path:
    """Write a checkpoint of DINO, and the file of its linear evaluation."""
    state = net.state_dict()
    linear = {f"module.linear.{part}": state[f"fc.{part}"] for part in ("weight", "bias")}
    torch.save({"epoch": 100, "state_dict": linear, "optimizer": {"state": {}}, "best_acc": 0.5}, folder / "linear.pth")
    return saved(dino)(folder, net)


def robustness(state: State) -> object:
    """Return a checkpoint of the robustness library: a normaliser, and the network once more inside the attacker."""
    scale = {
        "new_mean": torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1),
        "new_std": torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1),
    }
    model = {**prefixed(scale, "normalizer."), **prefixed(state, "model."), **prefixed(scale, "attacker.normalize."),
             **prefixed(state, "attacker.model.")}  # fmt: skip
    return {
        "model": prefixed(model, "module."),
        "optimizer": {"state": {}},
        "epoch": 105,
        "nat_prec1": torch.tensor(0.5),
    }


def timm_folder(folder: Path, net: torch.nn.Module, transformers: bool = False, **config: Any) -> Path:
    """Write a folder as timm's ``push_to_hub`` does; or with the prefix of transformers' wrapper of timm."""
    place = folder / "model-of-ours"
    place.mkdir()
    state = prefixed(net.state_dict(), "timm_model.") if transformers else net.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, place / "model.safetensors")
    cfg = {"tag": "ours", "mean": [0.1, 0.2, 0.3], "std": HALF, "input_size": [3, 40, 40], "crop_pct": 0.9, "interpolation": "bilinear",
           "first_conv": "conv1", "classifier": "fc", "num_classes": 4, "fixed_input_size": False}  # fmt: skip
    wrapper = (
        {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper"} if transformers else {}
    )
    text = {
        "architecture": "resnet18",
        "num_classes": 4,
        "pretrained_cfg": cfg,
        "label_names": list(IDS),
        **wrapper,
        **config,
    }
    (place / "config.json").write_text(json.dumps(text))
    return place


def hub_cache(folder: Path, net: torch.nn.Module) -> str:
    """Write the folder into a cache of the hub, as its client lays it out."""
    commit = "0123456789012345678901234567890123456789"
    repository = folder / "hub" / "models--someone--net"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    timm_folder(folder, net).rename(repository / "snapshots" / commit)
    return "hf-hub:someone/net"


FED = {"mean": (0.1, 0.2, 0.3), "std": HALF, "image_size": 40, "crop": 0.9, "interpolation": "bilinear"}
READ: dict[str, Form] = {
    "plain": Form(saved(dict)),
    "safetensors": Form(lambda folder, net: save_file(net.state_dict(), folder / "c.safetensors") or folder / "c.safetensors"),
    "torchvision": Form(saved(dict), arch="resnet18"),
    "batchnorm-without-counter": Form(
        saved(lambda s: {"epoch": 60, "arch": "x", "best_prec1": 3.0, "state_dict": prefixed(without(s, "num_batches_tracked"),
              "module.")}, "old.pth.tar", _use_new_zipfile_serialization=False)),
    "half-precision": Form(half),
    "ddp": Form(saved(lambda s: prefixed(s, "module."))),
    "compile": Form(saved(lambda s: {"model": prefixed(s, "_orig_mod.module.")})),
    "compile-of-parts": Form(saved(lambda s: infix(s, "_orig_mod"))),
    "fsdp-full-state": Form(saved(lambda s: {"model": prefixed(infix(s, "_fsdp_wrapped_module"), "_fsdp_wrapped_module.")})),
    "torchvision-ema": Form(saved(averaged), kind="ema"),
    "timm-ema": Form(saved(lambda s: {"state_dict": other(), "state_dict_ema": s, "args": argparse.Namespace(a=1)}), kind="ema"),
    "raw-beside-ema": Form(saved(lambda s: {"model": s, "model_ema": other()}), weights="raw"),
    "entry-by-name": Form(saved(lambda s: {"first": other(), "second": s}), weights="second"),
    "lightning": Form(
        saved(lambda s: {"state_dict": {**prefixed(s, "net."), "acc.total": torch.tensor(4)}, "hyper_parameters": Progress(),
              "callbacks": {"x": {"best_model_score": torch.tensor(1.0)}}, "pytorch-lightning_version": "2.4"})),
    "lightning-averaging": Form(
        saved(lambda s: {"state_dict": prefixed(s, "model."), "current_model_state": prefixed(other(), "model."),
              "averaging_state": {}}), kind="ema"),
    "mmpretrain": Form(saved(lambda s: {"meta": {"epoch": 1}, "state_dict": with_mm_head(s)})),
    "mmpretrain-with-its-configuration": Form(
        mm_config(), chosen={}, expected={"mean": HALF, "std": (0.2, 0.2, 0.2), "image_size": 32, "crop": 0.8, "interpolation": "bicubic"}),
    "mmpretrain-with-an-unreadable-configuration": Form(
        mm_config(lambda _: "a = = b"), chosen={"image_size": 32, "mean": HALF, "std": HALF}),
    "background-before-the-thousand": Form(
        saved(lambda s: {"model": s, "classes": ["background", *NAMES]}), outputs=1001, classes=("background", *IN1K.ids)),
    "timm-folder-of-another-patch": Form(
        lambda folder, net: timm_folder(folder, net, architecture="vit_tiny_patch16_224", model_args={"img_size": 64, "patch_size": 8}),
        arch="", source="vit_tiny_patch16_224", kwargs={"img_size": 64, "patch_size": 8}, chosen={}, expected={"image_size": 64}),
    "head-behind-dropout": Form(
        saved(lambda s: {k.replace("fc.", "fc.1."): v for k, v in s.items()}), head="c.pth"),
    "transformer-head-behind-dropout": Form(
        saved(lambda s: {f"model.{k.replace('head.', 'head.1.')}": v for k, v in s.items()}), arch="vit_tiny_patch16_224", head="c.pth",
        kwargs={"img_size": 64}, chosen={"image_size": 64}),
    "mmengine-ema": Form(saved(mmengine), kind="ema"),
    "last-linear": Form(saved(lambda s: {k.replace("fc.", "last_linear."): v for k, v in s.items()})),
    "dino": Form(saved(dino), kind="ema", features=True),
    "dino-student": Form(saved(lambda s: {**dino(other()), "student": dino(s)["teacher"]}), weights="student", features=True),
    "dino-linear-head": Form(dino_with_head, head="linear.pth", kind="ema"),
    "without-head": Form(saved(lambda s: without(s, "fc.")), features=True),
    "robustness": Form(saved(robustness), expected={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}),
    "sequential-normaliser": Form(
        saved(lambda s: {"0.mean": torch.tensor(HALF), "0.std": torch.tensor(HALF), **prefixed(s, "1.")}),
        expected={"mean": HALF, "std": HALF}),
    "normaliser-of-bytes": Form(
        saved(lambda s: {"pixel_mean": torch.full((3, 1, 1), 127.5), "pixel_std": torch.full((1, 3, 1, 1), 51.0), **prefixed(s, "model.")}),
        expected={"mean": HALF, "std": (0.2, 0.2, 0.2)}),
    "vit-of-another-size": Form(
        saved(dict), arch="vit_tiny_patch16_224", kwargs={"img_size": 384}, chosen={}, expected={"image_size": 384}),
    "vit-of-a-named-size": Form(
        saved(dict), arch="vit_tiny_patch16_224", kwargs={"img_size": 64}, chosen={"image_size": 64}, expected={"image_size": 64}),
    "head-of-21k": Form(saved(dict), outputs=21843, classes=tuple(f"s{i:05d}" for i in range(21843))),
    "average-of-parameters": Form(
        saved(lambda s: {"state_dict": {**other(), **statistics(s)}, "state_dict_ema": without(s, *BUFFERS)}), kind="ema"),
    "average-without-names-raw": Form(
        saved(lambda s: {"model": s, "ema": {"decay": 0.9, "shadow_params": list(other().values())}}), weights="raw"),
    "average-not-begun-raw": Form(saved(lambda s: {"model": s, "model_ema": never_averaged()}), weights="raw"),
    "equal-copy-of-a-wrapper": Form(saved(lambda s: {**s, **prefixed({k: v.clone() for k, v in s.items()}, "_orig_mod.")})),
    "normaliser-of-bytes-without-mean": Form(
        saved(lambda s: {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.full((3, 1, 1), 255.0), **prefixed(s, "model.")}),
        expected={"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    "normaliser-of-the-teacher": Form(
        saved(lambda s: {**prefixed(s, "student."), **prefixed(other(), "teacher.net."), "teacher.norm.mean": torch.tensor(HALF),
                         "teacher.norm.std": torch.tensor(HALF)}), weights="student", arch="resnet10",
        chosen={"image_size": 32}, expected={"mean": (0.485, 0.456, 0.406)}),
    "safetensors-named-pth": Form(lambda folder, net: save_file(net.state_dict(), folder / "c.pth") or folder / "c.pth"),
    "torch-named-safetensors": Form(saved(dict, "c.safetensors")),
    "timm-folder-by-its-file": Form(
        lambda folder, net: timm_folder(folder, net, model_args={"global_pool": "max"}) / "model.safetensors", arch="resnet18",
        kwargs={"global_pool": "max"}, chosen={}, expected=FED),
    "two-heads": Form(
        saved(lambda s: {**prefixed(without(s, "fc."), "backbone."), **{k.replace("fc", n): v for k, v in s.items() if k[:3] == "fc."
                         for n in ("fc", "head")}}), features=True),
    "names-of-the-head": Form(saved(lambda s: {"model": s, "class_to_idx": {name: place for place, name in enumerate(IDS)},
                                               "meta": {"CLASSES": ["robin", "agama", "x"]}})),
    "numbered-folders-with-their-names": Form(
        saved(lambda s: {"model": s, "class_to_idx": {name: i for i, name in enumerate(sorted(map(str, range(12))))}}), outputs=12,
        classes=tuple(f"c{i} {i}" for i in sorted(map(str, range(12))))),
    "names-that-only-count": Form(saved(lambda s: {"model": s, "id2label": {i: f"LABEL_{i}" for i in range(4)}})),
    "head-of-nine": Form(saved(dict), outputs=9, classes=tuple(name.split(" ")[0] for name in NINE)),
    "timm-tag": Form(saved(dict), arch="resnet18.tv_in1k", source="resnet18", chosen={},
                     expected={"image_size": 224, "crop": 0.875, "interpolation": "bilinear"}),
    "timm-hub-name": Form(saved(dict), arch="hf-hub:timm/resnet18.a1_in1k", source="resnet18", chosen={},
                          expected={"crop": 0.95, "interpolation": "bicubic"}),
    "timm-folder": Form(timm_folder, arch="", source="resnet18", chosen={}, expected=FED),
    "timm-folder-with-arguments": Form(
        lambda folder, net: timm_folder(folder, net, model_args={"stem_type": "deep", "stem_width": 32}), arch="", source="resnet18",
        kwargs={"stem_type": "deep", "stem_width": 32}, chosen={}, expected=FED),
 
        "local-dir": Form(lambda folder, net: f"local-dir:{timm_folder(folder, net)}", arch="", source="resnet18", chosen={}, expected=FED),
    "timm-wrapper": Form(lambda folder, net: timm_folder(folder, net, True), arch="", source="resnet18", chosen={}, expected=FED),
    "hub-cache": Form(hub_cache, arch="", source="resnet18", chosen={}, expected=FED),
    "config-of-a-folder": Form(
        lambda folder, net: (timm_folder(folder, net), saved(dict)(folder, net))[1], arch="local-dir:model-of-ours",
        source="resnet18", chosen={}, expected=FED),
}  # fmt: skip
"""Forms that are read, by the name that the table of docs/checkpoints.md gives them."""


def zipped(folder: Path, member: str) -> Path:
    """Write an archive with one member."""
    with zipfile.ZipFile(folder / "c.pth", "w") as archive:
        archive.writestr(member, b"x")
    return folder / "c.pth"


def files(folder: Path, **content: str) -> Path:
    """Write a folder of small files; ``__`` in a name stands for a dot."""
    place = folder / "folder"
    place.mkdir()
    for name, text in content.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


def bytes_of(content: bytes, name: str = "c.pth") -> Callable[[Path, torch.nn.Module], Path]:
    """Return a writer of a file."""

    def write(folder: Path, net: torch.nn.Module) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def names(*keys: str) -> Callable[[Path, torch.nn.Module], Path]:
    """Return a writer of a state dict with these names."""
    return saved(lambda _: {key: torch.ones(2, 2) for key in keys})


@dataclass(frozen=True)
class Refusal:
    """A form that is refused: what is asked for, and what the three parts of the message must say, as patterns."""

    form: Form
    what: str
    why: str
    fix: str


REFUSED: dict[str, Refusal] = {
    "text": Refusal(Form(bytes_of(b"Not a checkpoint\n")), "is no checkpoint",
        "text, beginning with 'Not a checkpoint'", "not the download"),
    "web-page": Refusal(Form(bytes_of(b"<!DOCTYPE html><html>x</html>")), "is no checkpoint", "a web page", "fetch"),
    "git-lfs-pointer": Refusal(
        Form(bytes_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "model.safetensors")), "is no checkpoint",
        "pointer of Git LFS", "git lfs pull"),
    "empty": Refusal(Form(bytes_of(b"")), "is no checkpoint", "empty", "fetch"),
    "compressed": Refusal(Form(bytes_of(b"\x1f\x8b\x08\x00 abc")), "is no checkpoint", "gzip", "unpack"),
    "keras": Refusal(Form(bytes_of(b"\x89HDF\r\n\x1a\n")), "is no checkpoint", "HDF5", "--classifier"),
    "onnx": Refusal(Form(bytes_of(b"\x08\x07\x12", "c.onnx")), "is no checkpoint", "ONNX", "--classifier"),
    "jax": Refusal(Form(lambda folder, _: zipped(folder, "params/kernel.npy")), "is no checkpoint", "NumPy arrays", "PyTorch"),
    "torchscript": Refusal(Form(lambda folder, _: zipped(folder, "net/constants.pkl")), "is no checkpoint",
        "TorchScript", "--classifier"),
    "damaged": Refusal(Form(bytes_of(b"PK\x03\x04" + b"\0" * 99)), "cannot be read", "torch cannot read it", "damaged"),
    "whole-network": Refusal(
        Form(lambda folder, net: torch.save(net, folder / "c.pth") or folder / "c.pth"), "whole network",
        "torch.save\\(model\\)", "state_dict"),
    "no-tensors": Refusal(Form(saved(lambda _: {"epoch": 3, "optimizer": {}})), "holds no weights",
        "epoch, optimizer", "state dict"),
    "sharded": Refusal(Form(lambda folder, _: files(folder, __0_0__distcp="x")), "sharded checkpoint",
        "part per process", "dcp_to_torch"),
    "several-networks": Refusal(
        Form(saved(lambda s: {"state_dict": {**prefixed(s, "module.encoder_q."), **prefixed(other(), "module.encoder_k.")}})),
        "several networks", "encoder_k, .*encoder_q", "--weights state_dict.module.encoder_"),
    "distillation": Refusal(Form(saved(lambda s: {"model": s, "teacher": other()})), "several networks",
        "model, teacher", "--weights model"),
    "no-average": Refusal(Form(saved(lambda s: {"model": s}), weights="ema"), "no ema weights", r"model \(raw\)",
        "leave --weights out"),
    "another-network": Refusal(
        Form(saved(dict), arch="resnet34", source="resnet18"), "does not hold a resnet34", "those of resnet18", "--arch resnet18"),
    "relative-of-other-inputs": Refusal(
        Form(saved(dict), arch="deit_tiny_patch16_224", source="deit_small_patch16_224", chosen={}), "does not hold a deit_tiny",
        "those of deit_small_patch16_224 or vit_small",
        r"--arch deit_small_patch16_224 \(mean 0.485,0.456,0.406\) or vit_small_patch16_224 \(mean 0.5\)"),
    "head-of-a-sequence": Refusal(
        Form(saved(lambda s: {k.replace("fc.", "fc.1."): v for k, v in s.items()})), "is a sequence of layers", "under fc.1;",
        "dropout alone, .*--head"),
    "head-of-two-layers": Refusal(
        Form(saved(lambda s: {**{k.replace("fc.", "fc.2."): v for k, v in s.items()}, "fc.0.weight": torch.ones(256, 256),
                              "fc.0.bias": torch.ones(256)})), "is a sequence of layers", "under fc.0, fc.2", "^--classifier"),
    "timm-folder-of-grey-images": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, model_args={"in_chans": 1}), arch="", source="resnet18", kwargs={"in_chans": 1},
             chosen={}), "square images of three colours", "1 channels", "--classifier"),
    "timm-folder-of-oblong-images": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, pretrained_cfg={"input_size": [3, 64, 32]}), arch="", source="resnet18",
             chosen={}), "square images of three colours", "64 x 32", "--classifier"),
    "left-over-tensors": Refusal(
        Form(saved(lambda s: {**s, "layer1.0.gamma": torch.ones(3)})), "do not fit", "unexpected: layer1.0.gamma",
        "this network alone"),
    "class-count": Refusal(
        Form(saved(dict), outputs=9), "class list does not fit", "9 outputs .*, the list 4 classes", "--classes"),
    "head-of-21k-without-its-list": Refusal(
        Form(saved(dict), outputs=11221), "class list does not fit", r"11221 outputs \(ImageNet-21k-P\)", "file of 11,221 lines"),
    "vit-of-a-wrong-size": Refusal(
        Form(saved(dict), arch="vit_tiny_patch16_224", kwargs={"img_size": 64}, chosen={"image_size": 96}), "another size",
        r"\(1, 17, 192\)", "leave --image-size out"),
    "dino-head-of-several-blocks": Refusal(
        Form(lambda folder, net: (torch.save({"linear.weight": torch.ones(4, 1024),
        "linear.bias": torch.ones(4)}, folder / "h.pth"),
             saved(dino)(folder, net))[1], head="h.pth"), "reads other features", "1024 inputs, the network gives 256", "--classifier"),
    "torchvision-vit": Refusal(
        Form(names("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"), arch="vit_tiny_patch16_224"),
        "does not hold timm's vit", "torchvision's own network", "harness.classifiers:torchvision"),
    "torchvision-swin": Refusal(
        Form(names("features.0.0.weight"), arch="swin_tiny_patch4_window7_224", chosen={}), "does not hold timm's swin",
        "torchvision's own network", "harness.classifiers:torchvision"),
    "mmpretrain-vit": Refusal(
        Form(names("backbone.layers.0.ln1.weight"), arch="vit_tiny_patch16_224"), "does not hold timm's vit",
        "mmpretrain's own", "--classifier"),
    "clip": Refusal(Form(names("visual.conv1.weight", "logit_scale")), "does not hold", "CLIP model",
        "harness.classifiers:open_clip"),
    "transformers-file": Refusal(
        Form(names("vit.embeddings.patch_embeddings.projection.weight")), "does not hold", "transformers",
        "harness.classifiers:transformers"),
    "transformers-folder": Refusal(
        Form(lambda folder, _: files(folder, config__json='{"architectures": ["ViTForImageClassification"]}'), arch=""),
        "not a folder of timm", "ViTForImageClassification", "harness.classifiers:transformers"),
    "open-clip-folder": Refusal(
        Form(lambda folder, _: files(folder, open_clip_config__json="{}"), arch=""), "CLIP model", "no head",
        "harness.classifiers:open_clip"),
    "folder-without-weights": Refusal(
 
        Form(lambda folder, net: timm_folder(folder, net).joinpath("model.safetensors").unlink() or folder / "model-of-ours", arch="",
             source="resnet18"), "has no weights", "model.safetensors", "--arch"),
    "folder-of-another-network": Refusal(Form(timm_folder, arch="resnet50", source="resnet18"), "is a resnet18",
        "--arch is resnet50", "leave"),
    "labels-in-another-order": Refusal(
        Form(timm_folder, arch="", source="resnet18", classes=IDS[::-1]), "not in the order of the head", "n01558993",
        "head's order"),
    "labels-by-name-in-another-order": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, label_names=["Gila monster", "American robin", "eastern hog-nosed snake",
                                                                     "garter snake"]),
             arch="", source="resnet18"), "not in the order of the head", "Gila monster", "head's order"),
    "labels-of-another-set": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, label_names=["cat", "dog", "car", "ship"]), arch="", source="resnet18"),
        "not known to be the head's", "cat", "head's order"),
    "id2label-in-another-order": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, True, label_names=None, id2label=dict(enumerate(IDS[::-1]))), arch="",
             source="resnet18"), "not in the order of the head", "n01735189", "head's order"),
    "class-to-idx-in-another-order": Refusal(
        Form(saved(lambda s: {"model": s, "class_to_idx": {name: 3 - place for place, name in enumerate(IDS)}})),
        "not in the order of the head", "class_to_idx of c.pth lists n01735189", "head's order"),
    "numbered-folders-in-the-order-of-text": Refusal(
        Form(saved(lambda s: {"model": s, "class_to_idx": {name: i for i, name in enumerate(sorted(map(str, range(12))))}}), outputs=12,
             classes=tuple(f"c{i:02d}" for i in range(12))), "not known to be the head's", "class_to_idx of c.pth lists 0, 1, 10",
        "the name that the head has for it"),
    "list-of-numbered-folders-in-the-order-of-text": Refusal(
        Form(saved(lambda s: {"model": s, "classes": sorted(map(str, range(12)))}), outputs=12,
             classes=tuple(f"c{i:02d}" for i in range(12))), "not known to be the head's", "classes of c.pth lists 0, 1, 10",
        "head's order"),
    "idx-to-class-in-another-order": Refusal(
        Form(saved(lambda s: {"model": s, "idx_to_class": dict(enumerate(IDS[::-1]))})),
        "not in the order of the head", "idx_to_class of c.pth lists n01735189", "head's order"),
    "class-names-in-another-order": Refusal(
        Form(saved(lambda s: {"model": s, "class_names": list(IDS[::-1])})),
        "not in the order of the head", "class_names of c.pth lists n01735189", "head's order"),
    "lightning-classes-in-another-order": Refusal(
        Form(saved(lambda s: {"state_dict": prefixed(s, "model."),
                              "hyper_parameters": {"lr": 0.1, "class_to_idx": {name: 3 - i for i, name in enumerate(IDS)}}})),
        "not in the order of the head", "hyper_parameters.class_to_idx of c.pth lists n01735189", "head's order"),
    "classes-of-the-linear-head-in-another-order": Refusal(
        Form(lambda folder, net: (dino_with_head(folder, net), torch.save({**torch.load(folder / "linear.pth"), "classes": IDS[::-1]},
             folder / "linear.pth"))[0], head="linear.pth"), "not in the order of the head", "classes of linear.pth", "head's order"),
    "labels-of-old-timm-in-another-order": Refusal(
        Form(lambda folder, net: timm_folder(folder, net, label_names=None, labels=list(IDS[::-1])), arch="", source="resnet18"),
        "not in the order of the head", "n01735189", "head's order"),
    "mmpretrain-blue-first": Refusal(
        Form(mm_config(lambda text: text.replace("to_rgb=True", "to_rgb=False"))), "takes blue first", "to_rgb=False", "--classifier"),
    "mmpretrain-blue-first-by-default": Refusal(
        Form(mm_config(lambda text: text.replace(", to_rgb=True", ""))), "takes blue first", "no to_rgb", "--classifier"),
    "mmpretrain-in-caffes-style": Refusal(
        Form(mm_config(lambda text: text.replace("pytorch", "caffe"))), "Caffe's style", "1 x 1 convolution", "--classifier"),
    "mmpretrain-with-two-normalisations": Refusal(
        Form(mm_config(lambda text: text.replace("mean=[127.5", "mean=[128"))), "several normalisations", "128.0.* and |127.5.* and",
        "--normalisation"),
    "mmpretrain-with-a-damaged-configuration": Refusal(
        Form(mm_config(lambda _: "a = = b")), "configuration in .* cannot be read", "no Python text", "--normalisation"),
    "normaliser-of-blue-first": Refusal(
        Form(saved(lambda s: {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1),
                              "pixel_std": torch.tensor([57.375, 57.12, 58.395]).view(3, 1, 1), **prefixed(s, "model.")})),
        "takes blue first", "0.406, 0.456, 0.485", "--classifier"),
    "mmpretrain-classes-in-another-order": Refusal(
        Form(saved(lambda s: {"meta": {"CLASSES": IDS[::-1]}, "state_dict": with_mm_head(s)})),
        "not in the order of the head", "meta.CLASSES", "head's order"),
    "average-without-names": Refusal(
        Form(saved(lambda s: {"model": s, "ema": {"shadow_params": list(other().values())}})), "average in .* cannot be read",
        "ema.shadow_params", "--weights raw"),
    "average-in-part": Refusal(
        Form(saved(lambda s: {"model": s, "ema": without(other(), "conv1.weight")})), "ema in .* is incomplete", "it lacks .*conv1",
        "--weights raw"),
    "average-not-begun": Refusal(
        Form(saved(lambda s: {"model": s, "model_ema": never_averaged()})), "never updated", "n_averaged", "--weights raw"),
    "two-tensors-of-one-name": Refusal(
        Form(saved(lambda s: {**s, **prefixed(other(), "_orig_mod.")})), "two tensors for one name", "conv1.0.weight", "state_dict"),
    "whole-numbers-of-unknown-use": Refusal(
        Form(saved(lambda s: {**prefixed(s, "model."), "out_order": torch.tensor([3, 2, 1, 0])})), "do not fit", "out_order",
        "save the state dict"),
    "mask-of-unknown-use": Refusal(
        Form(saved(lambda s: {**prefixed(s, "model."), "model.mask": torch.tensor([True, False])})), "do not fit", "mask",
        "save the state dict"),
    "statistics-of-a-loss": Refusal(
        Form(saved(lambda s: {**prefixed(s, "model."), "meter.mean": torch.tensor(0.7), "meter.std": torch.tensor(0.2)})),
        "do not fit", "meter.mean", "save the state dict"),
    "normaliser-without-spread": Refusal(
        Form(saved(lambda s: {**prefixed(s, "model."), "norm.mean": torch.zeros(3), "norm.std": torch.zeros(3)})),
        "do not fit", "norm.mean", "save the state dict"),
    "weights-that-are-no-numbers": Refusal(
        Form(saved(lambda s: {**s, "fc.weight": s["fc.weight"] * float("nan")})), "no numbers", "1 of .*: fc.weight",
        "diverged"),
    "quantised-weights": Refusal(
        Form(saved(lambda s: {k: (100 * v).to(torch.int8) if v.ndim > 1 else v for k, v in s.items()})), "int8 in the place of weights",
        "no floats: .*conv1.0.weight", "as floats"),
    "complex-weights": Refusal(
        Form(saved(lambda s: {**s, "fc.weight": s["fc.weight"] * (1 + 1j)})), "complex64 in the place of weights", "fc.weight",
        "as floats"),
    "negative-variance": Refusal(
        Form(saved(lambda s: {k: -v if k.endswith("bn1.running_var") else v for k, v in s.items()})), "negative variances",
        "bn1.running_var", "another checkpoint"),
    "whole-network-inside": Refusal(
        Form(lambda folder, net: torch.save({"model": net, "epoch": 3}, folder / "c.pth") or folder / "c.pth"),
        "a whole network under 'model'", "only the code of", r"\['model'\].state_dict"),
    "hub-not-in-the-cache": Refusal(
        Form(lambda *_: "hf-hub:someone/else", arch=""), "not on this machine", "nothing is downloaded",
        "hf download someone/else"),
    "misspelt-arch": Refusal(Form(saved(dict), arch="resnet5O", source="resnet10"), "unknown architecture", "neither",
        "did you mean 'resnet50'"),
    "misspelt-tag": Refusal(
        Form(saved(dict), arch="resnet18.a4_in1k", source="resnet10"), "timm has no weights", "a1_in1k",
        "did you mean 'a[123]_in1k'"),
    "missing-file": Refusal(Form(lambda folder, _: folder / "nothing.pth"), "does not exist", "no such file", "--checkpoint"),
}  # fmt: skip
"""Forms that are refused while planning, by the name that the table of docs/checkpoints.md gives them."""
