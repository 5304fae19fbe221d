"""Classifiers that a function returns: the shipped ones give their library's logits, and workers measure one's own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import harness as package
from harness.backbones.live import live_info
from harness.backbones.loaded import ClassifierSpec, CodeSource, identity_of, made_again
from harness.cli.classifier import planned
from harness.core.errors import DataMissing, UserError
from harness.core.resources import cache_folder
from harness.microworld.towers import clip_folder
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.results.subject import Wishes, prepared
from harness.run.job import Job, execute

Run = Callable[..., Any]
MODULE = """
import torch
from harness.api import ClassifierSpec

class Colours(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.scale = torch.nn.Linear(3, 12), scale

    def forward(self, images):
        return self.scale * self.head(images.mean((2, 3)))

def make(scale=1.0):
    return ClassifierSpec(Colours(scale), classes="micro", name="colours", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), image_size=64,
                          facts={"scale": scale})

def plain():
    model = Colours(1.0).eval()
    return lambda images: model(images)

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""
CLIP = f"local-dir:{clip_folder('base')}"
PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def four(tmp_path: Path) -> str:
    """Return a class list of four classes."""
    (tmp_path / "four.txt").write_text("".join(f"c{i} thing {i}\n" for i in range(4)))
    return str(tmp_path / "four.txt")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module of one's own, in a folder that is looked in last."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


def made(function: str, classes: str = "", where: Path | None = None, **settings: Any) -> ClassifierSpec:
    """Return what a function makes."""
    return CodeSource(function, settings, classes, str(where or "")).make()


def logits(spec: ClassifierSpec, pixels: torch.Tensor) -> torch.Tensor:
    """Return the logits of pixels in [0, 1] as the harness feeds a module."""
    assert spec.mean is not None and spec.std is not None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    with torch.no_grad():
        return spec.model((pixels - mean) / std)


# --- shipped classifiers ------------------------------------------------------------------------------------------------


def test_open_clip_compares_images_with_the_mean_embedding_of_the_prompts() -> None:
    import open_clip

    from harness.core.classes import load_classes

    templates = ["photo of {}", "a {}."]
    spec = made("harness.classifiers:open_clip", "micro", model=CLIP, templates=templates)
    clip, tokenizer = open_clip.create_model(CLIP).eval(), open_clip.get_tokenizer(CLIP)
    names = load_classes("micro").names
    with torch.no_grad():
        parts = torch.stack(
            [clip.encode_text(tokenizer([t.format(n) for n in names]), normalize=True) for t in templates]
        )
        text = torch.nn.functional.normalize(parts.mean(0), dim=-1)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.visual.image_mean, clip.visual.image_std))
        expected = clip.logit_scale.exp() * clip.encode_image((PIXELS - mean) / std, normalize=True) @ text.T
    torch.testing.assert_close(logits(spec, PIXELS), expected, rtol=1e-5, atol=1e-4)
    assert (spec.image_size, spec.crop) == (64, 1.0) and spec.facts["templates"] == templates
    assert spec.facts["names"] == "class list micro" and len(spec.facts["names_hash"]) == 16


def test_the_identity_of_a_zero_shot_classifier_follows_weights_templates_and_names(tmp_path: Path) -> None:
    from harness.core.classes import load_classes

    (tmp_path / "names.txt").write_text("".join(f"drawing of {name}\n" for name in load_classes("micro").names))
    variants: list[Mapping[str, Any]] = [
        {}, {}, {"templates": ["photo of {}"]}, {"names": str(tmp_path / "names.txt")}, {"model": f"local-dir:{clip_folder('large')}"}
    ]  # fmt: skip
    found = [
        identity_of(made("harness.classifiers:open_clip", "micro", **{"model": CLIP, **each}).model, "", "")
        for each in variants
    ]
    assert found[0] == found[1] and len(set(found)) == 4


