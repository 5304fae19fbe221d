"""Kill -9 of a real run of the embedded world, once in each kind of cell; tests/test_faults.py has the many cheap faults.

The moments are counted in files that are opened for writing, so that they hit the same places on any machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = """
import os, signal, sys, threading
kind, number = (os.environ.get("KILL_AT") or ":0").split(":")
seen = [0]

def hook(name, arguments):
    if name != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR) and f"/{kind}/" in os.fsdecode(arguments[0]):
        seen[0] += 1
        if seen[0] == int(number):
            threading.Timer(0.002, os.killpg, (0, signal.SIGKILL)).start()

if kind:
    sys.addaudithook(hook)
"""

SMALL = (
    "--set",
    "dataset.images_per_class=4",
    "--set",
    "dataset.chunk=2",
    "--set",
    "generators.lbgen.sampling_steps=2",
    "--set",
    "generators.lbgen.steps=4",
    "--set",
    "generators.lbgen.trained_steps=2",
    "--set",
    "generators.lbgen.epochs=3",
    "--set",
    "backbones.resnet10.epochs=4",
    "--set",
    "backbones.resnet10.warmup_epochs=1",
    "--set",
    "backbones.resnet10.batch_size=16",
    "--set",
    'suites.linear-probe.datasets=["eurosat","dtd"]',
)
COMMAND = (
    "run",
    "--generator",
    "lbgen",
    "--suite",
    "in-domain,linear-probe,texture-bias,background-bias",
    "--backbone",
    "resnet10",
    *SMALL,
)


MOMENTS = ("fit:5", "synthesise:11", "pretrain:2", "extract:3", "evaluate:2")
"""Kinds of cell, and the number of the file whose writing the kill meets."""


def start(folder: Path, store: Path, moment: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process group of its own, which may be killed on the way."""
    env = os.environ | {"PYTHONPATH": str(folder / "hook"), "KILL_AT": moment}
    command = [sys.executable, "-m", "harness", *COMMAND, "--store", str(store), "--quiet"]
    return subprocess.run(
        command, env=env, text=True, capture_output=True, start_new_session=True, timeout=900, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_kills_of_the_whole_group_leave_the_board_unchanged(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    calm = start(tmp_path, tmp_path / "calm")
    assert calm.returncode == 0, calm.stderr
    store = tmp_path / "killed"
    for moment in MOMENTS:
        done = start(tmp_path, store, moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
    final = start(tmp_path, store)
    assert final.returncode == 0, final.stderr
    assert (store / "leaderboard.csv").read_bytes() == (tmp_path / "calm" / "leaderboard.csv").read_bytes()
    assert not list(store.rglob("*.set-aside-*")), "a kill must never look like damage"
