"""Do the bias metrics measure bias? Dose-response of each metric to correlations that were planted.

A world is named ``world:CAUSE=DOSE``. For a metric, *bias* is one minus its value where higher is better, else its value, so that an
instrument that works rises with the dose of its own cause.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.core.errors import DataMissing
from harness.stats.estimate import normal_quantile
from leaderboard.sources import WORLD, Entry
from leaderboard.tables import Column, Value, build_tables

OWN: dict[str, tuple[str, ...]] = {"TI": ("texture",), "CB_avg": ("scene", "light", "weather"), "BG_Gap": ("scene",)}
"""Metric to the causes it is meant to answer to: FOCUS varies place, time of day and weather together."""
LOST = ("without_colour", "without_texture", "without_texture_nlm", "without_local_detail")
"""Accuracies kept without a cue, of which what is lost counts: a network that reads textures loses it."""
IMAGES: dict[str, tuple[str, ...]] = {
    "near_duplicates": ("duplicates",), **dict.fromkeys(("coverage", "recall", "diversity"), ("modes",)),
    "class_agreement": ("labels",), **dict.fromkeys(("density", "precision"), ("tint",)), "origin_accuracy": ("tint", "modes"),
}  # fmt: skip
"""What is measured on the images to the planted flaws it is meant to answer to: an origin may show in anything that is not alike."""
SECOND: dict[str, tuple[str, ...]] = {
    "texture_sensitivity": ("texture",), "top1_texture": ("texture",), "shape_sensitivity": ("texture",),
    **dict.fromkeys(LOST, ("texture",)), "without_global_shape": ("texture",),
    "size_gap": ("size",), "position_gap": ("position",),
    **IMAGES,
}  # fmt: skip
"""Secondary metrics to the causes they are meant to answer to; in the tables, not in the figure."""
TURNED = (*LOST, "diversity")
"""Metrics that are better neither way, of which bias is what they lack of 100."""
_HIGHER = ("density", "precision", "coverage", "recall", "class_agreement")
TOGETHER = "all"
_PANELS = 4
"""Most panels in a row of the figure."""
_NO_BACKBONE = "-"
"""Backbone of what was measured on the images alone."""
_CAUSES = (
    "texture",
    "scene",
    "light",
    "weather",
    TOGETHER,
    "size",
    "position",
    "duplicates",
    "modes",
    "labels",
    "tint",
)
"""Causes in the order of their colours."""
CROSS_TALK = 0.25
"""Largest share of the own effect that another cause may have."""
FEWEST_DOSES = 3
"""Doses below which no rank correlation is taken."""
RANK_CORRELATION = 0.9
DEAF = "does NOT respond"
_WORLD = re.compile(rf"{WORLD}([a-z]+)=([0-9.]+)$")


@dataclass(frozen=True)
class Point:
    """One metric in the world of one cause at one dose."""

    dose: float
    bias: float | None
    """Mean over seeds, in percent or points."""
    error: float
    """Standard error of that mean for new test items, dataset seeds and training seeds."""
    seeds: tuple[float, ...]
    """Bias of each seed."""
    valid: bool
    """Whether the validity checks passed for every seed."""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Response:
    """How one metric answers to one cause."""

    metric: str
    cause: str
    points: tuple[Point, ...]
    """In order of dose, from the balanced world on."""

    @property
    def own(self) -> bool:
        """Return whether the metric is meant to answer to this cause."""
        return self.cause in (OWN | SECOND).get(self.metric, ())

    @property
    def usable(self) -> tuple[Point, ...]:
        """Return the points whose value may be ranked."""
        return tuple(point for point in self.points if point.valid and point.bias is not None)

    @property
    def spearman(self) -> float | None:
        """Return the rank correlation of dose and bias over all seeds of the usable points; None below three doses."""
        from scipy.stats import spearmanr

        pairs = [(point.dose, bias) for point in self.usable for bias in point.seeds]
        if len(self.usable) < FEWEST_DOSES or len({bias for _, bias in pairs}) < 2:
            return None
        return float(spearmanr([dose for dose, _ in pairs], [bias for _, bias in pairs]).statistic)

    @property
    def turn(self) -> Point | None:
        """Return the first point that lies below an earlier one by more than two standard errors of the difference."""
        top: Point | None = None
        for point in (p for p in self.points if p.bias is not None):
            if top is None or point.bias >= top.bias:  # type: ignore[operator]
                top = point
            elif top.bias - point.bias > 2 * math.hypot(top.error, point.error):  # type: ignore[operator]
                return point
        return None

    @property
    def enough_valid(self) -> bool:
        """Return whether the validity checks pass at five of six doses, or as large a part of however many there are."""
        return 6 * len(self.usable) >= 5 * len(self.points)

    def effects(self) -> list[tuple[float, float, float]]:
        """Return each usable dose above none, the rise over the balanced world there, and its standard error."""
        if not self.usable or self.usable[0].dose != 0:
            return []
        start, *rest = self.usable
        return [(at.dose, (at.bias or 0.0) - (start.bias or 0.0), math.hypot(at.error, start.error)) for at in rest]

    def effect(self) -> tuple[float, float, float] | None:
        """Return the effect at the largest usable dose, see ``effects``."""
        return max(self.effects(), default=None)


def responses(entries: Sequence[Entry]) -> list[Response]:
    """Return the answers of TI, CB_avg, BG_Gap and secondary metrics to every cause, for the backbone with most worlds.

    Raises:
        DataMissing: there are no worlds, or none without bias.
    """
    worlds = [entry for entry in entries if _WORLD.match(entry.record.subject.generator)]
    found: dict[str, dict[str, dict[float, Point]]] = {metric: {} for metric in OWN | SECOND}
    for table in build_tables(worlds, "all")[:1]:
        backbones = [key.backbone for key in table.rows if key.backbone != _NO_BACKBONE]
        backbone = max(sorted(set(backbones)), key=backbones.count, default="")
        for key, row in table.rows.items():
            world = _WORLD.match(key.generator)
            if world is None or key.backbone not in (backbone, _NO_BACKBONE):
                continue
            for column, value in row.items():
                if column.name in found:
                    found[column.name].setdefault(world[1], {})[float(world[2])] = _point(
                        float(world[2]), column, value
                    )
    if not any(0.0 in doses for causes in found.values() for doses in causes.values()):
        raise DataMissing(
            "no calibration can be made", "there is no balanced world (world:all=0)", "run the command calibrate"
        )
    return [_response(metric, cause, causes) for metric, causes in found.items() for cause in _order(causes)]


def _order(causes: dict[str, dict[float, Point]]) -> list[str]:
    names = [name for name, doses in causes.items() if any(doses)]
    return sorted(names, key=lambda name: (name == TOGETHER, _CAUSES.index(name)))


def _order_all(causes: dict[str, dict[float, Point]]) -> list[str]:
    """Return all causes, ``all`` last."""
    return sorted(causes, key=lambda name: (name == TOGETHER, name))


def _response(metric: str, cause: str, causes: dict[str, dict[float, Point]]) -> Response:
    """Return the points of a cause; the balanced world begins the row of every cause that has no world of its own at dose 0."""
    balanced = {dose: causes[name][dose] for name in _order_all(causes) for dose in causes[name] if dose == 0.0}
    points = balanced | causes[cause]
    return Response(metric, cause, tuple(points[dose] for dose in sorted(points)))


def _point(dose: float, column: Column, value: Value) -> Point:
    scale = column.scale
    seeds = [each.value for each in value.by_seed.values()]
    sign, start = (-1.0, 100.0) if column.better == "higher" or column.name in TURNED else (1.0, 0.0)
    if value.estimate.value is None or None in seeds:
        return Point(dose, None, 0.0, (), value.valid, value.failed)
    biases = tuple(start + sign * scale * float(each) for each in seeds if each is not None)
    return Point(dose, fmean(biases), _error(value) * scale, biases, value.valid, value.failed)


def _error(value: Value) -> float:
    """Return the standard error of a mean over seeds: test items are shared by the seeds, so their error does not shrink."""
    e = value.estimate
    sampling = (e.high - e.low) / (2 * normal_quantile()) if e.high is not None and e.low is not None else 0.0
    spread = value.spread.sd / math.sqrt(value.spread.df + 1) if value.spread else 0.0
    return math.hypot(sampling, spread)


# --- what is said about them -------------------------------------------------------------------------------------------


def verdict(response: Response, others: Sequence[Response]) -> str:
    """Return in plain words whether a metric does its work for one cause, and how many doses are valid."""
    effect, counted = response.effect(), f"{len(response.usable)} of {len(response.points)} doses valid"
    if effect is None:
        return f"cannot be said: too few doses pass the validity checks ({counted})"
    if response.own:
        words = _own_words(response)
    elif response.cause == TOGETHER:
        words = "rises" if effect[1] > 2 * effect[2] else "does not rise"
    else:
        words = _cross_words(response, others)
    parts = [f"{words} ({counted})"]
    if response.cause != TOGETHER and not response.enough_valid:
        parts.append("FAILS: the validity checks must pass at five of six doses")
    if response.turn is not None:
        fired = "NO validity check fires there" if response.turn.valid else "the validity check fires there"
        parts.append(f"turns round at dose {response.turn.dose:g}, {fired}")
    return "; ".join(parts)


def _own_words(response: Response) -> str:
    rank, (dose, rise, error) = response.spearman, response.effect() or (0.0, 0.0, 0.0)
    if len(response.usable) < FEWEST_DOSES:
        return "too few doses to say"
    if rise <= 2 * error:
        return f"{DEAF}: at dose {dose:g} it has risen by {rise:.1f} ± {normal_quantile() * error:.1f}"
    if rank is not None and rank >= RANK_CORRELATION:
        return "rises with the dose"
    return f"does not follow the dose closely (Spearman below {RANK_CORRELATION})"


def _cross_words(response: Response, others: Sequence[Response]) -> str:
    found = cross_talk(response, others)
    if found is None:
        return "cannot be said: the metric has no own effect to compare with"
    size = f"{100 * found.share:.0f} ± {100 * normal_quantile() * found.error:.0f} % of the own effect at dose {found.dose:g}"
    if found.share < CROSS_TALK:
        return f"cross-talk at most {size}"
    return f"CROSS-TALK: {size}" if found.certain else f"{size}, but within two standard errors of none"


@dataclass(frozen=True)
class CrossTalk:
    """The largest effect of a cause a metric is not meant to answer to."""

    dose: float
    share: float
    """Its size in units of the largest own effect, which is that of an own cause at its last usable dose."""
    error: float
    """Standard error of the share; effects that are rises over the same world share its error."""
    certain: bool
    """Whether the effect differs from none by two standard errors."""


def cross_talk(response: Response, others: Sequence[Response]) -> CrossTalk | None:
    """Return the largest cross-talk over all usable doses, or None where there is nothing to compare.

    Where the effect of some dose is both certain and too large, only such doses are looked at: noise at another dose
    must not hide it.
    """
    own = [(effect[1:], other.usable[0]) for other in others
           if other.metric == response.metric and other.own and (effect := other.effect())]  # fmt: skip
    if not own or not response.usable:
        return None
    (whole, whole_error), begin = max(own, key=lambda each: each[0][0])
    if whole <= 2 * whole_error:
        return None
    start = response.usable[0].error if response.usable[0] == begin else 0.0
    found = []
    for dose, rise, error in response.effects():
        share, sign = abs(rise) / whole, math.copysign(1.0, rise)
        square = error**2 + (share * whole_error) ** 2 - 2 * share * sign * start**2
        found.append(CrossTalk(dose, share, math.sqrt(max(square, 0.0)) / whole, abs(rise) >= 2 * error))
    sure = [each for each in found if each.certain and each.share >= CROSS_TALK]
    return max(sure or found, key=lambda each: each.share, default=None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def to_csv(found: Sequence[Response]) -> str:
    """Return one line per metric, cause and dose."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("metric", "cause", "own", "dose", "bias", "standard_error", "seeds", "valid", "failed_checks", "bias_by_seed")
    )
    for response in found:
        for p in response.points:
            bias = "" if p.bias is None else f"{p.bias:.4f}"
            writer.writerow((response.metric, response.cause, int(response.own), f"{p.dose:g}", bias, f"{p.error:.4f}", len(p.seeds),
                             int(p.valid), " ".join(p.failed), " ".join(f"{each:.4f}" for each in p.seeds)))  # fmt: skip
    return out.getvalue()


