"""Cells on 1, 2 and 3 gloo processes: started by torchrun, sealed like any other, with the same result to a stated tolerance."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.ranks import command, difference, losses, trained, weights

WEIGHTS, LOSS = 1e-2, 1e-3
"""Norm of the difference of all weights as a part of their norm; largest relative difference of a loss. Rounding is not the same, and
every step of Adam makes more of it."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_two_and_three_processes_fit_and_train_to_the_same_result(tmp_path: Path) -> None:
    for devices in (1, 2, 3):
        store = tmp_path / str(devices)
        done = subprocess.run(command(store, devices), capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr
        facts = json.loads((trained(store) / "backbone.json").read_text())
        assert facts["recipe"]["world_size"] == devices
        for kind, one in losses(tmp_path / "1").items():
            found = difference(weights(tmp_path / "1")[kind], weights(store)[kind])
            assert found <= WEIGHTS, (kind, devices, found)
            assert losses(store)[kind] == pytest.approx(one, rel=LOSS), (kind, devices)
    again = subprocess.run(command(tmp_path / "3", 3), capture_output=True, text=True, timeout=300, check=False)
    assert "nothing to do" in again.stderr
