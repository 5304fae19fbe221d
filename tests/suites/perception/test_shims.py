"""What the toolbox's checkpoints may name while they are read: a logging history, and nothing that leads further."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
history = pytest.importorskip("mmengine.logging.history_buffer")

from suites.perception.shims import resumable  # noqa: E402


class Reach:
    """Pickles as a call of ``getattr``."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, str]]:
        """Call ``getattr`` when it is read."""
        return getattr, (self.owner, self.name)


def test_a_logging_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    import numpy as np

    buffer = history.HistoryBuffer()
    buffer.update(1.0)
    buffer.update(4.0)
    torch.save({"log": buffer, "rate": np.float64(0.5)}, tmp_path / "a.pth")
    with resumable():
        found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found["log"].mean() == 2.5 and found["log"].statistics("max") == 4.0 and found["rate"] == 0.5


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (history.HistoryBuffer, "__init__"),
        (history.HistoryBuffer, "register_statistics"),
        (torch.Tensor, "min"),
        ({}, "pop"),
    ],
)
def test_a_checkpoint_reaches_no_other_attribute(tmp_path: Path, owner: object, name: str) -> None:
    torch.save({"x": Reach(owner, name)}, tmp_path / "a.pth")
    with resumable(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_the_real_getattr_and_commands_are_refused(tmp_path: Path) -> None:
    with resumable():
        assert getattr not in torch.serialization.get_safe_globals()
    torch.save({"x": os.system}, tmp_path / "a.pth")
    with resumable(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)
