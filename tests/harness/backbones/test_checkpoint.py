"""Backbone folders, outside checkpoints and the classifier."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.backbones.checkpoint import BackboneInfo, import_checkpoint, load_backbone, write_backbone
from harness.backbones.classifier import load_classifier
from harness.backbones.models import create
from harness.core.errors import DataMissing, UserError

CLASSES = ("a", "b", "c")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def model(seed: int = 0, arch: str = "resnet10", outputs: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return create(arch, outputs)


def bring(path: Path, out: Path, arch: str = "resnet10", **kwargs: object) -> BackboneInfo:
    return import_checkpoint(path, arch, CLASSES, MEAN, STD, out, image_size=64, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def expected(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    shape = (3, 1, 1)
    with torch.no_grad():
        return net.eval()((x - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape))


def containers(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, object]:
    def add(prefix: str) -> dict[str, torch.Tensor]:
        return {prefix + key: value for key, value in state.items()}

    return {
        "plain": state,
        "ddp": add("module."),
        "compiled-ddp": {"model": add("module._orig_mod.")},
        "lightning": {"state_dict": add("model.backbone."), "epoch": 3},
        "encoder": {"state_dict": add("encoder.")},
        "convnext": {"model": other, "model_ema": state, "args": argparse.Namespace(lr=1e-3, name="x")},
        "timm": {"state_dict": other, "state_dict_ema": state, "arch": "resnet10"},
    }


@pytest.mark.parametrize("name", containers({}, {}))
def test_usual_containers_are_read(name: str, x: torch.Tensor, tmp_path: Path) -> None:
    net = model(0)
    torch.save(containers(net.state_dict(), model(9).state_dict())[name], tmp_path / "c.pth")
    info = bring(tmp_path / "c.pth", tmp_path / "out")
    assert info.weights == ("ema" if name in ("convnext", "timm") else "raw")
    classifier = load_classifier(tmp_path / "out")
    assert classifier.classes == CLASSES
    torch.testing.assert_close(classifier(x), expected(net, x), rtol=1e-4, atol=1e-4)


def test_raw_weights_on_request_and_safetensors(x: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"model": model(1).state_dict(), "model_ema": model(2).state_dict()}, tmp_path / "c.pth")
    bring(tmp_path / "c.pth", tmp_path / "raw", weights="raw")
    torch.testing.assert_close(load_classifier(tmp_path / "raw")(x), expected(model(1), x), rtol=1e-4, atol=1e-4)
    save_file(model(3).state_dict(), tmp_path / "c.safetensors")
    bring(tmp_path / "c.safetensors", tmp_path / "st")
    torch.testing.assert_close(load_classifier(tmp_path / "st")(x), expected(model(3), x), rtol=1e-4, atol=1e-4)
    torch.save({"model": model(1).state_dict()}, tmp_path / "only.pth")
    with pytest.raises(UserError, match="no ema weights"):
        bring(tmp_path / "only.pth", tmp_path / "x", weights="ema")
    with pytest.raises(DataMissing, match="ema"):
        load_classifier(tmp_path / "raw", "ema")


def test_keys_are_strict_but_for_the_head(x: torch.Tensor, tmp_path: Path) -> None:
    state = model().state_dict()
    for name, change, word in (
        ("missing", {k: v for k, v in state.items() if k != "conv1.0.weight"}, "missing: conv1.0.weight"),
        ("extra", {**state, "layer1.0.ls1.gamma": torch.ones(32)}, "unexpected: layer1.0.ls1.gamma"),
        ("shape", {**state, "bn1.weight": torch.ones(7)}, "bn1.weight (7,) instead of"),
        ("twice", {**state, "module.bn1.weight": state["bn1.weight"]}, "unexpected: module.bn1.weight"),
    ):
        torch.save(change, tmp_path / f"{name}.pth")
        with pytest.raises(UserError) as caught:
            bring(tmp_path / f"{name}.pth", tmp_path / "out")
        assert word in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_without_a_head_it_gives_features_and_refuses_to_classify(x: torch.Tensor, tmp_path: Path) -> None:
    net = model()
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    for name, content in (("none", state), ("foreign", {**state, "head.weight": torch.ones(9, 9)})):
        torch.save(content, tmp_path / f"{name}.pth")
        info = bring(tmp_path / f"{name}.pth", tmp_path / name)
        classifier = load_classifier(tmp_path / name)
        assert info.classes == classifier.classes == ()
        assert classifier.features(x).shape == (5, 256)
        with pytest.raises(UserError, match="no classifier head"):
            classifier(x)


def test_a_class_list_of_another_length_is_refused(tmp_path: Path) -> None:
    torch.save(model(outputs=4).state_dict(), tmp_path / "c.pth")
    with pytest.raises(UserError, match="4 outputs, the list 3"):
        bring(tmp_path / "c.pth", tmp_path / "out")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


def test_damaged_foreign_and_unsafe_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(model().state_dict(), tmp_path / "c.pth")
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    for name in (
        "cut.pth",
        "empty.pth",
        "text.pth",
        "cut.safetensors",
        "evil.pth",
        "list.pth",
        "nothing.pth",
    ):
        with pytest.raises(UserError) as caught:
            bring(tmp_path / name, tmp_path / "out")
        assert name in caught.value.what and caught.value.fix, name
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(DataMissing):
        bring(tmp_path / "none.pth", tmp_path / "out")


def folder(tmp_path: Path, arch: str = "resnet10") -> Path:
    info = BackboneInfo(arch, {}, CLASSES, MEAN, STD, 64, "bicubic", "ema", {})
    states = {"raw": model(1, arch).state_dict(), "ema": model(2, arch).state_dict()}
    write_backbone(tmp_path / arch, info, states)
    return tmp_path / arch


def test_ema_is_the_default_and_identities_differ(x: torch.Tensor, tmp_path: Path) -> None:
    path = folder(tmp_path)
    ema, raw = load_classifier(path), load_classifier(path, "raw")
    torch.testing.assert_close(ema(x), expected(model(2), x), rtol=1e-4, atol=1e-4)
    assert ema.identity != raw.identity and ema.identity == load_classifier(path, "ema").identity
    with pytest.raises(UserError, match="best"):
        load_classifier(path, "best")


def test_damaged_backbone_folders(tmp_path: Path) -> None:
    path = folder(tmp_path)
    content = (path / "ema.safetensors").read_bytes()
    (path / "ema.safetensors").write_bytes(content[:-100])
    with pytest.raises(UserError, match="ema.safetensors"):
        load_backbone(path)
    (path / "backbone.json").write_text("{")
    with pytest.raises(UserError, match="backbone.json"):
        load_backbone(path)
    with pytest.raises(DataMissing):
        load_backbone(tmp_path / "nowhere")


@pytest.mark.parametrize("arch", ["resnet10", "vit_pico"])
def test_classifier_is_frozen_float_and_independent_of_the_batch(arch: str, x: torch.Tensor, tmp_path: Path) -> None:
    c = load_classifier(folder(tmp_path, arch))
    whole = c(x)
    assert whole.shape == (5, 3) and whole.dtype == torch.float32 and not whole.requires_grad
    torch.testing.assert_close(torch.cat([c(x[i : i + 1]) for i in range(5)]), whole, rtol=0, atol=1e-4)
    assert torch.equal(c(x), whole) and not c.model.training
    for wrong in ((x * 255).to(torch.uint8), x * 255, x[:, :1]):
        with pytest.raises(ValueError):
            c(wrong)


def test_feature_kinds(x: torch.Tensor, tmp_path: Path) -> None:
    conv, vit = load_classifier(folder(tmp_path)), load_classifier(folder(tmp_path, "vit_pico"))
    pooled = conv.features(x)
    assert pooled.shape == (5, 256) and pooled.min() >= 0
    torch.testing.assert_close(conv.features(x, "gap"), pooled)
    torch.testing.assert_close(conv.model.fc(pooled), conv(x))
    with pytest.raises(UserError, match="class token"):
        conv.features(x, "cls")
    assert vit.features(x, "cls").shape == vit.features(x, "gap").shape == (5, 128)
    torch.testing.assert_close(vit.features(x, "cls"), vit.features(x))
    assert (vit.features(x, "gap") - vit.features(x, "cls")).abs().max() > 0.1
    with pytest.raises(UserError, match="known|kind"):
        vit.features(x, "mean")


def test_a_folder_of_an_older_version_is_read_with_the_old_defaults(tmp_path: Path) -> None:
    import json

    from harness.backbones.checkpoint import read_info

    path = folder(tmp_path) / "backbone.json"
    facts = json.loads(path.read_text())
    for name in ("crop", "precision", "warnings"):
        del facts[name]
    path.write_text(json.dumps(facts))
    info = read_info(path.parent)
    assert (info.crop, info.precision, info.warnings, info.outside) == (0.875, "fp32", (), False)
    del facts["mean"]
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="cannot be read"):
        read_info(path.parent)


def test_bf16_computes_in_bfloat16_and_answers_in_float32(x: torch.Tensor, tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "c.pth")
    found = {}
    for precision in ("fp32", "bf16"):
        bring(tmp_path / "c.pth", tmp_path / precision, precision=precision)
        classifier = load_classifier(tmp_path / precision)
        assert classifier(x).dtype == classifier.features(x).dtype == torch.float32
        found[precision] = (classifier(x), classifier.identity)
    difference = (found["fp32"][0] - found["bf16"][0]).abs().max()
    assert 0 < difference < 0.1 and found["fp32"][1] != found["bf16"][1]
