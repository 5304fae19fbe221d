"""How outside checkpoints are fed: names, numbers, and what reaches the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.backbones.models import create
from harness.core.errors import UserError
from harness.core.normalisation import KNOWN, parse_normalisation


def test_names_and_numbers() -> None:
    assert parse_normalisation("imagenet") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert parse_normalisation("0.5,0.5,0.5/0.5,0.5,0.5") == KNOWN["half"]
    assert KNOWN["in9"] == ((0.4717, 0.4499, 0.3837), (0.26, 0.2516, 0.2575))


@pytest.mark.parametrize("text", ["imagnet", "", "0.5/0.5", "1,2,3/4,5", "0,0,0/1,0,1", "a,b,c/d,e,f", "0,0,0/1,nan,1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not known") as caught:
        parse_normalisation(text)
    assert "imagenet" in caught.value.why


def test_normalisation_of_the_command_line_reaches_the_cell(tmp_path: Path) -> None:
    torch.save(create("resnet10", 12).state_dict(), tmp_path / "w.pth")
    command = [
        sys.executable,
        "-m",
        "harness",
        "plan",
        "--checkpoint",
        "w.pth",
        "--arch",
        "resnet10",
        "--classes",
        "micro",
    ]
    plans = set()
    for extra in ([], ["--normalisation", "imagenet"], ["--normalisation", "half"], ["--image-size", "96"]):
        done = subprocess.run([*command, "--suite", "texture-bias", "--json", "--store", "s", *extra], cwd=tmp_path,
                              capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
        plans.add(json.dumps(json.loads(done.stdout)["cells"]))
    assert len(plans) == 3  # two of the four mean the same, though the origins of their values differ