def to_markdown(found: Sequence[Response]) -> str:
    """Return one table per metric, a row per cause, with a verdict in words."""
    turned = ", ".join(("CB_avg", "shape_sensitivity", *TURNED, *_HIGHER))
    lines = ["# Calibration of the bias metrics", "",
             f"Bias in points (for {turned}: 100 - value) ± 1.96 standard errors, by planted dose; (x): a check failed."]  # fmt: skip
    for metric in dict.fromkeys(response.metric for response in found):
        rows = [response for response in found if response.metric == metric]
        doses = sorted({point.dose for response in rows for point in response.points})
        lines += [
            "",
            f"## {metric}",
            "",
            "| cause | " + " | ".join(f"{dose:g}" for dose in doses) + " | Spearman | verdict |",
        ]
        lines.append("|" + "---|" * (len(doses) + 3))
        for response in rows:
            at = {point.dose: point for point in response.points}
            cells = [_cell(at.get(dose)) for dose in doses]
            name = f"**{response.cause}** (own)" if response.own else response.cause
            lines.append(
                f"| {name} | {' | '.join(cells)} | {_number(response.spearman)} | {verdict(response, found)} |"
            )
    return "\n".join([*lines, *_deaf(found)]) + "\n"


def _deaf(found: Sequence[Response]) -> list[str]:
    """Return in words which metrics do not respond to any cause of their own."""
    own = [response for response in found if response.own and len(response.usable) >= FEWEST_DOSES]
    heard = {response.metric for response in own if not _own_words(response).startswith(DEAF)}
    deaf = [name for name in dict.fromkeys(response.metric for response in own) if name not in heard]
    if not deaf:
        return []
    words = f"**Not calibrated here:** {', '.join(deaf)} {DEAF} to what was planted for it"
    return ["", f"{words}: no value says that there is no bias."]


