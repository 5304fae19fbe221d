"""Real training and evaluation of both toolboxes on toy data (one program, started once; see ``toy_runs.py``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from suites.perception.metrics import ade_summary, arrange_ade, coco_summary


def read(folder: Path, name: str) -> Any:
    """Read one JSON file of a toy run."""
    return json.loads((folder / name).read_text())


def test_coco_trains_and_evaluates_on_twelve_pictures(toy: Path) -> None:
    """Two epochs on twelve pictures give rows for boxes and masks of all four validation pictures."""
    rows = pd.read_parquet(toy / "coco_out/rows.parquet")
    assert set(rows["iou_type"]) == {"bbox", "segm"} and set(rows["image_id"]) == {1, 2, 3, 4}
    assert rows[(rows["area"] == "all") & (rows["iou_type"] == "bbox")]["n_gt"].sum() == 5
    for kind in ("bbox", "segm"):
        assert 0.0 <= coco_summary(rows, kind)["AP"] <= 1.0
    facts = read(toy, "coco_out/provenance.json")
    assert facts["ops"].startswith(("torchvision ", "mmcv "))
    assert facts["seconds_per_iteration"] > 0 and facts["cost"]["iterations"] == 12
    assert "<root>" in json.dumps(facts["config"]) and str(toy) not in json.dumps(facts["config"])
    marks = read(toy, "coco_out/calls.json")["marks"]
    assert [mark[0] for mark in marks] == list(range(13)) and {mark[1] for mark in marks} == {12}


def test_ade20k_trains_and_evaluates_on_eight_pictures(toy: Path) -> None:
    """Six iterations on eight pictures give one row per validation picture and class, equal to mmseg's numbers."""
    rows = pd.read_parquet(toy / "ade_out/rows.parquet")
    assert len(rows) == 3 * 3 and set(rows["stem"]) == {f"ADE_val_{i:08d}" for i in (1, 2, 3)}
    # All pixels but the 10 x 10 corner of label 0.
    assert (rows.groupby("stem")["labelled"].sum() == 160 * 120 - 100).all()
    expected = read(toy, "counts.json")
    assert ade_summary(arrange_ade(rows)) == pytest.approx(expected, abs=1e-6)


def test_a_training_step_calls_nms_and_roi_align_as_often_as_it_should(toy: Path) -> None:
    """Per training step: one nms a picture; roi_align once per level for boxes and masks, once a picture for targets."""
    content = read(toy, "coco_out/calls.json")
    calls, marks = content["calls"], content["marks"]
    step = calls[marks[0][3] : marks[1][3]]
    assert sum(name == "nms" for name, _, _ in step) == 2
    forward = [(size, scale) for name, size, scale in step if name == "roi_align_forward"]
    backward = [(size, scale) for name, size, scale in step if name == "roi_align_backward"]
    assert forward.count((28, 1.0)) == 2
    pooled = [call for call in forward if call != (28, 1.0)]
    assert sorted(pooled) == sorted(backward) and len(set(pooled)) == len(pooled)
    assert {size for size, _ in pooled} == {7, 14} and {scale for _, scale in pooled} <= {1 / 4, 1 / 8, 1 / 16, 1 / 32}
    test = calls[marks[-1][3] :]
    assert sum(name == "nms" for name, _, _ in test) == 2 * 4
    assert not [name for name, _, _ in test if name == "roi_align_backward"]
    assert read(toy, "ade_out/calls.json")["calls"] == []


def test_mmcvs_wrapper_of_an_unsupported_operator_names_it(toy: Path) -> None:
    """mmcv's own wrapper of an unsupported operator fails when called, with the operator's name."""
    facts = read(toy, "operators.json")
    assert "softnms" in facts["softnms"] and facts["modulated"] is True


@pytest.mark.parametrize("toolbox", ["mmdet", "mmseg"])
def test_torchvisions_resnet50_fits_both_toolboxes(toy: Path, toolbox: str) -> None:
    """torchvision's ResNet50 fits the plain ResNet of both toolboxes; only the classifier is left over."""
    facts = read(toy, f"{toolbox}.json")
    assert facts["missing"] == [] and facts["unexpected"] == ["fc.bias", "fc.weight"]


def test_the_v1c_backbone_is_refused(toy: Path) -> None:
    """The stock V1c backbone misses 18 tensors, which the strict check refuses."""
    assert read(toy, "mmseg.json")["v1c"].startswith("18 missing: ")


@pytest.mark.parametrize("toolbox", ["mmdet", "mmseg"])
def test_a_run_does_not_go_on_from_a_checkpoint_that_lacks_a_tensor(toy: Path, toolbox: str) -> None:
    """mmengine would leave the tensor as it is in a new network, and log a line."""
    assert read(toy, f"{toolbox}.json")["checkpoint"] == ["1 missing: bn1.weight"]


@pytest.mark.parametrize("toolbox", ["mmdet", "mmseg"])
@pytest.mark.parametrize("arch", ["resnet10", "resnet18"])
def test_toolbox_backbones_compute_the_networks_own_features(toy: Path, toolbox: str, arch: str) -> None:
    """The toolbox backbone computes the classification network's feature maps."""
    facts = read(toy, f"{toolbox}.json")["features"]
    assert facts[arch] < 1e-5 and facts[f"{arch}_size"] > 0.1


def test_frozen_parts_stay_and_the_last_stage_moves(toy: Path) -> None:
    """After the run stem, pooling and first stage equal the input file, all statistics too; the last stage moved."""
    import torch

    given = torch.load(toy / "coco_out/backbone.pth", weights_only=True)
    after = load_file(toy / "coco_out/weights.safetensors")
    kept = [k for k in given if k.startswith(("stem.", "maxpool.", "layer1.")) or "running_" in k]
    assert len([k for k in kept if k.endswith("running_mean")]) == 4 + 4 * 2 + 4
    for key in kept:
        assert torch.equal(after[f"backbone.{key}"], given[key]), key
    assert not torch.equal(after["backbone.layer4.0.conv2.weight"], given["layer4.0.conv2.weight"])


