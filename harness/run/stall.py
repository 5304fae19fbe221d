"""Ranks that have stopped moving: noticed by the silence of rank 0, and distinguished by where each one stands.

A rank that hangs holds up all others, which wait for it in a collective operation, so the steps that rank 0 reports stop for all of
them. The agent then asks every rank for its stack, names those that do not wait for others, and ends the job; it is tried again
and goes on from its checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_SETTING = "HARNESS_RANK_PATIENCE"
PATIENCE = 900.0
"""Seconds without a step after which a job on several devices counts as hanging."""
_BEAT = "beat"
_BEAT_SECONDS = 0.5
_ANSWER_SECONDS = 3.0
_ASK = signal.SIGUSR2
_FRAME = re.compile(r'^  File "(?P<path>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.M)
_COLLECTIVE = re.compile(r"[/\\]torch[/\\](distributed|nn[/\\]parallel)[/\\]")


def patience() -> float:
    """Return the seconds without a step that are waited: those of the environment, or the default."""
    with suppress(KeyError, ValueError):
        return float(os.environ[PATIENCE_SETTING])
    return PATIENCE


def stand_by(folder: Path, rank: int) -> None:
    """Let this rank say where it stands whenever it is asked, also while it is blocked in code that is not Python."""
    stack = (folder / f"stack-{rank}").open("w")
    faulthandler.register(_ASK, file=stack, all_threads=False)
    (folder / f"pid-{rank}").write_text(str(os.getpid()), encoding="utf-8")


def beats(folder: Path) -> Callable[[int, int], None]:
    """Return a function that notes the steps of rank 0, at most twice a second."""
    last = [0.0]

    def beat(done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _BEAT_SECONDS or done == total:
            last[0] = now
            draft = folder / f"{_BEAT}.draft"
            draft.write_text(f"{done} of {total}", encoding="utf-8")
            draft.replace(folder / _BEAT)

    return beat


class Watch:
    """Watches the ranks of a job from its agent; it begins with the first step and ends with the last one.

    Args:
        folder: The folder that they share.
        size: Their number.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._patience = folder, size, patience()
        self.found = ""
        """Why the job was ended, if it was: which rank hangs, at which step and where."""
        threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def _watch(self) -> None:
        seen, since = "", time.monotonic()
        while True:
            time.sleep(min(1.0, self._patience / 4))
            now = self._step()
            if now != seen or not now or _complete(now):
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self._patience:
                self.found = self._find(now)
                self._signal(signal.SIGKILL)
                return

    def _step(self) -> str:
        with suppress(OSError):
            return (self._folder / _BEAT).read_text(encoding="utf-8")
        return ""

    def _find(self, step: str) -> str:
        self._signal(_ASK)
        end = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < end and not all(self._frames(rank) for rank in range(self._size)):
            time.sleep(0.1)
        places = {rank: self._place(rank) for rank in range(self._size)}
        hanging = [f"rank {rank} of {self._size} {place}" for rank, place in places.items() if place]
        why = "; ".join(hanging) + (", and the others wait for it" if len(hanging) < self._size else "")
        return f"no step for {self._patience:.0f} s after step {step}: " + (
            why if hanging else f"all {self._size} ranks wait for each other"
        )

    def _place(self, rank: int) -> str:
        """Return in words where a rank stands; empty if it waits for others."""
        frames = self._frames(rank)
        if not frames:
            return "hangs and answers no signal: it is stopped, or waits for a disk"
        if _COLLECTIVE.search(frames[0]["path"]) or frames[0]["function"] == "_engine_run_backward":
            return ""
        own = next((frame for frame in frames if "site-packages" not in frame["path"]), frames[0])
        return f"hangs in {own['function']} ({own['path']}:{own['line']})"

    def _frames(self, rank: int) -> list[re.Match[str]]:
        """Return the stack of a rank as it has written it, the innermost frame first."""
        with suppress(OSError):
            return list(_FRAME.finditer((self._folder / f"stack-{rank}").read_text(encoding="utf-8")))
        return []

    def _signal(self, number: signal.Signals) -> None:
        for rank in range(self._size):
            with suppress(OSError, ValueError):
                os.kill(int((self._folder / f"pid-{rank}").read_text(encoding="utf-8")), number)


def _complete(step: str) -> bool:
    done, _, total = step.partition(" of ")
    return done == total
