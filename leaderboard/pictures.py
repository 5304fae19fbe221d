"""The pictures of the HTML report: charts, sample images and costs of one table; ``page/`` has the templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.stats.estimate import Estimate
from leaderboard import charts, gallery
from leaderboard.charts import Chart, Point
from leaderboard.exports import arrow, by_accuracy, matched
from leaderboard.gallery import Gallery
from leaderboard.rows import RowKey
from leaderboard.tables import Column, Table, Value, mean_of_repeats

SUPPRESSION = "cue-suppression"
_LEVELS = {
    "without_colour": "share of grey",
    "without_texture": "bilateral filter, px",
    "without_texture_nlm": "non-local means, h",
    "without_global_shape": "grid of shuffled tiles, a side",
    "without_local_detail": "Gaussian kernel, px",
}
"""Mean of a curve to what its levels are."""
_NUMBER = re.compile(r"[0-9.]+")
COST_HEADS = ("generator", "backbone", "work", "seconds", "CPU-seconds", "images/s", "MiB")


@dataclass(frozen=True)
class Panel:
    """Charts of one kind."""

    title: str
    charts: tuple[Chart, ...]


def colours_of(table: Table) -> dict[str, int]:
    """Return the number of the colour of each row's name, the same in all charts of a table."""
    return {name: i % charts.COLOURS for i, name in enumerate(sorted({key.label for key in table.rows}))}


def panels(table: Table, shown: Gallery) -> list[Panel]:
    """Return the charts of a table, by kind; kinds without a chart are left out."""
    colours = colours_of(table)
    found = [
        ("bias, with 95 % intervals", _bias(table, colours)),
        ("bias against in-domain accuracy: compare rows of similar accuracy", _accuracy(table, colours)),
        ("few-shot transfer: mean over data sets by share of training images", _few_shot(table, colours)),
        (
            "accuracy kept without a cue, by how much of it is taken out, with 95 % intervals",
            _suppression(table, colours),
        ),
        ("training loss of the first seed", _training(table, colours, shown)),
    ]
    drawn = [Panel(title, tuple(chart for chart in made if chart is not None)) for title, made in found]
    return [panel for panel in drawn if panel.charts]


def _point(x: float, column: Column, key: RowKey, value: Value, colour: int) -> Point | None:
    e, scale = value.estimate, column.scale
    if e.value is None:
        return None
    low, high = (None if end is None else scale * end for end in (e.low, e.high))
    flag = "" if value.valid else " (not ranked)"
    label = f"{key.label} {key.backbone}: {scale * e.value:.1f}{flag}"
    return Point(x, scale * e.value, label, colour, low, high, hollow=not value.valid)


def _head(column: Column) -> str:
    return f"{column.name} {arrow(column)}".strip()


def _backbones(table: Table) -> list[str]:
    return sorted({key.backbone for key in table.rows if key.backbone != "-"})


def _bias(table: Table, colours: dict[str, int]) -> list[Chart | None]:
    found = matched(table)
    drawn = []
    for backbone in _backbones(table) if found else []:
        for column in found[1] if found else []:
            keys = [key for key in table.rows if key.backbone == backbone and column in table.rows[key]]
            points = [_point(i, column, key, table.rows[key][column], colours[key.label]) for i, key in enumerate(keys)]
            title = f"{_head(column)}, {backbone}"
            drawn.append(charts.dots(title, [key.label for key in keys], [p for p in points if p]))
    return drawn


def _accuracy(table: Table, colours: dict[str, int]) -> list[Chart | None]:
    found = matched(table)
    if found is None:
        return []
    accuracy, biases = found
    drawn = []
    for backbone in _backbones(table):
        for column in biases:
            points = []
            for key in by_accuracy(table, accuracy, [column]):
                first = table.rows[key][accuracy].estimate
                if key.backbone == backbone and first.value is not None:
                    point = _point(100 * first.value, column, key, table.rows[key][column], colours[key.label])
                    points += [point] if point else []
            drawn.append(charts.scatter(f"{_head(column)}, {backbone}", "in-domain top-1", points))
    return drawn


def _few_shot(table: Table, colours: dict[str, int]) -> list[Chart | None]:
    columns = [(_share(column), column) for column in table.columns if column.suite in ("few-shot", "linear-probe")]
    drawn = []
    for backbone in _backbones(table):
        series = []
        for key in (key for key in table.rows if key.backbone == backbone):
            points: dict[float, Point] = {}
            for share, column in columns:
                if share is not None and column in table.rows[key]:
                    point = _point(share, column, key, table.rows[key][column], colours[key.label])
                    points |= {share: point} if point else {}
            series.append((key.label, colours[key.label], list(points.values())))
        drawn.append(charts.lines(f"top-1, {backbone}", "share of the training images", series, logarithmic=True))
    return drawn


