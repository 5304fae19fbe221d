"""Context bias on FOCUS: accuracy in uncommon contexts relative to common ones.

FOCUS: Kattakinda and Feizi, ICML 2022. An image has k in {0, 1, 2, 3} uncommon attributes (time, weather,
location). CB_k is the accuracy at k over the accuracy at 0; CB_avg averages k = 1, 2, 3 (lbGen, CVPR 2025)
and is decided by the few images with k = 3, so CB_12 (k = 1, 2) stands beside it. Values are fractions and
may exceed 1.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from harness.api import (
    Check,
    DataMissing,
    Estimate,
    FloatArray,
    Metric,
    Score,
    Statistic,
    UserError,
    find_root,
    percentile_estimate,
    ratio,
    refuse_files,
    resample_strata,
    totals_of,
    undefined,
    wilson,
)
from suites.bias.cards import FocusCard
from suites.bias.heads import coverage_of, head_columns, name_coverage, restrict_logits
from suites.bias.images import Classifier, Geometry, Progress, Rows, is_clip, predict, reading_notes
from suites.bias.maps import ClassMap
from suites.bias.settings import BiasSettings

DATABASE = "annotations.db"
PLACES = ("", "focus", "FOCUS")
COLUMNS = ("file_name", "category", "time", "weather", "locations")
LOW_N, TOO_FEW = 100, 30
_NEED_P3 = ("CB_avg", "CB_3", "CB_3_standardised")
"""Metrics that few images decide; undefined for heads that do not cover every category."""
_POPULATION = "new images of each partition"


@dataclass(frozen=True)
class Annotation:
    """One row of the database; `name` is the path below the root, without the leading slash."""

    name: str
    category: str
    time: str
    weather: str
    locations: tuple[str, ...]


def uncommon_flags(item: Annotation, card: FocusCard) -> tuple[bool, bool, bool]:
    """Tell whether time, weather and any location are uncommon; several uncommon locations count once."""
    table = card.uncommon[item.category]
    return (
        item.time in table.time,
        item.weather in table.weather,
        any(location in table.locations for location in item.locations),
    )


def read_annotations(root: Path, card: FocusCard) -> tuple[Path, list[Annotation]]:
    """Read the database below `root`; folder names are search queries, not labels, and are ignored.

    Raises:
        DataMissing: no database, or a listed file is not there.
        UserError: a damaged database, an unknown category or attribute value, a wrong number of rows, or
            byte-identical files.
    """
    base, items = list_annotations(root, card)
    twins = find_duplicates(base, [item.name for item in items])
    if twins and not card.allow_duplicates:
        raise UserError(
            f"{len(twins)} groups of byte-identical images in {base}",
            f"e.g. {', '.join(twins[0])}",
            "fetch the current release, or set allow_duplicates in the card",
        )
    return base, items


def list_annotations(root: Path, card: FocusCard) -> tuple[Path, list[Annotation]]:
    """Read the rows of the database below `root` without opening the images.

    Raises:
        DataMissing: no database.
        UserError: a damaged database, an unknown category or attribute value, a file that is listed twice or lies outside
            the data set, or a wrong number of rows.
    """
    base = find_root("FOCUS set", root, PLACES, lambda folder: (folder / DATABASE).is_file(), DATABASE)
    items = sorted((_annotation(row, card) for row in _query(base / DATABASE)), key=lambda item: item.name)
    _check_names(base, items)
    if len(items) != card.expected_images:
        raise UserError(
            f"{base / DATABASE} lists {len(items)} images, expected {card.expected_images}",
            "another release or an incomplete one (an old release of FOCUS has 23,904 rows with duplicates)",
            "fetch the current release, or give a card with expected_images of your version",
        )
    return base, items


def _check_names(base: Path, items: Sequence[Annotation]) -> None:
    counts = Counter(item.name for item in items)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"{base / DATABASE} lists {twice[0]} twice", "two rows claim one image", "fetch the data set again"
        )
    outside = [name for name in counts if ".." in name.split("/")]
    if outside:
        raise UserError(
            f"{base / DATABASE} lists an image outside the data set",
            f"{outside[0]} leads out of {base}",
            "fetch the data set again",
        )


def miscounted(items: Sequence[Annotation], card: FocusCard) -> Iterator[str]:
    """Yield in words which categories and partitions have other numbers of images than the card says."""
    partitions = Counter(f"P{sum(uncommon_flags(item, card))}" for item in items)
    expected = {f"P{k}": count for k, count in enumerate(card.partition_images)}
    for found, wanted in ((Counter(item.category for item in items), card.category_images), (partitions, expected)):
        if sum(wanted.values()) == card.expected_images:
            odd = {name: (found[name], count) for name, count in wanted.items() if found[name] != count}
            yield from (f"{name} has {has} images, expected {count}" for name, (has, count) in odd.items())


def find_duplicates(base: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Group the files with identical bytes (SHA-256).

    Raises:
        DataMissing: files are not there.
        UserError: files cannot be read.
    """
    groups: dict[bytes, list[str]] = {}
    bad: list[UserError] = []
    for name in names:
        try:
            content = (base / name).read_bytes()
        except FileNotFoundError:
            bad.append(DataMissing(f"{base / name} is missing", "the database lists it", "fetch the data again"))
            continue
        except OSError as error:
            bad.append(UserError(f"{base / name} cannot be read", str(error), "mend it or fetch the data again"))
            continue
        groups.setdefault(hashlib.sha256(content).digest(), []).append(name)
    refuse_files(bad)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def geometry(card: FocusCard, clip: bool = False) -> Geometry:
    """Return the reference geometry: shorter side to the input size, centre crop; bicubic for CLIP encoders, else bilinear."""
    return Geometry("resize-crop", card.image_size, interpolation="bicubic" if clip else "bilinear")


