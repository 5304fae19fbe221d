"""A job on several devices: torchrun's agent, which starts the ranks, and what became of them.

    python -m harness.run.launch FOLDER DEVICES

To the executor it is a worker that processes one job: the job comes as a JSON line on standard input, the answer goes as one to
standard output. The ranks are ``harness.run.worker --rank FOLDER``. All of them inherit standard input, whose other end the
executor alone holds: it closes when the executor ends, however it ends, and with it end the agent and every rank, on any
system. On Linux the kernel also kills the ranks when the agent dies.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.files import parse_json
from harness.core.offline import offline, refuse_network
from harness.run.ranks import JOB, answer_file, end_with_input
from harness.run.stall import Watch
from harness.run.worker import redirect, send


def launch(folder: Path, devices: int) -> dict[str, Any]:
    """Run the ranks of the job in a folder, and return the answer of the job.

    Returns:
        ``done``, ``failed`` or ``paused`` as a rank has answered, or ``died`` with ``why``: which rank, and of what, or where
        it hangs.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )
    command = ("-u", "-m", "harness.run.worker", "--rank", str(folder))
    watch = Watch(folder, devices)
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        if watch.found:
            return {"event": "died", "why": watch.found}
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return failure_answer(folder, codes, devices)
    return _answer(folder, 0) or {"event": "died", "why": f"rank 0 of {devices} left no answer"}


def failure_answer(folder: Path, codes: Mapping[int, int], devices: int) -> dict[str, Any]:
    """Return the answer of a job whose ranks failed first, by rank with exit code (a signal is negative).

    A rank that was killed is the cause of the errors of those that waited for it; by SIGTERM the agent ends those that are left.
    """

    def order(item: tuple[int, int]) -> tuple[int, int]:
        rank, code = item
        return (2 if code == -signal.SIGTERM else 1 if code >= 0 else 0), rank

    if any((_answer(folder, rank) or {}).get("event") == "paused" for rank in codes):
        return {"event": "paused"}  # the other ranks have missed the one that paused first
    for rank, code in sorted(codes.items(), key=order):
        found = None if code < 0 else _answer(folder, rank)
        if found is not None:
            what = f"rank {rank} of {devices}: {found['error']['what']}"
            return {**found, "error": {**found["error"], "what": what}} if rank else found
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return {"event": "died", "why": f"rank {rank} of {devices} {cause}"}
    return {"event": "died", "why": "no rank is known to have failed"}


def _answer(folder: Path, rank: int) -> dict[str, Any] | None:
    path = answer_file(folder, rank)
    return dict(parse_json(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _main() -> int:
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    line = sys.stdin.readline()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # not inherited: it closes with this process alone
    if not line:
        return 1
    end_with_input(folder)
    raw = parse_json(line)
    if raw.get("offline") or offline():
        refuse_network()
    redirect(Path(raw["log"]))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    (folder / JOB).write_text(line, encoding="utf-8")
    send(answers, launch(folder, devices))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
