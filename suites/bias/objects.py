"""Does accuracy hang on the size and the place at which a class is usually seen? On ImageNet-9, objects known from `only_fg`.

Photographers show each class at a size and a place of its own. A network that was trained on such pictures, or on generated ones
that exaggerate the habit, may read size and place as part of the class. Objects are measured by the box around their mask in
`fg_mask`, where the archive has it, or around what `only_fg` leaves of a picture; on COCO by its own boxes (`coco_objects`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.api import (
    Check,
    Estimate,
    FloatArray,
    Metric,
    Score,
    Units,
    UserError,
    bootstrap,
    open_picture,
    proportion,
    undefined,
)
from suites.bias import coco_objects
from suites.bias.background import View, bind_head, find_variations, geometry, read_variation
from suites.bias.cards import BiasCard, In9Card
from suites.bias.checks import floor_check
from suites.bias.coco_objects import CocoObjectsCard, read_coco_objects
from suites.bias.heads import head_columns, name_coverage, restrict_logits
from suites.bias.images import Classifier, Geometry, Progress, Rows, predict, reading_notes
from suites.bias.maps import ClassMap
from suites.bias.settings import BiasSettings

LEVELS: Mapping[str, tuple[str, str, str]] = {
    "size": ("small", "medium", "large"),
    "position": ("upper", "middle", "lower"),
}
"""Factor to its three classes, from the smallest third of the data set's objects to the largest."""
TIMES_CHANCE = 3.0
"""Validity: smallest multiple of the chance level that accuracy must reach."""
_BLACK = 16
"""Brightest value of a channel that counts as black in `only_fg`, whose JPEG files are not quite black."""
_POPULATION = "new images of these classes"
_METHOD = "bootstrap (images, within class and size or position)"


def read_objects(root: Path, card: In9Card) -> tuple[Path, list[View], list[View]]:
    """Return the base folder, the original images, and the images of their objects alone in the same order.

    Raises:
        DataMissing: no such data set.
        UserError: wrong class folders or counts, or images of which only one of the two is there.
    """
    kinds = ("original", "only_fg")
    base = find_variations(root, kinds)
    originals, alone = (
        sorted(read_variation(base, kind, card), key=lambda view: (view.label, view.foreground)) for kind in kinds
    )
    pairs = [(view.label, view.foreground) for view in originals]
    if pairs != [(view.label, view.foreground) for view in alone] or len(set(pairs)) != len(pairs):
        raise UserError(
            "original and only_fg do not show the same objects",
            str(base),
            "fetch the data set again: sizes would be others'",
        )
    return base, originals, alone


