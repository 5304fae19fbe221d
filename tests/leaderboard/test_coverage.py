"""A small version of benchmarks/coverage.py: intervals cover what they name. The whole table is in docs/interval-coverage.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy.stats import binom


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()
WORLDS = 120
QUICK = (
    "accuracy, n = 600",
    "mean of eight accuracies, n = 470 each",
    "TI, 1,200 stimuli",
    "TI by shape source, 160 sources",
    "TI two-way, 160 x 48 sources",
    "CB_avg, 180 a partition",
    "BG_Gap, 9 x 45",
    "mIoU, 40 images",
    "mean of 3 seeds on the same 600 images",
    "paired difference, n = 440, one seed",
    "paired difference, n = 440, 5 + 5 seeds",
    "paste share, 9 x 450",
    "error consistency of two networks, 1,280 images",
    "calibration error of a calibrated network, n = 600",
    "calibration error, overconfident, n = 600",
    "area under risk-coverage, n = 600",
    "accuracy at 80 % coverage, n = 600",
)


@pytest.mark.parametrize("name", QUICK)
def test_intervals_cover_under_the_population_they_name(name: str) -> None:
    (number,) = [i for i, case in enumerate(BENCHMARK.CASES) if case.name == name]
    found = BENCHMARK.simulate(BENCHMARK.CASES[number], WORLDS, seed=100 + number)
    lowest = binom.ppf(0.002, WORLDS, 0.93) / WORLDS  # 93 % falls below this in one of five hundred runs
    assert found.covered >= lowest, found
    assert 0.7 < found.width_ratio < (2.0 if found.case.conservative else 1.4), found


def test_an_interval_that_is_too_narrow_is_noticed() -> None:
    from dataclasses import replace

    honest = BENCHMARK.CASES[0]

    def narrow(rng: object) -> object:
        e = honest.draw(rng)
        return replace(e, low=e.value - (e.value - e.low) / 2, high=e.value + (e.high - e.value) / 2)

    assert BENCHMARK.simulate(replace(honest, draw=narrow), WORLDS, seed=1).covered < 0.85


def test_the_table_in_the_documents_holds_every_case_and_names_those_outside() -> None:
    text = (Path(__file__).parents[2] / "docs" / "interval-coverage.md").read_text(encoding="utf-8")
    for case in BENCHMARK.CASES:
        assert f"| {case.name} | {case.population} |" in text
    power = (Path(__file__).parents[2] / "docs" / "gate-power.md").read_text(encoding="utf-8")
    assert "| 3.5 |" in power and "| 6.0 |" in power and "(2,000 pairs)" in power
