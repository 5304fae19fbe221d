"""The profiles for full-size data: complete plans, and whole runs on tiny images in the real layouts.

Everything is as shipped but for counts, steps, epochs and image sizes; the towers are stand-ins given by path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import harness.microworld
from harness.classes import load_classes
from tests.tiny_roots import BIAS, TRANSFER, ade_set, coco_set, imagenet, transfer_set

TOWERS = Path(harness.microworld.__file__).parent / "weights"
CLASSES = {"in100": "imagenet100", "in1k": "imagenet1k"}
DATA = ("train", "in-val", *TRANSFER, *BIAS, "coco", "ade20k")
IMAGE_PX, TRAINVAL, TEST = 32, 6, 10
COUNTS = (
    "dataset.images_per_class=1", "dataset.size_px=64", "dataset.copy_px=40",
    *(f"generators.{name}.sampling_steps=1" for name in ("sd15", "lbgen")),
    *(f"generators.lbgen.{key}=1" for key in ("steps", "trained_steps", "epochs")), "generators.lbgen.batch=20",
    "backbones.resnet50.epochs=1", "backbones.resnet50.warmup_epochs=0", "backbones.resnet50.batch_size=50",
    f"backbones.resnet50.image_size={IMAGE_PX}",
    *(f"suites.{name}.image_size={IMAGE_PX}" for name in ("in-domain", "linear-probe", "few-shot")),
    "suites.linear-probe.probe_seeds=1", "suites.few-shot.probe_seeds=1", "suites.few-shot.fractions=[0.5]",
    "suites.few-shot.shots=[1]",
    *(f"suites.{name}.{key}" for name in ("coco", "ade20k") for key in ("small_fraction_seeds=1", "replicates=20")),
    "suites.coco.image_long=128", "suites.coco.image_short=96", "suites.coco.epochs=1", "suites.coco.batch_size=4",
    "suites.coco.workers=0", "suites.ade20k.image_long=128", "suites.ade20k.image_short=64", "suites.ade20k.crop=64",
    "suites.ade20k.iterations=2", "suites.ade20k.checkpoint_iterations=2", "suites.ade20k.batch_size=2",
    "suites.ade20k.workers=0",
)  # fmt: skip


def stand_ins() -> list[str]:
    """Return the settings that name the towers by path."""
    base = [f"generators.{name}.base={TOWERS / 'sd'}" for name in ("sd15", "lbgen")]
    clip, quality = TOWERS / "clip_large", TOWERS / "quality"
    return [*base, f"generators.lbgen.clip={clip}", f"generators.lbgen.quality=open-clip:{quality}"]


def harness_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, on one thread and without a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, "-m", "harness", *arguments], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=850, check=False)  # fmt: skip


def write_roots(root: Path, classes: Sequence[str]) -> list[str]:
    """Write all fifteen data sets; returns the settings that give their places and counts."""
    cards: dict[str, Any] = {name: transfer_set(root / name, name, TRAINVAL, TEST) for name in TRANSFER}
    cards |= {name: write(root / name)[1].model_dump(mode="json") for name, write in BIAS.items()}
    imagenet(root / "train", classes, 1)
    imagenet(root / "in-val", classes, 1, validation=True)
    cards |= {"in-val": {"per_class": 1}, "coco": coco_set(root / "coco", 4, 3), "ade20k": ade_set(root / "ade20k", 4, 3)}
    (root / "cards").mkdir()
    for name, card in cards.items():
        (root / "cards" / f"{name}.json").write_text(json.dumps(card), encoding="utf-8")
    return [*(f"data.{name}.root={root / name}" for name in DATA), *(f"data.{name}.card={root}/cards/{name}.json" for name in cards)]