def predict_rows(
    classifier: Classifier,
    root: Path,
    card: FocusCard,
    progress: Progress | None = None,
    settings: BiasSettings | None = None,
) -> Rows:
    """Classify the images; one row per image. A restricted head sees those of the categories it covers.

    An answer is correct when the top-1 class over all outputs is one of the category's accepted classes.

    Raises:
        UserError: the head does not cover all categories, or the data set is damaged.
    """
    settings, reference = settings or BiasSettings(), geometry(card, is_clip(classifier))
    classifier = restrict_logits(classifier, settings.head)
    head = ClassMap.of(card.categories).bind(classifier.classes)
    head.require("CB_avg", settings.restricted)
    base, items = read_annotations(root, card)
    items = [item for item in items if item.category in head.covered]
    names = [item.name for item in items]
    predictions = predict(classifier, base, names, reference, accept_truncated=True, progress=progress,
                          batch_size=settings.batch_size, threads=settings.threads)  # fmt: skip
    label = np.asarray([head.categories.index(item.category) for item in items])
    return annotation_columns(items, card) | {
        "correct": head.category_of(predictions.top1) == label,
        "chance": head.counts()[label] / head.width,
        **head_columns(head, label, classifier.classes, card),
        **predictions.columns(),
    }


def annotation_columns(items: Sequence[Annotation], card: FocusCard) -> Rows:
    """Return the columns that describe the images, with their uncommon flags."""
    flags = np.asarray([uncommon_flags(item, card) for item in items], dtype=bool).reshape(-1, 3)
    return {
        "image": np.asarray([item.name for item in items]),
        "category": np.asarray([item.category for item in items]),
        "time": np.asarray([item.time for item in items]),
        "weather": np.asarray([item.weather for item in items]),
        "locations": np.asarray([", ".join(item.locations) for item in items]),
        "uncommon_time": flags[:, 0],
        "uncommon_weather": flags[:, 1],
        "uncommon_location": flags[:, 2],
    }


# --- metrics ------------------------------------------------------------------------------------------------


