"""Texture bias on cue-conflict images: shape of one category, texture of another.

Geirhos et al., ICLR 2019; TI is the texture inclination of lbGen (CVPR 2025), read as t / (s + t): the share
of texture answers among the answers that name one of the two cues. Values are fractions.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.api import (
    Estimate,
    FloatArray,
    Metric,
    Score,
    UserError,
    bootstrap,
    bootstrap_two_way,
    find_root,
    list_files,
    list_folders,
    proportion,
    ratio,
    undefined,
    wilson,
)
from suites.bias.cards import CueConflictCard
from suites.bias.checks import floor_check
from suites.bias.heads import head_columns, name_coverage, restrict_logits
from suites.bias.images import Classifier, Geometry, Progress, Rows, predict, reading_notes
from suites.bias.maps import ClassMap
from suites.bias.settings import TextureSettings

PLACES = ("", "cue-conflict", "style-transfer-preprocessed-512")
MANIFEST = "cue_conflict_manifest.csv"
_TAIL = re.compile(r"^([a-z]+)(\d+)-([a-z]+)(\d+)\.png$")


@dataclass(frozen=True)
class Stimulus:
    """One cue-conflict file.

    Attributes:
        name: Path below the root.
        shape: Category of the shape.
        shape_source: Name of the image that gave the shape.
        texture: Category of the texture.
        texture_source: Name of the image that gave the texture.
    """

    name: str
    shape: str
    shape_source: str
    texture: str
    texture_source: str


def parse_name(name: str) -> Stimulus:
    """Parse `airplane/airplane10-boat3.png`; experiment prefixes ending in an underscore are dropped.

    Raises:
        UserError: the name does not follow the pattern.
    """
    match = _TAIL.match(name.rsplit("/", 1)[-1].rsplit("_", 1)[-1])
    if match is None:
        raise UserError(
            f"{name} is not a cue-conflict file name",
            "expected <shape><number>-<texture><number>.png",
            "remove the file or fetch the data set again",
        )
    shape, shape_number, texture, texture_number = match.groups()
    return Stimulus(name, shape, shape + shape_number, texture, texture + texture_number)


def read_stimuli(root: Path, card: CueConflictCard) -> tuple[Path, list[Stimulus]]:
    """List the stimuli below `root` in name order; return the folder that holds them and the list.

    Raises:
        DataMissing: no such data set.
        UserError: a file in the wrong folder, an unknown category, two files of one stimulus, or counts that differ from
            the card.
    """
    first = next(iter(card.categories))
    base = find_root(
        "cue-conflict set", root, PLACES, lambda folder: (folder / first).is_dir(), f"{first}/ and its siblings"
    )
    names = sorted(f"{folder}/{name}" for folder in list_folders(base) for name in list_files(base / folder, {".png"}))
    stimuli = [parse_name(name) for name in names]
    for item in stimuli:
        unknown = {item.shape, item.texture} - set(card.categories)
        if unknown or item.name.split("/")[0] != item.shape:
            why = f"unknown category {sorted(unknown)}" if unknown else "folder and shape differ"
            raise UserError(f"{base / item.name} does not belong here", why, "fetch the data set again")
    seen: dict[tuple[str, str], str] = {}
    for item in stimuli:
        other = seen.setdefault((item.shape_source, item.texture_source), item.name)
        if other != item.name:
            raise UserError(f"two files of {base} claim one stimulus", f"{other} and {item.name}", "remove one of them")
    counts = (len(stimuli), sum(item.shape != item.texture for item in stimuli))
    if counts != (card.expected_images, card.expected_conflict):
        raise UserError(
            f"{base} holds {counts[0]} images, {counts[1]} of them with conflicting cues",
            f"the card of {card.name} says {card.expected_images} and {card.expected_conflict}",
            "fetch the data set again, or give a card with the counts of your version",
        )
    return base, stimuli


def public_stimuli() -> list[dict[str, str]]:
    """Return what is known of the 1280 public stimuli: relpath, shape, texture, their sources, bytes, sha256."""
    text = importlib.resources.files("suites.bias").joinpath("data", MANIFEST).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def differing(base: Path, stimuli: Sequence[Stimulus]) -> list[str]:
    """Return the names of stimuli whose bytes are not those of the public file of that name (SHA-256)."""
    known = {row["relpath"]: row["sha256"] for row in public_stimuli()}
    return [s.name for s in stimuli if hashlib.sha256((base / s.name).read_bytes()).hexdigest() != known.get(s.name)]


def geometry(card: CueConflictCard, resize: int = 0) -> Geometry:
    """Return the reference geometry, files as stored; or a resize of the shorter side before a centre crop."""
    return Geometry("resize-crop" if resize else "stored", card.image_size, resize=resize)


def predict_rows(
    classifier: Classifier,
    root: Path,
    card: CueConflictCard,
    progress: Progress | None = None,
    settings: TextureSettings | None = None,
) -> Rows:
    """Classify the stimuli; one row per image. A restricted head sees those of which it covers both cues.

    Raises:
        UserError: the head does not cover all categories, or the data set is damaged.
    """
    settings = settings or TextureSettings()
    classifier = restrict_logits(classifier, settings.head)
    head = ClassMap.of(card.categories).bind(classifier.classes)
    head.require("TI", settings.restricted)
    base, stimuli = read_stimuli(root, card)
    stimuli = [s for s in stimuli if {s.shape, s.texture} <= set(head.covered)]
    predictions = predict(classifier, base, [s.name for s in stimuli], geometry(card, settings.resize), progress=progress,
                          batch_size=settings.batch_size, threads=settings.threads)  # fmt: skip
    answer, tied = head.decide(predictions.logits)
    label = np.asarray([head.categories.index(s.shape) for s in stimuli])
    return stimulus_columns(stimuli) | {
        "answer": np.asarray(head.categories)[answer],
        "tied": tied,
        **head_columns(head, label, classifier.classes, card),
        **predictions.columns(),
    }


def stimulus_columns(stimuli: Sequence[Stimulus]) -> Rows:
    """Return the columns that describe the stimuli."""
    return {
        "image": np.asarray([s.name for s in stimuli]),
        "shape": np.asarray([s.shape for s in stimuli]),
        "shape_source": np.asarray([s.shape_source for s in stimuli]),
        "texture": np.asarray([s.texture for s in stimuli]),
        "texture_source": np.asarray([s.texture_source for s in stimuli]),
    }


def cue_table(rows: Mapping[str, Any]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return (shape answer, texture answer) of the conflict images, (n, 2), and the mask of these."""
    shape, texture, answer = (np.asarray(rows[name]) for name in ("shape", "texture", "answer"))
    conflict = shape != texture
    table = np.stack([answer == shape, answer == texture], axis=1)[conflict].astype(np.float64)
    return table, conflict


