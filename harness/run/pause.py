"""Work that is asked to end soon: on a signal it goes on to its next checkpoint and stops there.

A checkpoint is any file in the cell's scratch folder that has been written whole since the signal: under a new name, or in
the place of another file. Lines that are added to a log are none. So no loop needs to know of signals.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path


class Paused(BaseException):
    """Ends the work of a cell after a checkpoint. No error: nothing that catches those may catch it."""


_asked = threading.Event()


def pause_on(names: Sequence[str]) -> None:
    """Take these signals (``SIGTERM``, ...) as the wish that work pauses; blocked ones are let through from now on."""
    numbers = {signal.Signals[name] for name in names}
    for number in numbers:
        signal.signal(number, lambda *_: _asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def asked() -> bool:
    """Return whether work has been asked to pause."""
    return _asked.is_set()


class Checkpoints:
    """What has been written in a scratch folder since work was asked to pause."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._before = scratch, None if not asked() else self._files(scratch)

    def pause_if_due(self) -> None:
        """To be called between the steps of some work.

        Raises:
            Paused: work has been asked to pause, and has written a checkpoint since.
        """
        if not asked():
            return
        now = self._files(self._scratch)
        if self._before is None:
            self._before = now
        elif now - self._before:
            raise Paused

    @staticmethod
    def _files(scratch: Path) -> set[tuple[str, int]]:
        return {(str(path), path.stat().st_ino) for path in scratch.rglob("*") if path.is_file()}
