"""The live display of a run on a terminal: an overall bar with the time left, and a line for each worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.core.quantities import duration

if TYPE_CHECKING:
    from harness.run.remaining import Running

_BAR = 30


class Display:
    """Redraws in place at every update; nothing of it stays on the screen. Starts no thread and replaces no stream."""

    def __init__(self, stream: TextIO) -> None:
        """Draw on a terminal."""
        self._console = Console(file=stream)
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def update(
        self, running: Sequence[Running], finished: int, total: int, seconds: float, seconds_left: float | None
    ) -> None:
        """Show the tasks of the workers, the cells done of all cells, and the time spent and left, in seconds."""
        head = Table.grid(padding=(0, 1))
        left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
        head.add_row(
            ProgressBar(total=max(total, 1), completed=finished, width=min(_BAR, self._console.width // 3)),
            Text(f"{finished}/{total} cells, {duration(seconds)}{left}", no_wrap=True, overflow="ellipsis"),
        )
        most = max(1, self._console.height - 3)
        tasks = Table.grid(padding=(0, 2), expand=True)
        tasks.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        tasks.add_column(no_wrap=True, overflow="ellipsis")
        tasks.add_column(justify="right", no_wrap=True)
        for task in running[:most]:
            steps = f"{task.done}/{task.total} {task.note}" if task.total else ""
            task_left = task.seconds_left()
            tasks.add_row(
                Text(f" {task.name}"), Text(steps), Text("" if task_left is None else f"{duration(task_left)} left")
            )
        if len(running) > most:
            tasks.add_row(Text(f" and {len(running) - most} more"), Text(), Text())
        self._live.update(Group(head, tasks), refresh=True)

    def print(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Remove the display."""
        self._live.stop()