def uncommon_count(rows: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return k per row."""
    names = ("uncommon_time", "uncommon_weather", "uncommon_location")
    flags = np.stack([np.asarray(rows[name], dtype=np.int64) for name in names])
    count: npt.NDArray[np.int64] = flags.sum(axis=0)
    return count


def partition_tables(rows: Mapping[str, Any]) -> list[FloatArray]:
    """Return per partition k = 0..3 the features (n_k, 2C): category one-hot, then that times correctness."""
    k, correct = uncommon_count(rows), np.asarray(rows["correct"], dtype=np.float64)
    names, index = np.unique(np.asarray(rows["category"]), return_inverse=True)
    one_hot = np.eye(len(names))[index]
    table = np.hstack([one_hot, one_hot * correct[:, None]])
    return [table[k == value] for value in range(4)]


def accuracies(totals: FloatArray) -> FloatArray:
    """Return Acc_0..Acc_3 (replicates, 4) from totals (replicates, 4, 2C); NaN for an empty partition."""
    half = totals.shape[-1] // 2
    return ratio(totals[..., half:].sum(-1), totals[..., :half].sum(-1))


def cb(totals: FloatArray, ks: Sequence[int]) -> FloatArray:
    """Return the mean of CB_k over `ks`: (replicates,)."""
    acc = accuracies(totals)
    ratios = np.stack([ratio(acc[:, k], acc[:, 0]) for k in ks])
    mean: FloatArray = ratios.mean(axis=0)
    return mean


def standardised(totals: FloatArray, k: int) -> FloatArray:
    """Return Acc_k over the accuracy that the category mix of partition k would have in common context.

    The denominator weighs each category's accuracy at k = 0 with its share at k: the ratio is 1 for a model
    whose accuracy within each category ignores context, whatever the mix.
    """
    half = totals.shape[-1] // 2
    acc0 = ratio(totals[:, 0, half:], totals[:, 0, :half])
    counts = totals[:, k, :half]
    expected = np.where(counts > 0, counts * acc0, 0.0).sum(axis=-1)
    return ratio(totals[:, k, half:].sum(axis=-1), expected)


def pooled_two_or_more(totals: FloatArray) -> FloatArray:
    """Return the accuracy over all images with k of 2 or 3, relative to Acc_0."""
    half = totals.shape[-1] // 2
    many = totals[:, 2:].sum(axis=1)
    return ratio(ratio(many[:, half:].sum(-1), many[:, :half].sum(-1)), accuracies(totals)[:, 0])


def score(rows: Mapping[str, Any], card: FocusCard, seed: int = 0) -> Score:
    """Turn rows into CB metrics, partition accuracies and validity checks; all fractions.

    Rows of a restricted head give CB_1 and CB_2 under names that carry the coverage; what needs the few images with
    k = 3 is undefined for it.
    """
    metrics = _metrics(rows, seed)
    notes = reading_notes(rows, geometry(card), geometry(card, clip=True))
    if not coverage_of(rows):
        return Score(metrics, (_accuracy_check(rows, card),), notes)
    few = undefined(f"{int((uncommon_count(rows) == 3).sum())} images in P3", population=_POPULATION)
    metrics = tuple(replace(metric, estimate=few) if metric.name in _NEED_P3 else metric for metric in metrics)
    metrics = tuple(
        replace(metric, role="primary") if metric.name in ("CB_1", "CB_2") else metric for metric in metrics
    )
    found = Score(metrics, (_accuracy_check(rows, card),), notes)
    return name_coverage(found, rows, rows["category"], keep=_NEED_P3)


def _metrics(rows: Mapping[str, Any], seed: int) -> tuple[Metric, ...]:
    tables = partition_tables(rows)
    drawn = resample_strata(tables, seed)
    relative: dict[str, tuple[Statistic, tuple[tuple[int, ...], ...]]] = {
        "CB_avg": (partial(cb, ks=(1, 2, 3)), ((1,), (2,), (3,))),
        "CB_12": (partial(cb, ks=(1, 2)), ((1,), (2,))),
        **{f"CB_{k}": (partial(cb, ks=(k,)), ((k,),)) for k in (1, 2, 3)},
        "CB_2plus": (pooled_two_or_more, ((2, 3),)),
        **{f"CB_{k}_standardised": (partial(standardised, k=k), ((k,),)) for k in (1, 2, 3)},
    }
    metrics = [
        Metric(
            name,
            _relative(statistic, tables, drawn, pools),
            role="primary" if name == "CB_avg" else "companion",
            beside=("Acc_0",) if name in ("CB_avg", "CB_1", "CB_2") else (),
        )
        for name, (statistic, pools) in relative.items()
    ]
    half = tables[0].shape[1] // 2
    for k, table in enumerate(tables):
        accuracy = wilson(int(table[:, half:].sum()), len(table), population=_POPULATION)
        marked = _mark_small(accuracy, {f"P{k}": len(table)})
        metrics.append(Metric(f"Acc_{k}", marked, role="companion"))
    return tuple(metrics)


def _relative(
    statistic: Statistic, tables: Sequence[FloatArray], drawn: FloatArray, pools: Sequence[tuple[int, ...]]
) -> Estimate:
    """Estimate a ratio to common context; `pools` names the partitions it uses, those in one tuple pooled."""
    observed = totals_of(tables)
    sizes = {"+".join(f"P{k}" for k in pool): sum(len(tables[k]) for k in pool) for pool in pools}
    method, n = "bootstrap (image, within partition)", sum(sizes.values())
    empty = [name for name, size in ({"P0": len(tables[0])} | sizes).items() if size == 0]
    if empty:
        return undefined(f"no images in {', '.join(empty)}", population=_POPULATION, n=n, method=method)
    if accuracies(observed)[0, 0] == 0:
        return undefined("no image in common context is correct", population=_POPULATION, n=n, method=method)
    result = percentile_estimate(
        float(statistic(observed)[0]),
        statistic(drawn),
        n=n,
        method=method,
        population=_POPULATION,
        undefined_reason="a category has no images, or none correct, in common context",
    )
    return _mark_small(result, sizes)


def _mark_small(estimate: Estimate, sizes: Mapping[str, int]) -> Estimate:
    """Remark on the smallest partition when it is too small to be trusted."""
    name = min(sizes, key=lambda key: sizes[key])
    if sizes[name] >= LOW_N or estimate.reason:
        return estimate
    advice = "not reportable alone" if sizes[name] < TOO_FEW else "low n"
    return replace(estimate, reason=f"{name} has {sizes[name]} images: {advice}")


def _accuracy_check(rows: Mapping[str, Any], card: FocusCard) -> Check:
    common = uncommon_count(rows) == 0
    meaning = "accuracy in common context is above a floor and a multiple of chance"
    if not common.any():
        return Check("Acc_0", False, None, card.min_acc0, meaning)
    accuracy = float(np.asarray(rows["correct"], dtype=np.float64)[common].mean())
    floor = max(card.min_acc0, card.min_times_chance * float(np.asarray(rows["chance"])[common].mean()))
    return Check("Acc_0", accuracy >= floor, accuracy, floor, meaning)


def _query(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of the annotations table, in the order of COLUMNS; the file is opened read-only."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        try:
            return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM annotations").fetchall()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is not a FOCUS database", str(error), "fetch the data set again") from error


def _annotation(row: Sequence[Any], card: FocusCard) -> Annotation:
    empty = [column for column, value in zip(COLUMNS, row, strict=True) if not isinstance(value, str)]
    if empty:
        raise UserError(
            f"{DATABASE}: {row[0]!r} has no text in {', '.join(empty)}",
            f"found {', '.join(repr(value) for value in row if not isinstance(value, str))}; where nothing is known "
            "the database says 'none'",
            "fetch the data set again",
        )
    name, category, time, weather, locations = row
    item = Annotation(name.lstrip("/"), category, time, weather, tuple(locations.split(", ")))
    known = card.vocabulary
    problems = [f"category {category!r}"] * (category not in card.categories or category not in card.uncommon)
    problems += [f"time {time!r}"] * (time not in known.time)
    problems += [f"weather {weather!r}"] * (weather not in known.weather)
    problems += [f"location {place!r}" for place in item.locations if place not in known.locations]
    if problems:
        raise UserError(
            f"{DATABASE}: {name} has unknown {', '.join(problems)}",
            "the card's vocabulary does not hold it, so common and uncommon cannot be told apart",
            "fetch the data set again, or mend the card",
        )
    return item
