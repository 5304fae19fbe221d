"""Small charts as inline SVG: points with error bars, scatter, lines. Colours are the page's own, so both themes work."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 8


@dataclass(frozen=True)
class Point:
    """One mark with its error bars, in data units."""

    x: float
    y: float
    label: str
    colour: int
    y_low: float | None = None
    y_high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    hollow: bool = False
    """For values that failed a validity check."""


@dataclass(frozen=True)
class Axis:
    """One axis."""

    title: str
    low: float
    high: float

    @staticmethod
    def over(title: str, values: Sequence[float]) -> Axis:
        """Return an axis that holds the values with a little air."""
        low, high = min(values), max(values)
        air = 0.06 * (high - low) or 1.0
        return Axis(title, low - air, high + air)

    def ticks(self) -> list[float]:
        """Return about five round positions."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 250, 46, 12, 26, 40


def _x(axis: Axis, value: float) -> float:
    return LEFT + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (value - axis.low) / (axis.high - axis.low) * (HEIGHT - TOP - BOTTOM)


def _frame(title: str, x: Axis, y: Axis, x_labels: Sequence[tuple[float, str]] | None = None) -> list[str]:
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title, quote=True)}">',
        f'<text class="title" x="{LEFT}" y="15">{html.escape(title)}</text>',
    ]
    for value in y.ticks():
        at = _y(y, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 5}" y="{at + 3.5:.1f}">{value:g}</text>')
    for value, text in x_labels if x_labels is not None else [(v, f"{v:g}") for v in x.ticks()]:
        at = _x(x, value)
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}">{html.escape(text)}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text class="tick" text-anchor="middle" x="{middle:.0f}" y="{HEIGHT - 6}">{html.escape(x.title)}</text>'
    )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    return parts


def _mark(x: Axis, y: Axis, point: Point) -> str:
    at, up, colour = _x(x, point.x), _y(y, point.y), f"c{point.colour % COLOURS}"
    bars = ""
    if point.y_low is not None and point.y_high is not None:
        low, high = _y(y, point.y_low), _y(y, point.y_high)
        bars += f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    if point.x_low is not None and point.x_high is not None:
        low, high = _x(x, point.x_low), _x(x, point.x_high)
        bars += f'<line class="bar" x1="{low:.1f}" x2="{high:.1f}" y1="{up:.1f}" y2="{up:.1f}"/>'
    kind = "dot hollow" if point.hollow else "dot"
    dot = f'<circle class="{kind}" cx="{at:.1f}" cy="{up:.1f}" r="4.5"/>'
    return f'<g class="{colour}"><title>{html.escape(point.label)}</title>{bars}{dot}</g>'


def scatter(title: str, x_title: str, points: Sequence[Point]) -> str:
    """Return points with error bars in both directions."""
    if not points:
        return ""
    x = Axis.over(x_title, [v for p in points for v in (p.x, p.x_low, p.x_high) if v is not None])
    y = Axis.over("", [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None])
    return "".join([*_frame(title, x, y), *(_mark(x, y, point) for point in points), "</svg>"])


def dots(title: str, names: Sequence[str], points: Sequence[Point]) -> str:
    """Return points with error bars over named places; ``x`` of a point is the place's number."""
    if not points:
        return ""
    x = Axis("", -0.6, len(names) - 0.4)
    y = Axis.over("", [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None])
    room = (WIDTH - LEFT - RIGHT) / len(names)  # names that would run into each other are left to the legend
    labels = [(float(i), name) for i, name in enumerate(names)] if max(map(len, names)) * 6.2 < room else []
    return "".join([*_frame(title, x, y, labels), *(_mark(x, y, point) for point in points), "</svg>"])


def lines(
    title: str, x_title: str, series: Sequence[tuple[str, int, Sequence[Point]]], logarithmic: bool = False
) -> str:
    """Return one line per series (name, colour, points), with the points' error bars."""
    every = [point for _, _, points in series for point in points]
    if not every:
        return ""
    places = sorted({point.x for point in every})
    shift = math.log10 if logarithmic else float
    x = Axis.over(x_title, [shift(place) for place in places])
    y = Axis.over("", [v for p in every for v in (p.y, p.y_low, p.y_high) if v is not None])
    labels = [(shift(place), f"{place:g}") for place in places] if logarithmic else None
    parts = _frame(title, x, y, labels)
    for name, colour, points in series:
        moved = [
            Point(shift(p.x), p.y, p.label, p.colour, p.y_low, p.y_high) for p in sorted(points, key=lambda p: p.x)
        ]
        path = " ".join(f"{_x(x, p.x):.1f},{_y(y, p.y):.1f}" for p in moved)
        parts.append(
            f'<g class="c{colour % COLOURS}"><title>{html.escape(name)}</title><polyline class="line" points="{path}"/></g>'
        )
        if len(moved) <= 12:
            parts += [_mark(x, y, point) for point in moved]
    return "".join([*parts, "</svg>"])


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Return names with their colours."""
    items = "".join(f'<span class="c{colour % COLOURS}"><i></i>{html.escape(name)}</span>' for name, colour in names)
    return f'<p class="legend">{items}</p>'
