"""A run on a terminal of 80 columns: a live display that leaves nothing behind, and Ctrl-C that says what to do next."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from harness.run.progress import ProgressReporter
from harness.run.status import read_status
from harness.store.artifacts import Store
from harness.store.cells import Cell

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(("term", "animated"), [("xterm", True), ("dumb", False)])
def test_the_display_has_a_line_for_each_worker_and_none_is_wider_than_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, term: str, animated: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    stream = Terminal()
    board = ProgressReporter(Store(tmp_path), 96, stream=stream)
    cells = [
        Cell("pretrain", "resnet10", 1, {"seed": i}, label=f"a generator of a long name, seed {i}, " * 3)
        for i in range(3)
    ]
    board.begin(cells, [], 3)
    for i, cell in enumerate(cells):
        board.started(cell, "", i)
        board.running[cell.key, ""].began -= 60
    board.progress(cells[0], "", 25, 100, "steps, loss 0.31")
    board._printed = -100.0
    board.tick()
    board.note("a line above the display")
    shown = ESCAPE.sub("", stream.getvalue()).replace("\r", "\n").splitlines()
    assert ("\x1b" in stream.getvalue()) == animated
    assert any("a line above the display" in line for line in shown)
    if animated:
        assert max(map(len, shown)) <= 80
        assert any(re.search(r"0/96 cells, \d+ s, about 3 min", line) for line in shown), shown
        assert sum("pretrain a generator" in line for line in shown) >= 3
        assert any("25/100 steps, loss 0.31" in line and "3 min 00 s left" in line for line in shown)
    board.finish()
    assert not animated or stream.getvalue().endswith("\x1b[2K"), "the display is taken back"


def test_ctrl_c_on_a_terminal_prints_what_to_do_next_and_no_traceback(plugins: Path, tmp_path: Path) -> None:
    command = ("run", "--generator", "noise", "--suite", "brightness", "--profile", str(plugins / "toy.toml"),
               "--store", str(tmp_path / "s"), "--set", "generators.noise.pause=1", "--slots", "2")  # fmt: skip
    path = os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "HARNESS_CACHE": str(tmp_path / "cache"), "TERM": "xterm"}
    child, screen = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would the child
        os.chdir(tmp_path)
        os.execve(sys.executable, [sys.executable, "-m", "harness", *command], environment)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    text, code = _press_ctrl_c(screen, child, after=b"1/2 images")
    assert code == 130, text
    assert "synthesise noise" in text and "cells, " in text
    assert text.rstrip().endswith("interrupted: finished work is kept; run the same command again to continue")
    assert "Traceback" not in text and "\x1b[?25h" in text, "the cursor is shown again"
    found = read_status(tmp_path / "s")
    assert found is not None and found.verdict == "interrupted" and not found.facts["running"]


def _press_ctrl_c(screen: int, child: int, after: bytes) -> tuple[str, int]:
    """Press Ctrl-C once the screen shows something; returns all that was shown, and the exit code."""
    shown, pressed, end = b"", False, time.monotonic() + 300
    while time.monotonic() < end:
        if select.select([screen], [], [], 0.5)[0]:
            try:
                piece = os.read(screen, 2**16)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        if not pressed and after in shown:
            os.write(screen, b"\x03")
            pressed = True
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_worker_whose_executor_is_gone_prints_no_traceback() -> None:
    """Neither while it starts nor with a job that it was given."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.Popen(
        [sys.executable, "-m", "harness.run.worker"], stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    os.close(write)
    assert done.wait(timeout=120) == 0
    assert done.stdin is not None and done.stderr is not None
    done.stdin.close()
    assert done.stderr.read() == ""


def test_ctrl_c_anywhere_in_the_command_line_says_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.cli import main

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 130 and capsys.readouterr().err.strip() == main.INTERRUPTION
