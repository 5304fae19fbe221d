"""`describe` and the full-size profiles, as far as transfer is concerned; the benchmark against scikit-learn."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from suites.transfer.cards import DATASETS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("linear-probe", ["70.91", "73.95", "protocol", "t-ReX", "shorter side 224", "known disagreements", "Table 6"]),
        ("few-shot", ["Figure 3", "known disagreements", "nested"]),
        ("in-domain", ["CMC", "last weights", "shorter side 256", "known disagreements"]),
    ],
)
def test_transfer_describe_prints_protocol_sources_and_disagreements(name, words, capsys):
    from harness.cli.describe import show_card

    show_card(name, False)
    text = " ".join(capsys.readouterr().out.split())
    for word in (*words, "sources"):
        assert word in text
    show_card(name, True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["known_disagreements"] and facts["sources"] and facts["protocol"]


@pytest.mark.parametrize("profile", ["in100", "in1k"])
def test_transfer_profiles_share_one_extraction_with_threads_shots_and_five_seeds(profile, tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"never read by a plan")
    roots = []
    for name in DATASETS:
        (tmp_path / name).mkdir()
        roots.append(f"{name}={tmp_path / name}")
    from harness.plan.model import ExternalCheckpoint

    selection = Selection(
        load_profile(profile, (), roots).profile,
        suites="linear-probe,few-shot",
        external=ExternalCheckpoint(weights, "resnet50", "imagenet1k"),
    )
    plan = Planner(selection).build()
    kinds = [(cell.kind, cell.name) for cell in plan.cells.values()]
    assert kinds.count(("evaluate", "linear-probe")) == 8 and kinds.count(("evaluate", "few-shot")) == 8 * (4 + 5)
    assert sum(kind == "extract" for kind, _ in kinds) == 8  # one per data set, shared
    for cell in plan.cells.values():
        if cell.kind in ("extract", "evaluate"):
            assert cell.resources.threads == 8 and cell.resources.minutes >= 1
        if cell.kind == "evaluate":
            assert cell.params["settings"]["probe_seeds"] == 5


def test_transfer_describe_states_the_rules_that_run(capsys):
    """Which of equal C each search takes, when a fit stops, and that this is not scikit-learn's point."""
    from harness.cli.describe import show_card
    from suites.transfer.cards import MAX_ITERATIONS
    from suites.transfer.search import FALLING_POINTS
    from suites.transfer.solver import GAP, TOLERANCE

    show_card("linear-probe", False)
    text = " ".join(capsys.readouterr().out.split())
    for words in ("smallest C is taken", "first trial is taken", "(|G| / (lambda |W|))^2", "so it is another point"):
        assert words in text
    early = {4: "four"}[FALLING_POINTS]
    assert f"stops early after {early} points in a row" in text
    assert "share of its penalty |W|^2 / 2" in text and "or carries a warning" in text
    assert f"a value other than {MAX_ITERATIONS} is part of what makes numbers comparable" in text
    for mode in ("reference", "converged"):
        gradient, gap = (f"{value[mode]:.0e}".replace("e-0", "e-") for value in (TOLERANCE, GAP))
        assert f"<= {gradient}" in text and f"<= {gap}" in text


def benchmark(name):
    """Import a benchmark script."""
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_transfer_benchmark_small_sizes_show_the_same(capsys, monkeypatch):
    """`--quick`: better objectives, the same accuracy, less time, even where there is little to win."""
    probe = benchmark("probe")
    monkeypatch.setattr(sys, "argv", ["probe.py", "--quick", "--json"])
    probe.main()
    row, few = json.loads(capsys.readouterr().out)
    assert row["speedup"] > 1.5
    assert max(row["worst_objective_excess"], few["worst_objective_excess"]) < 1e-4  # what the search's gap allows
    assert abs(row["mean_accuracy_difference"]) <= 0.015  # 400 test images, two seeds
    assert few["mean_accuracy_difference"] >= -0.015  # fewer images than dimensions: scikit-learn stops early
    page = probe.to_markdown([row, few])
    assert "| quick | 2 |" in page and page.startswith("# The probe's search")
    data = probe.make(probe.QUICK, 0)
    assert min(part.min() for part in data.x) >= 0 and probe.make(probe.QUICK, 0).x[0].tobytes() == data.x[0].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n < d, l2", "n > d, raw", "long tail 64 to 2, l2"])
def test_transfer_accuracy_is_the_optimum_and_not_below_the_toolbox(name):
    """Three problems of docs/probe.md, two seeds each."""
    accuracy = benchmark("probe_accuracy")
    (case,) = [case for case in accuracy.CASES if case.name == name]
    row = accuracy.compare(case, 2)
    assert row.gap <= 1e-6 and row.excess <= row.gap + 1e-9
    for search in ("grid", "tpe30"):
        assert row.off(search) <= 0.2
        difference, error = row.over(search, "t-ReX")
        assert difference >= -3 * max(error, 0.5)
    text = accuracy.page([row])
    assert text.startswith("# Is the probe right?") and f"| {name} |" in text and "above 0.2: none" in text


@pytest.mark.long
@pytest.mark.skipif(
    not {"HARNESS_DATA", "HARNESS_RESNET50"} <= os.environ.keys(),
    reason="wants HARNESS_DATA: a folder with the "
    "public data sets, and HARNESS_RESNET50: a public ImageNet-1k ResNet-50 checkpoint",
)
def test_transfer_plausibility_of_a_public_checkpoint(tmp_path):
    """With a public ResNet50: EuroSAT 93-97 %, Pets 88-93 %, DTD 65-77 %, Aircraft and Cars among the lowest."""
    data = [part for name in DATASETS for part in ("--data", f"{name}={os.environ['HARNESS_DATA']}/{name}")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "harness",
            "run",
            "--checkpoint",
            os.environ["HARNESS_RESNET50"],
            "--arch",
            "resnet50",
            "--classes",
            "imagenet1k",
            "--suite",
            "linear-probe",
            "--profile",
            "in1k",
            "--store",
            str(tmp_path),
            *data,
        ],
        check=True,
    )
    values = {}
    for path in tmp_path.glob("evaluate/linear-probe-*/record.json"):
        metric = json.loads(path.read_text())["metrics"][0]
        values[metric["name"]] = 100 * metric["estimate"]["value"]
    assert 93 <= values["eurosat"] <= 97 and 88 <= values["pets"] <= 93 and 65 <= values["dtd"] <= 77
    assert {"aircraft", "cars196"} <= set(sorted(values, key=values.__getitem__)[:4])
