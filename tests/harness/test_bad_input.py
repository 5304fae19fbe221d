"""Bad input through the command line: three-part errors, exit codes, finished results untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.conftest import Run, toy_run


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a small checkpoint with a head of four classes."""
    import torch

    from harness.backbones.models import create

    torch.manual_seed(0)
    path = tmp_path / "small.pth"
    torch.save(create("resnet10", 4).state_dict(), path)
    return path


def run_outside(harness: Run, plugins: Path, weights: Path, *extra: str) -> tuple[int, str]:
    """Evaluate a checkpoint in the micro profile."""
    done = harness(
        "run", "--checkpoint", str(weights), "--arch", "resnet10", "--suite", "in-domain", "--store", "s", *extra
    )
    return done.returncode, done.stderr


def test_corrupt_checkpoint(harness: Run, plugins: Path, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:5000])
    code, text = run_outside(harness, plugins, weights, "--classes", str(plugins / "classes.txt"))
    assert code == 2 and "small.pth" in text and "fix:" in text and "Traceback" not in text
    assert not (weights.parent / "s").exists(), "refused while planning: no cell has begun"


def test_class_list_that_does_not_fit_the_head(harness: Run, plugins: Path, weights: Path) -> None:
    code, text = run_outside(harness, plugins, weights, "--classes", "micro")
    assert code == 2 and "4 outputs" in text and "12 classes" in text and "--classes" in text
    assert not (weights.parent / "s").exists(), "refused while planning: no cell has begun"


def test_unsorted_list_of_training_classes_is_refused(harness: Run, plugins: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("b thing\na thing\n")
    profile = (plugins / "toy.toml").read_text().replace(str(plugins / "classes.txt"), str(tmp_path / "bad.txt"))
    (tmp_path / "bad.toml").write_text(profile)
    done = harness("run", "--generator", "noise", "--suite", "brightness", "--profile", "bad.toml")
    assert done.returncode == 2 and "not sorted" in done.stderr


def test_nan_loss_fails_one_cell_and_keeps_the_rest(harness: Run, plugins: Path, tmp_path: Path) -> None:
    command = toy_run(plugins)
    assert harness(*command).returncode == 0
    board = (tmp_path / "s" / "leaderboard.csv").read_bytes()
    images = {path: path.read_bytes() for path in (tmp_path / "s" / "synthesise").rglob("*.tar")}
    done = harness(
        *command[:4],
        "brightness,texture-bias",
        *command[5:],
        "--set",
        "backbones.resnet10.lr=1e30",
        "--set",
        "backbones.resnet10.epochs=6",
        "--set",
        "backbones.resnet10.batch_size=8",
        "--data",
        f"cue-conflict={plugins}",
    )
    assert done.returncode == 1, done.stderr
    assert "not finite" in done.stderr and "lower" in done.stderr and "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "s" / "synthesise").rglob("*.tar")} == images
    assert (tmp_path / "s" / "leaderboard.csv").read_bytes() == board
    status = json.loads((tmp_path / "s" / "status.json").read_text())
    assert {cell["state"] for cell in status["cells"].values()} >= {"failed", "blocked"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--set", "backbones.resnet10.epochs=abc"), 2, "epochs is 'abc'"),
        (("--set", "backbones.resnet10.epochs=2.5"), 2, "epochs is 2.5"),
        (("--set", "backbones.resnet10.threads=x"), 2, "backbones.resnet10.threads is 'x'"),
        (("--set", "generators.lbgen.trained_steps=3"), 2, "3 trained steps of 20"),
        (("--set", "generators.lbgen.batch=0"), 2, "a batch of 0"),
        (("--data", "in_val=/nowhere"), 2, "did you mean 'in-val'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_while_planning(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "plan", "--generator", "lbgen", *arguments], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stderr and "why:" in done.stderr and "fix:" in done.stderr


def test_a_board_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "leaderboard", str(tmp_path / "nosuch")], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 4 and "does not exist" in done.stderr
