"""Background bias on the ImageNet-9 backgrounds challenge: same foregrounds on other backgrounds.

Xiao et al., ICLR 2021. BG_Gap is the accuracy on Mixed-Same (random background of the same class) minus that
on Mixed-Rand (random background of a random class), in percentage points; both variants show the same
foregrounds, so they are paired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.api import (
    IMAGE_SUFFIXES,
    Estimate,
    FloatArray,
    Metric,
    Score,
    Statistic,
    UserError,
    find_root,
    list_files,
    list_folders,
    percentile_estimate,
    proportion,
    ratio,
    resample_strata,
    totals_of,
)
from suites.bias.cards import In9Card
from suites.bias.checks import floor_check
from suites.bias.heads import head_columns, name_coverage, restrict_logits
from suites.bias.images import (
    Classifier,
    Geometry,
    Progress,
    Rows,
    predict,
    reading_notes,
)
from suites.bias.maps import ClassMap, HeadMap
from suites.bias.settings import BiasSettings

VARIATIONS = ("original", "mixed_same", "mixed_rand")
"""Needed for BG_Gap and its companions."""
OTHERS = ("mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
"""Further variations of the same archive: object or background alone, and backgrounds of the next class."""
PLACES = ("", "bg_challenge")
_KEY = r"[A-Za-z][A-Za-z0-9]*_\d+"
_ORIGINAL = re.compile(rf"^({_KEY})$")
# The background part of mixed_rand names is wrong in the public archive (its issue 8), so it is never used.
_MIXED = re.compile(rf"^fg_({_KEY})_bg_.+$")
_POPULATION = "new foregrounds"


@dataclass(frozen=True)
class View:
    """One file: a foreground in one variation.

    Attributes:
        name: Path below the root.
        variation: Name of the variation.
        foreground: Key shared by all views of the foreground.
        label: Index of the class.
    """

    name: str
    variation: str
    foreground: str
    label: int


def foreground_key(stem: str, variation: str) -> str:
    """Extract the foreground key from a file stem: the stem of an original, the `fg_` part of a mixed image.

    Images of the further variations carry either name, or one without a foreground, whose key is then the stem.

    Raises:
        UserError: the name does not follow the pattern.
    """
    match = (_ORIGINAL if variation == "original" else _MIXED).match(stem)
    if variation in OTHERS:
        match = match or _ORIGINAL.match(stem)
        return match.group(1) if match else stem
    if match is None:
        pattern = "<wnid>_<digits>" if variation == "original" else "fg_<wnid>_<digits>_bg_<wnid>_<digits>"
        raise UserError(f"{stem} is not a file name of {variation}", f"expected {pattern}", "fetch the data set again")
    return match.group(1)


def find_variations(root: Path, variations: Sequence[str]) -> Path:
    """Return the folder that holds some variations of the backgrounds set.

    Raises:
        DataMissing: no such folder.
    """
    return find_root(
        "backgrounds set",
        root,
        PLACES,
        lambda folder: all((folder / name / "val").is_dir() for name in variations),
        ", ".join(variations),
    )


def read_views(root: Path, card: In9Card, others: Sequence[str] = ()) -> tuple[Path, list[View]]:
    """List all files of the three variations and verify that they show the same foregrounds one to one.

    Those of `others` that are there follow; nothing is paired with them.

    Raises:
        DataMissing: no such data set.
        UserError: wrong class folders or counts, or foregrounds that are repeated or unmatched.
    """
    base = find_variations(root, VARIATIONS)
    views = [view for variation in VARIATIONS for view in read_variation(base, variation, card)]
    labels = {v: _labels_by_key([view for view in views if view.variation == v]) for v in VARIATIONS}
    for variation in VARIATIONS[1:]:
        wrong = labels[variation].items() ^ labels["original"].items()
        if wrong:
            raise UserError(
                f"{variation} and original do not show the same foregrounds",
                f"{len(wrong)} unmatched, e.g. {min(wrong)[0]}",
                "fetch the data set again; gaps between unmatched images mean nothing",
            )
    further = [name for name in others if (base / name / "val").is_dir()]
    return base, views + [view for name in further for view in read_variation(base, name, card)]


def bind_head(card: In9Card, classes: Sequence[str]) -> HeadMap:
    """Bind the class map to a head; a head whose own classes are the categories or folders is used as it is."""
    own = {_plain(class_id): class_id for class_id in classes}
    if len(classes) == len(own) and set(own) == {_plain(name) for name in card.categories}:
        return ClassMap.of({name: (own[_plain(name)],) for name in card.categories}).bind(classes)
    return ClassMap.of(card.categories).bind(classes)


def _plain(name: str) -> str:
    """Return a category's name without number and underscores: `02_wheeled_vehicle` is `wheeled vehicle`."""
    return re.sub(r"^\d+_", "", name).replace("_", " ").lower()


