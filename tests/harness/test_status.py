"""What another terminal learns of a run: running, finished, failed, interrupted or dead; and the time that is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.core.errors import UserError
from harness.core.quantities import duration, size
from harness.run.progress import ProgressReporter
from harness.run.remaining import Workload
from harness.run.status import FILE, read_status, seconds_since
from harness.store.artifacts import Store
from harness.store.cells import Cell, Resources

FIT = Cell("fit", "lbgen", 1, {}, label="lbgen seed 0", resources=Resources(minutes=2))
IMAGES = Cell("synthesise", "lbgen", 1, {}, {"weights": FIT.key}, label="lbgen seed 0", shards=("a", "b"))
ROWS = Cell("evaluate", "in-domain", 1, {}, {"dataset": IMAGES.key}, label="lbgen in-domain")
ERROR = {"what": "ouch", "why": "it hurts", "fix": "plaster"}


def reporter(store: Path) -> ProgressReporter:
    """Return the reporter of a run of three cells that has begun."""
    made = ProgressReporter(Store(store), 3, quiet=True)
    made.begin([FIT, IMAGES, ROWS], [], 2)
    return made


def changed(store: Path, **facts: Any) -> None:
    """Change entries of a store's status file."""
    path = store / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def status(store: Path) -> tuple[int, str]:
    """Return exit code and output of ``status``."""
    done = CliRunner().invoke(app, ["status", "--store", str(store)])
    return done.exit_code, done.output


def test_a_run_of_this_process_is_running_with_its_workers_and_its_time_left(tmp_path: Path) -> None:
    run = reporter(tmp_path)
    run.started(FIT, "", 4711)
    run.running[FIT.key, ""].began -= 60
    run.running[FIT.key, ""].since -= 60
    run.progress(FIT, "", 25, 100, "steps")
    run._saved = 0.0
    run.tick()
    code, text = status(tmp_path)
    assert code == 0 and text.startswith(f"running: process {os.getpid()} on ")
    assert "cells: 0 of 3 done" in text and "synthesise     0 of 1" in text
    assert (
        "fit lbgen seed 0\n    25/100 steps, for 1 min " in text and "about 3 min" in text and "left, pid 4711" in text
    )
    found = read_status(tmp_path)
    assert found is not None and found.facts["seconds_left"] == pytest.approx(180, abs=50)


def test_the_end_of_a_run_says_whether_cells_failed_and_where_their_logs_are(tmp_path: Path) -> None:
    run = reporter(tmp_path)
    run.started(FIT, "", 1)
    run.failed(FIT, "", ERROR, 1.0)
    run.blocked(IMAGES, FIT)
    run.finish()
    code, text = status(tmp_path)
    assert code == 1 and text.startswith("finished with failures")
    assert f"fit lbgen seed 0: ouch\n    log: {Store(tmp_path).log(FIT)}" in text
    assert "synthesise lbgen seed 0: needs fit lbgen seed 0, which failed" in text and "same command again" in text
    run = ProgressReporter(Store(tmp_path), 1, quiet=True)
    run.begin([FIT], [], 1)
    run.done(FIT, "", 1.0, 1.0)
    run.finish()
    code, text = status(tmp_path)
    assert code == 0 and text.startswith("finished ") and "cells: 1 of 1 done" in text


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    reporter(tmp_path).interrupt()
    code, text = status(tmp_path)
    assert code == 1 and text.startswith("interrupted") and "run the same command again" in text


def test_a_run_whose_process_has_ended_is_dead_and_so_is_one_whose_process_id_was_used_again(tmp_path: Path) -> None:
    reporter(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    changed(tmp_path, pid=ended.pid)
    code, text = status(tmp_path)
    assert code == 1 and text.startswith(f"dead: process {ended.pid} has ended")
    changed(tmp_path, pid=os.getpid(), process_start=1)
    assert status(tmp_path)[1].startswith("dead")


def test_a_run_on_another_machine_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    reporter(tmp_path)
    changed(tmp_path, host="elsewhere", updated=time.time() - 10)
    assert status(tmp_path)[0] == 0
    changed(tmp_path, updated=time.time() - 3600)
    code, text = status(tmp_path)
    assert code == 1 and "dead: no heartbeat from elsewhere for 36" in text


def test_a_clock_that_was_set_back_gives_no_negative_age(tmp_path: Path) -> None:
    run = reporter(tmp_path)
    run.started(FIT, "", 1)
    run._saved = 0.0
    run.tick()
    changed(tmp_path, updated=time.time() + 9999, started=time.time() + 9999)
    code, text = status(tmp_path)
    assert code == 0 and "started 0 s ago, last heartbeat 0 s ago" in text and seconds_since(9.0, now=5.0) == 0.0


def test_a_store_without_a_run_is_exit_4_and_an_older_status_is_read(tmp_path: Path) -> None:
    assert status(tmp_path)[0] == 4
    done = CliRunner().invoke(app, ["status", "--store", str(tmp_path / "none"), "--json"])
    assert done.exit_code == 4 and json.loads(done.output)["verdict"] == "none"
    old = {"total": 2, "done": 2, "failed": 0, "running": [], "cells": {}}
    (tmp_path / FILE).write_text(json.dumps(old))
    assert status(tmp_path) == (0, "finished\ncells: 2 of 2 done\n")
    (tmp_path / FILE).write_text(json.dumps(old | {"done": 1}))
    code, text = status(tmp_path)
    assert code == 1 and text.startswith("unknown (an earlier version")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_status(tmp_path)


def test_json_holds_the_verdict_and_all_facts(tmp_path: Path) -> None:
    reporter(tmp_path)
    done = CliRunner().invoke(app, ["status", "--store", str(tmp_path), "--json"])
    facts = json.loads(done.output)
    assert (facts["verdict"], facts["total"], facts["writes"]) == (
        "running",
        3,
        sorted((FIT.folder, IMAGES.folder, ROWS.folder)),
    )
    assert facts["kinds"]["fit"] == {"total": 1, "done": 0, "failed": 0} and facts["heartbeat_age"] >= 0


def test_the_time_left_follows_what_was_measured() -> None:
    work = Workload([FIT, IMAGES, ROWS], 1)
    assert work.seconds_left({}, []) == 120 + 2 * 60 + 60
    work.finished(FIT, "", 60)  # half of what was expected, so everything else is taken to need half
    assert work.seconds_left({}, []) == (2 * 60 + 60) / 2
    work.finished(IMAGES, "a", 120)  # shards need twice what was expected
    assert work.seconds_left({}, []) == 120 + 60 * (60 + 120) / (120 + 60)
    assert work.seconds_left({IMAGES.key: 0.5}, []) == 60 + 60
    assert Workload([FIT, ROWS], 2).seconds_left({}, [500.0]) == 500
    work.dropped(IMAGES)
    work.dropped(ROWS)
    assert work.seconds_left({}, []) == 0 and Workload().seconds_left({}, []) is None
    assert work.kinds()["synthesise"] == {"total": 1, "done": 0, "failed": 1} and list(work.kinds()) == [
        "fit",
        "synthesise",
        "evaluate",
    ]


def test_durations_and_sizes_read_well() -> None:
    assert [duration(s) for s in (-3, 4.4, 59.6, 200, 7500, 90000)] == [
        "0 s", "4 s", "1 min 00 s", "3 min 20 s", "2 h 05 min", "1 d 1 h"
    ]  # fmt: skip
    assert [size(b) for b in (0, 999, 1500, 123_456_789, 5e12)] == ["0 B", "999 B", "1.5 kB", "123 MB", "5.0 TB"]