@pytest.mark.parametrize("task", ["coco", "ade"])
def test_a_killed_run_resumes_to_the_same_weights_and_rows(toy: Path, task: str) -> None:
    """A run killed by SIGKILL and started again ends with the weights and rows of an uninterrupted one."""
    whole, again = (
        load_file(toy / f"{task}_out/weights.safetensors"),
        load_file(toy / f"{task}_again/weights.safetensors"),
    )
    assert whole.keys() == again.keys()
    for key, tensor in whole.items():
        np.testing.assert_array_equal(tensor.numpy(), again[key].numpy(), err_msg=key)
    rows = [pd.read_parquet(toy / f"{task}_{name}/rows.parquet") for name in ("out", "again")]
    pd.testing.assert_frame_equal(*rows)
    done = [mark[0] for mark in read(toy, f"{task}_again/calls.json")["marks"]]
    assert done[:2] == [0, {"coco": 7, "ade": 5}[task]]  # not from the beginning


def test_perception_workers_change_nothing(toy: Path) -> None:
    """With two loader workers the run ends with the weights of a run without any."""
    whole, other = (load_file(toy / f"ade_{name}/weights.safetensors") for name in ("out", "workers"))
    for key, tensor in whole.items():
        np.testing.assert_array_equal(tensor.numpy(), other[key].numpy(), err_msg=key)


def test_perception_broken_picture_loses_nothing(toy: Path) -> None:
    """A picture that breaks on the way is named in one line; mended, the run ends as if nothing had happened."""
    what, why, fix = read(toy, "ade_broken.json")
    assert what == "a picture cannot be used" and "images/training/ADE_train_" in why and "\n" not in why
    assert "checkpoint" in fix
    whole, mended = (load_file(toy / f"ade_{name}/weights.safetensors") for name in ("out", "broken"))
    for key, tensor in whole.items():
        np.testing.assert_array_equal(tensor.numpy(), mended[key].numpy(), err_msg=key)
    done = [mark[0] for mark in read(toy, "ade_broken/calls.json")["marks"]]
    assert done[:2] == [0, 5]


def test_perception_unknown_label_is_named(toy: Path) -> None:
    """A label above the table's classes is refused by a loader's worker with the picture's name, in one line."""
    _, why, _ = read(toy, "ade_labels.json")
    assert "ade_l/images/training/ADE_train_" in why and "label 7 is above the 3 classes" in why and "\n" not in why


def test_miou_equals_mmsegmentations_own(toy: Path) -> None:
    """From rows: mmsegmentation's own numbers to 1e-6, unrounded; 1 for perfect predictions; absent classes left out."""
    facts = read(toy, "metric.json")
    assert facts["noisy"]["ours"] == pytest.approx(facts["noisy"]["theirs"], abs=1e-6)
    assert 0.1 < facts["noisy"]["ours"]["mIoU"] < 0.6
    assert facts["perfect"]["ours"] == {"mIoU": 1.0, "aAcc": 1.0, "mAcc": 1.0}


@pytest.mark.slow
def test_all_53_norm_layers_of_a_resnet50_stay_frozen(tmp_path: Path, start: Callable[..., Mapping[str, Any]]) -> None:
    """With ResNet50 the same holds for all 53 norm layers."""
    import torch

    assert start(tmp_path, TOY_ARCH="resnet50")["coco"] == 0
    given = torch.load(tmp_path / "coco_out/backbone.pth", weights_only=True)
    after = load_file(tmp_path / "coco_out/weights.safetensors")
    means = [k for k in given if k.endswith("running_mean")]
    assert len(means) == 53
    for key in [*means, *(k for k in given if k.startswith(("conv1.", "bn1.", "layer1.")))]:
        assert torch.equal(after[f"backbone.{key}"], given[key]), key
    assert not torch.equal(after["backbone.layer4.2.conv3.weight"], given["layer4.2.conv3.weight"])


@pytest.mark.long
@pytest.mark.gpu
def test_torchvisions_resnet50_reaches_mmdets_published_box_ap(tmp_path: Path) -> None:
    """torchvision's ResNet50 (IMAGENET1K_V1) reaches mmdet's published box AP, 38.2 +- 0.3, with recipe sgd-1x."""
    import torch

    names = ("HARNESS_COCO", "HARNESS_RESNET50")
    missing = [name for name in names if not os.environ.get(name)]
    if missing or not torch.cuda.is_available():
        pytest.skip(
            "wants a GPU (10 H100 hours), HARNESS_COCO = the folder of COCO 2017, HARNESS_RESNET50 = torchvision's "
            f"resnet50-0676ba61.pth; not set: {missing}, GPU: {torch.cuda.is_available()}"
        )
    data, weights = (os.environ[name] for name in names)
    command = [
        sys.executable, "-m", "harness", "run", "--profile", "in1k", "--suite", "coco", "--data", f"coco={data}",
        "--checkpoint", weights, "--arch", "resnet50", "--classes", "imagenet1k", "--store", str(tmp_path),
        "--set", "suites.coco.recipe=sgd-1x", "--set", "suites.coco.fractions=[1.0]",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("evaluate/coco-*/record.json"))
    values = {metric["name"]: metric["estimate"]["value"] for metric in record["metrics"]}
    assert values["COCO_AP_box"] == pytest.approx(0.382, abs=0.003)
