"""One self-contained HTML page: tables, formulas, charts, samples, cost, and the provenance of every number one click away.

The templates are in ``page/``, one file for each part of the page; everything they are given is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from leaderboard import charts, declared
from leaderboard.exports import RESOLUTION, RESOLUTION_MEANS, legend
from leaderboard.footnotes import footnotes
from leaderboard.gallery import Gallery
from leaderboard.grids import grids
from leaderboard.markup import Section
from leaderboard.pictures import COST_HEADS, colours_of, costs, panels, samples
from leaderboard.provenance import Facts
from leaderboard.tables import Table

SPREAD_NOTE = "beneath them sd, the standard deviation over seeds, and how many these are where a row has others"
_BREAKS = re.compile(r"(?<=[_@\-/+])")
FRAME = {"width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT, "right": charts.WIDTH - charts.RIGHT,
         "bottom": charts.HEIGHT - charts.BOTTOM}  # fmt: skip


def to_html(tables: list[Table], shown: Gallery, published: bool, source: declared.Source) -> str:
    """Return the page; no network, no time, no path of this machine.

    Args:
        tables: The board.
        shown: Pictures and costs of the artifacts behind it.
        published: Whether the paper's tables are added.
        source: What generators and suites declare.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    facts, suites = Facts(), source("suites")
    formulas = {name: text for suite, known in suites.items() for name, text in declared.formulas_of(suite, known)}
    boards = [_board(table, shown, facts, formulas) for table in tables]
    page = Environment(loader=PackageLoader("leaderboard", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined, keep_trailing_newline=True)  # fmt: skip
    page.filters |= {"pieces": pieces, "px": lambda place: f"{place:.1f}"}
    page.globals |= {"frame": FRAME, "resolution_means": RESOLUTION_MEANS}
    return page.get_template("report.html").render(
        boards=boards,
        sections=[section for section in (declared.formulas(tables, suites), declared.generators(tables, source("generators")))
                  if section],
        published=_published() if published else [],
        left_out=shown.left_out,
        legend=legend(SPREAD_NOTE).replace("*recorded*", "Recorded").replace(f"*{RESOLUTION}*", RESOLUTION.capitalize()),
        cost_heads=COST_HEADS,
        facts={"values": facts.values, "records": facts.records},
    )  # fmt: skip


def _board(table: Table, shown: Gallery, facts: Facts, formulas: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": table.title,
        "notes": table.notes,
        "grids": grids(table, facts, formulas),
        "footnotes": footnotes(table),
        "colours": colours_of(table),
        "panels": panels(table, shown),
        "samples": samples(table, shown),
        "costs": costs(table, shown),
    }


def _published() -> list[Section]:
    from leaderboard.published import sections

    return sections()


def pieces(name: str) -> list[str]:
    """Return a name in pieces between which a line may break."""
    return _BREAKS.split(name) if len(name) > 8 else [name]
