"""Accuracy that a network keeps when one cue is taken out of its validation images: rows, and curves with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.api import Check, Estimate, FloatArray, Metric, Score, Units, UserError, bootstrap, proportion, ratio
from suites.bias.checks import floor_check
from suites.bias.images import Progress, Rows
from suites.bias.suppression import CUES, Picture

Levels = Mapping[str, tuple[float, ...]]
"""Cue to the levels at which it is taken out, without its identity."""
Answers = npt.NDArray[np.int64]

TIMES_CHANCE, SHARE_OF_REST = 5.0, 0.25
"""Validity: accuracy on plain images must reach five times chance, or a quarter of the way from chance to 1 where that is less."""
PREFIX = "without_"
_POPULATION = "new validation images"
_METHOD = "bootstrap (images, both answers to an image kept together)"


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images, plain and suppressed.

    Attributes:
        names: Items, (B,).
        plain: RGB, (B, H, W, 3) uint8.
        suppressed: Cue and level to the same images, (B, H, W, 3) uint8.
    """

    names: tuple[str, ...]
    plain: Picture
    suppressed: Mapping[tuple[str, float], Picture]


def suppressed_batches(
    batches: Iterator[tuple[Sequence[str], Picture]], levels: Levels, threads: int
) -> Iterator[Batch]:
    """Yield the batches with every cue taken out at its identity and its levels; what is done to an image is its own affair."""
    steps = [(cue, level) for cue, chosen in levels.items() if chosen for level in (CUES[cue].identity, *chosen)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for names, plain in batches:
            made = {
                (cue, level): np.stack(list(pool.map(CUES[cue].suppress, plain, [level] * len(plain), names)))
                for cue, level in steps
            }
            yield Batch(tuple(names), plain, made)


def classify_batches(
    batches: Iterator[Batch],
    label: Mapping[str, int],
    answer: Callable[[Picture], Answers],
    progress: Progress | None = None,
) -> Rows:
    """Return one row per image, cue and level, in the order of the images; ``correct`` beside ``plain``, the paired answer.

    An image that suppression leaves as it is has the plain answer.

    Args:
        batches: Images, plain and suppressed.
        label: Class of each image, a position among the answers.
        answer: Images (B, H, W, 3) to the predicted class of each.
        progress: Called after each batch.
    """
    parts: list[Rows] = []
    done = 0
    for batch in batches:
        plain = answer(batch.plain)
        truth = np.asarray([label[name] for name in batch.names])
        steps = []
        for (cue, level), pictures in batch.suppressed.items():
            changed = (pictures != batch.plain).any(axis=(1, 2, 3))
            predicted = plain.copy()
            if changed.any():
                predicted[changed] = answer(pictures[changed])
            count = len(batch.names)
            steps.append(
                {"item": np.asarray(batch.names), "cue": np.full(count, cue), "level": np.full(count, float(level)),
                 "label": truth, "predicted": predicted, "correct": predicted == truth, "plain": plain == truth}
            )  # fmt: skip
        parts.append(_by_item(steps))
        done += len(batch.names)
        if progress is not None:
            progress(done, len(label), "images")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _by_item(steps: Sequence[Rows]) -> Rows:
    """Return the rows of one batch, those of an image together, so that the size of batches leaves no trace."""
    return {name: np.stack([step[name] for step in steps], axis=1).reshape(-1) for name in steps[0]}


def answer_with(model: Any, outputs: Sequence[int], name: str) -> Callable[[Picture], Answers]:
    """Return a function from images (B, H, W, 3) uint8 to positions in ``outputs``: the largest logit among them.

    Raises:
        UserError: logits are not finite.
    """
    import torch

    index = torch.as_tensor(list(outputs))

    def answer(pictures: Picture) -> Answers:
        pixels = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
        with torch.inference_mode():
            logits = model(torch.from_numpy(pixels)).float().cpu()[:, index]
        if not torch.isfinite(logits).all():
            raise UserError(
                f"{name}: the backbone gives logits that are not finite",
                "seen on plain or suppressed validation images",
                "the checkpoint is damaged or its training diverged; train or load it again",
            )
        found: Answers = logits.numpy().argmax(axis=1)
        return found

    return answer


# --- metrics ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curve:
    """Answers of one cue.

    Attributes:
        items: Names of the images, sorted: (n,).
        levels: Levels without the identity, rising: (L,).
        correct: Whether each image was recognised at each level: (n, L).
        identity: The same at the identity: (n,).
        plain: The same of the plain image: (n,).
    """

    items: tuple[str, ...]
    levels: tuple[float, ...]
    correct: FloatArray
    identity: FloatArray
    plain: FloatArray


def curves(rows: Mapping[str, Any]) -> dict[str, Curve]:
    """Return the curve of every cue in the rows, whatever the order of the rows.

    Raises:
        ValueError: an image lacks a level.
    """
    cue, level, item = (np.asarray(rows[name]) for name in ("cue", "level", "item"))
    found = {}
    for name in [each for each in CUES if (cue == each).any()]:
        member = np.flatnonzero(cue == name)
        member = member[np.lexsort((level[member], item[member].astype(str)))]
        items, steps = np.unique(item[member].astype(str)), np.unique(level[member])
        if len(member) != len(items) * len(steps):
            raise ValueError(f"rows of {name} do not hold every image at every level")
        correct, plain = (np.asarray(rows[column], dtype=np.float64)[member].reshape(len(items), len(steps))
                          for column in ("correct", "plain"))  # fmt: skip
        real = steps != CUES[name].identity
        found[name] = Curve(tuple(items.tolist()), tuple(steps[real].tolist()), correct[:, real],
                            correct[:, ~real].mean(axis=1) if (~real).any() else plain[:, 0], plain[:, 0])  # fmt: skip
    return found


def kept(correct: FloatArray, plain: FloatArray, seed: int = 0) -> Estimate:
    """Estimate accuracy on suppressed images over accuracy on the same images plain; both (n,), the first may hold means."""
    return bootstrap(
        lambda totals: ratio(totals[:, 0, 0], totals[:, 0, 1]), [np.stack([correct, plain], axis=1)], seed=seed,
        population=_POPULATION, method=_METHOD, undefined_reason="no plain image is recognised",
    )  # fmt: skip


def curve_metrics(found: Mapping[str, Curve], suffix: str) -> tuple[Metric, ...]:
    """Return the mean of each curve as a secondary metric, its points as companions; fractions of the plain accuracy."""
    plain = next(iter(found.values())).plain
    accuracy = Metric(f"accuracy{suffix}", proportion(plain > 0.5, population=_POPULATION), role="companion")
    beside = (accuracy.name,)
    means = [Metric(f"{PREFIX}{cue}{suffix}", kept(curve.correct.mean(axis=1), curve.plain), "fraction", "neither", "secondary",
                    beside=beside) for cue, curve in found.items()]  # fmt: skip
    points = [Metric(f"{PREFIX}{cue}_{level:g}{suffix}", kept(curve.correct[:, place], curve.plain), "fraction", "neither", "companion")
              for cue, curve in found.items() for place, level in enumerate(curve.levels)]  # fmt: skip
    return (*means, accuracy, *points)


def checks(found: Mapping[str, Curve], classes: int) -> tuple[Check, ...]:
    """Check that plain accuracy is well above chance, and that taking nothing out changes no answer."""
    chance = 1 / max(1, classes)
    floor = min(TIMES_CHANCE * chance, chance + SHARE_OF_REST * (1 - chance))
    first = next(iter(found.values()))
    accuracy = proportion(first.plain > 0.5, population=_POPULATION)
    changed = max(float(np.abs(curve.identity - curve.plain).mean()) for curve in found.values())
    words = f"shares of an accuracy near chance, here {100 * chance:.3g} %, say nothing"
    return (
        floor_check("plain accuracy", accuracy, floor, words),
        Check("identity", changed == 0, changed, 0.0, "share of answers that change though no cue is taken out"),
    )


def score(rows: Mapping[str, Any], classes: int, suffix: str) -> Score:
    """Turn rows into curves, their means and validity checks."""
    found = curves(rows)
    return Score(curve_metrics(found, suffix), checks(found, classes))


def curve_units(rows: Mapping[str, Any], names: Sequence[str]) -> tuple[Units, ...]:
    """Return images with (mean over levels of recognised when suppressed, recognised plain) for the means of curves."""
    found, units = curves(rows), []
    for name in names:
        curve = found.get(name.partition("@")[0].removeprefix(PREFIX))
        if curve is not None:
            features = np.stack([curve.correct.mean(axis=1), curve.plain], axis=1)
            units.append(Units(name, "share", curve.items, np.zeros(len(curve.items), dtype=np.int64), features))
    return tuple(units)
