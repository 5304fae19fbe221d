"""Checkpoints from outside, through the command line: which weights are taken, and what a head's list may look like."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import harness.run.session
from harness.cli.main import app
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from tests.tiny_roots import save_image

Command = Callable[..., BaseException | None]
FORMS = {
    "model": ({"model": 1}, "", ("raw", "model")),
    "state_dict": ({"state_dict": 1, "epoch": 0}, "", ("raw", "state_dict")),
    "plain": (1, "", ("raw", "")),
    "plain said to be averaged": (1, "ema", ("ema", "")),
    "convnext": ({"model": 2, "model_ema": 1}, "", ("ema", "model_ema")),
    "timm": ({"state_dict": 2, "state_dict_ema": 1}, "auto", ("ema", "state_dict_ema")),
    "raw beside the average": ({"model": 1, "model_ema": 2}, "raw", ("raw", "model")),
    "ddp": ({"module.": 1}, "", ("raw", "")),
}
"""Name -> (the file: 1 and 2 stand for the state dicts of two networks; --weights; which weights and entry are taken)."""

OTHER = {
    "convnext": ["the weights under model"],
    "timm": ["the weights under state_dict"],
    "raw beside the average": ["the weights under model_ema"],
}
"""Name -> what is left out."""


def states(seed: int, prefix: str = "") -> dict[str, Any]:
    """Return the state dict of a small network of four outputs."""
    import torch

    from harness.backbones.models import create

    torch.manual_seed(seed)
    return {prefix + key: value for key, value in create("resnet10", 4).state_dict().items()}


def content(form: object) -> object:
    """Put state dicts in the place of the numbers."""
    if isinstance(form, Mapping):
        prefixed = next((key for key in form if str(key).endswith(".")), None)
        return states(1, prefixed) if prefixed else {k: content(v) if k != "epoch" else v for k, v in form.items()}
    return states(int(str(form)))


def run_here(selection: Selection, store: Store, **_: object) -> None:
    """Stand in for the executor: do all cells in this process."""
    plan = Planner(selection).build()
    for cell in plan.cells.values():
        sources = {name: plan.sources[name] for name in cell.data}
        execute(Job(cell, plan.inputs(cell), sources, str(store.root)))
    raise SystemExit(0)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that evaluates a checkpoint from the command line in this process; returns what was raised."""

    def command(weights: object, store: str, *arguments: str) -> BaseException | None:
        import torch

        torch.save(weights, tmp_path / f"{store}.pth")
        fixed = ["run", "--checkpoint", f"{store}.pth", "--arch", "resnet10", "--image-size", "64", "--store", store]
        done = CliRunner().invoke(app, [*fixed, *arguments])
        return done.exception if done.exit_code else None

    monkeypatch.setattr(harness.run.session, "run", run_here)
    monkeypatch.chdir(tmp_path)
    return command


@pytest.mark.parametrize("name", FORMS)
def test_every_container_is_taken_and_what_was_taken_is_on_record(command: Command, plugins: Path, name: str) -> None:
    from safetensors.torch import load_file

    form, weights, (kind, entry) = FORMS[name]
    options = ("--weights", weights) if weights else ()
    assert command(content(form), "s", "--suite", "", "--classes", str(plugins / "classes.txt"), *options) is None
    folder = next(Path("s/pretrain").glob("outside-*"))
    facts = json.loads((folder / "backbone.json").read_text())
    asked = None if weights in ("", "auto") else weights
    assert facts["weights"] == kind and facts["recipe"].pop("left_out", []) == OTHER.get(name, [])
    assert facts["recipe"] == {"entry": entry, "weights_asked": asked}
    assert (facts["image_size"], facts["interpolation"], facts["crop"], facts["precision"]) == (
        64,
        "bicubic",
        0.875,
        "fp32",
    )
    taken = load_file(folder / f"{kind}.safetensors")
    assert taken["fc.weight"].equal(states(1)["fc.weight"])


def test_weights_that_the_file_does_not_hold_are_refused(command: Command, plugins: Path) -> None:
    options = ("--suite", "", "--classes", str(plugins / "classes.txt"), "--weights")
    error = command(content({"model": 1}), "s", *options, "ema")
    assert isinstance(error, UserError) and "no ema weights" in error.what and "--weights" in error.fix
    error = command(content(1), "s", *options, "best")
    assert isinstance(error, UserError) and "no best weights" in error.what and "--weights" in error.fix


def test_a_wrong_architecture_and_a_wrong_width_end_the_plan(command: Command, plugins: Path) -> None:
    error = command(
        content(1), "s", "--suite", "in-domain", "--classes", str(plugins / "classes.txt"), "--arch", "resnet181"
    )
    assert isinstance(error, UserError) and "resnet181" in error.what and "did you mean 'resnet18'" in error.fix
    error = command(content(1), "s", "--suite", "", "--classes", "imagenet100")
    assert isinstance(error, UserError) and "4 outputs, the list 100" in error.why