def test_prompts_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("only one\n")
    for settings, words in (({"templates": ["no place"]}, "no place for a name"), ({"names": str(tmp_path / "names.txt")}, "class list"),
                            ({"names": str(tmp_path / "none.txt")}, "cannot be read")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            made("harness.classifiers:open_clip", "micro", model=CLIP, **settings)


def test_torchvision_is_measured_by_its_own_code_and_inputs(tmp_path: Path, four: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    net = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=4).eval()
    state = {
        f"module.{key}": value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    torch.save({"model": state, "epoch": 3}, tmp_path / "w.pth")
    spec = made("harness.classifiers:torchvision", four, arch="shufflenet_v2_x0_5", weights=str(tmp_path / "w.pth"))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(logits(spec, PIXELS), net((PIXELS - mean) / std), rtol=1e-5, atol=1e-5)
    assert (spec.image_size, spec.interpolation, spec.crop) == (224, "bilinear", 0.875)
    for settings, words in (({"arch": "shufflenet_v2_x05"}, "did you mean 'shufflenet_v2_x0_5'"), ({"recipe": "V3"}, "IMAGENET1K_V1"),
                            ({"arch": "squeezenet1_1"}, "missing")):  # fmt: skip
        with pytest.raises(UserError) as caught:
            options = {"arch": "shufflenet_v2_x0_5", "weights": str(tmp_path / "w.pth"), **settings}
            made("harness.classifiers:torchvision", four, **options)
        assert words in str(caught.value)


def test_the_name_of_a_published_file_says_which_recipe_feeds_it(tmp_path: Path) -> None:
    """resnet50-0676ba61.pth is V1 (256 to 224 px); V2, torchvision's default, resizes to 232."""
    from torchvision.models import ResNet50_Weights

    from harness.classifiers import _recipe

    found = {
        name: _recipe(ResNet50_Weights, "resnet50", tmp_path / name, "") for name in ("resnet50-0676ba61.pth", "w.pth")
    }
    assert found["resnet50-0676ba61.pth"] == (
        "IMAGENET1K_V1",
        "torchvision's resnet50 IMAGENET1K_V1, by the name of the file",
    )
    recipe, origin = found["w.pth"]
    assert recipe == "DEFAULT" and "IMAGENET1K_V2, by default: recipes IMAGENET1K_V1 (256 to 224 px)" in origin
    assert _recipe(ResNet50_Weights, "resnet50", tmp_path / "w.pth", "IMAGENET1K_V1")[0] == "IMAGENET1K_V1"
    with pytest.raises(UserError, match="is not IMAGENET1K_V2") as caught:
        _recipe(ResNet50_Weights, "resnet50", tmp_path / "resnet50-0676ba61.pth", "IMAGENET1K_V2")
    assert "publishes IMAGENET1K_V1" in caught.value.why


def test_the_inputs_of_a_recipe_are_those_of_the_file_and_their_origin_is_printed(tmp_path: Path, four: str) -> None:
    from torchvision import models

    weights = tmp_path / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save(models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=4).state_dict(), weights)
    spec = made("harness.classifiers:torchvision", four, arch="shufflenet_v2_x0_5", weights=str(weights))
    assert spec.facts == {"inputs": "torchvision shufflenet_v2_x0_5 IMAGENET1K_V1"}
    with prepared(spec, load_profile("micro").profile, tmp_path, Wishes(four, {}, name="mine")) as found:
        assert "crop 0.875 (torchvision's shufflenet_v2_x0_5 IMAGENET1K_V1, by the name of the file)" in found.notes[0]


def test_torchvisions_classes_in_another_order_and_a_size_of_another_recipe_are_refused(
    tmp_path: Path, four: str
) -> None:
    from torchvision import models

    net = models.get_model("vit_b_32", weights=None, num_classes=4)
    torch.save({"model": net.state_dict(), "classes": ["c3", "c2", "c1", "c0"]}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not in the order of the head"):
        made("harness.classifiers:torchvision", four, arch="vit_b_32", weights=str(tmp_path / "w.pth"))
    large = models.get_model("vit_b_32", weights=None, num_classes=4, image_size=384)
    torch.save(large.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="do not fit") as caught:
        made("harness.classifiers:torchvision", four, arch="vit_b_16", weights=str(tmp_path / "w.pth"))
    assert "IMAGENET1K_SWAG_E2E_V1 (384 to 384 px)" in caught.value.fix and "classifier.recipe" in caught.value.fix


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_networks_that_transform_their_inputs_do_so_as_with_the_published_weights(
    arch: str, tmp_path: Path, four: str
) -> None:
    from torchvision import models

    net = models.get_model(arch, weights=None, num_classes=4, init_weights=False, transform_input=True).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    settings = {"arch": arch, "weights": str(tmp_path / "w.pth")}
    spec = made("harness.classifiers:torchvision", four, **settings)
    other = made("harness.classifiers:torchvision", four, **settings, transform_input=False)
    torch.testing.assert_close(spec.model._transform_input(PIXELS), net._transform_input(PIXELS))
    assert not torch.equal(other.model._transform_input(PIXELS), net._transform_input(PIXELS))
    assert (spec.facts["transform_input"], other.facts["transform_input"]) == (True, False)


def test_transformers_is_measured_by_its_own_code_and_inputs(tmp_path: Path, four: str) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
                       num_labels=4)  # fmt: skip
    torch.manual_seed(0)
    net = ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "vit")
    with pytest.raises(DataMissing, match="no whole folder"):
        made("harness.classifiers:transformers", four, folder=str(tmp_path / "vit"))
    feed = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "size": {"height": 32, "width": 32}, "resample": 3}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(feed))
    spec = made("harness.classifiers:transformers", four, folder=str(tmp_path / "vit"))
    pixels = PIXELS[..., :32, :32]
    with torch.no_grad():
        torch.testing.assert_close(logits(spec, pixels), net((pixels - 0.4) / 0.3).logits, rtol=1e-5, atol=1e-5)
    assert (spec.image_size, spec.interpolation, spec.crop) == (32, "bicubic", 1.0)
    assert len(identity_of(spec.model, "", "")) == 64
    with pytest.raises(UserError, match="class list does not fit"):
        made("harness.classifiers:transformers", "micro", folder=str(tmp_path / "vit"))
    written = json.loads((tmp_path / "vit" / "config.json").read_text())
    written["id2label"] = {place: f"thing {3 - place}" for place in range(4)}
    (tmp_path / "vit" / "config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="not in the order of the head"):
        made("harness.classifiers:transformers", four, folder=str(tmp_path / "vit"))


def test_networks_with_a_distilled_head_are_classifiers_too() -> None:
    from transformers import AutoModelForImageClassification, DeiTForImageClassificationWithTeacher

    from harness.classifiers import _class_of

    config = {"architectures": ["DeiTForImageClassificationWithTeacher"]}
    assert _class_of(config, AutoModelForImageClassification) is DeiTForImageClassificationWithTeacher


def test_weights_of_other_libraries_that_are_no_numbers_are_refused(tmp_path: Path, four: str) -> None:
    import shutil

    from safetensors.torch import load_file, save_file
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=4)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "preprocessor_config.json").write_text("{}")
    clip = Path(shutil.copytree(clip_folder("base"), tmp_path / "clip"))
    changes: Any = ((tmp_path / "net" / "model.safetensors", "running_var", -1.0, "negative variances"),
                    (tmp_path / "net" / "model.safetensors", "running_var", float("nan"), "no numbers"),
                    (tmp_path / "net" / "model.safetensors", "running_var", 3, "int8 in the place of weights"),
                    (clip / "open_clip_model.safetensors", "logit_scale", float("nan"), "no numbers"),
                    (clip / "open_clip_model.safetensors", "logit_scale", 3, "int8 in the place of weights"))  # fmt: skip
    for path, word, value, message in changes:
        state = load_file(path)
        key = next(key for key in state if key.endswith(word))
        kind = torch.int8 if isinstance(value, int) else torch.float32
        save_file({**state, key: torch.full_like(state[key], value, dtype=kind)}, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=message):
            if path.parent == clip:
                made("harness.classifiers:open_clip", "micro", model=f"local-dir:{clip}")
            else:
                made("harness.classifiers:transformers", four, folder=str(path.parent))


