"""What is known before a run: availability, subsets, resolved configs, refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import DataMissing, UserError
from harness.plugins.suite import NotPlanned
from suites.ade20k import ADE20K
from suites.coco import Coco
from suites.perception import bridge
from suites.perception.ade import ade_cost
from suites.perception.arches import ARCHES
from suites.perception.backbone import toolbox_state
from suites.perception.cards import COCO_IDS, COCO_NAMES, AdeCard, CocoCard, ade_classes, coco_classes
from suites.perception.coco import coco_cost
from suites.perception.configs import ade_config, coco_config
from suites.perception.jobs import Places, Target
from suites.perception.provenance import config_hash
from suites.perception.settings import AdeSettings, CocoSettings
from suites.perception.subsets import subset, subset_hash

PACKAGES = ("mmcv", "mmengine", "mmdet", "mmseg", "pycocotools")
RESNET50 = Target(ARCHES["resnet50"], COCO_NAMES)
ADE20K_CARD = AdeCard()
GOLDEN_IDS = ("7", "4", "9")
GOLDEN_ADE = "186c5c390676134e8353ad2bb459459df16dd3daaf0580a2ea1e79793514bbaa"
GOLDEN_COCO = "445c5e743337c4b85737d6ef3788b3ceac3c74b8f34fd552263619f81f18cff2"


def test_without_toolboxes_the_suites_are_not_planned_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any of the packages the suites are listed as not planned, and a run says what to install."""
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    assert bridge.missing_packages() == PACKAGES
    for suite in (Coco(), ADE20K()):
        with pytest.raises(NotPlanned, match=r"mmdet 3\.3\.0"):
            suite.items(suite.Settings(), "resnet50")
    with pytest.raises(UserError) as caught:
        bridge.install()
    assert "mmdet" in caught.value.why and "mmsegmentation 1.2.2" in caught.value.fix


