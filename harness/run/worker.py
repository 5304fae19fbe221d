"""A worker: a long-lived process that processes one job after another. Also the rank of a job on several devices.

Jobs arrive as JSON lines on standard input; answers go as JSON lines to the original standard output. During a job, both
output streams are redirected to the cell's log. When standard input closes, because the executor ended or was killed, the
worker ends at once: every file it was writing is either complete or absent.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from harness.core.disk import explain, lenient
from harness.core.errors import CorruptArtifact, UserError
from harness.core.hub import without_secrets
from harness.core.memory import explain_memory
from harness.core.offline import explained, offline, refuse_network
from harness.run.job import ALONE, Job, JobRank, execute, no_beat
from harness.run.pause import Checkpoints, Paused, pause_on
from harness.run.ranks import JOB, Agreement, answer_file, end_with_input, end_with_parent
from harness.run.stall import beats, stand_by
from harness.store.artifacts import SCRATCH

_REPORT_SECONDS = 0.5


def serve(stdin: TextIO, answers: TextIO) -> None:
    """Process jobs until the input closes."""
    jobs: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stdin:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=read, name="jobs", daemon=True).start()
    send(answers, {"event": "ready"})
    while True:
        raw = json.loads(jobs.get())
        if raw.get("offline"):
            refuse_network()
        redirect(Path(raw["log"]))
        pause_on(raw.get("pause_on", ()))
        answer = do(raw, answers)
        send(answers, answer)
        if answer["event"] == "paused":
            os._exit(0)


def do(raw: Mapping[str, Any], answers: TextIO | None, rank: JobRank = ALONE) -> dict[str, Any]:
    """Process one job and return the answer: ``done`` with seconds, or ``failed`` with the three parts of the error.

    Of a job that was asked to pause, and has reached a checkpoint: ``paused``.
    """
    job = Job.from_dict(raw["job"])
    started, cpu = time.monotonic(), time.process_time()
    last = [0.0]
    checkpoints = Checkpoints(Path(job.store) / job.cell.folder / SCRATCH)

    def progress(done: int, total: int, note: str) -> None:
        now = time.monotonic()
        checkpoints.pause_if_due()
        rank.beat(done, total)
        if answers is not None and (now - last[0] > _REPORT_SECONDS or done == total):
            last[0] = now
            send(answers, {"event": "progress", "done": done, "total": total, "note": note})

    print(f"== {job.cell.folder} {job.shard}".rstrip(), flush=True)
    try:
        _set_threads(job.cell.resources.threads)
        execute(job, progress, rank)
    except Paused:
        return {"event": "paused"}
    except Exception as error:  # the boundary of a cell: a failure is reported, and the other cells continue
        traceback.print_exc()
        sys.stderr.flush()
        return {
            "event": "failed",
            "error": describe(error),
            "damaged": isinstance(error, CorruptArtifact),
            "cpu_seconds": time.process_time() - cpu,
        }
    return {"event": "done", "wall_seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}


def describe(error: BaseException) -> dict[str, str]:
    """The three parts of an error: what, why, fix; for an unexpected one, its type and message."""
    error = explained(error) or explain("a file", error) or explain_memory(error) or error
    if isinstance(error, UserError):
        return {"what": without_secrets(error.what), "why": without_secrets(error.why), "fix": error.fix}
    return {
        "what": without_secrets(f"{type(error).__name__}: {error}".split("\n")[0])[:300],
        "why": "unexpected error (probably a bug)",
        "fix": "see the log; please report the error with its log",
    }


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def redirect(log: Path) -> None:
    """Send both output streams to a log. A log that cannot be opened or written costs its lines, not the job."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        handle = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush(), sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout, sys.stderr = lenient(1), lenient(2)


def send(stream: TextIO, answer: Mapping[str, Any]) -> None:
    """Write a message as a line of JSON."""
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _rank(folder: Path) -> int:
    """Process the job of a folder as one of its ranks; the answer goes into the folder."""
    end_with_input(folder)
    end_with_parent()
    raw = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if raw.get("offline"):
        refuse_network()
    pause_on(raw.get("pause_on", ()))
    rank = int(os.environ["RANK"])
    if raw["job"]["device"].startswith("cuda"):
        raw["job"]["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
    stand_by(folder, rank)
    size = int(os.environ["WORLD_SIZE"])
    answer = do(raw, None, JobRank(rank, size, Agreement(folder, rank), beats(folder) if rank == 0 else no_beat))
    answer_file(folder, rank).write_text(json.dumps(answer), encoding="utf-8")
    return 0 if answer["event"] == "done" else 1


def _main() -> int:
    if offline():  # by the environment: before any library is imported
        refuse_network()
    if sys.argv[1:2] == ["--rank"]:
        return _rank(Path(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, answers)
    except BrokenPipeError:  # the executor has ended, and nobody reads what would be said of it
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
