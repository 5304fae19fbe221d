"""The door to the leaderboard: the engine finds it through an entry point and knows nothing else about it."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from harness.errors import UserError


class LeaderBoard(Protocol):
    """What the engine asks of a leaderboard."""

    def show(self, store: Path, asked: frozenset[str]) -> None:
        """Print the rows of a run, with recorded ones beside them."""

    def render(self, store: Path, style: str, recorded: bool) -> str:
        """Return the whole board of a store as text."""


def board() -> LeaderBoard:
    """Return the registered leaderboard.

    Raises:
        UserError: the project is not installed.
    """
    for point in entry_points(group="harness.leaderboard", name="default"):
        return cast(LeaderBoard, point.load()())
    raise UserError("no leaderboard is registered", "the project is not installed", "pip install -e .")