def measure_box(pixels: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return size and height of the object in a picture (H, W, 3) of it alone on black; NaN where all is black.

    Size is the square root of the share of the picture's area that the box around the object takes; height is the vertical
    centre of the box, 0 at the top and 1 at the bottom.
    """
    return measure_mask(np.asarray(pixels.max(axis=2) > _BLACK))


def measure_mask(lit: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return size and height of the object that a mask (H, W) marks, as ``measure_box``; NaN where it marks nothing."""
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return float("nan"), float("nan")
    tall, wide = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    return float(np.sqrt(tall * wide / lit.size)), float((rows[0] + rows[-1] + 1) / 2 / len(lit))


def thirds(values: FloatArray, names: Sequence[str]) -> npt.NDArray[np.str_]:
    """Return the name of each value's third of all values; an empty name where the value is not known."""
    known = np.isfinite(values)
    edges = np.quantile(values[known], [1 / 3, 2 / 3]) if known.any() else np.zeros(2)
    return np.where(known, np.asarray(names)[np.searchsorted(edges, values, side="left").clip(0, 2)], "")


def usual(label: npt.NDArray[np.int64], levels: npt.NDArray[np.str_], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether each image shows its class at the level at which most images of the class do (the first of equals)."""
    found = np.zeros(len(label), dtype=bool)
    for value in np.unique(label):
        member = label == value
        counts = [int((levels[member] == name).sum()) for name in names]
        found |= member & (levels == names[int(np.argmax(counts))])
    return found


def load_card(data: str, changes: Mapping[str, Any] | None = None) -> In9Card | CocoObjectsCard:
    """Return the card of a data set that the suite can read."""
    return CocoObjectsCard.load(changes) if data == "coco" else In9Card.load(changes)


def geometry_of(card: BiasCard) -> Geometry:
    """Return how pictures reach the network: COCO's are cropped, those of the backgrounds challenge have its size."""
    return geometry(card) if isinstance(card, In9Card) else coco_objects.GEOMETRY


def read_masks(base: Path, views: Sequence[View]) -> list[tuple[float, float]] | None:
    """Return size and height of each object by its mask ``fg_mask/val/<class folder>/<image>.npy``; None without that folder.

    Raises:
        UserError: a mask is missing, or is no array of truth values.
    """
    if not (base / "fg_mask" / "val").is_dir():
        return None
    found = []
    for view in views:
        path = (base / "fg_mask" / Path(view.name).relative_to(view.variation)).with_suffix(".npy")
        try:
            mask = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no mask of {view.name}", str(error), "fetch the data set again") from error
        if mask.ndim != 2 or mask.dtype != bool:
            why = f"it holds {mask.dtype} of shape {mask.shape}, not truth values (height, width)"
            raise UserError(f"{path} is no mask of {view.name}", why, "fetch the data set again")
        found.append(measure_mask(mask))
    return found


def _objects(
    root: Path, card: In9Card | CocoObjectsCard
) -> tuple[Path, list[str], list[int], list[tuple[float, float]]]:
    """Return the folder of the pictures, their names, labels, and sizes and heights of their objects."""
    if isinstance(card, CocoObjectsCard):
        return read_coco_objects(root, card)
    base, originals, alone = read_objects(root, card)
    boxes = read_masks(base, originals)
    if boxes is None:
        boxes = [measure_box(np.asarray(open_picture(base / view.name).image)) for view in alone]
    return base, [view.name for view in originals], [view.label for view in originals], boxes


def predict_rows(
    classifier: Classifier,
    root: Path,
    card: In9Card | CocoObjectsCard,
    progress: Progress | None,
    settings: BiasSettings,
) -> Rows:
    """Classify the pictures; one row per picture, with size and position of its object.

    Thirds and usual levels are those of the whole data set, whatever part of it a restricted head sees.

    Raises:
        UserError: the head does not cover all categories, or the data set is damaged.
    """
    classifier = restrict_logits(classifier, settings.head)
    bound = classifier.classes
    head = bind_head(card, bound) if isinstance(card, In9Card) else ClassMap.of(card.categories).bind(bound)
    head.require("object-bias", settings.restricted)
    base, names, labels, measured = _objects(root, card)
    columns = _levels(np.asarray(labels), np.asarray(measured))
    seen = np.asarray([bool(head.members[value]) for value in labels])
    columns = {name: values[seen] for name, values in columns.items()}
    names = [name for name, kept in zip(names, seen, strict=True) if kept]
    predictions = predict(classifier, base, names, geometry_of(card), progress=progress,
                          batch_size=settings.batch_size, threads=settings.threads)  # fmt: skip
    answer = head.category_of(predictions.top1)
    return {
        "image": np.asarray(names),
        **columns,
        "answer": answer,
        "correct": answer == columns["label"],
        **head_columns(head, columns["label"], classifier.classes, card),
        **predictions.columns(),
    }


def _levels(label: npt.NDArray[np.int64], boxes: FloatArray) -> Rows:
    """Return label, size and position of each object, the third that these lie in, and whether it is the usual one of the class."""
    columns: Rows = {"label": label}
    for place, (factor, names) in enumerate(LEVELS.items()):
        columns[factor] = boxes[:, place]
        columns[f"{factor}_class"] = thirds(boxes[:, place], names)
        columns[f"usual_{factor}"] = usual(label, columns[f"{factor}_class"], names)
    return columns


# --- metrics ------------------------------------------------------------------------------------------------


def usual_weights(
    label: npt.NDArray[np.int64], levels: npt.NDArray[np.str_], usual_: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the cell (class, level) of each image, (n,), and the weight of each cell's accuracy in the gap, (cells,).

    The gap is the least-squares coefficient g in accuracy(class, level) = class + level + g [level is the class's usual one],
    every cell that has images counting alike: what a class, a size or a place is worth by itself is taken out. The weights
    are all zero where the classes' usual levels do not tell g from class and level.
    """
    names, cell = np.unique(np.stack([label.astype(str), levels], axis=1), axis=0, return_inverse=True)
    cell = cell.reshape(-1)  # numpy 2.0 returns a column
    target = np.zeros(len(names))
    target[cell[usual_]] = 1.0
    parts = [(names[:, [k]] == np.unique(names[:, k])[None]).astype(float) for k in (0, 1)]
    others = np.concatenate(parts, axis=1)
    rest = target - others @ np.linalg.lstsq(others, target, rcond=None)[0]
    square = float(rest @ rest)
    return cell.astype(np.int64), rest / square if square > 1e-9 else np.zeros(len(names))


def _table(rows: Mapping[str, Any], factor: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], FloatArray]:
    """Return which rows have a measured object, their cells, and the weights of cells, in an order of names alone."""
    levels = np.asarray(rows[f"{factor}_class"]).astype(str)
    known = levels != ""
    label, flag = np.asarray(rows["label"])[known], np.asarray(rows[f"usual_{factor}"], dtype=bool)[known]
    return known, *usual_weights(label, levels[known], flag)


def gap(rows: Mapping[str, Any], factor: str, seed: int = 0) -> Estimate:
    """Estimate what the usual size or position of a class is worth, a fraction of images; see ``usual_weights``."""
    known, cell, weight = _table(rows, factor)
    if not weight.any():
        why = f"no class, or every class, has the same usual {factor}"
        return undefined(why, population=_POPULATION, n=int(known.sum()), method=_METHOD)
    correct = np.asarray(rows["correct"], dtype=np.float64)[known]
    strata = [np.stack([correct[cell == k], np.ones(int((cell == k).sum()))], axis=1) for k in range(len(weight))]

    def statistic(totals: FloatArray) -> FloatArray:
        return np.asarray((totals[..., 0] / totals[..., 1]) @ weight)

    return bootstrap(statistic, strata, seed=seed, population=_POPULATION, method=_METHOD)


def gap_units(rows: Mapping[str, Any], metric: str) -> Units:
    """Return images with (weighted correct, 1), whose mean is the gap in points, one stratum per class and level."""
    known, cell, weight = _table(rows, metric.partition("@")[0].removesuffix("_gap"))
    correct = np.asarray(rows["correct"], dtype=np.float64)[known]
    share = (weight / np.bincount(cell, minlength=len(weight)))[cell] * len(cell)
    features = np.stack([share * correct, np.ones(len(cell))], axis=1)
    return Units(metric, "share", tuple(map(str, np.asarray(rows["image"])[known])), cell, features, 100.0)


def score(rows: Mapping[str, Any], card: BiasCard, seed: int = 0) -> Score:
    """Turn rows into both gaps (points), accuracies by size and position (fractions), and the validity check."""
    correct = np.asarray(rows["correct"], dtype=bool)
    accuracy = proportion(correct, population=_POPULATION)
    metrics = [Metric(f"{factor}_gap", gap(rows, factor, seed).scaled(100), "points", "lower", "secondary", beside=("accuracy",))
               for factor in LEVELS]  # fmt: skip
    metrics.append(Metric("accuracy", accuracy, "fraction", "higher", "companion"))
    for factor, names in LEVELS.items():
        levels = np.asarray(rows[f"{factor}_class"]).astype(str)
        metrics += [Metric(f"accuracy_{name}", proportion(correct[levels == name], population=_POPULATION), role="companion")
                    for name in names]  # fmt: skip
    found = Score(tuple(metrics), (_check(accuracy, card),), (*_missing(rows), *reading_notes(rows, geometry_of(card))))
    return name_coverage(found, rows, np.asarray(list(card.categories))[np.asarray(rows["label"])].tolist())


def _check(accuracy: Estimate, card: BiasCard) -> Check:
    floor = TIMES_CHANCE / len(card.categories)
    return floor_check("accuracy", accuracy, floor, f"objects are recognised at all: {TIMES_CHANCE:g} times chance")


def _missing(rows: Mapping[str, Any]) -> tuple[str, ...]:
    lost = int((np.asarray(rows["size_class"]).astype(str) == "").sum())
    return (f"{lost} images whose only_fg is black have no size and no position",) if lost else ()
