"""Cells on 1, 2 and 3 gloo processes: started by torchrun, sealed like any other, with the same result to a stated tolerance."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.ranks import command, difference, losses, weights

WEIGHTS = {"fine-tune": 1e-4, "pre-training": 3e-3}
"""Largest difference of a weight: Adam's first steps turn rounding of small gradients into parts of the learning rate."""
LOSS = 1e-3
"""Largest relative difference of a loss."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_two_and_three_processes_fit_and_train_to_the_same_result(tmp_path: Path) -> None:
    for devices in (1, 2, 3):
        store = tmp_path / str(devices)
        done = subprocess.run(command(store, devices), capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr
        facts = json.loads(next(store.glob("pretrain/*/backbone.json")).read_text())
        assert facts["recipe"]["world_size"] == devices
        for kind, tolerance in WEIGHTS.items():
            found, _ = difference(weights(tmp_path / "1")[kind], weights(store)[kind])
            assert found <= tolerance, (kind, devices, found)
            one = losses(tmp_path / "1")[kind]
            assert losses(store)[kind] == pytest.approx(one, rel=LOSS), (kind, devices)
    again = subprocess.run(command(tmp_path / "3", 3), capture_output=True, text=True, timeout=300, check=False)
    assert "nothing to do" in again.stderr
