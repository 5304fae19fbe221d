"""Processes that do jobs: how one is started, and with which environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
WORKER = ("harness.run.worker",)
LAUNCHER = ("harness.run.launch",)


def spawn(
    module: Sequence[str], environment: Mapping[str, str], blocked: Collection[signal.Signals] = (signal.SIGINT,)
) -> subprocess.Popen[str]:
    """Start a module that reads jobs from its standard input and answers on its standard output.

    Args:
        module: Its name, and its arguments.
        environment: What its environment has beyond this process's and that of every worker.
        blocked: Signals that it inherits blocked. Ctrl-C reaches the whole process group, and must not print the traceback of
            every worker: a worker ends when its standard input closes.
    """
    with _signals_blocked(blocked):
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT, **environment},
        )


def ended(code: int) -> str:
    """Return in words how a process ended, from its return code (a signal is negative)."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def _signals_blocked(signals: Collection[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
