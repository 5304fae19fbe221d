"""What tests of base models share: a base in the eyes of plan, doctor and loader, and ways to change one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from generators.diffusion.base import inspect_base
from generators.diffusion.pipeline import load_pipeline
from harness.cli.modelcheck import model_findings
from harness.core.errors import UserError
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PARTS = (UNET, VAE, TEXT)


def plan_of(base: Path) -> Plan:
    """Return the plan of `sd15` on a base model, as the command line makes it."""
    profile = load_profile("micro", [f"generators.sd15.base={base}"]).profile
    return Planner(Selection(profile, "sd15", "in-domain")).build()


def refusal(base: Path) -> UserError:
    """Return why a base is refused; plan and doctor say the same, and the loader refuses too."""
    with pytest.raises(UserError) as caught:
        inspect_base(base)
    error = caught.value
    plan = plan_of(base)
    assert not plan.cells
    assert [entry.reason for entry in plan.not_run] == [f"{error.what}: {error.why}; {error.fix}"]
    problems = [
        each for each in model_findings("micro", (), [f"generators.sd15.base={base}"]) if each.status == "problem"
    ]
    assert [(each.text, each.fix) for each in problems] == [(f"{error.what}: {error.why} [sd15]", error.fix)]
    with pytest.raises(UserError):
        load_pipeline(base)
    return error


def notes(base: Path) -> tuple[str, ...]:
    """Return what is noted of a base that is read: by the plan, by doctor, and in the keys of its cells."""
    found = inspect_base(base).notes
    plan = plan_of(base)
    cell = next(cell for cell in plan.cells.values() if cell.kind == "synthesise")
    assert cell.params.get("models", {}).get("base", []) == list(found)
    assert [note for note in plan.notes if "base" in note] == [f"sd15: base: {note}" for note in found]
    findings = list(model_findings("micro", (), [f"generators.sd15.base={base}"]))
    (line,) = [each.text for each in findings if str(base) in each.text]
    assert all(note in line for note in found) and all(each.status == "ok" for each in findings)
    return found


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled(folder: Path) -> None:
    for path in sorted(folder.rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def key(base: Path) -> str:
    return next(key for key, cell in plan_of(base).cells.items() if cell.kind == "synthesise")


def configuration_with(folder: Path, file: str, write: Callable[[Path], None]) -> Path:
    """Turn a pipeline folder into its configuration with a single file beside it."""
    for path in PARTS:
        (folder / path).unlink()
    write(folder / file)
    return folder
