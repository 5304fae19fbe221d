"""What executors are asked for and told, without any cluster: names, resources, jobs as files, causes of ends, pauses."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import harness.run.executors
import harness.run.slurm
from harness.core.errors import UserError
from harness.plan.profile import load_profile
from harness.run import pause
from harness.run.executors import executor_class, launch
from harness.run.local import LocalExecutor
from harness.run.progress import ProgressReporter
from harness.run.queue import Task
from harness.run.remote import JobFile, Runner, answers, events_file
from harness.run.slurm import FOLDER, SlurmExecutor
from harness.run.slurm_jobs import (
    JobSettings,
    JobState,
    Request,
    SlurmSettings,
    bundle_size,
    ended_event,
    expected_jobs,
    job_name,
    parse_accounting,
    parse_queue,
    request_for,
)
from harness.store.artifacts import Store
from harness.store.cells import Cell, Resources
from tests.harness.conftest import Run
from tests.test_docs import blocks

PRETRAIN = Cell("pretrain", "resnet50", 1, {}, label="resnet50", resources=Resources(devices=4, threads=2, minutes=50))
IMAGES = Cell("synthesise", "noise", 1, {}, label="noise", shards=tuple(f"s{i:03}" for i in range(100)),
              resources=Resources(minutes=2))  # fmt: skip
REQUEST = Request("gpu", "", "", "", 1, 8, 32768, 240)


# --- names and settings -----------------------------------------------------------------------------------------------


def test_built_in_executors_come_through_the_door_of_plugins() -> None:
    assert executor_class("local") is LocalExecutor and executor_class("slurm") is SlurmExecutor


def test_an_unknown_or_broken_executor_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("wrong", "json:loads", "harness.executors"), EntryPoint("gone", "nowhere:X", "harness.executors"),
              EntryPoint("right", "harness.run.local:LocalExecutor", "harness.executors")]  # fmt: skip
    monkeypatch.setattr(harness.run.executors, "entry_points", lambda group: points)
    assert executor_class("right") is LocalExecutor
    for name, words in (
        ("wrong", "no subclass of harness.api.Executor"),
        ("gone", "ModuleNotFoundError"),
        ("rigt", "'right'"),
    ):
        with pytest.raises(UserError) as caught:
            executor_class(name)
        assert words in str(caught.value), name


def test_a_table_named_after_an_executor_holds_its_settings(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'name = "p"\nclasses = "micro"\n[slurm]\npartition = "gpu"\n[slurm.cells.pretrain]\nminutes = 9\n'
    )
    profile = load_profile(str(tmp_path / "p.toml"), ["slurm.gpus=2"]).profile
    settings = launch("slurm", profile).settings
    assert isinstance(settings, SlurmSettings)
    assert (settings.partition, settings.gpus, settings.cells["pretrain"].minutes) == ("gpu", 2, 9)
    assert launch("local", profile).settings == LocalExecutor.Settings()
    for wrong in ("slurm.partiton=x", "slurm.gpus=-1", "slurm.cells.pretrain.walltime=3"):
        with pytest.raises(UserError, match=r"table \[slurm\]"):
            launch("slurm", load_profile("micro", [wrong]).profile)
    with pytest.raises(UserError, match="has no setting 'slrm'"):
        load_profile("micro", ["slrm.gpus=1"])


def test_the_device_of_a_cluster_is_not_that_of_the_machine_that_submits() -> None:
    assert SlurmExecutor.choose_device("auto", SlurmSettings()) == ("cuda", 64)
    assert SlurmExecutor.choose_device("auto", SlurmSettings(gpus=0, array_limit=3)) == ("cpu", 3)
    assert SlurmExecutor.choose_device("cpu", SlurmSettings()) == ("cpu", 64)


# --- what jobs ask for ------------------------------------------------------------------------------------------------


def test_a_job_asks_for_its_devices_and_what_differs_for_its_cell() -> None:
    table = SlurmSettings(partition="gpu", cpus=8, memory_gb=10.5, cells={
        "pretrain": JobSettings(memory_gb=20, constraint="a100"), "pretrain/resnet50": JobSettings(minutes=600)})  # fmt: skip
    assert request_for(PRETRAIN, table, "cuda") == Request("gpu", "", "", "a100", 4, 32, 4 * 20480, 600)
    assert request_for(IMAGES, table, "cpu") == Request("gpu", "", "", "", 0, 8, 10752, 240)
    assert request_for(PRETRAIN, SlurmSettings(), "cuda").cpus == 8, "threads of a cell, on each of its devices"


@pytest.mark.parametrize(
    ("count", "minutes", "wanted"),
    [(100, 2.0, 2), (10_000, 2.0, 15), (10, 2.0, 1), (10_000, 0.0, 157), (100, 500.0, 1)],
)
def test_short_tasks_share_a_job_while_the_array_stays_busy(count: int, minutes: float, wanted: int) -> None:
    assert bundle_size(count, minutes, SlurmSettings(array_limit=64, job_minutes=30)) == wanted


def test_the_plan_counts_jobs_as_they_are_submitted() -> None:
    others = [Cell("evaluate", name, 1, {"i": i}) for name in ("in-domain", "texture-bias") for i in range(3)]
    rows = expected_jobs([PRETRAIN, IMAGES, *others], SlurmSettings(gpus=1, array_limit=2), "cuda")
    assert [(row["kind"], row["cells"], row["jobs"], row["gpus"]) for row in rows] == [
        ("pretrain", 1, 1, 4), ("synthesise", 1, 7 + 1, 1), ("evaluate", 6, 4, 1)]  # fmt: skip


def test_plan_shows_jobs_with_partition_gpus_cpus_memory_and_time(harness: Run, plugins: Path) -> None:
    arguments = ("plan", "--generator", "noise", "--suite", "brightness", "--profile", str(plugins / "toy.toml"), "--executor", "slurm",
                 "--set", "slurm.partition=long", "--set", "slurm.cells.evaluate.memory_gb=5", "--set", "slurm.cpus=3")  # fmt: skip
    done = harness(*arguments)
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "kind cells jobs devices partition gpus cpus memory gb limit minutes" in lines
    assert "synthesise 1 9 1 long 1 3 16.0 240" in lines and "evaluate 1 1 1 long 1 3 5.0 240" in lines
    rows = json.loads(harness(*arguments, "--device", "cpu", "--json").stdout)["jobs"]
    assert [row["gpus"] for row in rows] == [0, 0] and rows[1]["memory_gb"] == 5.0
    assert "jobs" not in harness(*arguments[:7]).stdout


# --- what becomes of jobs ---------------------------------------------------------------------------------------------


def test_the_queue_is_read_by_batch_and_element() -> None:
    text = "b1|0|17_0|RUNNING|n1|None\nb1|12|17_12|PENDING||(Priority)\nb2|N/A|18|COMPLETED|n2|None\n"
    found = parse_queue(text)
    assert found["b1", 0].live and found["b1", 0].place == "Slurm job 17_0 on n1"
    assert found["b1", 12].place == "Slurm job 17_12 (Priority)" and not found["b1", 12].held
    assert not found["b2", 0].live
    assert (
        JobState("1", "PENDING", "", "launch failed requeued held").held
        and JobState("1", "PENDING", "", "JobHeldUser").held
    )


def test_the_accounting_gives_the_highest_memory_of_all_steps() -> None:
    text = "OUT_OF_MEMORY|0:125|\nOUT_OF_MEMORY|0:125|1200K\nOUT_OF_MEMORY|0:125|7.5G\nCOMPLETED|0:0|300M\n"
    assert parse_accounting(text) == {"State": "OUT_OF_MEMORY", "ExitCode": "0:125", "MaxRSS": "7.5G"}
    assert parse_accounting("CANCELLED by 1000|0:0|\n")["State"] == "CANCELLED" and parse_accounting("") == {}


@pytest.mark.parametrize(
    ("state", "facts", "peak", "event", "words"),
    [
        (
            "OUT_OF_MEMORY",
            {},
            31000.0,
            "failed",
            ("out of memory", "32.0 GB were allowed, 30.3 GB were in use", "memory_gb=64"),
        ),
        ("OUT_OF_MEMORY", {"MaxRSS": "33000000K"}, 0.0, "failed", ("out of memory", "31.5 GB were in use")),
        ("TIMEOUT", {}, 0.0, "failed", ("time limit reached", "240 minutes", "slurm.cells.evaluate.minutes=480")),
        ("CANCELLED", {}, 0.0, "failed", ("cancelled", "scancel")),
        ("NODE_FAIL", {}, 0.0, "died", ("Slurm job 17_3: node n2 failed; log x.err",)),
        ("FAILED", {"ExitCode": "2:0"}, 0.0, "died", ("exit code 2:0",)),
        ("COMPLETED", {}, 0.0, "died", ("it ended as COMPLETED",)),
        ("", {}, 0.0, "died", ("forgotten",)),
        ("", {"State": "OUT_OF_MEMORY"}, 0.0, "failed", ("out of memory",)),
    ],
)
def test_the_end_of_a_job_is_classified(
    state: str, facts: dict[str, str], peak: float, event: str, words: tuple[str, ...]
) -> None:
    job = JobState("17_3", state, "n2", "None") if state else None
    found = ended_event(job, facts, REQUEST, peak, "x.err", "evaluate")
    assert found["event"] == event and all(word in str(found) for word in words), found


# --- jobs as files ----------------------------------------------------------------------------------------------------


def say(path: Path, *events: dict[str, Any] | str) -> None:
    """Add lines to the events of a job file."""
    with events_file(path).open("a") as stream:
        stream.writelines(event if isinstance(event, str) else json.dumps(event) + "\n" for event in events)


def test_events_are_read_once_and_a_line_that_a_kill_has_cut_harms_nothing(tmp_path: Path) -> None:
    tasks = [Task(IMAGES, "s000"), Task(IMAGES, "s001"), Task(IMAGES, "s002")]
    job = JobFile.write(tmp_path / "a" / "0.json", tasks, lambda task: {})
    assert list(job.events()) == []
    say(job.path, {"task": 0, "event": "started"}, {"task": 0, "event": "done"}, '{"task": 1, "ev')
    assert [(task.shard, event["event"]) for task, event in job.events()] == [("s000", "started"), ("s000", "done")]
    say(job.path, "\n", {"task": 0, "event": "done"}, {"task": 2, "event": "failed"})
    assert [(task.shard, event["event"]) for task, event in job.events()] == [("s002", "failed")]
    assert [task.shard for task in job.unanswered] == ["s001"] and sorted(answers(job.path)) == [0, 2]
    assert [(task.shard, event["why"]) for task, event in job.lost({"event": "died", "why": "x"})] == [("s001", "x")]
    assert not job.unanswered and list(job.lost({"event": "died", "why": "x"})) == []
    again = JobFile.write(job.path, tasks, lambda task: {})
    assert len(again.unanswered) == 3 and answers(again.path) == {}, "answers of an earlier file are not believed"


WORKER = """
import json, os, sys, time
for line in sys.stdin:
    raw = json.loads(line)
    print(json.dumps({"event": "progress", "done": 1, "total": 2, "note": ""}), flush=True)
    if raw["job"]["shard"] == "die":
        os.abort()
    if raw["job"]["shard"] == "wait":
        time.sleep(600)
    print(json.dumps({"event": "done", "act": raw["job"]["shard"], "pid": os.getpid()}), flush=True)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that writes a job file, for workers that do as the messages say."""
    (tmp_path / "fake_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("harness.run.remote.WORKER", ("fake_worker",))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def write(*acts: str, isolated: bool = False) -> JobFile:
        cell = {"resources": asdict(Resources(isolated=isolated))}
        message = {"job": {"cell": cell, "store": str(tmp_path)}}
        return JobFile.write(tmp_path / "0.json", [Task(IMAGES, act) for act in acts], lambda task: message)

    yield write
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_job_file_is_worked_off_and_a_second_time_only_what_has_no_answer(job: Any) -> None:
    file = job("a", "die", "b", "c")
    Runner(file.path).run()
    found = answers(file.path)
    assert [found[number]["event"] for number in range(4)] == ["done", "died", "done", "done"]
    assert found[1]["why"] == "killed by SIGABRT" and found[1]["peak_mb"] > 1
    assert found[0]["pid"] != found[2]["pid"] == found[3]["pid"], "one worker, and a new one after a death"
    Runner(file.path).run()
    said = [json.loads(line) for line in events_file(file.path).read_text().splitlines() if line]
    assert [event["task"] for event in said if event["event"] == "started"] == [0, 1, 2, 3, 1]
    assert all("pid" in event["place"] for event in said if event["event"] == "started")


def test_a_job_file_of_a_thousand_shards_holds_the_order_of_their_cell_once(tmp_path: Path) -> None:
    asked: list[Task] = []
    tasks = [*(Task(IMAGES, f"s{i:06}") for i in range(1000)), Task(IMAGES), Task(PRETRAIN)]
    file = JobFile.write(tmp_path / "0.json", tasks, lambda task: asked.append(task) or {"job": "x" * 1000})  # type: ignore[func-returns-value]
    assert asked == [tasks[0], tasks[-2], tasks[-1]] and file.path.stat().st_size < 40_000
    assert json.loads(file.path.read_text())["tasks"][-3:] == [[0, "s000999"], [1, ""], [2, ""]]


def test_work_that_spoils_a_process_gets_one_of_its_own(job: Any) -> None:
    file = job("a", "b", isolated=True)
    Runner(file.path).run()
    assert answers(file.path)[0]["pid"] != answers(file.path)[1]["pid"]


def test_a_task_that_reaches_no_checkpoint_is_killed_without_an_answer_and_the_next_is_not_begun(job: Any) -> None:
    import threading

    file = job("wait", "a")
    runner = Runner(file.path, patience=1.0)
    thread = threading.Thread(target=runner.run)
    thread.start()
    while "progress" not in events_file(file.path).read_text() if events_file(file.path).exists() else True:
        time.sleep(0.05)
    runner.pause()
    thread.join(60)
    assert not thread.is_alive() and answers(file.path) == {}
    assert [event["event"] for _, event in file.events()] == ["started", "progress"]


def test_a_pause_comes_at_the_first_file_that_is_written_whole_after_the_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(pause, "_asked", threading.Event())
    (tmp_path / "log.jsonl").write_text("1\n")
    (tmp_path / "state.pt").write_text("1")
    found = pause.Checkpoints(tmp_path)
    found.pause_if_due()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        pause.pause_on(["SIGUSR1"])
        os.kill(os.getpid(), signal.SIGUSR1)
        assert pause.asked()
    finally:
        signal.signal(signal.SIGUSR1, before)
    found.pause_if_due()
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write("2\n")
    found.pause_if_due()  # a line of a log is no checkpoint
    (tmp_path / ".draft").write_text("2")
    (tmp_path / ".draft").rename(tmp_path / "state.pt")
    with pytest.raises(pause.Paused):
        found.pause_if_due()
    assert not issubclass(pause.Paused, Exception), "no plugin may swallow it"


# --- slurm without Slurm ----------------------------------------------------------------------------------------------


def test_without_slurm_or_submitit_the_run_says_where_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="Slurm is not on this machine"):
        SlurmExecutor(Store(tmp_path), 1, "cpu", ProgressReporter(Store(tmp_path), 1, quiet=True))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an executor whose queue is a dict, which counts what it submits; and that dict and list."""
    jobs: dict[tuple[str, int], JobState] = {}
    submitted: list[tuple[str, int]] = []

    def sbatch(name: str, batch: Path, count: int, request: Request, table: SlurmSettings) -> None:
        submitted.append((batch.name, count))
        jobs.update({(batch.name, i): JobState(f"9_{i}", "RUNNING", "n1", "None") for i in range(count)})

    monkeypatch.setattr(harness.run.slurm, "require_slurm", lambda: None)
    monkeypatch.setattr(harness.run.slurm, "queue", lambda name: dict(jobs))
    monkeypatch.setattr(harness.run.slurm, "accounted", lambda job: {})
    monkeypatch.setattr(harness.run.slurm, "_sbatch", sbatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def make(**settings: Any) -> Any:
        from harness.plan.model import Plan

        store = Store(tmp_path / "s")
        table = SlurmSettings(array_limit=4, poll_seconds=0.001, **settings)
        made = SlurmExecutor(store, 4, "cpu", ProgressReporter(store, 1, quiet=True), table)
        made.plan = Plan()
        made.plan.add(IMAGES)
        made.plan.add(PRETRAIN)
        return made

    return make, jobs, submitted


def test_equal_tasks_become_one_array_and_others_another(slurm: Any, tmp_path: Path) -> None:
    make, _, submitted = slurm
    executor = make()
    for task in [*(Task(IMAGES, shard) for shard in IMAGES.shards), Task(PRETRAIN)]:
        assert executor.has_room(task.cell)
        executor.start(task)
    assert list(executor.events()) == []
    assert [count for _, count in submitted] == [7, 1], "a hundred shards of two minutes, in jobs of half an hour"
    batch = tmp_path / "s" / FOLDER / submitted[0][0]
    ids = json.loads((batch / "batch.json").read_text())["ids"]
    assert [shard for element in ids for _, shard in element] == list(IMAGES.shards)


def test_what_another_run_has_submitted_is_not_submitted_again(slurm: Any, tmp_path: Path) -> None:
    make, jobs, submitted = slurm
    first = make()
    for shard in IMAGES.shards[:60]:
        first.start(Task(IMAGES, shard))
    list(first.events())
    (batch, count) = submitted.pop()
    folder = tmp_path / "s" / FOLDER / batch
    assert count == 4
    say(folder / "0000.json", {"task": 0, "event": "done", "cpu_seconds": 1.0}, {"task": 1, "event": "failed"})
    jobs[batch, 3] = JobState("9_3", "FAILED", "n1", "None")
    facts = json.loads((folder / "batch.json").read_text())
    (folder / "batch.json").write_text(json.dumps(facts | {"submitted": time.time() - 100}))
    second = make()
    for shard in IMAGES.shards[:60]:
        second.start(Task(IMAGES, shard))
    heard = [(task.shard, event["event"]) for task, event in second.events()]
    again = json.loads((tmp_path / "s" / FOLDER / submitted[0][0] / "batch.json").read_text())["ids"]
    assert heard == [("s000", "done")], "the failure was another run's: it is tried again"
    assert [shard for element in again for _, shard in element] == ["s001", *IMAGES.shards[45:60]]


def test_tasks_of_a_job_that_is_gone_have_died_once_its_files_had_time(slurm: Any) -> None:
    make, jobs, submitted = slurm
    executor = make()
    executor.start(Task(PRETRAIN))
    list(executor.events())
    jobs[submitted[0][0], 0] = JobState("9", "NODE_FAIL", "n2", "None")
    heard: list[Any] = []
    while not heard:
        time.monotonic()
        heard = list(executor.events())
    ((task, event),) = heard
    assert task.id == (PRETRAIN.key, "") and event["event"] == "died" and "node n2 failed" in event["why"]
    assert not executor.elements


def test_a_process_killed_near_its_limit_is_out_of_memory_and_not_tried_again(slurm: Any, tmp_path: Path) -> None:
    make, _, submitted = slurm
    executor = make(memory_gb=1)
    executor.start(Task(PRETRAIN))
    list(executor.events())
    file = tmp_path / "s" / FOLDER / submitted[0][0] / "0000.json"
    say(file, {"task": 0, "event": "died", "why": "killed by SIGKILL", "signal": 9, "peak_mb": 4000})
    executor._read = 0.0
    ((_, event),) = executor.events()
    assert event["event"] == "failed" and event["error"]["what"] == "out of memory"
    assert "4.0 GB were allowed, 3.9 GB were in use" in event["error"]["why"]


def test_status_names_the_jobs_of_a_store_with_their_logs(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, _, _ = slurm
    executor = make()
    executor.start(Task(PRETRAIN))
    list(executor.events())
    (line,) = SlurmExecutor.remaining(executor.store.root)
    assert line.startswith("Slurm job 9_0 on n1: pretrain resnet50, running\n    log: ")
    assert line.endswith(str(executor.store.log(PRETRAIN)))
    monkeypatch.setattr(harness.run.slurm, "queue", lambda name: None)
    assert SlurmExecutor.remaining(executor.store.root) == ["Slurm cannot be asked from this machine"]


@pytest.mark.parametrize(("answer", "cancelled"), [("y\n", True), ("n\n", False), ("", False)])
def test_ctrl_c_asks_whether_jobs_are_cancelled(
    slurm: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, cancelled: bool
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    make, _, _ = slurm
    executor, asked = make(), []
    executor.interrupted()
    assert capsys.readouterr().err == "", "nothing runs"
    executor.start(Task(PRETRAIN))
    list(executor.events())
    monkeypatch.setattr(harness.run.slurm, "cancel", asked.append)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    executor.interrupted()
    text = capsys.readouterr().err
    assert "1 Slurm jobs run or wait. Cancel them? [y/N]" in text
    assert asked == ([job_name(executor.store.root)] if cancelled else [])
    assert ("cancelled" in text.partition("[y/N]")[2]) == cancelled or "go on" in text


def test_what_the_page_says_of_submitit_is_so() -> None:
    pytest.importorskip("submitit")
    import inspect

    from submitit.core.job_environment import JobEnvironment
    from submitit.local import local
    from submitit.slurm.slurm import SlurmExecutor as Theirs
    from submitit.slurm.slurm import _get_default_parameters

    defaults = _get_default_parameters()
    assert (defaults["time"], defaults["signal_delay_s"], JobEnvironment.USR_SIG) == (5, 90, "USR2")
    assert inspect.signature(Theirs).parameters["max_num_timeout"].default == 3
    source = inspect.getsource(local.LocalExecutor._submit_command)
    assert '"timeout_min", 2.0' in source and '"signal_delay_s", 30' in source


# --- the page's example -----------------------------------------------------------------------------------------------


ANSWER = """import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
shard = json.loads(path.read_text())["tasks"][0][1]
once = path.parent / "once"
if shard == "s003" and not once.exists():
    once.touch()
    sys.exit(3)
said = [{"event": "started", "place": "here"}, {"event": "done", "cpu_seconds": 1.0}]
path.with_suffix(".events").write_text("".join(json.dumps({"task": 0, **event}) + chr(10) for event in said))
"""


def test_the_executor_of_the_page_has_forty_lines_and_does_every_shard_again_whose_host_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.plan.model import Plan

    (code,) = blocks("docs/executors.md", "python")
    assert len(code.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(compile(code, "docs/executors.md", "exec"), names)
    (tmp_path / "answer.py").write_text(ANSWER)
    monkeypatch.setattr(
        JobFile, "command", property(lambda job: [sys.executable, "-S", str(tmp_path / "answer.py"), str(job.path)])
    )
    few = replace(IMAGES, shards=IMAGES.shards[:5])
    reader = Cell("evaluate", "brightness", 1, {}, {"dataset": few.key})
    plan, store = Plan(), Store(tmp_path / "s")
    for cell in (few, reader):
        plan.add(cell)
    table = names["HostSettings"](hosts=("a", "b"), login=("sh", "-c"))
    board = ProgressReporter(store, 2, stream=sys.stderr)
    summary = names["Hosts"](store, 2, "cpu", board, table).run(plan, frozenset(plan.cells))
    assert (summary.done, summary.failures, summary.cpu_seconds) == (2, (), {"synthesise": 6.0, "evaluate": 1.0})
    assert "s003: its worker died (" in (said := capsys.readouterr().err) and "exit code 3); trying again" in said


@pytest.mark.slow
def test_the_executor_of_the_page_makes_the_board_of_a_local_run(harness: Run, plugins: Path, tmp_path: Path) -> None:
    (code,) = blocks("docs/executors.md", "python")
    info = tmp_path / "page" / "page-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "page" / "my_package.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: page\nVersion: 1.0\n")
    (entry,) = [text for text in blocks("docs/executors.md", "toml") if "entry-points" in text]
    (info / "entry_points.txt").write_text(entry.replace("[project.entry-points.", "[").replace('"', ""))
    path = os.pathsep.join([str(tmp_path / "page"), str(plugins), os.environ.get("PYTHONPATH", "")])
    arguments = ("run", "--generator", "noise", "--suite", "brightness", "--profile", str(plugins / "toy.toml"),
                 "--set", "dataset.chunk=4")  # fmt: skip
    done = harness(
        *arguments, "--store", "here", "--executor", "hosts", "--set", 'hosts.login=["sh", "-c"]', PYTHONPATH=path
    )
    assert done.returncode == 0, done.stderr
    assert harness(*arguments, "--store", "there").returncode == 0
    here, there = ((tmp_path / name / "leaderboard.csv").read_bytes() for name in ("here", "there"))
    assert here == there and (tmp_path / "here" / "hosts" / "node1.json").is_file()


@pytest.mark.parametrize("word", ["gpu\ntouch x", "gpu queue", "$(touch x)", "`touch x`", "a;b", "it's"])
def test_words_of_a_job_script_end_no_line_and_begin_no_command(word: str) -> None:
    for field in ("partition", "account", "qos", "constraint"):
        with pytest.raises(ValidationError, match="pattern"):
            SlurmSettings.model_validate({field: word})
    assert SlurmSettings.model_validate({"constraint": "a100&nvlink|[h100*2]"}).constraint == "a100&nvlink|[h100*2]"
