"""Cells on 1, 2 and 3 gloo processes: started by torchrun, sealed like any other, with the same result to a stated tolerance."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.ranks import command, difference, losses, weights

WEIGHTS, LOSS = 1e-2, 1e-3
"""Norm of the difference of all weights as a part of their norm; largest relative difference of a loss. Rounding is not the same, and
every step of Adam makes more of it."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_two_and_three_processes_fit_to_the_same_result(tmp_path: Path) -> None:
    """The network that is trained after it has batch norms, whose statistics are those of a rank; for one without see test_train."""
    one = tmp_path / "1"
    for devices in (1, 2, 3):
        store = tmp_path / str(devices)
        done = subprocess.run(command(store, devices), capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr
        facts = json.loads(next(store.glob("pretrain/*/backbone.json")).read_text())
        assert facts["recipe"]["world_size"] == devices
        assert difference(weights(one), weights(store)) <= WEIGHTS
        assert losses(store) == pytest.approx(losses(one), rel=LOSS)
    again = subprocess.run(command(tmp_path / "3", 3), capture_output=True, text=True, timeout=300, check=False)
    assert "nothing to do" in again.stderr
