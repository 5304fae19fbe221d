"""The commands of the workflows, executed on a tiny data root in the real layout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.core.classes import load_classes
from tests.leaderboard.conftest import MakeStore, flags, make_store
from tests.test_profiles import write_roots
from tests.tiny_roots import TRANSFER, imagenet

ROOT = Path(__file__).parents[1]
TINY = " ".join(
    f"--set {setting}"
    for setting in (
        "dataset.images_per_class=2", "dataset.copy_px=40", "backbones.resnet50.epochs=1", "backbones.resnet50.warmup_epochs=0",
        "backbones.resnet50.batch_size=50", "backbones.resnet50.image_size=32", "suites.in-domain.image_size=32",
        "suites.linear-probe.image_size=32", "suites.linear-probe.probe_seeds=1",
    )
)  # fmt: skip
__all__ = ["make_store"]


def commands() -> list[str]:
    """Return the harness commands of the ImageNet-100 workflow, in order."""
    text = (ROOT / ".github" / "workflows" / "in100.yml").read_text(encoding="utf-8")
    return [line for line in re.findall(r"- run: (.*)", text) if ".ci/" in line]


def step(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of the workflow's commands with data, store and baseline below a folder."""
    places: Mapping[str, str] = {f"IN100_{name.upper()}": str(folder / name) for name in ("data", "store", "baseline")}
    return subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, timeout=850, check=False,
                          env=os.environ | dict(places) | {"PYTHON": sys.executable} | environment)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write ImageNet-100 as folders of its class ids: two training and fifty validation images each."""
    ids = load_classes("imagenet100").ids
    imagenet(tmp_path / "data" / "train", ids, 2)
    imagenet(tmp_path / "data" / "in-val", ids, 50, validation=True)
    return tmp_path


def test_the_workflow_runs_the_script_step_by_step() -> None:
    assert commands() == [f"bash .ci/in100 {name}" for name in ("plan", "run", "gate")]


def test_the_plan_finds_the_data_and_lists_what_is_missing(data: Path) -> None:
    done = step(commands()[0], data)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout and "evaluate" in done.stdout
    assert "no root for data set 'dtd'" in done.stdout + done.stderr


def test_the_gate_step_writes_a_candidate_first_and_then_decides(make_store: MakeStore, tmp_path: Path) -> None:
    make_store("store", {"real": {"in-domain": [flags(400, 0.8, seed) for seed in range(3)]}})
    first = step(commands()[2], tmp_path)
    assert first.returncode == 4 and "a candidate was written" in first.stderr
    (tmp_path / "baseline.candidate").rename(tmp_path / "baseline")
    again = step(commands()[2], tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("## Gate: ✅ pass"), again.stdout + again.stderr


GATED = {
    "in-domain top1", *(f"linear-probe {name}" for name in (*TRANSFER, "transfer")), "texture-bias TI@7of16",
    "context-bias CB_1@5of10", "context-bias CB_2@5of10", "background-bias BG_Gap@8of9",
}  # fmt: skip


@pytest.mark.slow
def test_the_whole_workflow_on_a_tiny_data_root(tmp_path: Path) -> None:
    """Everything the gate promises is in its baseline: validation set, eight probes and their mean, restricted bias."""
    # What lies in IN100_DATA is taken for the public release; data sets with other counts are named with their cards.
    found = write_roots(tmp_path / "tiny", load_classes("imagenet100").ids)
    (tmp_path / "data").mkdir()
    (tmp_path / "tiny" / "train").rename(tmp_path / "data" / "train")
    extra = " ".join([TINY, *(f"--set {word}" for word in found if not word.startswith("data.train."))])
    codes = [step(command, tmp_path, IN100_SEEDS="1", IN100_EXTRA=extra) for command in commands()]
    assert [done.returncode for done in codes] == [0, 0, 4], "\n".join(done.stderr for done in codes)
    head = json.loads((tmp_path / "baseline.candidate" / "baseline.json").read_text())
    assert set(head["gated"]) >= GATED and head["values"].keys() >= {f"real resnet50 {title}" for title in GATED}
    (tmp_path / "baseline.candidate").rename(tmp_path / "baseline")
    done = step(commands()[2], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    held = [title for title in GATED if head["values"][f"real resnet50 {title}"]["valid"]]
    assert {"in-domain top1", "linear-probe transfer"} <= set(held)
    assert all(f"real resnet50 {title}" in done.stdout for title in held), done.stdout
