"""The leaderboard as the engine sees it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from harness.errors import DataMissing, UserError
from leaderboard.exports import to_csv, to_markdown, to_terminal
from leaderboard.sources import from_store, recorded
from leaderboard.tables import build_tables

STYLES = ("csv", "md")
CSV_NAME, MARKDOWN_NAME = "leaderboard.csv", "leaderboard.md"


class Board:
    """Prints and writes boards."""

    def show(self, store: Path, asked: frozenset[str]) -> None:
        """Write the store's board files, then print the rows of a run with recorded ones beside them."""
        from harness.files import write_text

        mine = [entry for entry in from_store(store) if entry.record.key in asked]
        if not mine:
            return
        profiles = {entry.record.comparability.profile for entry in mine}
        beside = [entry for entry in recorded() if entry.record.comparability.profile in profiles]
        write_text(store / CSV_NAME, self.render(store, "csv", True))
        write_text(store / MARKDOWN_NAME, self.render(store, "md", True))
        sys.stdout.write(to_terminal(build_tables(mine + beside), max(60, shutil.get_terminal_size((80, 24)).columns)))
        print(f"whole board: {store / MARKDOWN_NAME} and {CSV_NAME}", file=sys.stderr)

    def render(self, store: Path, style: str, with_recorded: bool) -> str:
        """Return the board of a store.

        Raises:
            UserError: an unknown style, or a damaged record.
            DataMissing: there is nothing to show.
        """
        if style not in STYLES:
            raise UserError(
                f"unknown format {style!r}", f"there are {', '.join(STYLES)}", "give --format csv or --format md"
            )
        mine = from_store(store)
        profiles = {entry.record.comparability.profile for entry in mine}
        beside = (
            [e for e in recorded() if not mine or e.record.comparability.profile in profiles] if with_recorded else []
        )
        if not mine and not beside:
            raise DataMissing(
                f"no results in {store}",
                "no finished evaluation was found",
                "python -m harness run --generator lbgen, or give the folder of a store",
            )
        tables = build_tables(mine + beside)
        return to_csv(tables) if style == "csv" else to_markdown(tables)
