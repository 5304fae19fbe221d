"""The script of docs/real-size.md: the same stages on small networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_size import Measured, Stage, stages, table

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_tiny_form_runs_every_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.real_size", str(tmp_path), "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()[-3000:]
    assert all(f"| {stage.name} |" in done.stdout for stage in stages(tmp_path, tiny=True))
    assert "| fit lbgen |" in done.stdout and "| evaluate linear-probe |" in done.stdout
    assert "the LoRA changes the image" in (tmp_path / "log.txt").read_text()


def test_the_table_has_seconds_and_memory() -> None:
    row = Measured(Stage("sd15", "two images", ("true",)), 61.4, 30.2, 4.25, 0)
    assert table([row]).splitlines()[-1] == "| sd15 | two images | 61 | 30 | 4.2 |"


def test_both_forms_have_the_same_stages(tmp_path: Path) -> None:
    tiny, real = stages(tmp_path, tiny=True), stages(tmp_path, tiny=False)
    backbones = {"resnet18": "resnet50", "vit_tiny_patch16_224": "vit_small_patch16_224"}
    assert [backbones.get(stage.name, stage.name) for stage in tiny] == [stage.name for stage in real]
