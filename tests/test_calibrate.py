"""The instruments answer to planted bias: a small calibration through the command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_metrics_rise_with_their_own_planted_bias_and_not_with_another(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "calibrate", "--causes", "texture,scene", "--doses", "0,0.8", "--seeds", "1",
                           "--quiet", "--store", str(tmp_path)], capture_output=True, text=True, timeout=1500, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "## TI" in done.stdout
    assert (tmp_path / "calibration" / "calibration.png").stat().st_size > 10_000
    with (tmp_path / "calibration" / "calibration.csv").open() as stream:
        rows = {(row["metric"], row["cause"], float(row["dose"])): row for row in csv.DictReader(stream)}
    assert all(row["valid"] == "1" for row in rows.values()), "single-cause worlds pass the validity checks"

    def rise(metric: str, cause: str) -> tuple[float, float]:
        """Return the rise over the balanced world and its standard error."""
        at, start = rows[metric, cause, 0.8], rows[metric, cause, 0.0]
        error = float(at["standard_error"]) ** 2 + float(start["standard_error"]) ** 2
        return float(at["bias"]) - float(start["bias"]), error**0.5

    for metric, own, other in (
        ("TI", "texture", "scene"),
        ("CB_avg", "scene", "texture"),
        ("BG_Gap", "scene", "texture"),
    ):
        effect, error = rise(metric, own)
        assert effect > 5 * error, (metric, effect, error)
        assert rise(metric, other)[0] < effect / 4, (metric, rise(metric, other), effect)


@pytest.mark.slow
def test_the_gap_of_size_rises_with_the_planted_size(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "calibrate", "--causes", "size", "--doses", "0,0.8", "--seeds", "1",
                           "--quiet", "--store", str(tmp_path)], capture_output=True, text=True, timeout=1500, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "calibration" / "calibration.csv").open() as stream:
        rows = {(row["metric"], float(row["dose"])): row for row in csv.DictReader(stream) if row["cause"] == "size"}
    assert "## size_gap" in done.stdout and "## without_colour" in done.stdout
    at, start = rows["size_gap", 0.8], rows["size_gap", 0.0]
    error = (float(at["standard_error"]) ** 2 + float(start["standard_error"]) ** 2) ** 0.5
    assert at["valid"] == start["valid"] == "1"
    assert float(at["bias"]) - float(start["bias"]) > 5 * error, (at, start)