@pytest.mark.parametrize("module", [True, False])
def test_a_classifier_that_does_not_crop_the_centre_is_a_warning_that_is_recorded(module: bool, tmp_path: Path) -> None:
    from harness.backbones.live import find_live

    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 12)).eval()
    feed: Any = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if module else {}
    spec = ClassifierSpec(net if module else lambda images: net(images), classes="micro", crop_mode="squash", **feed)
    with prepared(spec, load_profile("micro").profile, tmp_path, Wishes("", {}, name="mine")) as found:
        assert found.warnings == ("the ClassifierSpec asks for crop mode squash; the suites crop the centre",)
        assert find_live(found.identity).info.warnings == found.warnings


@pytest.mark.parametrize(("stated", "mode"), [("squash", "squash"), ("longest", "border"), ("shortest", "center")])
def test_the_resize_mode_of_open_clip_is_the_crop_mode(stated: str, mode: str, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(clip_folder("base"), tmp_path / "clip"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = stated
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert made("harness.classifiers:open_clip", "micro", model=f"local-dir:{folder}").crop_mode == mode


# --- functions of one's own ---------------------------------------------------------------------------------------------


def test_a_process_that_does_not_hold_the_classifier_makes_it_again(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker gets is the plan as JSON: it makes the same classifier, and measures what Python measures."""
    monkeypatch.chdir(tmp_path)
    with planned(f"{own}:make", tmp_path / "s", "", "", (), ["classifier.scale=2.0"], {}) as (profile, subject):
        plan = Planner(Selection(profile, suites="texture-bias", external=subject), store=tmp_path / "s").build()
    assert {cell.shown_kind for cell in plan.cells.values()} == {"import", "evaluate"}
    for cell in plan.cells.values():
        job = Job(cell, plan.inputs(cell), plan.sources_of(cell), str(tmp_path / "s"))
        execute(Job.from_dict(json.loads(json.dumps(job.to_dict()))))
    results = package.evaluate(
        made(f"{own}:make", where=tmp_path, scale=2.0), suites="texture-bias", store=tmp_path / "t"
    )
    mine, theirs = (next((tmp_path / name).glob("evaluate/*/rows.parquet")) for name in ("s", "t"))
    assert mine.read_bytes() == theirs.read_bytes()
    record = json.loads(mine.with_name("record.json").read_text())
    assert record["subject"]["network"]["recipe"] == {"entry": "", "scale": 2.0}
    assert record["subject"]["generator"] == results.name


@pytest.mark.slow
def test_workers_measure_a_function_of_ones_own(harness: Run, tmp_path: Path, own: str) -> None:
    arguments = ("--classifier", f"{own}:make", "--set", "classifier.scale=2.0", "--suite", "texture-bias", "--store")
    cache = {"HARNESS_CACHE": str(cache_folder())}
    done = harness("run", *arguments, "s", "--device", "cpu", **cache)
    assert done.returncode == 0, done.stderr
    assert "import colours" in done.stderr and "pretrain colours" not in done.stderr
    assert f"64 px ({own}:make)" in done.stderr
    again = harness("plan", *arguments, "s", "--json", **cache)
    assert {row["kind"]: (row["cells"], row["done"]) for row in json.loads(again.stdout)["kinds"] if row["cells"]} == {
        "import": (1, 1), "evaluate": (1, 1)}  # fmt: skip


def test_the_function_of_the_manual_is_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text("utf-8")
    (tmp_path / "of_the_manual.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.setattr("sys.path", [*sys.path])
    spec = made("of_the_manual:mine", where=tmp_path, scale=2.0)
    assert logits(spec, PIXELS).shape == (2, 12) and spec.classes == "micro"


def test_a_function_that_cannot_be_used_is_refused_with_its_reason(own: str, tmp_path: Path) -> None:
    for function, settings, words in (
        ("make", {"scael": 2}, ("does not take these settings", "its settings: scale")),
        ("broken", {}, ("broken failed", "RuntimeError: no weights here")),
        ("number", {}, ("returned a int", "ClassifierSpec")),
        ("nothing", {}, ("cannot load", "nothing")),
    ):
        with pytest.raises(UserError) as caught:
            made(f"{own}:{function}", where=tmp_path, **settings)
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(UserError, match="no colon"):
        made("harness.classifiers")
    with pytest.raises(UserError, match="needs a class list"):
        made("harness.classifiers:open_clip", model=CLIP)


def test_a_function_that_makes_another_model_each_time_is_noticed(own: str, tmp_path: Path) -> None:
    source = CodeSource(f"{own}:make", {"scale": 1.0}, "", str(tmp_path))
    info = live_info(
        "Colours", ["a"], {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 64, "interpolation": "bicubic"}, {}, ()
    )
    identity = identity_of(source.make().model, "", "")
    assert made_again(source, identity, info).identity == identity
    with pytest.raises(UserError, match="another classifier than when"):
        made_again(CodeSource(**{**asdict(source), "settings": {"scale": 2.0}}), identity, info)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "w.pth"], "--checkpoint and --classifier do not go together"),
        (["--arch", "resnet18"], "--arch and --classifier do not go together"),
        ([], "--classifier needs --classes"),
    ],
)
def test_options_that_contradict_a_classifier_are_refused(
    arguments: list[str], words: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from harness.cli.main import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plan", "--classifier", f"{own}:plain", *arguments])
    assert isinstance(done.exception, UserError) and words in done.exception.what
    assert not os.path.exists("store")
