"""The door to the leaderboard: the engine finds it through an entry point and knows nothing else about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from harness.core.errors import UserError

Run = tuple[Path, frozenset[str]]
"""A store, and the keys of some of its evaluations."""


class LeaderBoard(Protocol):
    """What the engine asks of a leaderboard."""

    def show(self, store: Path, asked: frozenset[str]) -> None:
        """Print the rows of a run, with recorded ones beside them."""

    def render(
        self, places: Sequence[Path], style: str, with_recorded: bool, published: bool = False, columns: str = "main"
    ) -> str | bytes | dict[str, str]:
        """Return the board of stores and folders, the main columns or another view.

        Bytes for ``parquet``, path to text for formats with a file per row, text for all others.
        """

    def values(self, places: Sequence[Path], with_recorded: bool) -> list[dict[str, Any]]:
        """Return one line per value of the board, for a data frame."""

    def values_of(self, run: Run) -> list[dict[str, Any]]:
        """Return one line per value of some evaluations of a store."""

    def compare_runs(self, first: Run, second: Run, names: tuple[str, str]) -> str:
        """Return the paired comparison of two groups of evaluations as CSV."""

    def compare(self, first: str, second: str, places: Sequence[Path], style: str) -> str:
        """Return the paired comparison of two systems as text."""

    def gate(self, places: Sequence[Path], baseline: Path, strict: bool, only: str = "") -> tuple[int, str, str]:
        """Return exit code, Markdown summary and JUnit XML."""

    def find_baseline(self, name: str) -> Path | None:
        """Return the folder of a baseline, or None where there is none."""

    def verify(self, folder: Path) -> list[str] | None:
        """Return what is damaged in a baseline folder or wrong in a file of records, or None where the folder is no baseline."""

    def write_baseline(
        self, folder: Path, places: Sequence[Path], reason: str, metrics: Sequence[str], code: dict[str, str]
    ) -> None:
        """Write a baseline from results."""

    def dataset_cards(
        self, store: Path, names: Sequence[str], decode: Callable[[bytes, str], Any]
    ) -> dict[str, dict[str, bytes]]:
        """Return the cards of the datasets of a store, all or those named: a folder's name to the files in it.

        ``decode`` makes a picture of encoded bytes and the name that errors give them.
        """

    def calibrate(self, store: Path, asked: frozenset[str]) -> None:
        """Write and print what the metrics say of worlds of known bias."""


def declarations(kind: str) -> dict[str, dict[str, str]]:
    """Return what the ``generators`` or ``suites`` that work here declare: id to fact to words."""
    from harness.plugins import registry

    if kind == "suites":
        suites = [suite.card for suite in registry.suites().available()[0]]
        return {
            card.id: {"summary": card.summary, "formula": card.formula, "citation": card.citation}
            | {f"metric {name}": text for name, text in card.metrics.items()}
            for card in suites
        }
    cards = [generator.card for generator in registry.generators().available()[0]]
    return {
        card.id: {
            "summary": card.summary,
            "base model": card.base_model,
            "adapter": card.adapter,
            "prompts": card.prompts,
            "sampler": card.sampler,
            "cost at full scale": card.cost,
            "licence": card.licence,
            "citation": card.citation,
            "differences": "; ".join(card.differences),
            "reading": card.reading,
        }
        for card in cards
    }


def board() -> LeaderBoard:
    """Return the registered leaderboard.

    Raises:
        UserError: the project is not installed.
    """
    for point in entry_points(group="harness.leaderboard", name="default"):
        return cast(LeaderBoard, point.load()(declarations))
    raise UserError("no leaderboard is registered", "the project is not installed", "pip install -e .")
