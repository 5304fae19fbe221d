"""Jobs on several devices: no rank outlives its run, a second run does not wait for ever, and a death says which rank and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UserError
from harness.core.locks import lock
from harness.run.launch import failure_answer
from harness.run.ranks import answer_file
from harness.store.artifacts import Store
from harness.store.cells import Cell, Resources

CELL = Cell(
    "fit", "pair", 1, {}, callable_path="tests.harness.test_ranks:pair", resources=Resources(devices=2), label="pair"
)
PATIENCE = 120.0


def pair(ctx: Any) -> None:
    """Do as the environment says, as one of two ranks."""
    action = os.environ["PAIR_ACTION"]
    (Path(os.environ["PAIR_FOLDER"]) / f"rank-{ctx.rank}-{os.getpid()}").touch()
    if action == "kill" and ctx.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise" and ctx.rank == 1:
        raise UserError("a wheel is missing", "it fell off", "put it back")
    if action.startswith("stall"):
        train_and_stall(ctx, action)
    elif action != "work":
        signal.pause()
    if ctx.rank == 0:
        (ctx.out / "weights").write_text("w")


def train_and_stall(ctx: Any, how: str) -> None:
    """Do six steps with a sum over both ranks and a checkpoint in each; at its first try rank 1 stops moving in the fourth."""
    import torch

    from harness.backbones.ranks import join
    from harness.core.resume import load_state, save_state

    state, first = ctx.scratch / "state.pt", Path(os.environ["PAIR_FOLDER"]) / "first"
    with join("cpu") as ranks:
        step, content = load_state(state, "pair")
        (Path(os.environ["PAIR_FOLDER"]) / f"begins-{ctx.rank}-{step}").touch()
        total = content.get("total", torch.zeros(1))
        while step < 6:
            if step == 3 and ctx.rank == 1 and not first.exists():
                first.touch()
                stop_moving(how)
            part = torch.ones(1)
            torch.distributed.all_reduce(part)
            total, step = total + part, step + 1
            if ctx.rank == 0:
                save_state(state, "pair", step, {"total": total})
            ranks.wait()
            time.sleep(0.6)  # rank 0 tells its step twice a second
            ctx.progress(step, 6, "steps")
        assert total.item() == 12


def stop_moving(how: str) -> None:
    """Wait for ever, or stop as a process that waits for a disk."""
    while True:  # the question where it stands wakes it
        os.kill(os.getpid(), signal.SIGSTOP) if how == "stall stopped" else signal.pause()


def main() -> None:
    """Run the one cell in a store, and print what became of it."""
    from harness.plan.model import Plan
    from harness.run.local import LocalExecutor
    from harness.run.progress import ProgressReporter

    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a test run in the background inherits that both are ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    store, plan = Store(Path(sys.argv[1])), Plan()
    plan.add(CELL)
    summary = LocalExecutor(store, 2, "cpu", ProgressReporter(store, 1)).run(plan, frozenset({CELL.key}))
    print(json.dumps([summary.done, [[one.what, one.why, one.log] for one in summary.failures]]))


@pytest.fixture
def ranks(tmp_path: Path) -> Any:
    """Return a function that starts a run of the cell in a process group of its own, with a folder for temporary files."""
    started = []
    for name in ("seen", "tmp"):
        (tmp_path / name).mkdir()

    def start(action: str) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        facts = {
            "PAIR_ACTION": action,
            "PAIR_FOLDER": str(tmp_path / "seen"),
            "TMPDIR": str(tmp_path / "tmp"),
            "PYTHONPATH": path,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.test_ranks", str(tmp_path / "s")], cwd=root, env=os.environ | facts,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(true: Any) -> bool:
    """Wait until something holds; returns whether it does."""
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(true())


def pids(folder: Path) -> list[int]:
    """Return the processes of the ranks that have begun their work."""
    return [int(path.name.rpartition("-")[2]) for path in (folder / "seen").iterdir()]


def alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGKILL, False),
        (signal.SIGINT, True),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.slow),
    ],
)
def test_no_rank_outlives_its_run(ranks: Any, tmp_path: Path, number: signal.Signals, group: bool) -> None:
    run = ranks("hang")
    assert until(lambda: len(pids(tmp_path)) == 2)
    found = pids(tmp_path)
    assert all(alive(pid) for pid in found)
    os.killpg(run.pid, number) if group else run.send_signal(number)
    run.communicate(timeout=PATIENCE)
    assert until(lambda: not any(alive(pid) for pid in found)), "a rank is alive"
    assert until(lambda: not list((tmp_path / "tmp").iterdir())), list((tmp_path / "tmp").rglob("*"))


def test_a_second_run_of_a_cell_finds_it_done_on_every_rank(ranks: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with lock(store.root / "locks" / f"{CELL.key[:16]}.lock", remove=True):  # as the first run does
        run = ranks("work")
        waiting = Path(f"/proc/{run.pid}")
        assert until(lambda: list((tmp_path / "tmp").glob("*/*_*/attempt_0")) or not waiting.exists())
        store.folder(CELL).mkdir(parents=True, exist_ok=True)
        (store.folder(CELL) / "weights").write_text("of the first run")
        store.seal(CELL, {})
    out, err = run.communicate(timeout=PATIENCE)
    assert json.loads(out) == [1, []], err
    assert not pids(tmp_path), "a rank has begun work that was done"
    assert (store.folder(CELL) / "weights").read_text() == "of the first run"
    assert not list((tmp_path / "tmp").iterdir()), "temporary files stay"


def test_a_rank_that_fails_and_one_that_is_killed_are_named(ranks: Any, tmp_path: Path) -> None:
    out, err = ranks("raise").communicate(timeout=PATIENCE)
    (done, ((what, why, _),)) = json.loads(out)
    assert done == 0 and what == "rank 1 of 2: a wheel is missing" and why == "it fell off", err
    out, err = ranks("kill").communicate(timeout=2 * PATIENCE)
    (done, ((what, why, log),)) = json.loads(out)
    assert what == "the worker died 3 times" and why == "rank 1 of 2 was killed by SIGKILL", err
    assert err.count("rank 1 of 2 was killed by SIGKILL); trying again") == 2
    assert Path(log).is_file() and not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("stall", "rank 1 of 2 hangs in stop_moving ("),
        pytest.param("stall stopped", "rank 1 of 2 hangs and answers no signal", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named_and_the_job_goes_on_from_its_checkpoint(
    ranks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, why: str
) -> None:
    monkeypatch.setenv("HARNESS_RANK_PATIENCE", "4")
    out, err = ranks(how).communicate(timeout=2 * PATIENCE)
    assert json.loads(out) == [1, []], err
    (note,) = [line for line in err.splitlines() if "trying again" in line]
    assert "its worker died (no step for 4 s after step 3 of 6: " + why in note, note
    assert "and the others wait for it" in note
    begins = sorted(path.name for path in (tmp_path / "seen").glob("begins-*"))
    assert begins == ["begins-0-0", "begins-0-3", "begins-1-0", "begins-1-3"]
    assert not list((tmp_path / "tmp").iterdir()), "temporary files stay"


def test_two_ranks_do_their_job_and_leave_nothing_else(ranks: Any, tmp_path: Path) -> None:
    out, err = ranks("work").communicate(timeout=PATIENCE)
    assert json.loads(out) == [1, []], err
    assert len(pids(tmp_path)) == 2 and not list((tmp_path / "tmp").iterdir())
    assert {path.name for path in (tmp_path / "s" / "locks").iterdir()} == {"in-use.lock"}


def test_a_killed_rank_is_the_cause_of_the_errors_of_the_others(tmp_path: Path) -> None:
    error = {"event": "failed", "error": {"what": "the connection is closed", "why": "", "fix": ""}}
    answer_file(tmp_path, 0).write_text(json.dumps(error))
    assert failure_answer(tmp_path, {0: 1, 1: -9}, 2) == {"event": "died", "why": "rank 1 of 2 was killed by SIGKILL"}
    assert failure_answer(tmp_path, {0: 1}, 2) == error
    assert failure_answer(tmp_path, {0: -15, 1: 3}, 2)["why"] == "rank 1 of 2 ended with exit code 3"
    assert failure_answer(tmp_path, {1: 3}, 2)["why"] == "rank 1 of 2 ended with exit code 3"


if __name__ == "__main__":
    main()
