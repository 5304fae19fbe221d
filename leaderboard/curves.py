"""Accuracy against the number of training images: the paper's Figure 3 as data and picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.sources import Origin
from leaderboard.tables import Column, Table, Value

SUITE, GROUP, SHOTS = "few-shot", "transfer@", "shot"
PROBE, WHOLE = ("linear-probe", "transfer"), ("fraction", 1.0)
FIELDS = ("table", "backbone", "generator", "origin", "kind", "amount", "top1", "low", "high", "n", "seeds")
VALIDATION = "; toolbox validation"
"""What the linear probe's protocol says beyond that of few-shot probes, where both search alike."""
_COLOURS = ("#3b6fb6", "#d1703c", "#2f8f6b", "#8b5fbf", "#c2456b", "#7a6a3d", "#4f9fb0")
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Dot:
    """The mean over the data sets for one backbone and one amount of training images."""

    table: str
    backbone: str
    generator: str
    origin: Origin
    kind: str
    """``fraction`` of the training images, or ``shots`` per class."""
    amount: float
    top1: float
    low: float | None
    high: float | None
    """Interval of sampling error; the values are means over seeds."""
    n: int
    seeds: int


def dots(tables: Sequence[Table]) -> list[Dot]:
    """Return the few-shot means of tables, ordered by table, backbone, generator, kind and amount.

    All images are the linear probe itself: where few-shot probes leave fraction 1 out, its mean stands in, if it was
    searched, solved and repeated as they were. Values on other terms than the plain column's belong on no common curve.
    """
    found = []
    for table in tables:
        for key, cells in table.rows.items():
            amounts = {
                _amount(column): value for column, value in cells.items() if column.suite == SUITE and not column.rank
            }
            whole = [
                value for column, value in cells.items() if (column.suite, column.metric) == PROBE and not column.rank
            ]
            shots = [value for (kind, _), value in amounts.items() if kind]
            if whole and shots and _protocols(whole, VALIDATION) == _protocols(shots):
                amounts.setdefault(WHOLE, whole[0])
            for (kind, amount), value in amounts.items():
                e = value.estimate
                if kind and e.value is not None:
                    found.append(Dot(table.title, key.backbone, key.label, key.origin, kind, amount, e.value, e.low, e.high,
                                     e.n, len(value.seeds)))  # fmt: skip
    return sorted(found, key=lambda dot: (*(str(getattr(dot, name)) for name in FIELDS[:5]), dot.amount))


def _protocols(values: Sequence[Value], ending: str = "") -> set[tuple[str, str]]:
    """Return the protocols behind values, less an ending that all of them need, with the data they were used on."""
    terms = [entry.record.comparability for value in values for entry in value.sources]
    return {(t.protocol.removesuffix(ending), str(t.data)) for t in terms if t.protocol.endswith(ending)}


def _amount(column: Column) -> tuple[str, float]:
    """Return kind and amount of a few-shot mean; no kind for any other column."""
    if not column.metric.startswith(GROUP):
        return "", 0.0
    text = column.metric.removeprefix(GROUP)
    return "shots" if text.endswith(SHOTS) else "fraction", float(text.removesuffix(SHOTS))


def curves_csv(found: Sequence[Dot]) -> str:
    """Return the data of the picture: fractions, one line per point."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(FIELDS)
    for dot in found:
        values = [getattr(dot, name) for name in FIELDS]
        writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in values])
    return stream.getvalue()


def draw_curves(found: Sequence[Dot], path: Path) -> None:
    """Draw one panel per backbone and kind of amount, percent against a logarithmic amount, with 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = sorted({(dot.kind, dot.table, dot.backbone) for dot in found})
    generators = sorted({dot.generator for dot in found})
    figure = Figure(figsize=(0.6 + 4.4 * len(panels), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (kind, table, backbone) in zip(axes, panels, strict=True):
        here = [dot for dot in found if (dot.kind, dot.table, dot.backbone) == (kind, table, backbone)]
        for generator, origin in sorted({(dot.generator, dot.origin) for dot in here}):
            points = [dot for dot in here if (dot.generator, dot.origin) == (generator, origin)]
            _line(axis, points, generators.index(generator))
        _dress(axis, f"{backbone} ({table})", kind, sorted({dot.amount for dot in here}))
    axes[0].set_ylabel("top-1, mean of the transfer sets (%)")
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def _line(axis: Any, points: Sequence[Dot], number: int) -> None:
    first = points[0]
    y = [100 * dot.top1 for dot in points]
    spread = None
    if all(dot.low is not None and dot.high is not None for dot in points):
        spread = [
            [100 * (dot.top1 - (dot.low or 0.0)) for dot in points],
            [100 * ((dot.high or 0.0) - dot.top1) for dot in points],
        ]
    shift = 1 + 0.012 * number  # so that intervals do not hide one another
    axis.errorbar(
        [dot.amount * shift for dot in points],
        y,
        yerr=spread,
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=5,
        linewidth=1.6,
        capsize=2,
        linestyle="--" if first.origin == "recorded" else "-",
        label=first.generator + (" (recorded)" if first.origin == "recorded" else ""),
    )


def _dress(axis: Any, title: str, kind: str, amounts: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
    axis.minorticks_off()
    axis.set_xlabel("share of the training images" if kind == "fraction" else "training images per class")
    axis.set_title(title, fontsize=10)
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