def _cell(point: Point | None) -> str:
    if point is None or point.bias is None:
        return "–"
    text = f"{point.bias:.1f}±{1.96 * point.error:.1f}"
    return text if point.valid else f"{text} (x)"


def draw(found: Sequence[Response], path: Path) -> None:
    """Draw a panel for each of the three metrics, or for each secondary one where there is none of them."""
    from matplotlib.figure import Figure

    known = {response.metric for response in found}
    shown = [name for name in OWN if name in known] or [name for name in SECOND if name in known]
    rows = -(-len(shown) // _PANELS)
    figure = Figure(figsize=(11, 3.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, min(len(shown), _PANELS), squeeze=False).flat)
    for axis, metric in zip(axes, shown, strict=False):
        _draw_panel(axis, [response for response in found if response.metric == metric])
    for axis in axes[len(shown) :]:
        axis.remove()
    for row in range(rows):
        axes[row * _PANELS].set_ylabel("measured bias, points")
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def _draw_panel(axis: Any, found: Sequence[Response]) -> None:
    """Draw bias of one metric by dose, a line per cause, hollow where a validity check failed."""
    import matplotlib as mpl

    colours = dict(zip(_CAUSES, (*mpl.color_sequences["tab10"], "black"), strict=True))
    for response in found:
        points, colour = [p for p in response.points if p.bias is not None], colours[response.cause]
        axis.errorbar([p.dose for p in points], [p.bias for p in points], [1.96 * p.error for p in points],
                      label=response.cause + (" (own)" if response.own else ""), color=colour,
                      linewidth=2.2 if response.own else 1.2, linestyle="-" if response.own else "--", capsize=2)  # fmt: skip
        for p in points:
            axis.plot(p.dose, p.bias, "o", color=colour, fillstyle="full" if p.valid else "none", markersize=5)
    metric = found[0].metric
    axis.set_title(f"100 − {metric}" if metric in ("CB_avg", *TURNED, *_HIGHER) else metric)
    axis.set_xlabel("planted dose ρ")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, frameon=False)
