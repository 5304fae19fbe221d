"""Locks: one holder at a time, no file that stays, and what is done where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ReadOnly, UserError
from harness.core.locks import lock, lock_fault
from tests.harness.conftest import Run


def nothing(*_: Any) -> None:
    """Take every lock, as some network file systems do."""


def unsupported(*_: Any) -> None:
    """Refuse, as other ones do."""
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_removed_lock_file_keeps_everyone_else_out(tmp_path: Path) -> None:
    path, inside, most, done = tmp_path / "x.lock", [0], [0], []

    def work() -> None:
        for _ in range(200):
            with lock(path, remove=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and most == [1] and not os.listdir(tmp_path)


def test_who_waited_for_a_lock_file_that_is_gone_takes_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with lock(path, remove=True), pytest.raises(BlockingIOError), lock(path, wait=False):
        pass
    with path.open("a") as old, lock(path, remove=True):
        kept = old.fileno()
        assert os.path.samestat(os.fstat(kept), path.stat())
    with lock(path), pytest.raises(BlockingIOError), lock(path, wait=False):
        pass


def test_locks_that_work_are_found_to(tmp_path: Path) -> None:
    assert lock_fault(tmp_path) == "" and not os.listdir(tmp_path)


@pytest.mark.parametrize(("flock", "why"), [(nothing, "a second process gets"), (unsupported, "No locks available")])
def test_locks_that_do_nothing_or_do_not_exist_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Any, why: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    assert why in lock_fault(tmp_path) and not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_fault_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadOnly):
        lock_fault(tmp_path)


def test_a_lock_that_is_not_supported_is_an_error_in_three_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(UserError, match="no locks in") as caught, lock(tmp_path / "x.lock"):
        pass
    assert "NFS 4" in caught.value.fix


HOOK = """
import errno, fcntl, os
def none(*_): pass
def unsupported(*_): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = {"none": none, "unsupported": unsupported}[os.environ["FLOCK"]]
"""


@pytest.mark.parametrize("flock", ["none", "unsupported"])
def test_a_run_and_doctor_say_that_locks_do_not_work(harness: Run, plugins: Path, tmp_path: Path, flock: str) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join((str(tmp_path / "hook"), str(plugins), os.environ.get("PYTHONPATH", "")))
    bad = {"PYTHONPATH": path, "FLOCK": flock}
    profile = str(plugins / "toy.toml")
    run = harness("run", "--generator", "noise", "--suite", "brightness", "--profile", profile, "--store", "s", **bad)
    assert run.returncode == 2 and "locks do not work in the store" in run.stderr and "Traceback" not in run.stderr
    assert "fix: " in run.stderr and not list((tmp_path / "s").rglob("manifest.json"))
    doctor = harness("doctor", "--profile", profile, "--store", "s", **bad)
    assert doctor.returncode == 1 and "problem  locks" in doctor.stdout, doctor.stdout


def test_a_finished_run_leaves_no_lock_files_of_its_cells(harness: Run, plugins: Path, tmp_path: Path) -> None:
    profile = str(plugins / "toy.toml")
    done = harness("run", "--generator", "noise", "--suite", "brightness", "--profile", profile, "--store", "s")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "s" / "locks").iterdir()} <= {"in-use.lock", "hashes.lock"}
    found = harness("doctor", "--profile", profile, "--store", "s")
    assert "ok       locks" in found.stdout
