"""How a checkpoint from outside is fed: the order of the sources, the origin of every value, and what contradicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.backbones.preprocessing import SMALL_NETWORKS, Preprocessing, resolve
from harness.core.errors import UserError
from harness.core.normalisation import KNOWN

LITE = "timm's pretrained_cfg of tf_efficientnet_lite0.in1k"


def test_the_small_networks_are_those_that_timm_does_not_know() -> None:
    from harness.backbones.models import SMALL

    assert tuple(SMALL) == SMALL_NETWORKS


def test_defaults_are_what_timm_states_of_the_architecture() -> None:
    found = resolve("tf_efficientnet_lite0", None, {})
    assert found.values == Preprocessing(*KNOWN["half"], 224, "bicubic", 0.875, "fp32")
    assert {found.origins[name] for name in ("mean", "std", "image_size", "interpolation", "crop")} == {LITE}
    assert found.line == f"input: mean 0.5, std 0.5, 224 px, bicubic, crop 0.875 ({LITE}); fp32 (default)"
    assert found.warnings == ()
    assert resolve("tf_efficientnet_lite2", None, {}).values == Preprocessing(*KNOWN["half"], 260, "bicubic", 0.89)


def test_a_tag_chooses_the_entry_and_the_size_of_the_stimuli_is_preferred() -> None:
    default, v2 = (resolve(arch, None, {}) for arch in ("resnet50", "resnet50.tv2_in1k"))
    assert (default.values.image_size, default.values.crop, default.values.interpolation) == (224, 0.95, "bicubic")
    assert (v2.values.image_size, v2.values.crop, v2.values.interpolation) == (224, 0.965, "bilinear")
    assert v2.origins["mean"] == "timm's pretrained_cfg of resnet50.tv2_in1k"
    with pytest.raises(UserError, match="no weights") as caught:
        resolve("resnet50.tv3_in1k", None, {})
    assert "'tv2_in1k'" in caught.value.fix


def test_a_flag_comes_first_and_what_it_contradicts_is_said() -> None:
    mean, std = KNOWN["imagenet"]
    found = resolve("tf_efficientnet_lite0", None, {"mean": mean, "std": std, "image_size": 224, "precision": "bf16"})
    assert found.values.mean == mean and found.values.precision == "bf16"
    assert found.origins["mean"] == "--normalisation" and found.origins["crop"] == LITE
    assert found.warnings == (
        f"mean 0.485,0.456,0.406 (--normalisation) instead of mean 0.5 ({LITE})",
        f"std 0.229,0.224,0.225 (--normalisation) instead of std 0.5 ({LITE})",
    )
    for flags, words in (({"image_size": 160}, "160 px (--image-size)"), ({"crop": 0.9}, "crop 0.9 (--crop)"),
                         ({"interpolation": "bilinear"}, "bilinear (--interpolation)")):  # fmt: skip
        (line,) = resolve("tf_efficientnet_lite0", None, flags).warnings
        assert line.startswith(words)


@pytest.mark.parametrize("flags", [{"crop": 1.5}, {"crop": -0.1}, {"interpolation": "cubic"}, {"precision": "fp16"}])
def test_impossible_values_are_refused(flags: dict[str, object]) -> None:
    with pytest.raises(UserError):
        resolve("resnet10", None, flags)


def test_networks_of_this_project_take_the_recipe_or_a_default_that_is_named() -> None:
    found = resolve("resnet10", None, {}, {"image_size": 64})
    assert found.values.image_size == 64 and found.origins["image_size"] == "the profile's recipe"
    assert resolve("resnet10", None, {}).origins["mean"] == "default"
    assert resolve("resnet10", None, {"image_size": 96}, {"image_size": 64}).warnings == (
        "96 px (--image-size) instead of 64 px (the profile's recipe)",
    )
    untrained = resolve("vit_small_patch16_224", None, {}, {"mean": KNOWN["imagenet"][0]}, trained=False)
    assert untrained.values.mean == KNOWN["imagenet"][0]
    assert resolve("vit_small_patch16_224", None, {}, {"mean": KNOWN["imagenet"][0]}).values.mean == KNOWN["half"][0]


def test_what_timm_crops_otherwise_is_said() -> None:
    (line,) = resolve("eva02_base_patch14_448", None, {}).warnings
    assert "crop mode squash" in line


def test_a_backbone_folder_states_its_own_input(tmp_path: Path) -> None:
    facts = {"arch": "resnet50", "mean": [0.1] * 3, "std": [0.2] * 3, "image_size": 96, "interpolation": "bicubic"}
    (tmp_path / "backbone.json").write_text(json.dumps(facts))
    found = resolve("resnet50", tmp_path / "ema.safetensors", {})
    assert (
        found.values == Preprocessing((0.1,) * 3, (0.2,) * 3, 96) and found.origins["crop"] == "backbone.json beside it"
    )
    assert resolve("resnet50", tmp_path / "ema.safetensors", {"crop": 0.9}).warnings
    assert resolve("resnet50", tmp_path / "other.pth", {}).values.image_size == 224  # the file is not of this folder
    with pytest.raises(UserError, match="is a resnet50") as caught:
        resolve("resnet18", tmp_path / "ema.safetensors", {})
    assert caught.value.fix == "write --arch resnet50"


def test_a_recipe_of_the_profile_that_was_not_followed_is_said() -> None:
    """A backbone of the profile, copied away from its backbone.json, is fed as timm says; that may be wrong."""
    recipe = {"mean": KNOWN["imagenet"][0], "std": KNOWN["imagenet"][1], "image_size": 224}
    found = resolve("vit_small_patch16_224", None, {}, recipe)
    assert found.values.mean == KNOWN["half"][0] and len(found.warnings) == 2
    assert (
        found.warnings[0].startswith("mean 0.5 (timm's pretrained_cfg")
        and "--normalisation decides" in found.warnings[0]
    )
    mean, std = KNOWN["imagenet"]
    decided = resolve("vit_small_patch16_224", None, {"mean": mean, "std": std}, recipe)
    assert decided.values.mean == mean and all("--normalisation) instead of" in line for line in decided.warnings)
    assert resolve("resnet50", None, {}, recipe).warnings == ()


@pytest.mark.parametrize("arch", ["resnet5O", "timm/resnet50", "resnet11"])
def test_an_unknown_architecture_is_refused_at_once(arch: str) -> None:
    with pytest.raises(UserError, match="unknown architecture"):
        resolve(arch, None, {})


def test_every_interpolation_acts_in_the_suites_that_resize() -> None:
    from typing import get_args

    import numpy as np
    from PIL import Image

    from harness.backbones.preprocessing import Interpolation
    from suites.bias.images import Geometry
    from suites.transfer.transforms import eval_transform

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    probed, fed = set(), set()
    for name in get_args(Interpolation):
        pixels = eval_transform(16, 1.0, name)(picture)
        wanted = np.asarray(picture.resize((16, 16), Image.Resampling[name.upper()]))
        assert np.array_equal((pixels * 255).round().astype(np.uint8).transpose(1, 2, 0), wanted)
        scaled = Geometry("stored", 40, 16, name).apply(picture, "x")
        assert np.array_equal(scaled, wanted) and name in str(eval_transform(16, 1.0, name))
        probed.add(pixels.tobytes())
        fed.add(scaled.tobytes())
    assert len(probed) == len(fed) == 6
