"""Atomic, verified checkpoints of a fine-tune: safetensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.api import CorruptArtifact, UserError, file_sha256

STATE = "state.json"
PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """A position and the tensors of each part (LoRA, discriminator, optimizers).

    No generator states are needed: all noise derives from (seed, step, sample).
    """

    position: int
    """Finished steps, warm-up included."""
    config: str
    """Hash of everything that decides the result."""
    tensors: Mapping[str, Mapping[str, Tensor]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under a temporary name, rename it, and then remove its predecessors."""
    final = folder / f"{PREFIX}{checkpoint.position:06d}"
    part = folder / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    hashes = {}
    for name, tensors in checkpoint.tensors.items():
        path = part / f"{name}.safetensors"
        plain = {key: each.detach().cpu().contiguous() for key, each in tensors.items()}
        save_file(plain, path, metadata={"format": "pt"})
        _sync(path)
        hashes[path.name] = file_sha256(path)
    state = {"position": checkpoint.position, "config": checkpoint.config, "sha256": hashes}
    (part / STATE).write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
    _sync(part / STATE)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    _sync(folder)
    for old in _finished(folder):
        if old != final:
            shutil.rmtree(old)
    return final


def load_checkpoint(folder: Path, config: str) -> Checkpoint | None:
    """Return the newest checkpoint, verified, or None if there is none.

    Raises:
        UserError: it belongs to other settings.
        CorruptArtifact: its bytes are not those that were written.
    """
    found = _finished(folder)
    if not found:
        return None
    newest = found[-1]
    fix = f"delete {newest} to start again"
    try:
        state = json.loads((newest / STATE).read_text())
        broken = [name for name, digest in state["sha256"].items() if file_sha256(newest / name) != digest]
        position, made_with = int(state["position"]), str(state["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"the checkpoint {newest} cannot be read", repr(error), fix) from error
    if broken:
        raise CorruptArtifact(f"the checkpoint {newest} is damaged", f"{broken[0]} changed on disk", fix)
    if made_with != config:
        raise UserError(f"the checkpoint {newest} is of another run", "settings, names or seed differ", fix)
    return Checkpoint(position, made_with, {Path(name).stem: load_file(newest / name) for name in state["sha256"]})


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as named tensors ``prefix.parameter.quantity``."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {f"{prefix}.{index}.{key}": value for index, kept in state.items() for key, value in kept.items()}


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, index, key = name.split(".")
        if owner == prefix:
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if not path.name.endswith(".part"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
