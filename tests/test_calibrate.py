"""The instruments answer to planted bias: a small calibration through the command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

OWN = {"TI": "texture", "CB_avg": "scene", "BG_Gap": "scene", "size_gap": "size"}
OTHER = {"TI": "scene", "CB_avg": "texture", "BG_Gap": "texture"}
"""A cause that must not move the instrument; what moves ``size_gap`` beside size is in docs/calibration.md."""


@pytest.mark.slow
def test_metrics_rise_with_their_own_planted_bias_and_not_with_another(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "calibrate", "--causes", "texture,scene,size", "--doses", "0,0.8",
                           "--seeds", "1", "--quiet", "--store", str(tmp_path)],
                          capture_output=True, text=True, timeout=1500, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(f"## {name}" in done.stdout for name in ("TI", "size_gap", "without_colour"))
    assert (tmp_path / "calibration" / "calibration.png").stat().st_size > 10_000
    with (tmp_path / "calibration" / "calibration.csv").open() as stream:
        rows = {(row["metric"], row["cause"], float(row["dose"])): row for row in csv.DictReader(stream)}
    own = {key for key in rows if key[0] in OWN}
    assert all(rows[key]["valid"] == "1" for key in own), "single-cause worlds pass the validity checks"

    def rise(metric: str, cause: str) -> tuple[float, float]:
        """Return the rise over the balanced world and its standard error."""
        at, start = rows[metric, cause, 0.8], rows[metric, cause, 0.0]
        error = float(at["standard_error"]) ** 2 + float(start["standard_error"]) ** 2
        return float(at["bias"]) - float(start["bias"]), error**0.5

    for metric, cause in OWN.items():
        effect, error = rise(metric, cause)
        assert effect > 5 * error, (metric, effect, error)
        if metric in OTHER:
            assert rise(metric, OTHER[metric])[0] < effect / 4, (metric, rise(metric, OTHER[metric]), effect)
