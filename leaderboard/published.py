"""The paper's Tables 1 to 4 as reference rows: shown as *published*, never mixed with ours, never ranked.

Source: lbGen, CVPR 2025, arXiv 2412.10831v3. Single runs, no seeds, no error bars; percent, BG_Gap in points.
"""

from __future__ import annotations

import csv
import importlib.resources
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.stats.estimate import normal_quantile
from leaderboard.markup import Section

ARXIV = "arXiv 2412.10831v3"
TITLE = f"published ({ARXIV})"
TRANSFER = {"aircraft": 3333, "cars196": 8041, "dtd": 1880, "eurosat": 8100, "flowers": 6149, "pets": 3669,
            "food101": 25250, "sun397": 19850}  # fmt: skip
"""The eight transfer columns and their numbers of test images."""
IN_DOMAIN = {"in_val": 50_000, "in100_val": 5_000}
ROUNDING = 0.10
"""How far a printed average may lie from the mean of eight printed columns by rounding alone (0.05 each)."""
ERRORS = {"TI": (1.3, 2.4), "CB_avg": (2.5, 5.0), "BG_Gap": (0.5, 1.2)}
"""Smallest and largest plausible standard error, in points, of a difference of two models on the same images: TI paired over
images and over shapes and textures; CB_avg paired and unpaired; BG_Gap with and without correlated foregrounds."""
STRONG = 3.0
"""Standard errors from which a difference is called beyond noise whatever the reading of its error."""
REFERENCE, METHOD = "Real", "lbGen"

Verdict = Literal["noise", "borderline", "suggestive", "beyond noise", "not judged"]


@dataclass(frozen=True)
class Row:
    """One row of a published table."""

    table: int
    backbone: str
    data: str
    values: Mapping[str, float]
    printed_average: float | None

    @property
    def mean(self) -> float | None:
        """Return the mean of the eight transfer columns, or None where the table has none."""
        if not set(TRANSFER) <= self.values.keys():
            return None
        return sum(self.values[name] for name in TRANSFER) / len(TRANSFER)

    @property
    def average_is_wrong(self) -> bool:
        """Return whether the printed average differs from the mean by more than rounding."""
        mean = self.mean
        return (
            mean is not None and self.printed_average is not None and abs(self.printed_average - mean) > ROUNDING + 1e-6
        )


@dataclass(frozen=True)
class Judgement:
    """A published difference against sampling noise."""

    table: int
    backbone: str
    first: str
    second: str
    metric: str
    difference: float
    """First - second, points."""
    errors: tuple[float, float] | None
    """Smallest and largest plausible standard error, points."""
    verdict: Verdict


def rows() -> list[Row]:
    """Return all rows of Tables 1 to 4 in the order of print."""
    found = []
    for table in (1, 2, 3, 4):
        text = importlib.resources.files("leaderboard").joinpath("published", f"table{table}.csv").read_text("utf-8")
        for raw in csv.DictReader(text.splitlines()):
            average = raw.pop("printed_average", None)
            backbone, data = raw.pop("backbone"), raw.pop("data")
            values = {name: float(text) for name, text in raw.items() if text and _is_metric(name)}
            found.append(Row(table, backbone, data, values, float(average) if average else None))
    return found


def _is_metric(name: str) -> bool:
    return name in TRANSFER or name in IN_DOMAIN or name in ERRORS or "@" in name


def judge(first: Row, second: Row, metric: str) -> Judgement:
    """Hold a difference against the smallest and the largest plausible error: 1.96 of each."""
    d = first.values[metric] - second.values[metric]
    errors = _errors(first.values[metric], second.values[metric], metric)
    return Judgement(first.table, first.backbone, first.data, second.data, metric, d, errors, _verdict(d, errors))


def _errors(first: float, second: float, metric: str) -> tuple[float, float] | None:
    if metric in ERRORS:
        return ERRORS[metric]
    n = TRANSFER.get(metric) or IN_DOMAIN.get(metric)
    if n is None:  # AP and mIoU: no error follows from the counts alone
        return None
    p, q = first / 100, second / 100
    paired = math.sqrt(
        max(abs(p - q) - (p - q) ** 2, 0.0) / n
    )  # as if no image but those of the difference changed sides
    return 100 * paired, 100 * math.sqrt((p * (1 - p) + q * (1 - q)) / n)


def _verdict(d: float, errors: tuple[float, float] | None) -> Verdict:
    if errors is None:
        return "not judged"
    z, (small, large) = normal_quantile(), errors
    if abs(d) > STRONG * large:
        return "beyond noise"
    if abs(d) > z * large:
        return "suggestive"
    return "borderline" if abs(d) > z * small else "noise"


def judgements() -> list[Judgement]:
    """Return every row against the real one of its table and backbone, and the method against all others."""
    found, every = [], rows()
    for table, backbone in dict.fromkeys((row.table, row.backbone) for row in every):
        block = [row for row in every if (row.table, row.backbone) == (table, backbone)]
        real, method = (next(r for r in block if r.data.split("-", 1)[1] == name) for name in (REFERENCE, METHOD))
        pairs = [(row, real) for row in block if row not in (real, method)] + [
            (method, r) for r in block if r is not method
        ]
        found += [judge(a, b, metric) for a, b in pairs for metric in a.values if metric in b.values]
    return found


def sections() -> list[Section]:
    """Return the published rows, the averages recomputed, and which differences exceed sampling noise."""
    every = rows()
    found = [Section(TITLE, before="Single runs without seeds or errors; never mixed with, never ranked against ours.")]
    found += [_table(table, [row for row in every if row.table == table]) for table in (1, 2, 3, 4)]
    return [*found, _judged(judgements())]


def _table(table: int, block: list[Row]) -> Section:
    names = list(dict.fromkeys(name for row in block for name in row.values))
    averages = any(row.printed_average is not None for row in block)
    lines = []
    for row in block:
        cells = [f"{row.values[name]:g}" if name in row.values else "–" for name in names]
        if averages:
            cells += [f"{row.printed_average:.1f}{' ✗' if row.average_is_wrong else ''}", f"{row.mean:.2f}"]
        lines.append((f"{row.backbone} {row.data}", *cells))
    heads = ("", *names, *(("average as printed", "mean of the eight") if averages else ()))
    after = "✗ not the mean of the eight columns, rounding allowed for" if averages else ""
    return Section(f"Table {table}", 3, heads=heads, rows=tuple(lines), after=after)


def _judged(found: list[Judgement]) -> Section:
    lines = []
    for one in found:
        errors = "none follows from the counts" if one.errors is None else f"{one.errors[0]:.1f} to {one.errors[1]:.1f}"
        what = f"{one.backbone}: {one.first} − {one.second}"
        lines.append((f"{one.table}", what, one.metric, f"{one.difference:+.2f}", errors, one.verdict))
    return Section(
        "published differences against sampling noise",
        3,
        "Noise: below 1.96 standard errors on every reading of the error; borderline: on some; suggestive: beyond 1.96 of the "
        "largest; beyond noise: beyond 3. Test images only: the spread over seeds is unknown, so none of these establishes a "
        "method.",
        ("table", "", "metric", "difference", "plausible standard error", ""),
        tuple(lines),
    )
