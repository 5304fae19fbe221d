"""The styles of a board: which there are, what each can show, and those that hold every metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.core.errors import UserError
from harness.core.names import did_you_mean
from leaderboard.sources import Entry
from leaderboard.views import View, parse_view

TIDY = ("long", "json", "parquet")
TREES = ("every-eval-ever", "eval-results")
"""Formats of others, with a file for each row."""
RECORDS = "records"
"""The style of submissions: the records themselves, one a line."""
EVERY_METRIC = (*TIDY, *TREES, RECORDS)
"""Styles that hold every metric, whatever the view."""
STYLES = ("csv", "md", "latex", "html", *EVERY_METRIC)


def view_of(style: str, published: bool, columns: str) -> View:
    """Return the view that columns name.

    Raises:
        UserError: there is none, or the style is unknown, or has neither views nor the paper's tables.
    """
    if style not in STYLES:
        raise UserError(
            f"unknown format {style!r}",
            f"formats: {', '.join(STYLES)}",
            f"{did_you_mean(style, STYLES)}correct --format",
        )
    if published and style not in ("md", "html"):
        raise UserError(f"--published has no {style}", "the paper's tables are written as Markdown and HTML only",
                        "add --format md or html, or leave out --published")  # fmt: skip
    view = parse_view(columns)
    if view != "main" and style in EVERY_METRIC:
        raise UserError(f"--columns has no {style}", "this format holds every metric, its role in a field of its own",
                        "leave out --columns, and filter by role")  # fmt: skip
    return view


def every_metric(style: str, entries: Sequence[Entry]) -> str | bytes | dict[str, str]:
    """Return records in a style that holds every metric."""
    if style in TIDY:
        from leaderboard import long

        write: Callable[[list[long.Line]], str | bytes] = {"long": long.to_csv, "json": long.to_json}.get(
            style, long.to_parquet
        )
        return write(long.long_table(entries))
    if style == RECORDS:
        from leaderboard.exchange.submission import to_lines

        return to_lines(entries)
    from leaderboard.exchange import eval_results, every_eval_ever

    return (eval_results if style == "eval-results" else every_eval_ever).documents(entries)