def test_permuting_head_and_list_together_changes_nothing(command: Command, tmp_path: Path) -> None:
    import pandas as pd

    ids = load_classes("imagenet100").ids[:4]
    for place, class_id in enumerate(ids):
        for number in range(3):
            save_image(tmp_path / "val" / class_id / f"{number}.png", (60 * place, 80 * number, 90), noise=number + 1)
    (tmp_path / "card.json").write_text('{"per_class": 3, "classes": "val.txt"}')
    (tmp_path / "val.txt").write_text("\n".join(ids) + "\n")
    state, order = states(5), (2, 0, 3, 1)
    for name, outputs in (("sorted", (0, 1, 2, 3)), ("permuted", order)):
        turned = state | {key: state[key][list(outputs)] for key in ("fc.weight", "fc.bias")}
        (tmp_path / f"{name}.txt").write_text("".join(f"{ids[i]}\n" for i in outputs))
        error = command({"model": turned}, name, "--classes", f"{name}.txt", "--suite", "in-domain", "--data",
                        f"in-val={tmp_path / 'val'}", "--profile", "micro", "--set", "data.in-val.card=card.json", "--set",
                        "suites.in-domain.image_size=32")  # fmt: skip
        assert error is None, error
    first, second = (
        pd.read_parquet(next((tmp_path / name / "evaluate").rglob("rows.parquet"))) for name in ("sorted", "permuted")
    )
    assert list(first["item"]) == list(second["item"])
    assert (first["label"] == first["predicted"]).equals(second["label"] == second["predicted"])
    named = [[table.map(dict(enumerate(names))) for table in (rows["label"], rows["predicted"])]
             for rows, names in ((first, ids), (second, [ids[i] for i in order]))]  # fmt: skip
    assert all(a.equals(b) for a, b in zip(*named, strict=True)) and not first["predicted"].equals(second["predicted"])


def test_what_was_fed_and_what_contradicts_stand_in_every_record(command: Command, tmp_path: Path) -> None:
    from harness.results.rescore import rescore

    ids = load_classes("micro").ids[:4]
    (tmp_path / "four.txt").write_text("\n".join(ids) + "\n")
    for place, class_id in enumerate(ids):
        save_image(tmp_path / "val" / class_id / "0.png", (60 * place, 80, 90), noise=place + 1)
    (tmp_path / "card.json").write_text('{"per_class": 1, "classes": "four.txt"}')
    arguments = ("--classes", "four.txt", "--suite", "in-domain", "--profile", "micro", "--data", f"in-val={tmp_path / 'val'}",
                 "--set", "data.in-val.card=card.json", "--precision", "bf16", "--normalisation", "half", "--crop", "0.9",
                 "--interpolation", "bilinear")  # fmt: skip
    assert command(content({"model": 2, "model_ema": 1}), "s", *arguments) is None
    path = next(Path("s/evaluate").rglob("record.json"))
    record, written = json.loads(path.read_text()), path.read_bytes()
    half = [0.5, 0.5, 0.5]
    assert record["subject"]["network"] == {
        "weights": "ema", "mean": half, "std": half, "image_size": 64, "interpolation": "bilinear", "crop": 0.9,
        "precision": "bf16", "recipe": {"entry": "model_ema"},
    }  # fmt: skip
    warning = "mean 0.5 (--normalisation) instead of mean 0.485,0.456,0.406 (the profile's recipe)"
    assert warning in record["notes"]
    assert warning in json.loads(next(Path("s/pretrain").rglob("backbone.json")).read_text())["warnings"]
    assert [one.outcome for one in rescore(Path("s"))] == ["unchanged"] and path.read_bytes() == written


def test_weights_of_a_backbone_folder_say_how_they_are_fed(command: Command, tmp_path: Path) -> None:
    from harness.backbones.checkpoint import BackboneInfo, write_backbone

    ids = load_classes("micro").ids[:4]
    (tmp_path / "four.txt").write_text("\n".join(ids) + "\n")
    (tmp_path / "turned.txt").write_text("\n".join(reversed(ids)) + "\n")
    info = BackboneInfo("resnet10", {}, ids, (0.4,) * 3, (0.2,) * 3, 64, "bicubic", "ema", {})
    write_backbone(tmp_path / "made", info, {"raw": states(1), "ema": states(2)})
    options = ("--checkpoint", "made/ema.safetensors", "--suite", "", "--profile", "micro")
    assert command(1, "s", *options, "--classes", "four.txt") is None
    facts = json.loads(next(Path("s/pretrain").rglob("backbone.json")).read_text())
    assert facts["weights"] == "ema" and facts["mean"] == [0.4] * 3 and facts["std"] == [0.2] * 3
    error = command(1, "s", *options, "--classes", "turned.txt")
    assert isinstance(error, UserError) and "not the class list" in error.what
    error = command(1, "s", *options, "--classes", "four.txt", "--weights", "raw")
    assert isinstance(error, UserError) and "these are the ema weights" in error.why