def _share(column: Column) -> float | None:
    """Return the share of training images of a mean over data sets, or None for other columns."""
    name, _, amount = column.metric.partition("@")
    if not column.position or column.rank or name != "transfer":
        return None
    try:
        return float(amount or 1)
    except ValueError:  # so many shots, no share
        return None


def _suppression(table: Table, colours: dict[str, int]) -> list[Chart | None]:
    """Return a chart per backbone and cue: the points that stand beside the mean of the curve in its records."""
    columns = [column for column in table.columns if column.suite == SUPPRESSION and column.role == "secondary"]
    drawn = []
    for backbone in _backbones(table):
        for column in columns:
            series = []
            for key in (key for key in table.rows if key.backbone == backbone and column in table.rows[key]):
                points = curve_points(column.metric, table.rows[key][column])
                made = [_point(level, column, key, value, colours[key.label]) for level, value in points.items()]
                series.append((key.label, colours[key.label], [point for point in made if point]))
            drawn.append(
                charts.lines(
                    f"{column.name}, {backbone}, %", _LEVELS.get(column.metric.partition("@")[0], "level"), series
                )
            )
    return drawn


def curve_points(metric: str, value: Value) -> dict[float, Value]:
    """Return level to the accuracy kept there, the mean over the seeds of a value; ``metric`` is the mean of its curve."""
    base, at, head = metric.partition("@")
    found: dict[float, list[Estimate]] = {}
    for entry in value.sources:
        for other in entry.record.metrics:
            name, other_at, other_head = other.name.partition("@")
            level = (
                name.removeprefix(f"{base}_")
                if (other_at, other_head) == (at, head) and name.startswith(f"{base}_")
                else ""
            )
            if _NUMBER.fullmatch(level):
                found.setdefault(float(level), []).append(other.estimate)
    return {
        level: replace(value, estimate=mean_of_repeats(estimates, [()])) for level, estimates in sorted(found.items())
    }


def _training(table: Table, colours: dict[str, int], shown: Gallery) -> list[Chart | None]:
    drawn = []
    for backbone in _backbones(table):
        keys = [key for key in table.rows if key.backbone == backbone]
        drawn.append(_curves(f"pre-training of {backbone}", "epoch", table, keys, "checkpoint", colours, shown))
    return [*drawn, _curves("fit of the generator", "step", table, list(table.rows), "weights", colours, shown)]


def _curves(title: str, unit: str, table: Table, keys: Sequence[RowKey], role: str, colours: dict[str, int],
            shown: Gallery) -> Chart | None:  # fmt: skip
    """Return the loss of each row's artifact of a role, each generator once."""
    series: dict[str, tuple[str, int, list[Point]]] = {}
    for key in keys:
        made = _input(table, key, role)
        curve = shown.loss_curve(made) if made else []
        if curve and key.label not in series:
            colour = colours[key.label]
            series[key.label] = (key.label, colour, [Point(x, y, key.label, colour) for x, y in curve])
    return charts.lines(title, unit, list(series.values()))


def _input(table: Table, key: RowKey, role: str) -> str:
    """Return the key of a row's input of a role, or an empty text."""
    inputs = gallery.inputs_of(table, key)
    return next((made for path, made in sorted(inputs.items()) if path.split("/")[-1] == role), "")


def _rows_with(table: Table, role: str) -> dict[str, str]:
    """Return row label to the key of an input of its first seed, each input once."""
    found: dict[str, str] = {}
    for key in table.rows:
        made = _input(table, key, role)
        if made and made not in found.values():
            found[key.label] = made
    return found


def samples(table: Table, shown: Gallery) -> list[tuple[str, str]]:
    """Return row labels with their sample images as data addresses, each set of images once."""
    found = [(label, shown.sample_grid(key)) for label, key in _rows_with(table, "copy").items()]
    return [(label, picture) for label, picture in found if picture]


def costs(table: Table, shown: Gallery) -> list[tuple[str, ...]]:
    """Return the cost of each artifact behind the first seeds, once, under ``COST_HEADS``."""
    found: dict[str, tuple[str, ...]] = {}
    for key in table.rows:
        inputs = gallery.inputs_of(table, key)
        for path, made in sorted(inputs.items(), key=lambda item: -item[0].count("/")):
            role = path.split("/")[-1]
            shows = role in ("weights", "dataset", "copy", "checkpoint") and made not in found
            cost = shown.cost(made) if shows else None
            if cost is not None:
                found[made] = (key.label, key.backbone if role == "checkpoint" else "", cost.kind, *_cost(cost))
    return list(found.values())


def _cost(cost: gallery.Cost) -> tuple[str, str, str, str]:
    took, size = cost.spent, f"{cost.bytes / 2**20:.1f}"
    if took is None:
        return "–", "–", "–", size
    speed = f"{cost.images / took.wall_seconds:.1f}" if cost.images and took.wall_seconds else "–"
    return f"{took.wall_seconds:.0f}", f"{took.cpu_seconds:.0f}", speed, size
