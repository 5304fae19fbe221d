"""How outside checkpoints are fed: names, numbers, and what reaches the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from harness.backbones.models import create
from harness.cli.main import app
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


def test_normalisation_of_the_command_line_reaches_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(create("resnet10", 12).state_dict(), "w.pth")
    command = [
        "plan",
        "--checkpoint",
        "w.pth",
        "--arch",
        "resnet10",
        "--classes",
        "micro",
        "--suite",
        "texture-bias",
        "--json",
    ]
    plans = set()
    for extra in ([], ["--normalisation", "imagenet"], ["--normalisation", "half"], ["--image-size", "96"]):
        done = CliRunner().invoke(app, [*command, "--store", "s", *extra])
        assert done.exit_code == 0, done.output
        plans.add(json.dumps(json.loads(done.stdout)["cells"]))
    assert len(plans) == 3  # two of the four mean the same, though the origins of their values differ