def geometry(card: In9Card) -> Geometry:
    """Return the reference geometry: files are used as stored."""
    return Geometry("stored", card.image_size)


def predict_rows(
    classifier: Classifier,
    root: Path,
    card: In9Card,
    progress: Progress | None = None,
    settings: BiasSettings | None = None,
    others: Sequence[str] = (),
) -> Rows:
    """Classify all views; one row per file. A restricted head sees those of the categories it covers.

    The answer is the top-1 class over all outputs, looked up in the map; a class outside the map is wrong.

    Raises:
        UserError: the head does not cover all categories, or the data set is damaged.
    """
    settings = settings or BiasSettings()
    classifier = restrict_logits(classifier, settings.head)
    head = bind_head(card, classifier.classes)
    head.require("BG_Gap", settings.restricted)
    base, views = read_views(root, card, others)
    views = [view for view in views if head.members[view.label]]
    predictions = predict(classifier, base, [view.name for view in views], geometry(card), progress=progress,
                          batch_size=settings.batch_size, threads=settings.threads)  # fmt: skip
    label, answer = np.asarray([view.label for view in views]), head.category_of(predictions.top1)
    return {
        "image": np.asarray([view.name for view in views]),
        "variation": np.asarray([view.variation for view in views]),
        "foreground": np.asarray([view.foreground for view in views]),
        "label": label,
        "answer": answer,
        "correct": answer == label,
        **head_columns(head, label, classifier.classes, card),
        **predictions.columns(),
    }


# --- metrics ------------------------------------------------------------------------------------------------


def pair_tables(rows: Mapping[str, Any]) -> list[FloatArray]:
    """Return per class the features (foregrounds, 3): Mixed-Same correct, Mixed-Rand correct, 1.

    Raises:
        ValueError: a foreground is missing in one of the two variations or occurs twice.
    """
    variation, key = np.asarray(rows["variation"]), np.asarray(rows["foreground"])
    label, correct = np.asarray(rows["label"]), np.asarray(rows["correct"], dtype=np.float64)
    same, rand = (_by_foreground(variation, key, name) for name in ("mixed_same", "mixed_rand"))
    if len(same) != len(rand) or (key[same] != key[rand]).any() or len(np.unique(key[same])) != len(same):
        raise ValueError("rows of mixed_same and mixed_rand are not paired one to one by foreground")
    table = np.stack([correct[same], correct[rand], np.ones(len(same))], axis=1)
    return [table[label[same] == value] for value in np.unique(label[same])]


def paste_tables(rows: Mapping[str, Any]) -> list[FloatArray]:
    """Return per class the features (foregrounds, 4): Original, Mixed-Same, Mixed-Rand correct, 1.

    Raises:
        ValueError: the three variations do not show the same foregrounds one to one.
    """
    variation, key = np.asarray(rows["variation"]), np.asarray(rows["foreground"])
    correct = np.asarray(rows["correct"], dtype=np.float64)
    original, same = (_by_foreground(variation, key, name) for name in ("original", "mixed_same"))
    if len(original) != len(same) or (key[original] != key[same]).any():
        raise ValueError("rows of original and mixed_same are not paired one to one by foreground")
    label = np.asarray(rows["label"])[same]
    return [np.column_stack([correct[original][label == value], pairs])
            for value, pairs in zip(np.unique(label), pair_tables(rows), strict=True)]  # fmt: skip


