"""Second reading of cue-conflict answers: over all classes, as absolute sensitivities, and beside the answers of people.

TI is a ratio of forced choices among the categories. It cannot tell a network that reads both cues well from one that reads
neither, and the forced choice hides that the network would have named something else (Kim et al. 2026, arXiv 2603.10834).
Everything here is made from stored rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from harness.api import Estimate, FloatArray, Metric, bootstrap, error_consistency, proportion, ratio, undefined
from suites.bias.cards import CueConflictCard
from suites.bias.people import answers
from suites.bias.texture import texture_inclination

IMAGES = "these sources, new images"
NEITHER = ""
RANKS = 5
"""Best classes that rows keep."""


def second_reading(rows: Mapping[str, Any], card: CueConflictCard, seed: int = 0) -> tuple[Metric, ...]:
    """Return the secondary metrics of cue-conflict rows; all but the error consistency are fractions.

    Args:
        rows: Columns of ``predict_rows`` or ``answer_rows``; without ``top1`` and ``top5`` what needs them is undefined.
        card: The data set's card, for its categories.
        seed: Seed of the resampling.
    """
    return (
        *_over_all_classes(rows, card, seed),
        Metric("shape_accuracy", _shape_accuracy(rows, seed), better="higher", role="secondary"),
        Metric("error_consistency", _with_people(rows, seed), "ratio", "neither", "secondary"),
    )


def top1_rows(rows: Mapping[str, Any], card: CueConflictCard) -> dict[str, Any]:
    """Return the rows with the category of the top-1 over all classes as their answer; empty outside the categories."""
    category = {class_id: name for name, ids in card.categories.items() for class_id in ids}
    answer = np.asarray([category.get(str(one), NEITHER) for one in np.asarray(rows["top1"])], dtype=str)
    kept = ("image", "shape", "texture", "shape_source", "texture_source", "stimulus")
    return {name: np.asarray(rows[name]) for name in kept if name in rows} | {"answer": answer}


def reciprocal_ranks(rows: Mapping[str, Any], card: CueConflictCard) -> FloatArray:
    """Return one over the best rank of a class of the shape's and of the texture's category, 0 beyond rank 5: (n, 2)."""
    members = {name: frozenset(ids) for name, ids in card.categories.items()}
    lists = [str(line).split()[:RANKS] for line in np.asarray(rows["top5"])]
    sides = [[_reciprocal_rank(best, members[str(name)]) for best, name in zip(lists, np.asarray(rows[cue]), strict=True)]
             for cue in ("shape", "texture")]  # fmt: skip
    return np.asarray(sides, dtype=np.float64).T


def _reciprocal_rank(best: list[str], wanted: frozenset[str]) -> float:
    return next((1 / rank for rank, class_id in enumerate(best, 1) if class_id in wanted), 0.0)


def _over_all_classes(rows: Mapping[str, Any], card: CueConflictCard, seed: int) -> tuple[Metric, ...]:
    conflict = np.asarray(rows["shape"]) != np.asarray(rows["texture"])
    missing = _missing(rows)
    found: dict[str, Estimate] = {}
    if not missing:
        named = top1_rows(rows, card)
        shape, texture = ((named["answer"] == named[cue])[conflict] for cue in ("shape", "texture"))
        for name, flags in (("shape", shape), ("texture", texture), ("neither", ~shape & ~texture)):
            found[f"top1_{name}"] = proportion(flags, population=IMAGES)
        found["TI_all_classes"] = texture_inclination(named, "image", seed)
        ranks = reciprocal_ranks(rows, card)[conflict]
        for place, name in enumerate(("shape_sensitivity", "texture_sensitivity")):
            found[name] = _mean(ranks[:, place], seed)
    better = {"TI_all_classes": "lower", "shape_sensitivity": "higher"}
    names = ("top1_shape", "top1_texture", "top1_neither", "TI_all_classes", "shape_sensitivity", "texture_sensitivity")
    nothing = undefined(missing or "no conflict images", population=IMAGES)
    return tuple(Metric(name, found.get(name, nothing), better=better.get(name, "neither"), role="secondary")  # type: ignore[arg-type]
                 for name in names)  # fmt: skip


def _missing(rows: Mapping[str, Any]) -> str:
    if "top1" in rows and "top5" in rows:
        return ""
    if "observer" in rows:
        return "people chose among the categories"
    return "the rows do not hold the best classes: an older version measured them; run the suite again"


def _mean(values: FloatArray, seed: int) -> Estimate:
    table = np.stack([values, np.ones(len(values))], axis=1)
    return bootstrap(mean_statistic, [table], seed=seed, population=IMAGES, method="bootstrap (image)")


def mean_statistic(totals: FloatArray) -> FloatArray:
    """Compute feature 0 over feature 1 from totals (replicates, strata, 2)."""
    sums = totals.sum(axis=1)
    return ratio(sums[:, 0], sums[:, 1])


def _shape_accuracy(rows: Mapping[str, Any], seed: int) -> Estimate:
    """Estimate the share of all images answered with the shape's category; several answers to an image stay together."""
    right = np.asarray(rows["answer"]) == np.asarray(rows["shape"])
    if "stimulus" not in rows:
        return proportion(right, population=IMAGES)
    table = np.stack([right, np.ones(len(right))], axis=1)
    return bootstrap(mean_statistic, [table], clusters=[np.asarray(rows["stimulus"])], seed=seed, population=IMAGES,
                     method="bootstrap (image)")  # fmt: skip


# --- people -------------------------------------------------------------------------------------------------------------


def _with_people(rows: Mapping[str, Any], seed: int) -> Estimate:
    """Estimate the mean kappa with each of the ten people; of people's own rows that of all pairs of people."""
    population = "new images, these people"
    shape = np.asarray(rows["shape"])
    if "observer" in rows:
        right, people = _by_person(rows)
        return error_consistency(right, list(combinations(range(people), 2)), population=population, seed=seed)
    known = answers()
    names = [str(name).rsplit("/", 1)[-1] for name in np.asarray(rows["image"])]
    if any(name not in known for name in names):
        return undefined("people were shown the public stimuli only", population=population)
    own = np.asarray(rows["answer"]) == shape
    theirs = [[answer == wanted for answer in known[name].values()] for name, wanted in zip(names, shape, strict=True)]
    right = np.column_stack([own, np.asarray(theirs, dtype=bool).reshape(len(names), -1)])
    return error_consistency(
        right, [(0, other) for other in range(1, right.shape[1])], population=population, seed=seed
    )


def _by_person(rows: Mapping[str, Any]) -> tuple[FloatArray, int]:
    """Return right answers as (stimuli, people), and the number of people."""
    stimuli, item = np.unique(np.asarray(rows["stimulus"]).astype(str), return_inverse=True)
    people, person = np.unique(np.asarray(rows["observer"]).astype(str), return_inverse=True)
    table = np.zeros((len(stimuli), len(people)))
    table[item, person] = np.asarray(rows["answer"]) == np.asarray(rows["shape"])
    return table, len(people)
