"""The profiles for full-size data: complete plans, and whole runs on tiny images in the real layouts.

Everything is as shipped but for counts, steps, epochs and image sizes; the towers are stand-ins given by path.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import harness.microworld
from harness.core.classes import load_classes
from tests.tiny_roots import BIAS, TRANSFER, ade_set, coco_set, imagenet, transfer_set

TOWERS = Path(harness.microworld.__file__).parent / "weights"
CLASSES = {"in100": "imagenet100", "in1k": "imagenet1k"}
DATA = ("train", "in-val", *TRANSFER, *BIAS, "coco", "ade20k")
IMAGE_PX, TRAINVAL, TEST = 32, 6, 10
COUNTS = (
    "dataset.images_per_class=1", "dataset.size_px=64", "dataset.copy_px=40",
    *(f"generators.{name}.sampling_steps=1" for name in ("sd15", "lbgen")),
    *(f"generators.lbgen.{key}=1" for key in ("steps", "trained_steps", "epochs")), "generators.lbgen.batch=20",
    "generators.lbgen.fit_classes=imagenet100",
    *(f"suites.{name}.image_size={IMAGE_PX}" for name in ("in-domain", "linear-probe", "few-shot")),
    "suites.linear-probe.probe_seeds=1", "suites.few-shot.probe_seeds=1", "suites.few-shot.fractions=[0.5]",
    "suites.few-shot.shots=[1]",
    *(f"suites.{name}.{key}" for name in ("coco", "ade20k") for key in ("replicates=20", "workers=0")),
    "suites.coco.image_long=128", "suites.coco.image_short=96", "suites.coco.epochs=1", "suites.coco.batch_size=4",
    "suites.ade20k.image_long=128", "suites.ade20k.image_short=64", "suites.ade20k.crop=64",
    "suites.ade20k.iterations=2", "suites.ade20k.checkpoint_iterations=2", "suites.ade20k.batch_size=2",
)  # fmt: skip
ITEMS = {
    "in-domain": 1, "texture-bias": 1, "context-bias": 1, "background-bias": 1, "linear-probe": 8, "few-shot": 16, "coco": 1,
    "ade20k": 1,
}  # fmt: skip
"""Evaluations of one convolutional backbone with these counts."""


@dataclass(frozen=True)
class Case:
    """A profile with what is run of it, and the names its primary bias metrics must have."""

    profile: str
    commands: tuple[tuple[str, ...], ...]
    subjects: Mapping[tuple[str, str], int]
    """Generator and backbone of every checkpoint, with the number of its suites, in the order of ``ITEMS``."""
    backbones: tuple[str, ...]
    fraction: float
    """Fraction of COCO and ADE20K; the shipped four hold three seeds each."""
    bias: Mapping[str, set[str]]


CASES = (
    Case(
        "in100",
        (("--generator", "real", "--suite", "all"), ("--generator", "sd15,lbgen", "--suite", "in-domain,bias")),
        {("real", "resnet50"): 8, ("sd15", "resnet50"): 4, ("lbgen", "resnet50"): 4},
        ("resnet50",), 0.5,
        {"texture-bias": {"TI@7of16"}, "context-bias": {"CB_avg", "CB_1@5of10", "CB_2@5of10"},
         "background-bias": {"BG_Gap@8of9"}},
    ),
    Case(
        "in1k", (("--generator", "real", "--suite", "all"),),
        {("real", "resnet50"): 8, ("real", "vit_small_patch16_224"): 6},
        ("resnet50", "vit_small_patch16_224"), 1.0,
        {"texture-bias": {"TI"}, "context-bias": {"CB_avg"}, "background-bias": {"BG_Gap"}},
    ),
)  # fmt: skip


def settings(case: Case, root: Path) -> list[str]:
    """Write the data root of a case; returns its ``--set`` arguments."""
    counts = [f"suites.{name}.fractions=[{case.fraction}]" for name in ("coco", "ade20k")]
    for arch in case.backbones:
        sizes = {"epochs": 1, "warmup_epochs": 0, "batch_size": 50, "image_size": IMAGE_PX}
        counts += [f"backbones.{arch}.{key}={value}" for key, value in sizes.items()]
    values = (*write_roots(root, load_classes(CLASSES[case.profile]).ids), *stand_ins(), *COUNTS, *counts)
    return [word for value in values for word in ("--set", value)]


def stand_ins() -> list[str]:
    """Return the settings that name the towers by path."""
    base = [f"generators.{name}.base={TOWERS / 'sd'}" for name in ("sd15", "lbgen")]
    clip, quality = TOWERS / "clip_large", TOWERS / "quality"
    return [*base, f"generators.lbgen.clip={clip}", f"generators.lbgen.quality=open-clip:{quality}"]


def harness_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, on one thread and without a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, "-m", "harness", *arguments], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=2900, check=False)  # fmt: skip


def write_roots(root: Path, classes: Sequence[str]) -> list[str]:
    """Write all fifteen data sets; returns the settings that give their places and counts."""
    cards: dict[str, Any] = {name: transfer_set(root / name, name, TRAINVAL, TEST) for name in TRANSFER}
    cards |= {name: write(root / name)[1].model_dump(mode="json") for name, write in BIAS.items()}
    imagenet(root / "train", classes, 1)
    imagenet(root / "in-val", classes, 1, validation=True)
    cards |= {
        "in-val": {"per_class": 1},
        "coco": coco_set(root / "coco", 4, 3),
        "ade20k": ade_set(root / "ade20k", 4, 3),
    }
    (root / "cards").mkdir()
    for name, card in cards.items():
        (root / "cards" / f"{name}.json").write_text(json.dumps(card), encoding="utf-8")
    return [
        *(f"data.{name}.root={root / name}" for name in DATA),
        *(f"data.{name}.card={root}/cards/{name}.json" for name in cards),
    ]


@pytest.mark.parametrize("profile", CLASSES)
def test_a_plan_without_data_is_complete_and_says_what_to_do(profile: str, tmp_path: Path) -> None:
    selection = ("plan", "--profile", profile, "--generator", "real,sd15,lbgen", "--suite", "all")
    done = harness_command(tmp_path, *selection)
    assert done.returncode == 0, done.stderr
    for name in DATA:
        assert f"no root for data set '{name}': give --data {name}=PATH" in done.stdout, done.stdout
    assert "generators.lbgen.quality=q-align:FOLDER" in done.stdout
    complete = json.loads(harness_command(tmp_path, *selection, "--json").stdout)["if_all_were_given"]
    said = f"{complete['cells']} cells, {complete['hours']:.1f} hours of one slot, {complete['disk_mb'] / 1000:.1f} GB"
    assert f"with all missing data: {said}" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [row.split()[0] for row in rows] == ["kind", *(row["kind"] for row in complete["kinds"]), "sum"], (
        "no table of zeros"
    )
    assert all(len(row) <= 80 for row in rows) and f"= {complete['hours']:.1f} hours" in rows[-1]
    for row, shown in zip(complete["kinds"], rows[1:], strict=False):
        cells = str(row["cells"])
        assert shown.split()[1:4] == [cells, "0", cells] and row["cells"] and row["minutes"] and row["disk_mb"], shown
    classes = len(load_classes(CLASSES[profile]).ids)
    copies, images = 3 * classes * 1300 * 3 * 256**2 / 1e6, 2 * classes * 1300 * 512**2 / 1e6
    assert copies + images < complete["disk_mb"] < copies + 3 * images
    assert complete["hours"] > 2 * classes * 20 * 1.3 / 60, "two syntheses of twenty shards of each class"


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.profile)
def test_a_profile_runs_to_the_end_on_tiny_images(case: Case, tmp_path: Path) -> None:
    arguments = ["--profile", case.profile, *settings(case, tmp_path / "data")]
    for command in case.commands:
        plan_is_complete(case, harness_command(tmp_path, "plan", *command, *arguments), "all" in command)
        done = harness_command(tmp_path, "run", *command, *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        after = json.loads(harness_command(tmp_path, "plan", *command, *arguments, "--json").stdout)
        assert {cell["state"] for cell in after["cells"]} == {"done"} and after["hours"] == 0
    records_are_complete(case, tmp_path / "store")


def plan_is_complete(case: Case, done: subprocess.CompletedProcess[str], perception: bool) -> None:
    """Check that a plan names its sizes, hours and disk, and misses nothing."""
    assert done.returncode == 0, done.stderr
    classes = len(load_classes(CLASSES[case.profile]).ids)
    assert f"sizes: {classes} classes x 1 images of 64 px, trained from 40-px centre-crop copies" in done.stdout
    assert f"sizes: resnet50: 1 epochs at {IMAGE_PX} px, batch 50" in done.stdout
    assert re.search(r"^  sum +\d+\.\d +\d+   = \d+\.\d hours of one slot$", done.stdout, re.MULTILINE), done.stdout
    missing = [line for line in done.stdout.splitlines() if line.startswith("not run")]
    reasons = ("knows the causes of an image", "planned for convolutional backbones")
    assert all(line.endswith(reasons) for line in missing), missing
    assert (
        (f"1 x coco@{case.fraction:g}: " in done.stdout)
        == (f"1 x ade20k@{case.fraction:g}: " in done.stdout)
        == perception
    )


def records_are_complete(case: Case, store: Path) -> None:
    """Check that every evaluation has a record under the right names, and the board a row per checkpoint."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in store.rglob("record.json")]
    counts = Counter((one["subject"]["generator"], one["subject"]["backbone"], one["suite"]) for one in records)
    wanted = Counter()
    for (generator, backbone), suites in case.subjects.items():
        wanted.update({(generator, backbone, suite): ITEMS[suite] for suite in tuple(ITEMS)[:suites]})
    assert counts == wanted
    for one in records:
        primary = {metric["name"] for metric in one["metrics"] if metric["role"] == "primary"}
        assert primary == case.bias.get(one["suite"], primary) and one["metrics"]
    board = (store / "leaderboard.md").read_text(encoding="utf-8")
    for generator, backbone in case.subjects:
        assert re.search(rf"^\|.*{generator}.*{backbone}", board, re.MULTILINE), board
    assert all(name in board for names in case.bias.values() for name in names)
