"""Floors of the embedded world as a whole: what an end-to-end run must be able to show. (The towers' floors are in
tests/harness/microworld.)"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leaderboard.sources import from_store, recorded

TRANSFER = ("aircraft", "cars196", "dtd", "eurosat", "flowers", "food101", "pets", "sun397")


def run(*arguments: str) -> None:
    """Run the harness; the error text is the failure."""
    done = subprocess.run([sys.executable, "-m", "harness", "run", "--quiet", *arguments], capture_output=True, text=True,
                          timeout=1500, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_recorded_real_and_sd15_pass_every_validity_check() -> None:
    checked = {}
    for entry in recorded():
        if entry.record.subject.backbone == "resnet10" and entry.record.checks:
            key = (entry.record.subject.generator, entry.record.suite)
            checked[key] = checked.get(key, True) and all(check.passed for check in entry.record.checks)
    wanted = [(g, s) for g in ("real", "sd15") for s in ("texture-bias", "context-bias", "background-bias")]
    assert all(checked[key] for key in wanted), checked


def test_every_recorded_metric_has_n_and_an_interval_or_a_reason() -> None:
    metrics = [(e.record.suite, m) for e in recorded() for m in e.record.metrics if m.role == "primary"]
    assert len(metrics) >= 60
    for suite, metric in metrics:
        e = metric.estimate
        assert (e.value is not None and e.low is not None and e.high is not None and e.n > 0) or e.reason, (
            suite,
            metric,
        )


@pytest.mark.slow
def test_real_beats_an_untrained_network(tmp_path: Path) -> None:
    """Linear probe: by five standard errors on at least six of eight sets. COCO and ADE20K: intervals of box AP
    and of mIoU do not touch."""
    import torch

    from harness.backbones.models import create

    torch.manual_seed(0)
    torch.save(create("resnet10", 12).state_dict(), tmp_path / "untrained.pth")
    suites = ("--suite", "linear-probe,coco,ade20k", "--store", str(tmp_path / "store"))
    run("--generator", "real", "--backbone", "resnet10", *suites)
    run("--checkpoint", str(tmp_path / "untrained.pth"), "--arch", "resnet10", "--classes", "micro", *suites)
    values: dict[str, dict[str, object]] = {}
    for entry in from_store(tmp_path / "store"):
        for metric in entry.record.metrics:
            values.setdefault(entry.record.subject.generator, {})[metric.name] = metric.estimate
    trained = values["real"]
    (untrained,) = (found for name, found in values.items() if name.startswith("checkpoint:untrained-"))
    errors = {}
    for name in TRANSFER:
        a, b = trained[name], untrained[name]
        spread = math.sqrt(a.value * (1 - a.value) / a.n + b.value * (1 - b.value) / b.n)  # type: ignore[attr-defined]
        errors[name] = (a.value - b.value) / spread  # type: ignore[attr-defined]
    print(json.dumps({name: round(value, 1) for name, value in errors.items()}))
    assert sum(value >= 5 for value in errors.values()) >= 6, errors
    for name in ("COCO_AP_box", "ADE20K_mIoU"):
        a, b = trained[name], untrained[name]
        print(name, *(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (a, b)))  # type: ignore[attr-defined]
        assert a.low > b.high, name  # type: ignore[attr-defined]


@pytest.mark.slow
def test_lbgen_raises_the_cosine_to_the_own_name(tmp_path: Path) -> None:
    """Mean CLIP cosine over 1,000 fixed-noise images: five standard errors above sd15's, image by image."""
    import io

    import torch
    from PIL import Image

    from generators.lbgen.encoders import load_open_clip
    from harness.core.classes import load_classes
    from harness.images.shards import ShardReader
    from harness.microworld.towers import clip_folder

    count = 84
    run("--generator", "sd15,lbgen", "--suite", "images", "--store", str(tmp_path), "--set", f"dataset.images_per_class={count}",
        "--set", "dataset.chunk=42")  # fmt: skip
    tower, classes = load_open_clip(f"local-dir:{clip_folder('large')}"), load_classes("micro")
    texts = tower.text_features([f"photo of {name}" for name in classes.names])
    texts = texts / texts.norm(dim=-1, keepdim=True)
    cosines = {}
    for generator in ("sd15", "lbgen"):
        (folder,) = (tmp_path / "synthesise").glob(f"{generator}-*")
        parts = []
        for shard in sorted(folder.glob("shards/*.tar")):
            reader = ShardReader(shard)
            pixels = np.stack([np.asarray(Image.open(io.BytesIO(reader.read(name)))) for name in reader.names])
            features, _ = tower.image_features(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
            own = texts[classes.ids.index(reader.names[0].partition("/")[0])]
            parts.append((features / features.norm(dim=-1, keepdim=True)) @ own)
        cosines[generator] = torch.cat(parts).numpy()
    difference = cosines["lbgen"] - cosines["sd15"]
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    print(
        f"cosine {cosines['sd15'].mean():.4f} -> {cosines['lbgen'].mean():.4f}, {difference.mean() / error:.1f} paired SE"
    )
    assert len(difference) >= 1000 and difference.mean() >= 5 * error


def test_recorded_rows_are_of_the_present_data_and_recipes() -> None:
    """Else they would fall into another table than a new row."""
    from harness.plan.profile import load_profile
    from harness.store.data import DataSource, find_data

    profile = load_profile("micro").profile
    sources = {name: find_data(name, settings) for name, settings in profile.data.items()}
    now = {name: found.data_hash for name, found in sources.items() if isinstance(found, DataSource)}
    old = {(name, mark) for entry in recorded() for name, mark in entry.record.comparability.data.items()}
    assert len(old) >= 14 and all(now[name] == mark for name, mark in old)
