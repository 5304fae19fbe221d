"""Cells that want several devices: started by torchrun, resumed and sealed like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = (
    "--set", "dataset.images_per_class=4", "--set", "dataset.chunk=4", "--set", "generators.lbgen.sampling_steps=2",
    "--set", "generators.lbgen.steps=4", "--set", "generators.lbgen.trained_steps=2", "--set", "generators.lbgen.epochs=1",
    "--set", "generators.lbgen.micro_batch=4", "--set", "generators.lbgen.fit_threads=1",
    "--set", "backbones.resnet10.epochs=2", "--set", "backbones.resnet10.warmup_epochs=1",
    "--set", "backbones.resnet10.batch_size=16",
)  # fmt: skip


@pytest.mark.slow
def test_two_processes_fit_and_train(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "run", "--generator", "lbgen", "--suite", "in-domain", "--backbone", "resnet10",
               "--store", str(tmp_path), "--quiet", *SMALL, "--set", "generators.lbgen.fit_devices=2",
               "--set", "backbones.resnet10.devices=2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(next((tmp_path / "pretrain").glob("*/backbone.json")).read_text())
    assert facts["recipe"]["world_size"] == 2
    assert next((tmp_path / "fit").glob("*/pytorch_lora_weights.safetensors")).stat().st_size > 1000
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "nothing to do" in again.stderr
