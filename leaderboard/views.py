"""Which columns a board shows: the main ones by default, secondary ones in views of their own."""

from __future__ import annotations

from typing import Literal

from harness.core.errors import UserError
from harness.core.names import did_you_mean
from harness.store.records import Metric, Record

View = Literal["main", "bias", "images", "all"]
"""``main``: primary metrics. ``bias``: in-domain accuracy, the three bias metrics, and every secondary metric of a network.
``images``: what was measured on the images themselves. ``all``: every primary and secondary metric."""
VIEWS: tuple[View, ...] = ("main", "bias", "images", "all")
ACCURACY = "in-domain"
MATCHED = ("texture-bias", "context-bias", "background-bias")


def parse_view(text: str) -> View:
    """Return the view of that name.

    Raises:
        UserError: there is none.
    """
    for view in VIEWS:
        if view == text:
            return view
    raise UserError(
        f"unknown columns {text!r}", f"columns: {', '.join(VIEWS)}", f"{did_you_mean(text, VIEWS)}correct --columns"
    )


def in_view(record: Record, metric: Metric, view: View) -> bool:
    """Return whether a primary or secondary metric of a record has a column in a view."""
    secondary, images = metric.role == "secondary", record.subject.backbone == "-"
    if view == "main":
        return not secondary
    if view == "bias":
        return record.suite in (ACCURACY, *MATCHED) or (secondary and not images)
    return images or view == "all"
