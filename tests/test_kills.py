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
spec = os.environ.get("KILL_AT")
if spec:
    kind, event, number, who = spec.split(":")
    seen = [0]
    def hook(name, arguments):
        if name not in ("open", "os.rename") or not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(arguments[0])
        if name == "open" and not (len(arguments) > 2 and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if f"/{kind}/" not in path and not path.endswith(kind) or (event == "rename") != (name == "os.rename"):
            return
        seen[0] += 1
        if seen[0] == int(number):
            def strike():
                flag = os.environ["KILL_FLAG"]
                try:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))  # one death per run, whoever gets there first
                except FileExistsError:
                    return
                os.killpg(0, signal.SIGKILL) if who == "group" else os.kill(os.getpid(), signal.SIGKILL)
            strike() if event == "rename" else threading.Timer(0.002, strike).start()
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


def moments() -> list[Moment]:
    """Return twenty moments for each victim: at least three in each kind of cell, three renames, one in the export."""
    rng = random.Random(20261120)
    found = []
    for who in ("group", "worker"):
        for kind, most in (("fit", 12), ("synthesise", 20), ("pretrain", 5), ("extract", 6), ("evaluate", 12)):
            found += [Moment(kind, "open", number, who) for number in rng.sample(range(1, most), 3)]
        found += [
            Moment(kind, "rename", rng.randint(1, 3), who) for kind in ("synthesise", "extract", "evaluate", "fit")
        ]
        found.append(Moment("leaderboard.csv", "rename", 1, "group"))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the hook and a cache of the embedded data sets."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    return folder


def start(world: Path, store: Path, moment: Moment | None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process group of its own, with a death on the way."""
    flag = store.with_suffix(".flag")
    flag.unlink(missing_ok=True)
    env = os.environ | {"PYTHONPATH": str(world / "hook"), "KILL_FLAG": str(flag)}
    if moment is not None:
        env["KILL_AT"] = f"{moment.kind}:{moment.event}:{moment.number}:{moment.who}"
    return subprocess.run(
        [sys.executable, "-m", "harness", *COMMAND, "--store", str(store), "--quiet"],
        env=env,
        text=True,
        capture_output=True,
        start_new_session=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_at_forty_moments_leave_the_board_unchanged(world: Path) -> None:
    calm = start(world, world / "calm", None)
    assert calm.returncode == 0, calm.stderr
    expected = (world / "calm" / "leaderboard.csv").read_bytes()
    struck: dict[str, int] = {}
    todo = moments()
    for round_number in range(12):
        store = world / f"stormy{round_number}"
        left: list[Moment] = []
        for moment in todo:
            done = start(world, store, moment)
            if not store.with_suffix(".flag").exists():
                left.append(moment)  # this store had no such event left; a fresh one has
                continue
            struck[f"{moment.kind}/{moment.who}"] = struck.get(f"{moment.kind}/{moment.who}", 0) + 1
            if moment.who == "group":
                assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
            else:
                assert done.returncode == 0, (moment, done.stderr)
        final = start(world, store, None)
        assert final.returncode == 0, final.stderr
        assert (store / "leaderboard.csv").read_bytes() == expected, f"round {round_number}"
        assert not list(store.rglob("*.set-aside-*")), "a kill must never look like damage"
        todo = left
        if not todo:
            break
    assert not todo, f"never struck: {todo}"
    for kind in ("fit", "synthesise", "pretrain", "extract", "evaluate"):
        assert struck[f"{kind}/group"] >= 3 and struck[f"{kind}/worker"] >= 3
    assert struck["leaderboard.csv/group"] >= 1
