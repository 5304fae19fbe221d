"""Checkpoints of interrupted loops: read back as written, refused when damaged or foreign, never misread."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from harness.core.errors import UserError
from harness.core.resume import load_state, save_state


def written(tmp_path: Path, step: int = 7) -> Path:
    path = tmp_path / "work" / "checkpoint.pt"
    save_state(path, "run a", step, {"weights": {"w": torch.arange(1000.0)}, "log": ["one", "two"], "lr": 0.5})
    return path


def test_a_checkpoint_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    step, content = load_state(written(tmp_path), "run a")
    assert step == 7 and content["log"] == ["one", "two"] and content["lr"] == 0.5
    assert torch.equal(content["weights"]["w"], torch.arange(1000.0))


def test_no_checkpoint_means_step_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_state(tmp_path / "none.pt", "run a") == (0, {}) and capsys.readouterr().err == ""


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)

    def torn(content: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise InterruptedError

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(InterruptedError):
        save_state(path, "run a", 8, {})
    assert load_state(path, "run a")[0] == 7 and [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belongs to another run") as caught:
        load_state(written(tmp_path), "run b")
    assert "delete" in caught.value.fix


@pytest.mark.parametrize("damage", ["one byte of a tensor", "cut", "empty", "text"])
def test_a_damaged_checkpoint_is_not_believed_and_the_training_starts_again_with_a_note(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "one byte of a tensor":
        place = content.index(torch.arange(1000.0).numpy().tobytes()) + 2000
        content[place] ^= 1
    path.write_bytes({"cut": bytes(content[:1500]), "empty": b"", "text": b"no checkpoint"}.get(damage, bytes(content)))
    assert load_state(path, "run a") == (0, {})
    (note,) = capsys.readouterr().err.splitlines()
    assert "cannot be read" in note and "starts from the beginning" in note


def test_a_checkpoint_of_an_older_version_starts_again_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "state.pt"
    torch.save({"format": 1, "facts": "[]", "step": 9, "model": {}}, old)
    assert load_state(old, "run a") == (0, {})
    (tmp_path / "fit" / "step-000008").mkdir(parents=True)
    assert load_state(tmp_path / "fit" / "checkpoint.pt", "run a") == (0, {})
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and all("written by another version" in note for note in notes)


def test_nothing_of_a_checkpoint_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.pt"
    torch.save({"format": "resume-1", "run": "run a", "step": 1, "content": Path("x")}, path)
    assert zipfile.is_zipfile(path)
    assert load_state(path, "run a") == (0, {}) and "cannot be read" in capsys.readouterr().err
