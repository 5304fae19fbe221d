"""What the processes of one job on several devices share: a folder, an agreement whether there is work, and their end."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

JOB = "job.json"
_PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux' prctl."""


def end_with_input(folder: Path) -> None:
    """End this process at once when standard input closes, and leave no temporary files."""

    def watch() -> None:
        while os.read(0, 2**16):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="input", daemon=True).start()


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, also while it holds the interpreter's lock; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)


def answer_file(folder: Path, rank: int) -> Path:
    """Return where a rank leaves its answer."""
    return folder / f"answer-{rank}.json"


class Agreement:
    """What rank 0 has found at the cell's lock, so that no rank waits for one that has nothing to do."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file, self._rank = folder / "agreed", rank

    def __call__(self, to_do: bool | None) -> bool:
        """Return whether the cell is to be done: rank 0 says so, the others (None) wait until it has."""
        if self._rank == 0:
            draft = self._file.with_suffix(".draft")
            draft.write_text("work" if to_do else "done", encoding="utf-8")
            draft.replace(self._file)
            return bool(to_do)
        waiting = threading.Event()
        while not self._file.exists():
            waiting.wait(0.1)
        return self._file.read_text(encoding="utf-8") == "work"