def _by_foreground(variation: npt.NDArray[Any], key: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    """Return the places of the rows of one variation, in the order of their foregrounds."""
    index = np.flatnonzero(variation == name)
    return index[np.argsort(key[index], kind="stable")]


def gap_statistic(totals: FloatArray) -> FloatArray:
    """Compute Acc(Mixed-Same) - Acc(Mixed-Rand) from totals (replicates, classes, 3)."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0] - sums[:, 1], sums[:, 2])


def relative_gap_statistic(totals: FloatArray) -> FloatArray:
    """Compute the gap divided by Acc(Mixed-Same)."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0] - sums[:, 1], sums[:, 0])


def paste_cost_statistic(totals: FloatArray) -> FloatArray:
    """Compute Acc(Original) - Acc(Mixed-Same) from totals (replicates, classes, 4) of ``paste_tables``."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0] - sums[:, 1], sums[:, 3])


def paste_share_statistic(totals: FloatArray) -> FloatArray:
    """Compute the paste cost over the gap, within [0, 1]; undefined where there is no gap."""
    sums = totals.sum(axis=1)
    gap = sums[:, 1] - sums[:, 2]
    return np.clip(ratio(sums[:, 0] - sums[:, 1], np.where(gap > 0, gap, 0.0)), 0.0, 1.0)


def _estimator(tables: Sequence[FloatArray], seed: int, method: str) -> Callable[[Statistic, str], Estimate]:
    """Return a function that estimates statistics of the same resamples; its second argument is why one is undefined."""
    drawn, observed = resample_strata(tables, seed), totals_of(tables)
    n = sum(len(table) for table in tables)

    def estimate(statistic: Statistic, reason: str) -> Estimate:
        value = float(statistic(observed)[0])
        return percentile_estimate(
            value, statistic(drawn), n=n, method=method, population=_POPULATION, undefined_reason=reason
        )

    return estimate


def paste_metrics(rows: Mapping[str, Any], seed: int = 0) -> tuple[Metric, ...]:
    """Return what pasting alone costs (points), and which share of BG_Gap that could explain (fraction)."""
    estimate = _estimator(paste_tables(rows), seed, "bootstrap (foregrounds, within class)")
    cost = estimate(paste_cost_statistic, "no images").scaled(100)
    share = estimate(paste_share_statistic, "BG_Gap is not positive")
    return (
        Metric("paste_cost", cost, "points", "lower", "secondary"),
        Metric("paste_share", share, "fraction", "lower", "secondary"),
    )


def score(rows: Mapping[str, Any], card: In9Card, seed: int = 0) -> Score:
    """Turn rows into BG_Gap (points), its parts (fractions) and validity checks."""
    estimate = _estimator(pair_tables(rows), seed, "bootstrap (foreground pairs, within class)")
    relative = estimate(relative_gap_statistic, "no Mixed-Same image is correct")
    metrics = [
        Metric("BG_Gap", estimate(gap_statistic, "no images").scaled(100), "points", "lower", beside=("mixed_same",)),
        Metric("relative_gap", relative, "fraction", "lower", "companion"),
    ]
    variation, correct = np.asarray(rows["variation"]), np.asarray(rows["correct"], dtype=bool)
    names = [name for name in (*VARIATIONS, *OTHERS) if name in VARIATIONS or (variation == name).any()]
    accuracy = {name: proportion(correct[variation == name], population=_POPULATION) for name in names}
    metrics += [Metric(name, value, "fraction", "higher", "companion") for name, value in accuracy.items()]
    metrics += paste_metrics(rows, seed)
    same = accuracy["mixed_same"]
    check = floor_check("Mixed-Same accuracy", same, card.min_mixed_same, "foregrounds are recognised at all")
    found = Score(tuple(metrics), (check,), reading_notes(rows, geometry(card)))
    return name_coverage(found, rows, np.asarray(list(card.categories))[np.asarray(rows["label"])].tolist())


def read_variation(base: Path, variation: str, card: In9Card) -> list[View]:
    folder = base / variation / "val"
    found = list_folders(folder)
    if found != sorted(card.folders) or len(card.folders) != len(card.categories):
        raise UserError(
            f"{folder} has other class folders than the card of {card.name}",
            f"found {', '.join(found)}; expected {', '.join(card.folders)}",
            "fetch the data set again, or mend the card",
        )
    views = []
    for label, name in enumerate(card.folders):
        for path in (folder / name / file for file in list_files(folder / name, IMAGE_SUFFIXES)):
            relative = path.relative_to(base).as_posix()
            views.append(View(relative, variation, foreground_key(path.stem, variation), label))
    if len(views) != card.expected_per_variation:
        raise UserError(
            f"{folder} holds {len(views)} images, expected {card.expected_per_variation}",
            "the data set is incomplete or another version",
            "fetch the data set again, or give a card with the count of your version",
        )
    return views


def _labels_by_key(views: list[View]) -> dict[str, int]:
    labels = {view.foreground: view.label for view in views}
    if len(labels) != len(views):
        key, times = Counter(view.foreground for view in views).most_common(1)[0]
        names = ", ".join(view.name for view in views if view.foreground == key)
        raise UserError(f"foreground {key} occurs {times} times", names, "fetch the data set again")
    return labels
