"""Runs with the local executor: failures, deaths, damage, staleness, repetition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness.core.seals import with_seal
from tests.harness.conftest import Run

TOY = ("--suite", "brightness", "--profile")


def csv(store: Path) -> bytes:
    """Return the board a run wrote."""
    return (store / "leaderboard.csv").read_bytes()


def test_run_twice_does_nothing_the_second_time_and_says_so(harness: Run, plugins: Path, tmp_path: Path) -> None:
    command = ("run", "--generator", "noise,dots", *TOY, str(plugins / "toy.toml"), "--store", str(tmp_path / "s"))
    first = harness(*command)
    assert first.returncode == 0, first.stderr
    assert "CPU-seconds" in first.stderr and "noise" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.tar")}
    board = csv(tmp_path / "s")
    second = harness(*command)
    assert second.returncode == 0 and "nothing to do: all 4 cells are done" in second.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.tar")} == before
    assert csv(tmp_path / "s") == board and second.stdout == first.stdout
    status = json.loads((tmp_path / "s" / "status.json").read_text())
    assert status["done"] == 4 and {cell["state"] for cell in status["cells"].values()} == {"done"}


def test_a_failed_cell_stops_only_what_needs_it(harness: Run, plugins: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    done = harness(
        "run",
        "--generator",
        "noise,dots",
        *TOY,
        str(plugins / "toy.toml"),
        "--store",
        str(store),
        "--set",
        "generators.noise.fail=ouch",
    )
    assert done.returncode == 1
    assert "RuntimeError: ouch" in done.stderr and "log:" in done.stderr and "which failed" in done.stderr
    assert "dots" in csv(store).decode() and "noise" not in csv(store).decode()
    log = next(line.split("log: ")[1] for line in done.stderr.splitlines() if "log: " in line)
    assert "ouch" in Path(log).read_text()
    kept = len(list((store / "synthesise").glob("noise-*/shards/*.tar")))
    assert kept >= 4  # the shards that were whole stay
    again = harness("run", "--generator", "noise,dots", *TOY, str(plugins / "toy.toml"), "--store", str(store))
    assert again.returncode == 0, again.stderr


def test_a_killed_worker_is_replaced_and_its_task_done_again(harness: Run, plugins: Path, tmp_path: Path) -> None:
    profile = str(plugins / "toy.toml")
    quiet = harness("run", "--generator", "noise", *TOY, profile, "--store", str(tmp_path / "a"))
    assert quiet.returncode == 0, quiet.stderr
    (tmp_path / "once").touch()
    done = harness(
        "run", "--generator", "noise", *TOY, profile, "--store", str(tmp_path / "b"), FAKE_ONCE=str(tmp_path / "once")
    )
    assert done.returncode == 0 and "killed by SIGKILL" in done.stderr
    assert csv(tmp_path / "a") == csv(tmp_path / "b")


def test_damage_is_found_set_aside_and_only_it_is_made_anew(harness: Run, plugins: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    command = ("run", "--generator", "noise", *TOY, str(plugins / "toy.toml"), "--store", str(store))
    assert harness(*command).returncode == 0
    board = csv(store)
    shards = sorted((store / "synthesise").glob("*/shards/*.tar"))
    before, shard = {path: path.stat().st_ino for path in shards}, shards[0]
    assert len(before) > 1
    shard.write_bytes(shard.read_bytes()[:1000])
    done = harness(*command)
    assert done.returncode == 0 and "corrupt" in done.stderr, done.stderr
    assert {path for path in shards if path.stat().st_ino != before[path]} == {shard}, "whole shards are kept"
    assert csv(store) == board and len(list((store / "synthesise").glob("*.set-aside-1"))) == 1
    folder = shard.parents[1]
    aside = folder.with_name(f"{folder.name}.set-aside-1")
    old, new = (json.loads((path / "manifest.json").read_text()) for path in (aside, folder))
    kept = {name for name, cost in new["shard_costs"].items() if cost == old["shard_costs"][name]}
    assert kept >= new["shard_costs"].keys() - {shard.stem} and new["content"] == old["content"]
    assert new["wall_seconds"] >= sum(wall for wall, _ in new["shard_costs"].values()) > 0
    # Bytes that differ under an unchanged size are found by whoever reads them.
    shard = next(path for path in (store / "synthesise").glob("*/shards/*.tar") if "set-aside" not in str(path))
    content = bytearray(shard.read_bytes())
    content[600] ^= 255
    shard.write_bytes(bytes(content))
    shutil.rmtree(next((store / "evaluate").iterdir()))
    done = harness(*command)
    assert done.returncode == 0 and "moved aside, will be rebuilt" in done.stderr, done.stderr
    assert csv(store) == board


def test_stale_artifacts_stop_the_run_until_the_user_decides(harness: Run, plugins: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    command = ("run", "--generator", "noise", *TOY, str(plugins / "toy.toml"), "--store", str(store))
    assert harness(*command).returncode == 0
    manifest_path = next((store / "evaluate").glob("*/manifest.json"))
    manifest = json.loads(manifest_path.read_text())
    manifest_path.write_text(json.dumps(with_seal(manifest | {"fingerprint": "older"})))
    stopped = harness(*command)
    assert stopped.returncode == 2 and "1 artifacts are stale (1 evaluate)" in stopped.stderr and manifest_path.exists()
    assert harness(*command, "--stale", "reuse").returncode == 0 and manifest_path.exists()
    redone = harness(*command, "--stale", "redo")
    assert redone.returncode == 0 and "1 cells in" in redone.stderr
    assert harness(*command).returncode == 0


def test_the_dataset_does_not_depend_on_workers_or_chunks(harness: Run, plugins: Path, tmp_path: Path) -> None:
    def images(name: str, *extra: str) -> dict[str, str]:
        done = harness(
            "run", "--generator", "noise", *TOY, str(plugins / "toy.toml"), "--store", str(tmp_path / name), *extra
        )
        assert done.returncode == 0, done.stderr
        lines = next((tmp_path / name / "synthesise").glob("*/images.jsonl")).read_text().splitlines()
        return {row["path"]: row["sha1"] for row in map(json.loads, lines)}

    one = images("one", "--slots", "1")
    assert one == images("three", "--slots", "3") == images("chunks", "--set", "dataset.chunk=3")
    assert len(one) == 16 and next(iter(one)) == "c0/c0_00000.png"


def test_answers_that_arrive_together_are_all_heard(tmp_path: Path) -> None:
    """Two lines in one read: select will not announce the second, so both must be taken at once."""
    import os
    import subprocess
    import sys

    from harness.run.local import LocalExecutor, Worker
    from harness.run.progress import ProgressReporter
    from harness.run.queue import Task
    from harness.store.artifacts import Store
    from harness.store.cells import Cell

    executor = LocalExecutor(Store(tmp_path), 1, "cpu", ProgressReporter(Store(tmp_path), 1, quiet=True))
    heard: list[str] = []
    code = 'import os, time; os.write(1, b\'{"event": "ready"}\\n{"event": "do\'); time.sleep(0.2); os.write(1, b\'ne"}\\n\')'
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = Worker(0, process, process.stdout, Task(Cell("fit", "x", 1, {})))
    process.wait()
    while "done" not in heard and os.fstat(process.stdout.fileno()):
        heard += [event["event"] for _, event in executor._read_messages(worker)]
    assert heard == ["ready", "done"] and worker.unread == b""


def test_progress_in_a_file_is_plain_lines_one_for_each_task(tmp_path: Path) -> None:
    import io

    from harness.run.progress import ProgressReporter
    from harness.store.artifacts import Store
    from harness.store.cells import Cell

    stream = io.StringIO()
    board = ProgressReporter(Store(tmp_path), 96, stream=stream)
    board.begin([], [], 2)
    for seed in range(2):
        label = f"a generator of a long name seed {seed}, a backbone of a long name"
        board.started(Cell("pretrain", "resnet10", 1, {"seed": seed}, label=label), "", 1)
    board.tick()
    board.tick()  # too soon for another report
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and max(map(len, lines)) < 100 and lines[0].startswith("[0/96] 0 s: pretrain a generator")
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_backbones_train_from_the_original_files_where_the_profile_says_so(harness: Run) -> None:
    """Another cell, another recipe, no training copy; the plan says which."""
    options = ("--profile", "micro", "--generator", "real", "--suite", "in-domain", "--backbone", "resnet10")
    plans = {}
    for copy_px in (64, 0):
        done = harness("plan", *options, "--set", f"dataset.copy_px={copy_px}", "--json")
        assert done.returncode == 0, done.stderr
        plans[copy_px] = done.stdout
    assert "trained from 64-px centre-crop copies" in plans[64] and "trained from the original files" in plans[0]
