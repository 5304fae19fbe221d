"""Kill -9 at seeded moments, of the whole process group and of one worker; the board must not notice.

The moments are counted in file-system events inside the store, so that they hit the same places on any machine: a hook in
every process of the run counts events of one kind of cell and kills at the n-th. Events are the opening of a file for
writing (then a piece is written before the kill) and renames (then the new bytes are there and the old name still stands).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HOOK = """
import os, signal, sys, threading
moments = [part.split(":") for part in os.environ.get("KILL_AT", "").split(",") if part]
if moments:
    seen = [0] * len(moments)

    def strike(index, who):
        try:
            os.close(os.open(os.environ["KILL_FLAG"] + str(index), os.O_CREAT | os.O_EXCL))  # one death per moment
        except FileExistsError:
            return
        os.killpg(0, signal.SIGKILL) if who == "group" else os.kill(os.getpid(), signal.SIGKILL)

    def hook(name, arguments):
        if name not in ("open", "os.rename") or not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(arguments[0])
        writing = len(arguments) > 2 and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if name == "open" and not writing:
            return
        for index, (kind, event, number, who) in enumerate(moments):
            inside = f"/{kind}/" in path or f"/.{kind}." in path
            if inside and (event == "rename") == (name == "os.rename"):
                seen[index] += 1
                if seen[index] == int(number):
                    if event == "rename":
                        strike(index, who)
                    else:
                        threading.Timer(0.002, strike, (index, who)).start()

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


@dataclass(frozen=True)
class Moment:
    """When to strike: the n-th event of a kind of cell."""

    kind: str
    event: str
    number: int
    who: str


KINDS = (("fit", 9), ("synthesise", 11), ("pretrain", 3), ("extract", 5), ("evaluate", 2))
"""Kinds of cell, and how many files one worker surely opens for writing in them before it is done."""


def group_moments() -> list[Moment]:
    """Return twenty moments for the whole group: three in each kind of cell, four renames, one in the board's export."""
    rng = random.Random(20261120)
    found = [
        Moment(kind, "open", number, "group") for kind, most in KINDS for number in rng.choices(range(1, most + 1), k=3)
    ]
    found += [Moment(kind, "rename", 1, "group") for kind in ("fit", "synthesise", "extract", "evaluate")]
    found.sort(key=lambda moment: [kind for kind, _ in KINDS].index(moment.kind))  # the order in which a run meets them
    return [*found, Moment("leaderboard.csv", "rename", 1, "group")]


def worker_moments() -> list[list[Moment]]:
    """Return twenty moments for one worker each, over two runs: a task survives two deaths, so no run kills one thrice."""
    rng = random.Random(20261121)
    runs = []
    for _ in range(2):
        found = [Moment(kind, "open", rng.randint(1, most), "worker") for kind, most in KINDS]
        runs.append(found + [Moment(kind, "rename", 1, "worker") for kind, _ in KINDS])
    return runs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the hook and the store of a calm run."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    calm = start(folder, folder / "calm", [])
    assert calm.returncode == 0, calm.stderr
    return folder


def start(world: Path, store: Path, moments: list[Moment]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process group of its own, with deaths on the way."""
    for flag in world.glob("flag*"):
        flag.unlink()
    spec = ",".join(f"{m.kind}:{m.event}:{m.number}:{m.who}" for m in moments)
    env = os.environ | {"PYTHONPATH": str(world / "hook"), "KILL_FLAG": str(world / "flag"), "KILL_AT": spec}
    command = [sys.executable, "-m", "harness", *COMMAND, "--store", str(store), "--quiet"]
    return subprocess.run(
        command, env=env, text=True, capture_output=True, start_new_session=True, timeout=900, check=False
    )


def check_board(world: Path, store: Path) -> None:
    """Assert that a store's board has the bytes of the calm run's, and that nothing was taken for damage."""
    assert (store / "leaderboard.csv").read_bytes() == (world / "calm" / "leaderboard.csv").read_bytes()
    assert not list(store.rglob("*.set-aside-*")), "a kill must never look like damage"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_kills_of_the_whole_group_leave_the_board_unchanged(world: Path) -> None:
    store, struck = world / "group", []
    for moment in group_moments():
        done = start(world, store, [moment])
        if done.returncode == -signal.SIGKILL:
            struck.append(moment)
        else:  # the run met no such event any more and went through
            assert done.returncode == 0, (moment, done.returncode, done.stderr)
    final = start(world, store, [])
    assert final.returncode == 0, final.stderr
    check_board(world, store)
    count = {kind: sum(moment.kind == kind for moment in struck) for kind, _ in KINDS}
    print(f"{len(struck)} deaths of the group: {count}")
    assert len(struck) == 20 and min(count.values()) >= 3, set(group_moments()) - set(struck)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("number", [0, 1])
def test_kills_of_one_worker_leave_the_board_unchanged(world: Path, number: int) -> None:
    store, moments = world / f"worker{number}", worker_moments()[number]
    done = start(world, store, moments)
    assert done.returncode == 0, done.stderr
    struck = {moments[int(flag.name.removeprefix("flag"))] for flag in world.glob("flag*")}
    print(f"{len(struck)} deaths of a worker")
    assert struck == set(moments), f"never struck: {set(moments) - struck}"
    check_board(world, store)
