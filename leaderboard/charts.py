"""Small charts for the HTML report: points with error bars, scatter, lines. Here they are placed, ``page/chart.html`` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 8
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 250, 46, 12, 26, 40
"""Size of a chart and the margins of its frame, pixels."""


@dataclass(frozen=True)
class Point:
    """One value with its error bars, in data units."""

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


@dataclass(frozen=True)
class Marker:
    """A point in its place, pixels; error bars are (x1, y1, x2, y2)."""

    x: float
    y: float
    label: str
    colour: int
    bars: tuple[tuple[float, float, float, float], ...]
    hollow: bool


@dataclass(frozen=True)
class Line:
    """The line of one series through its points, pixels."""

    name: str
    colour: int
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart in pixels; ticks are (place, text)."""

    title: str
    x_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    markers: tuple[Marker, ...]
    lines: tuple[Line, ...] = ()


def _x(axis: Axis, value: float) -> float:
    return LEFT + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (value - axis.low) / (axis.high - axis.low) * (HEIGHT - TOP - BOTTOM)


def _chart(title: str, x: Axis, y: Axis, points: Sequence[Point], labels: Sequence[tuple[float, str]] | None = None,
           lines: Sequence[Line] = ()) -> Chart:  # fmt: skip
    named = labels if labels is not None else [(value, f"{value:g}") for value in x.ticks()]
    return Chart(
        title, x.title, tuple((_x(x, value), text) for value, text in named),
        tuple((_y(y, value), f"{value:g}") for value in y.ticks()), tuple(_marker(x, y, point) for point in points), tuple(lines),
    )  # fmt: skip


def _marker(x: Axis, y: Axis, point: Point) -> Marker:
    across, up = _x(x, point.x), _y(y, point.y)
    bars = []
    if point.y_low is not None and point.y_high is not None:
        bars.append((across, _y(y, point.y_low), across, _y(y, point.y_high)))
    if point.x_low is not None and point.x_high is not None:
        bars.append((_x(x, point.x_low), up, _x(x, point.x_high), up))
    return Marker(across, up, point.label, point.colour % COLOURS, tuple(bars), point.hollow)


def _heights(points: Sequence[Point]) -> list[float]:
    return [value for point in points for value in (point.y, point.y_low, point.y_high) if value is not None]


def scatter(title: str, x_title: str, points: Sequence[Point]) -> Chart | None:
    """Return points with error bars in both directions; None without points."""
    if not points:
        return None
    across = [value for point in points for value in (point.x, point.x_low, point.x_high) if value is not None]
    return _chart(title, Axis.over(x_title, across), Axis.over("", _heights(points)), points)


def dots(title: str, names: Sequence[str], points: Sequence[Point]) -> Chart | None:
    """Return points with error bars over named places; ``x`` of a point is the place's number. None without points."""
    if not points:
        return None
    room = (WIDTH - LEFT - RIGHT) / len(names)  # names that would run into each other are left to the legend
    labels = [(float(i), name) for i, name in enumerate(names)] if max(map(len, names)) * 6.2 < room else []
    return _chart(title, Axis("", -0.6, len(names) - 0.4), Axis.over("", _heights(points)), points, labels)


def lines(
    title: str, x_title: str, series: Sequence[tuple[str, int, Sequence[Point]]], logarithmic: bool = False
) -> Chart | None:
    """Return one line per series (name, colour, points), with the points' error bars if they are few; None without points."""
    every = [point for _, _, points in series for point in points]
    if not every:
        return None
    places = sorted({point.x for point in every})
    shift = math.log10 if logarithmic else float
    x, y = Axis.over(x_title, [shift(place) for place in places]), Axis.over("", _heights(every))
    labels = [(shift(place), f"{place:g}") for place in places] if logarithmic else None
    drawn, shown = [], []
    for name, colour, points in series:
        moved = [
            Point(shift(p.x), p.y, p.label, p.colour, p.y_low, p.y_high) for p in sorted(points, key=lambda p: p.x)
        ]
        drawn.append(Line(name, colour % COLOURS, tuple((_x(x, p.x), _y(y, p.y)) for p in moved)))
        shown += moved if len(moved) <= 12 else []
    return _chart(title, x, y, shown, labels, drawn)
