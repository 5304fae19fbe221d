"""Checkpoints of loops that can be interrupted: one file, one format, written whole, verified when read.

No generator states are stored. Every random draw of the loops is a function of a seed and of the step (or of epoch and
sample), so a loop that continues after step n draws what an uninterrupted one draws, on any number of processes.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError
from harness.core.files import atomic_file

if TYPE_CHECKING:
    import torch

_FORMAT = "resume-1"
_OLD_FOLDERS = "step-*"
"""Checkpoints of fine-tunes before this format."""


def save_state(path: Path, run: str, step: int, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; a kill leaves the previous one or the new one.

    Args:
        path: The file.
        run: What tells this run from all others: a hash, or JSON of all that decides its result.
        step: Steps done.
        content: Tensors, numbers, texts, and lists and dicts of them.

    Raises:
        UserError: the disk is full.
    """
    import torch

    with atomic_file(path) as stream:
        torch.save({"format": _FORMAT, "run": run, "step": step, "content": dict(content)}, stream)


def load_state(path: Path, run: str, device: str | torch.device = "cpu") -> tuple[int, dict[str, Any]]:
    """Return (steps done, content) of a checkpoint.

    Where there is none this is (0, {}); so it is, with a note on stderr, where it is damaged or of another version of the format.

    Raises:
        UserError: it belongs to another run.
    """
    if not path.is_file():
        if any(path.parent.glob(_OLD_FOLDERS)):
            _note(path.parent, "was written by another version")
        return 0, {}
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        saved = {} if damaged else torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damage shows as an error of zip, pickle or torch
        _note(path, f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
        return 0, {}
    if damaged:
        _note(path, f"cannot be read (the checksum of {damaged} is wrong)")
        return 0, {}
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        _note(path, "was written by another version")
        return 0, {}
    if saved["run"] != run:
        raise UserError(
            f"the checkpoint {path} belongs to another run",
            "its settings, seed, classes or number of images differ",
            f"delete {path} and start the same command again; this training then starts from the beginning",
        )
    return saved["step"], saved["content"]


def _note(place: Path, why: str) -> None:
    print(f"note: the checkpoint in {place} {why}; this training starts from the beginning", file=sys.stderr)
