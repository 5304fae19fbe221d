"""Architectures, settings and the learning-rate curve."""

from __future__ import annotations

import pytest
import torch

from harness.backbones.models import create
from harness.backbones.recipe import PretrainSettings
from harness.backbones.state import decay_groups
from harness.backbones.train import learning_rate
from harness.core.errors import UserError


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_full_scale_networks_are_the_protocols() -> None:
    with torch.device("meta"):
        assert count(create("resnet50", 1000)) == 25_557_032
        assert count(create("vit_small_patch16_224", 1000)) == 22_050_664


def test_small_networks() -> None:
    x = torch.rand(2, 3, 64, 64)
    resnet, vit = create("resnet10", 12), create("vit_pico", 12)
    assert resnet(x).shape == vit(x).shape == (2, 12)
    assert resnet.forward_features(x).shape == (2, 256, 2, 2)
    assert vit.forward_features(x).shape == (2, 17, 128)
    assert count(resnet) < 1.5e6 and count(vit) < 1.5e6


def test_wrong_names_and_arguments_are_user_errors() -> None:
    with pytest.raises(UserError, match="resnet10") as caught:
        create("resnet11", 2)
    assert "resnet11" in caught.value.what
    with pytest.raises(UserError, match="layer_scale_init_value"):
        create("resnet10", 2, layer_scale_init_value=1e-6)


def test_defaults_are_the_papers_recipe() -> None:
    s = PretrainSettings()
    assert (s.lr, s.epochs, s.warmup_epochs, s.batch_size, s.min_lr) == (1e-3, 120, 12, 2048, 1e-6)
    assert (s.randaugment_magnitude, s.randaugment_std, s.randaugment_ops) == (9.0, 0.5, 2)
    assert (s.mixup, s.cutmix, s.mix_probability, s.erasing, s.smoothing) == (0.8, 1.0, 1.0, 0.25, 0.1)
    assert (s.ema_decay, s.ema_warmup, s.weight_decay, s.drop_path) == (0.9999, False, 0.05, 0.1)


def test_settings_are_strict() -> None:
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        PretrainSettings.from_mapping({"epoch": 3})
    with pytest.raises(UserError, match="smoothing"):
        PretrainSettings.from_mapping({"smoothing": 2.0})
    for values in (
        {"epochs": 0}, {"batch_size": 1}, {"erasing": 1.1}, {"ema_decay": float("nan")}, {"randaugment_ops": 17},
        {"warmup_epochs": 3, "epochs": 2}, {"lr": 1e-7}, {"crop_area": [0.0, 1.0]},
    ):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(values))):
            PretrainSettings.from_mapping(values)
    with pytest.raises(UserError, match="precision"):
        PretrainSettings.from_mapping({"precision": "fp8"})
    s = PretrainSettings.from_mapping({"crop_area": [0.5, 1.0]})
    assert PretrainSettings.from_mapping(s.record()) == s


def test_learning_rate_is_linear_then_cosine() -> None:
    s = PretrainSettings(epochs=10, warmup_epochs=2, lr=1e-3, min_lr=1e-6)
    curve = [learning_rate(s, step, 50) for step in range(500)]
    assert curve[0] == 0 and curve[50] == pytest.approx(5e-4) and curve[100] == pytest.approx(1e-3)
    assert curve[300] == pytest.approx((1e-3 + 1e-6) / 2)
    assert curve[499] == pytest.approx(1e-6, rel=0.1) and max(curve) == curve[100]


@pytest.mark.parametrize("arch", ["resnet10", "vit_pico"])
def test_weight_decay_leaves_norms_biases_and_positions_alone(arch: str) -> None:
    model = create(arch, 12)
    decayed, free = decay_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim > 1 for p in decayed["params"])
    left = {names[id(p)] for p in free["params"]}
    assert len(decayed["params"]) + len(left) == len(names)
    assert arch == "resnet10" or {"cls_token", "pos_embed"} <= left