def test_importing_and_planning_load_neither_torch_nor_a_toolbox() -> None:
    """Importing the suites and planning them loads neither torch nor a toolbox."""
    code = (
        "import sys, harness, suites.coco, suites.ade20k\n"
        "for suite in (suites.coco.Coco(), suites.ade20k.ADE20K()):\n"
        "    try: suite.items(suite.Settings(), 'resnet10'); suite.protocol(suite.Settings())\n"
        "    except harness.api.NotPlanned: pass\n"
        f"print([m for m in ('torch', 'pandas', *{PACKAGES!r}) if m in sys.modules])"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", "import harness.api\n" + code], env=os.environ | {"PYTHONPATH": root}, cwd=root,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_perception_vit_is_not_planned() -> None:
    """A transformer gets a dash with the reason, an unknown convolutional network the list of known ones."""
    with pytest.raises(NotPlanned, match="planned for convolutional backbones"):
        Coco().items(CocoSettings(), "vit_pico")
    with pytest.raises(NotPlanned, match="resnet50d"):
        ADE20K().items(AdeSettings(), "resnet50d")


def test_perception_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item per fraction, subset seed and training seed; three training seeds at the two small fractions."""
    monkeypatch.setattr("suites.perception.stages.missing_packages", tuple)
    items = Coco().items(CocoSettings(), "resnet50")
    planned = [(item.params["fraction"], item.probe_seed) for item in items]
    assert planned == [(1.0, 0), (0.5, 0), *((f, s) for f in (0.2, 0.1) for s in range(3))]
    assert all(item.resources.isolated for item in items)
    assert [item.resources.time_fraction for item in items] == [item.params["fraction"] for item in items]
    several = ADE20K().items(AdeSettings(subset_seeds=(0, 5), fractions=(1.0, 0.1)), "resnet50")
    assert [(item.params["fraction"], item.params["subset_seed"], item.probe_seed) for item in several] == [
        (1.0, 0, 0), *((0.1, subset, seed) for subset in (0, 5) for seed in range(3)),
    ]  # fmt: skip


def test_subsets_have_their_sizes_nest_and_never_change() -> None:
    """Sizes, nesting and golden hashes of the hash-ordered subsets."""
    coco, ade = range(118_287), [f"ADE_train_{i:08d}" for i in range(1, 20_211)]
    for ids, sizes in ((coco, (59_144, 23_657, 11_829)), (ade, (10_105, 4_042, 2_021))):
        half, fifth, tenth = (subset(ids, fraction, 0) for fraction in (0.5, 0.2, 0.1))
        assert (len(half), len(fifth), len(tenth)) == sizes
        assert set(tenth) < set(fifth) < set(half)
        assert half[: len(tenth)] == tenth
    assert subset(reversed(range(50)), 0.2, 0) == subset(range(50), 0.2, 0) != subset(range(50), 0.2, 1)
    assert set(subset(coco, 1.0, 5)) == {str(i) for i in coco}
    assert subset(range(10), 0.3, 0) == GOLDEN_IDS
    assert subset_hash(subset(ade, 0.1, 0)) == GOLDEN_ADE
    assert subset_hash(subset(coco, 0.1, 0)) == GOLDEN_COCO
    with pytest.raises(ValueError, match="fraction"):
        subset(range(3), 0.0, 0)


def test_a_tenth_of_the_data_shortens_the_ade20k_schedule_and_not_the_coco_one() -> None:
    """At 0.1 the ADE20K run has 16,000 iterations and horizon; the COCO config knows no fraction but the list."""
    target = Target(ARCHES["resnet50"], tuple(str(i) for i in range(150)))
    tenth = ade_config(AdeSettings(), ADE20K_CARD, target, Places(), 0, 0.1)
    assert tenth["train_cfg"]["max_iters"] == 16_000
    assert [(s["type"], s["end"], s["power"], s["eta_min"]) for s in tenth["param_scheduler"]] == [
        ("PolyLR", 16_000, 0.9, 1e-4)
    ]
    assert ade_config(AdeSettings(), ADE20K_CARD, target, Places(), 0, 1.0)["train_cfg"]["max_iters"] == 160_000
    whole, part = (
        coco_config(CocoSettings(), CocoCard(), RESNET50, Places(train_list=name), 0) for name in ("a.json", "b.json")
    )
    assert whole["train_dataloader"]["dataset"].pop("ann_file") == "a.json"
    assert part["train_dataloader"]["dataset"].pop("ann_file") == "b.json"
    assert whole == part and config_hash(whole) == config_hash(part)


def test_named_recipes_have_the_published_schedules_and_explicit_keys_win() -> None:
    """The named recipes have the published schedules and optimizers; explicit keys win over the recipe."""
    config = coco_config(CocoSettings(), CocoCard(), RESNET50, Places(), 0)
    assert config["train_cfg"]["max_epochs"] == 24
    assert config["param_scheduler"][1]["milestones"] == [16, 22]
    assert config["param_scheduler"][0]["start_factor"] == 0.001 and config["param_scheduler"][0]["end"] == 500
    assert config["optim_wrapper"]["optimizer"] == {"type": "SGD", "lr": 0.02, "weight_decay": 1e-4, "momentum": 0.9}
    short = CocoSettings(recipe="sgd-1x")
    assert (short.epochs, short.milestones) == (12, (8, 11))
    adamw = coco_config(CocoSettings(recipe="adamw-1x"), CocoCard(), RESNET50, Places(), 0)["optim_wrapper"]
    assert adamw["optimizer"] == {"type": "AdamW", "lr": 2e-4, "weight_decay": 0.05, "betas": (0.9, 0.999)}
    assert adamw["paramwise_cfg"] == {"norm_decay_mult": 0.0}
    assert CocoSettings(recipe="adamw-1x", epochs=3).epochs == 3
    assert AdeSettings(recipe="sgd-1x").total_iterations(1.0) == 80_000
    small = coco_config(CocoSettings(batch_size=4), CocoCard(), RESNET50, Places(), 0)
    assert small["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(0.005)
    warm = ade_config(AdeSettings(recipe="adamw-1x"), ADE20K_CARD, RESNET50, Places(), 0, 1.0)["param_scheduler"]
    assert [(s["type"], s["begin"], s["end"]) for s in warm] == [("LinearLR", 0, 1500), ("PolyLR", 1500, 160_000)]


def stock(package: str, name: str) -> dict[str, Any]:
    """Read one of the toolbox's own base configs, a plain Python file, without importing the toolbox."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return runpy.run_path(str(Path(spec.submodule_search_locations[0]) / ".mim/configs/_base_" / name))


def plain(value: Any) -> Any:
    """Return a config with tuples as lists."""
    return json.loads(json.dumps(value))


def test_the_detection_config_is_mmdets_own() -> None:
    """The default detection config is mmdet's own but for the backbone file and the dumped evaluation."""
    config = coco_config(CocoSettings(), CocoCard(), RESNET50, Places(), 0)
    model = stock("mmdet", "models/mask-rcnn_r50_fpn.py")["model"]
    extra = {"strides", "dilations", "init_cfg"}
    ours, theirs = dict(config["model"]), dict(model)
    backbone = {k: v for k, v in ours.pop("backbone").items() if k not in extra}
    assert plain(backbone) == plain({k: v for k, v in theirs.pop("backbone").items() if k not in extra})
    assert plain(ours) == plain(theirs)
    schedule = stock("mmdet", "schedules/schedule_2x.py")
    assert plain(config["param_scheduler"]) == plain(schedule["param_scheduler"])
    assert config["optim_wrapper"]["optimizer"] == schedule["optim_wrapper"]["optimizer"]
    data = stock("mmdet", "datasets/coco_instance.py")
    loader, dataset = data["train_dataloader"], data["train_dataloader"]["dataset"]
    mine = config["train_dataloader"]["dataset"]
    assert mine["filter_cfg"] == dataset["filter_cfg"]
    steps = [{k: v for k, v in step.items() if k != "backend_args"} for step in dataset["pipeline"]]
    assert plain(mine["pipeline"]) == plain(steps)
    assert config["train_dataloader"]["batch_sampler"] == loader["batch_sampler"]


def test_the_segmentation_config_is_mmsegmentations_own_but_for_resnet() -> None:
    """The default segmentation config is mmsegmentation's own but for ResNet in place of V1c and 150 classes."""
    target = Target(ARCHES["resnet50"], tuple(str(i) for i in range(150)))
    config = ade_config(AdeSettings(), ADE20K_CARD, target, Places(), 0, 1.0)
    theirs = stock("mmseg", "models/upernet_r50.py")["model"]
    ours = plain(config["model"])
    backbone = ours.pop("backbone")
    assert backbone.pop("init_cfg") == {"type": "Pretrained", "checkpoint": "<backbone>"}
    expected = plain({**theirs, "pretrained": None})
    expected["data_preprocessor"]["size"] = [512, 512]
    for head in ("decode_head", "auxiliary_head"):
        expected[head]["num_classes"] = 150
    assert backbone == {**expected.pop("backbone"), "type": "ResNet"}
    assert ours == expected
    data = stock("mmseg", "datasets/ade20k.py")
    assert plain(config["train_dataloader"]["dataset"]["pipeline"]) == plain(data["train_pipeline"])
    assert plain(config["val_dataloader"]["dataset"]["pipeline"]) == plain(data["test_pipeline"])
    schedule = stock("mmseg", "schedules/schedule_160k.py")
    assert plain(config["param_scheduler"]) == plain(schedule["param_scheduler"])
    assert plain(config["optim_wrapper"]) == plain(schedule["optim_wrapper"])


def test_perception_cost() -> None:
    """The printed cost is the published iteration count."""
    assert coco_cost(CocoSettings(), 117_266).iterations == 24 * 7_330
    assert coco_cost(CocoSettings(), 11_730).iterations == 17_616
    assert ade_cost(AdeSettings(), 0.2).iterations == 32_000
    assert "160,000 iterations" in ade_cost(AdeSettings(), 1.0).text()


def test_perception_constant_iterations() -> None:
    """The secondary option keeps the updates at small fractions: all iterations, or more epochs with their steps."""
    ade, coco = AdeSettings(constant="iterations"), CocoSettings(constant="iterations").at(0.1)
    assert ade.total_iterations(0.1) == 160_000 and ade.checkpoint_interval(0.1) == 16_000
    assert (coco.epochs, coco.milestones, coco.checkpoint_epochs) == (240, (160, 220), 10)
    assert coco_cost(coco, 11_730).iterations == 240 * 734
    assert CocoSettings().at(0.1) == CocoSettings() and AdeSettings().checkpoint_interval(0.1) == 1_600


def test_perception_plan_shows_the_cost(tmp_path: Path) -> None:
    """Before a run the plan says iterations and pictures of every kind of run, and minutes that scale with the fraction."""
    import timm
    import torch

    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "net.pth")
    for name in ("coco", "ade20k"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "plan", "--profile", "in1k", "--checkpoint", str(tmp_path / "net.pth"),
         "--arch", "resnet18", "--classes", "imagenet1k", "--suite", "coco,ade20k", "--store", str(tmp_path / "store"),
         *(part for name in ("coco", "ade20k") for part in ("--data", f"{name}={tmp_path / name}")), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["costs"]["coco@1: 175,920 iterations, 2,814,384 pictures, 3,001,259 megapixels"] == 1
    done = subprocess.run([*done.args[:-1]], capture_output=True, text=True, check=True)
    assert any(line.split()[:2] == ["import", "1"] for line in done.stdout.splitlines()), (
        "bringing in weights is no pre-training"
    )
    shown = [line.split(" x ")[1].partition(":")[0] for line in done.stdout.splitlines() if " x " in line]
    assert shown == [f"{task}@{f}" for task in ("coco", "ade20k") for f in (1, 0.5, 0.2, 0.1)], "by suite and fraction"
    small = {what.partition(":")[0]: number for what, number in facts["costs"].items()}
    assert small == {f"{task}@{f}": 3 if f < 0.5 else 1 for task in ("coco", "ade20k") for f in (1, 0.5, 0.2, 0.1)}
    (row,) = (row for row in facts["kinds"] if row["kind"] == "evaluate")
    assert row["minutes"] == pytest.approx((2400 + 900) * (1 + 0.5 + 3 * 0.2 + 3 * 0.1), abs=0.1)


def test_perception_cards(tmp_path: Path) -> None:
    """The public card has 80 categories with ids up to 90; other lists, tables and empty folders are refused."""
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == 80 and COCO_IDS[-1] == 90
    assert dict(CocoCard().classes or ())[44] == "bottle"
    with pytest.raises(UserError, match="category list"):
        coco_classes({"categories": [{"id": 1, "name": "person"}]}, CocoCard())
    with pytest.raises(DataMissing):
        ade_classes(tmp_path, ADE20K_CARD)
    table = tmp_path / "objectInfo150.txt"
    table.write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t5\t5\t1\twall\n2\t0.1\t5\t5\t1\tbuilding, edifice\n")
    with pytest.raises(UserError, match="number of classes"):
        ade_classes(tmp_path, ADE20K_CARD)
    assert ade_classes(tmp_path, ADE20K_CARD.model_copy(update={"n_classes": 2})) == ("wall", "building, edifice")
    table.write_text("Idx\tName\n" + "".join(f"{i}\tclass {i}\n" for i in range(1, 256)))
    with pytest.raises(UserError, match="too many classes"):  # the label of the last one would mean unlabelled
        ade_classes(tmp_path, ADE20K_CARD.model_copy(update={"n_classes": None}))
    table.write_text("Idx\tName\n2\twall\n1\tfloor\n")
    with pytest.raises(UserError, match="not numbered"):
        ade_classes(tmp_path, ADE20K_CARD)


def test_backbone_keys_are_unwrapped_renamed_and_clashes_refused() -> None:
    """Wrapper prefixes go, only the classifier is dropped, the stem is renamed, clashes are refused."""
    import torch

    wrapped = {"module._orig_mod.conv1.weight": torch.ones(1), "module._orig_mod.fc.bias": torch.ones(1)}
    assert list(toolbox_state(wrapped, ARCHES["resnet50"])) == ["conv1.weight"]
    state = {"conv1.6.weight": torch.zeros(1), "bn1.bias": torch.zeros(1), "maxpool.0.weight": torch.zeros(1)}
    assert list(toolbox_state(state, ARCHES["resnet10"])) == ["stem.6.weight", "stem.7.bias", "maxpool.0.weight"]
    with pytest.raises(UserError, match="ambiguous"):
        toolbox_state({"conv1.weight": torch.zeros(1), "model.conv1.weight": torch.zeros(1)}, ARCHES["resnet50"])