def ti_statistic(totals: FloatArray) -> FloatArray:
    """Compute t / (s + t) from totals of (s, t): (replicates, strata, 2) to (replicates,)."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 1], sums.sum(axis=1))


def texture_inclination(rows: Mapping[str, Any], unit: str = "image", seed: int = 0) -> Estimate:
    """Estimate TI; n is s + t.

    Where several people answered each image (column stimulus) their answers to an image stay together.

    Args:
        rows: Columns shape, texture, answer and, for clusters, shape_source and texture_source.
        unit: What is resampled: "image", "shape source" or "two-way" (shape and texture sources together).
        seed: Seed of the bootstrap.
    """
    table, conflict = cue_table(rows)
    s, t = (int(count) for count in table.sum(axis=0))
    population = {
        "image": "these sources, new images",
        "shape source": "new shape sources",
        "two-way": "new stimuli",
    }[unit]
    method = f"bootstrap ({unit})"
    if s + t == 0:
        return undefined(
            "no conflict image was answered with its shape or its texture",
            population=population,
            method=method,
        )
    if s == 0 or t == 0:  # resampling cannot leave the border; the score interval can
        return wilson(t, s + t, population=population)
    if unit == "image" and "stimulus" not in rows:
        return bootstrap(ti_statistic, [table], seed=seed, population=population, method=method, n=s + t)
    shapes = np.asarray(rows["shape_source"])[conflict]
    if unit != "two-way":
        clusters = np.asarray(rows["stimulus"])[conflict] if unit == "image" else shapes
        return bootstrap(
            ti_statistic, [table], clusters=[clusters], seed=seed, population=population, method=method, n=s + t
        )
    textures = np.asarray(rows["texture_source"])[conflict]
    return bootstrap_two_way(ti_statistic, table, shapes, textures, seed=seed, population=population, n=s + t)


def score(rows: Mapping[str, Any], card: CueConflictCard, seed: int = 0, further: Sequence[Metric] = ()) -> Score:
    """Turn rows into TI, its companions and validity checks, all fractions; further metrics follow."""
    table, conflict = cue_table(rows)
    shape, answer = np.asarray(rows["shape"]), np.asarray(rows["answer"])
    ti = texture_inclination(rows, "image", seed)
    images = "these sources, new images"
    coverage = proportion(table.any(axis=1), population=images)
    same = proportion((answer == shape)[~conflict], population=images)
    metrics = (
        Metric("TI", ti, "fraction", "lower", beside=("cue_coverage", "same_category_accuracy")),
        Metric(
            "TI_shape_sources",
            texture_inclination(rows, "shape source", seed),
            "fraction",
            "lower",
            "companion",
        ),
        Metric("TI_two_way", texture_inclination(rows, "two-way", seed), "fraction", "lower", "companion"),
        Metric("shape_bias", _complement(ti), "fraction", "higher", "companion"),
        Metric("texture_rate", proportion(table[:, 1], population=images), "fraction", "neither", "companion"),
        Metric("shape_rate", proportion(table[:, 0], population=images), "fraction", "neither", "companion"),
        Metric("neither_rate", proportion(~table.any(axis=1), population=images), better="neither", role="companion"),
        Metric("cue_coverage", coverage, "fraction", "higher", "companion"),
        Metric("same_category_accuracy", same, "fraction", "higher", "companion"),
        *further,
    )
    checks = (
        floor_check("cue coverage", coverage, card.min_coverage, "answers name one of the two cues"),
        floor_check("same-category accuracy", same, card.min_same_category, "answers are right where the cues agree"),
    )
    s, t = (int(count) for count in table.sum(axis=0))
    notes: tuple[str, ...] = (f"s = {s}, t = {t}, neither = {len(table) - s - t}, of {len(table)} conflict images",)
    notes += reading_notes(rows, geometry(card))
    ties = int(np.asarray(rows["tied"]).sum())
    if ties:
        notes += (f"{ties} answers were tied; the first category in map order was taken",)
    return name_coverage(Score(metrics, checks, notes), rows, shape)


def _complement(share: Estimate) -> Estimate:
    """Return one minus a share, with its interval turned round."""
    value, low, high = (None if end is None else 1 - end for end in (share.value, share.high, share.low))
    return replace(share, value=value, low=low, high=high)
