"""The executor slurm on a real cluster of two nodes: nodes die, jobs are preempted, the command is killed; the board stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster, cluster, until, why_not

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why_not()), reason=f"no Slurm can be started here: {why_not()}"),
]
STEPPER = '''
import os, time
from harness.api import GeneratorCard, load_state, save_state
from fakeplug import Noise

class Stepper(Noise):
    """Trains for some steps that leave a trace; every second one is followed by a checkpoint."""
    card = GeneratorCard(id="stepper", version=1, summary="Steps.", information=(), real_pixels_at_training=False,
                         real_pixels_at_synthesis=False)

    def fits(self, settings):
        return True

    def fit(self, ctx):
        done, _ = load_state(ctx.scratch / "state.pt", "stepper")
        for step in range(done, 24):
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            with open(os.environ["TRACE"], "a") as stream:
                stream.write(f"{step}\\\\n")
            if step % 2:
                save_state(ctx.scratch / "state.pt", "stepper", step + 1, {})
            ctx.progress(step + 1, 24, "steps")
        (ctx.out / "weights").write_text("w")
'''.replace("\\\\n", "\\n")
SLURM = (
    "--executor", "slurm", "--device", "cpu", "--set", "slurm.memory_gb=1", "--set", "slurm.minutes=20",
    "--set", "slurm.array_limit=2", "--set", "slurm.poll_seconds=2", "--set", "slurm.pause_seconds=60",
)  # fmt: skip


URGENT = ("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
"""Submits a job that needs both nodes, and preempts all others."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """Return a cluster."""
    with cluster() as made:
        yield made


Start = Callable[..., "subprocess.Popen[str]"]


def heed_interrupts() -> None:
    """Undo what a test run in the background inherits: that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(slurm: Cluster, plugins: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the command line with the plugins installed; what still runs at the end is killed."""
    folder = tmp_path / "stepper"
    (folder / "stepper-1.0.dist-info").mkdir(parents=True)
    (folder / "stepper.py").write_text(STEPPER)
    (folder / "stepper-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stepper\nVersion: 1.0\n")
    (folder / "stepper-1.0.dist-info" / "entry_points.txt").write_text(
        "[harness.generators]\nstepper = stepper:Stepper\n"
    )
    path = os.pathsep.join(filter(None, (str(folder), str(plugins), os.environ.get("PYTHONPATH"))))
    base = os.environ | slurm.environment | {"PYTHONPATH": path, "HARNESS_CACHE": str(tmp_path / "cache"),
                                             "TRACE": str(tmp_path / "trace")}  # fmt: skip
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, env=base | environment, text=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            print(*process.communicate())  # shown where the test failed
    slurm.call("scancel", "--state=PENDING", "--partition=main,urgent")
    slurm.call("scancel", "--partition=main,urgent")


def command(plugins: Path, store: Path, generator: str = "noise", pause: float = 0.0) -> tuple[str, ...]:
    """Return the arguments of a run of eight shards, without the executor."""
    return ("run", "--generator", generator, "--suite", "brightness", "--profile", str(plugins / "toy.toml"), "--store", str(store),
            "--set", f"generators.{generator}.pause={pause}")  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0, timeout: float = 900) -> str:
    """Wait for a command and return what it printed as messages."""
    _, errors = process.communicate(timeout=timeout)
    assert process.returncode == code, errors
    return errors


def csv(store: Path) -> bytes:
    """Return the board a run wrote."""
    return (store / "leaderboard.csv").read_bytes()


def arrays(store: Path) -> dict[str, list[str]]:
    """Return the arrays that were submitted and whose files are there: batch to the shards in it."""
    found = {path.parent.name: json.loads(path.read_text())["ids"] for path in (store / "slurm").glob("*/batch.json")}
    return {batch: [shard for tasks in ids for _, shard in tasks] for batch, ids in found.items()}


def running(slurm: Cluster, node: str = "") -> int:
    """Return how many jobs run, on a node or anywhere."""
    where = [f"--nodelist={node}"] if node else []
    return len(slurm.call("squeue", "--noheader", "--array", "--states=RUNNING", *where).splitlines())


def restarted(slurm: Cluster, *jobs: str) -> bool:
    """Return whether one of some jobs has been requeued."""
    return any("Restarts=1" in slurm.call("scontrol", "show", "job", job) for job in jobs)


def test_the_command_is_killed_and_goes_on_without_submitting_twice_and_the_board_has_the_bytes_of_a_local_run(
    slurm: Cluster, start: Start, plugins: Path, tmp_path: Path
) -> None:
    arguments = command(plugins, tmp_path / "s", pause=4)
    first = start(*arguments, *SLURM)
    until(lambda: len(list((tmp_path / "s" / "synthesise").glob("*/shards/*.jsonl"))) > 0)
    first.kill()
    first.wait()
    before = arrays(tmp_path / "s")
    assert len(before) == 1 and len(*before.values()) == 8 and running(slurm)
    status = start("status", str(tmp_path / "s"))
    shown, _ = status.communicate(timeout=120)
    assert status.returncode == 1 and shown.startswith("dead: "), shown
    assert "jobs of slurm:" in shown and "log: " in shown and "Slurm job" in shown, shown
    second = start(*arguments, *SLURM)
    seen: dict[str, list[str]] = {}
    until(lambda: seen.update(arrays(tmp_path / "s")) or second.poll() is not None, 400)  # type: ignore[func-returns-value]
    errors = ended(second)
    assert "was submitted by an earlier run: waiting for it" in errors
    times = Counter(shard for shards in seen.values() for shard in shards)
    twice = [shard for shard in times if shard and times[shard] > 1]
    assert twice == [], "a shard was submitted twice"
    ended(start(*command(plugins, tmp_path / "local", pause=4)))
    assert csv(tmp_path / "s") == csv(tmp_path / "local")
    assert not list((tmp_path / "s" / "slurm").iterdir()), "files of jobs that ended well are gone"
    again = ended(start(*arguments, *SLURM))
    assert "nothing to do" in again


def test_a_run_in_which_job_command_and_node_are_struck_has_the_bytes_of_a_local_run(
    slurm: Cluster, start: Start, plugins: Path, tmp_path: Path
) -> None:
    store, trace = tmp_path / "s", tmp_path / "trace"
    arguments = (*command(plugins, store, "stepper", pause=1.5), *SLURM, "--set", "slurm.cpus=2")
    first = start(*arguments, STEP_SECONDS="0.7")
    until(lambda: trace.is_file() and len(trace.read_text().split()) > 3)
    (job,) = slurm.call("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()
    slurm.call(*URGENT)
    first.kill()
    until(lambda: restarted(slurm, job))
    second = start(*arguments, STEP_SECONDS="0.7")
    until(lambda: running(slurm, "n2") == 1 and len(list(store.glob("synthesise/*/shards/*.jsonl"))) > 0)
    try:
        assert slurm.kill_node("n2") == 1
        ended(second)
    finally:
        slurm.start_node("n2")
    assert [int(step) for step in trace.read_text().split()] == list(range(24)), "a step was lost or done twice"
    ended(start(*command(plugins, tmp_path / "local", "stepper", pause=1.5)))
    assert csv(store) == csv(tmp_path / "local") and b"stepper" in csv(store)
    until(lambda: "idle" in slurm.call("sinfo", "--noheader", "--nodes=n2", "--format=%t"))


@pytest.mark.parametrize("how", ["preempted by a job of a higher priority", "signalled before its time limit"])
def test_a_job_that_must_go_pauses_at_a_checkpoint_and_goes_on_from_it(
    slurm: Cluster, start: Start, plugins: Path, tmp_path: Path, how: str
) -> None:
    process = start(*command(plugins, tmp_path / "s", "stepper"), *SLURM, STEP_SECONDS="0.7")
    trace = tmp_path / "trace"
    until(lambda: trace.is_file() and len(trace.read_text().split()) > 3)
    (job,) = slurm.call("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()
    if how.startswith("preempted"):
        slurm.call(*URGENT)
    else:
        slurm.call("scancel", "--signal=USR2", job)
    until(lambda: restarted(slurm, job))
    ended(process)
    steps = [int(step) for step in trace.read_text().split()]
    assert steps == list(range(24)), "a step was lost or done twice"


def test_ctrl_c_without_a_terminal_leaves_the_jobs_and_says_how_they_are_cancelled(
    slurm: Cluster, start: Start, plugins: Path, tmp_path: Path
) -> None:
    process = start(*command(plugins, tmp_path / "s", pause=60), *SLURM)
    until(lambda: running(slurm) > 0)
    process.send_signal(signal.SIGINT)
    errors = ended(process, 130)
    assert "Slurm jobs go on; the same command waits for them, scancel --name=harness-" in errors and running(slurm)
    slurm.call(*errors.partition("for them, ")[2].partition(" cancels")[0].split())
    until(lambda: not running(slurm))


@pytest.mark.long
@pytest.mark.timeout(12 * 3600)
def test_all_of_the_embedded_world_has_the_bytes_of_a_local_run_though_command_node_and_jobs_are_struck(
    slurm: Cluster, start: Start, tmp_path: Path
) -> None:
    store, seconds = tmp_path / "s", 5 * 3600.0
    arguments = ("run", "--generator", "all", "--suite", "all")
    whole = (*arguments, "--store", str(store), *SLURM, "--set", "slurm.memory_gb=4", "--set", "slurm.minutes=60")
    first = start(*whole)
    until(lambda: bool(running(slurm)) and len(list(store.glob("synthesise/*/shards/*.tar"))) > 1, seconds)
    first.kill()
    second = start(*whole)
    until(lambda: len(list(store.glob("pretrain/*"))) > 0 and bool(running(slurm)), seconds)
    jobs = slurm.call("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()
    slurm.call(*URGENT)
    until(lambda: restarted(slurm, *jobs), seconds)

    def half_way() -> bool:
        facts = json.loads((store / "status.json").read_text())
        return facts["done"] >= facts["total"] / 2 and running(slurm) > 0

    until(half_way, seconds)
    node = "n2" if running(slurm, "n2") else "n1"
    slurm.kill_node(node)
    ended(second, timeout=seconds)
    slurm.start_node(node)
    ended(start(*arguments, "--store", str(tmp_path / "local")), timeout=seconds)
    assert csv(store) == csv(tmp_path / "local")
    assert not list(store.rglob("*.set-aside-*")), "nothing was taken for damage"
