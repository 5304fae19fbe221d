"""Proofs that need the public data sets or weights; without them each says what it wants.

HARNESS_DATA: a folder with `cue-conflict`, `focus`, `in9` in their public layouts. HARNESS_WEIGHTS: a folder with
`resnet50-0676ba61.pth` (torchvision, V1), `resnet50_a1_0-14fe96d1.pth` (timm, resnet50.a1_in1k) and
`tf_efficientnet_lite0.safetensors` (`python benchmarks/reality.py weights FOLDER`).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.core.classes import load_classes
from harness.core.normalisation import KNOWN
from harness.images.decode import open_picture
from harness.store.records import Record
from suites.bias import background, context, texture
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.images import Geometry, predict
from suites.bias.maps import ClassMap
from tests.suites.bias.conftest import values

pytestmark = pytest.mark.long
V1, A1 = "resnet50-0676ba61.pth", "resnet50_a1_0-14fe96d1.pth"


def wanted(variable, name):
    path = Path(os.environ.get(variable, "/nonexistent")) / name
    if not path.exists():
        pytest.skip(f"wants {name} in the folder {variable} names")
    return path


def network(tmp_path, name, normalisation="imagenet"):
    from harness.backbones.checkpoint import import_checkpoint
    from harness.backbones.classifier import load_classifier

    path = wanted("HARNESS_WEIGHTS", name)
    import_checkpoint(path, "resnet50", load_classes("imagenet1k").ids, *KNOWN[normalisation], tmp_path / normalisation)
    return load_classifier(tmp_path / normalisation)


def test_stimuli_are_those_of_the_manifest(manifest):
    base, stimuli = texture.read_stimuli(wanted("HARNESS_DATA", "cue-conflict"), CueConflictCard.load())
    expected = {row["relpath"]: row["sha256"] for row in manifest}
    assert {s.name: hashlib.sha256((base / s.name).read_bytes()).hexdigest() for s in stimuli} == expected
    images = [np.asarray(open_picture(base / s.name).image, dtype=np.float64).reshape(-1, 3) / 255 for s in stimuli]
    mean = np.mean([image.mean(axis=0) for image in images], axis=0)
    square = np.mean([(image**2).mean(axis=0) for image in images], axis=0)
    assert mean == pytest.approx([0.53740, 0.49233, 0.45558], abs=1e-4)
    assert np.sqrt(square - mean**2) == pytest.approx([0.22596, 0.22072, 0.22309], abs=1e-4)


def test_texture_and_background_of_torchvision_v1(tmp_path):
    cues, in9 = wanted("HARNESS_DATA", "cue-conflict"), wanted("HARNESS_DATA", "in9")
    model = network(tmp_path, V1)
    card = CueConflictCard.load()
    ti = values(texture.score(texture.predict_rows(model, cues, card), card))["TI"]
    assert 100 * ti.value == pytest.approx(78.5, abs=0.4)
    found = values(background.score(background.predict_rows(model, in9, In9Card.load()), In9Card.load()))
    accuracies = [100 * found[name].value for name in background.VARIATIONS]
    assert accuracies == pytest.approx([95.6, 86.2, 78.9], abs=0.3)
    assert found["BG_Gap"].value == pytest.approx(7.3, abs=0.3)


def test_texture_and_context_of_timm_a1(tmp_path):
    cues, focus = wanted("HARNESS_DATA", "cue-conflict"), wanted("HARNESS_DATA", "focus")
    model = network(tmp_path, A1)
    table, _ = texture.cue_table(texture.predict_rows(model, cues, CueConflictCard.load()))
    assert table.sum(axis=0) == pytest.approx([161, 606], abs=3)
    rows = context.predict_rows(model, focus, FocusCard.load())
    k = context.uncommon_count(rows)
    counts = [int(rows["correct"][k == value].sum()) for value in range(4)]
    for count, expected, tolerance in zip(counts, (10248, 2652, 189, 9), (40, 15, 4, 1), strict=True):
        assert count == pytest.approx(expected, abs=tolerance)


@pytest.mark.gpu
def test_device_changes_at_most_two_decisions(tmp_path):
    root, model = wanted("HARNESS_DATA", "cue-conflict"), network(tmp_path, V1)
    import torch

    from harness.backbones.classifier import load_classifier

    if not torch.cuda.is_available():
        pytest.skip("wants a GPU")
    card = CueConflictCard.load()
    on_cpu = texture.predict_rows(model, root, card)
    on_gpu = texture.predict_rows(load_classifier(tmp_path / "imagenet", device="cuda"), root, card)
    assert (on_cpu["answer"] != on_gpu["answer"]).sum() <= 2


def test_geometry_and_normalisation_are_live(tmp_path):
    """Resizing to 256 and cropping 224 should move TI by about a point, a wrong normalisation by about three."""
    root, card = wanted("HARNESS_DATA", "cue-conflict"), CueConflictCard.load()
    model = network(tmp_path, V1)
    base, stimuli = texture.read_stimuli(root, card)
    right = texture.texture_inclination(texture.predict_rows(model, root, card)).value
    wrong = texture.texture_inclination(texture.predict_rows(network(tmp_path, V1, "half"), root, card)).value
    cropped = predict(_Cropped(model), base, [s.name for s in stimuli], Geometry("stored", 224))
    head = ClassMap.of(card.categories).bind(model.classes)
    rows = texture.stimulus_columns(stimuli) | {"answer": np.asarray(head.categories)[head.decide(cropped.logits)[0]]}
    moved = texture.texture_inclination(rows).value
    print(f"TI {right:.4f}; with 256/224 {moved:.4f}; with another normalisation {wrong:.4f}")
    assert 0.001 < abs(moved - right) < 0.03 and 0.003 < abs(wrong - right) < 0.10


class _Cropped:
    """Resize to 256 and crop 224 before a network."""

    image_size, interpolation = 224, "bilinear"

    def __init__(self, model):
        self.model, self.classes = model, model.classes

    def __call__(self, images):
        import torch

        large = torch.nn.functional.interpolate(images, 256, mode="bilinear", antialias=True, align_corners=False)
        return self.model(large[..., 16:240, 16:240].clamp(0, 1))


@pytest.mark.parametrize(
    ("options", "counts", "same", "ti"),
    [((), (197, 626), 72, 76.06), (("--normalisation", "imagenet"), (204, 546), 64, 72.80),
     (("--normalisation", "0.498039,0.498039,0.498039/0.501961,0.501961,0.501961"), (197, 622), 71, 75.95)],
)  # fmt: skip
def test_efficientnet_lite0_through_the_command_line(tmp_path, options, counts, same, ti):
    """Counts published with docs/reality.md; a few images differ between machines and library versions."""
    root, weights = (
        wanted("HARNESS_DATA", "cue-conflict"),
        wanted("HARNESS_WEIGHTS", "tf_efficientnet_lite0.safetensors"),
    )
    command = [sys.executable, "-m", "harness", "run", "--checkpoint", str(weights), "--arch", "tf_efficientnet_lite0",
               "--classes", "imagenet1k", "--suite", "texture-bias", "--data", f"cue-conflict={root}", "--store", "s",
               *options]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=True)
    record = Record.from_json(next((tmp_path / "s/evaluate").rglob("record.json")).read_text())
    numbers = [
        int(part)
        for part in re.findall(r"[st] = (\d+)", next(note for note in record.notes if note.startswith("s = ")))
    ]
    estimates = {metric.name: metric.estimate for metric in record.metrics}
    assert numbers == pytest.approx(counts, abs=3) and 80 * estimates["same_category_accuracy"].value == pytest.approx(
        same, abs=2
    )
    assert 100 * estimates["TI"].value == pytest.approx(ti, abs=0.4)
    assert ("instead of mean 0.5" in done.stderr) is bool(options) and "profile in1k (implied" in done.stderr
