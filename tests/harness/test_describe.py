"""``describe`` knows metrics by name, from the cards of the suites; ``--version`` answers without torch."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.describe import _measuring
from harness.cli.main import app
from harness.core.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "suite", "words"),
    [
        ("TI", "texture-bias", "t / (s + t)"),
        ("CB_avg", "context-bias", "(CB_1 + CB_2 + CB_3) / 3"),
        ("BG_Gap", "background-bias", "mixed_same - mixed_rand"),
        ("Acc_0", "context-bias", "uncommon attributes"),
        ("TI@7of16", "texture-bias", "t / (s + t)"),
        ("aircraft@0.1", "few-shot", "part of its training images"),
        ("COCO_AP_box@0.1", "coco", "average precision of boxes"),
        ("COCO_AP_S_box", "coco", "small (S)"),
    ],
)
def test_describe_shows_formula_suite_and_companions_of_a_metric(name: str, suite: str, words: str) -> None:
    done = CliRunner().invoke(app, ["describe", name])
    assert done.exit_code == 0 and done.output.startswith(f"{name} (a metric of suite {suite}, version "), done.output
    assert words in " ".join(done.output.split()) and f"more: python -m harness describe {suite}" in done.output
    facts = json.loads(CliRunner().invoke(app, ["describe", name, "--json"]).output)
    assert [row["suite"] for row in facts["suites"]] == [suite] and name not in facts["suites"][0]["companions"]


def test_every_recorded_metric_is_declared_by_its_suite() -> None:
    path = ROOT / "leaderboard" / "baselines" / "micro" / "records.jsonl.gz"
    records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    recorded = {(record["suite"], metric["name"]) for record in records for metric in record["metrics"]}
    assert len(recorded) > 20
    unknown = {pair for pair in recorded if pair[0] not in {suite.card.id for suite, _ in _measuring(pair[1])}}
    assert not unknown


def test_an_unknown_name_is_an_error_that_suggests_metrics_too() -> None:
    caught = CliRunner().invoke(app, ["describe", "CB_avgg"]).exception
    assert isinstance(caught, UserError) and caught.what == "unknown name 'CB_avgg'" and "'CB_avg'" in caught.fix


def test_version_names_harness_and_torch_without_importing_torch() -> None:
    code = (
        "import sys; from harness.cli.main import main; sys.argv = ['harness', '--version']\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    first, second = done.stdout.splitlines()
    assert first.startswith("harness 0.") and ", torch 2" in first and second == "False", done.stderr


def test_the_installed_commands_exist_and_start_the_command_line() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["harness"] == scripts["databias-harness"] == "harness.cli.main:main"
    assert find_spec("harness.cli.main") is not None
