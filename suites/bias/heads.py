"""What a head can express: settings of the bias suites, coverage of restricted heads, heads narrowed to a list.

A head that lacks the classes of some category (ImageNet-100 heads lack most) has no TI, CB_avg or BG_Gap. On request it
is measured on the images it covers, under names that carry the coverage: `TI@7of16`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.classes import load_classes
from harness.contracts import Score, Settings
from harness.errors import UserError
from suites.bias.images import Classifier, Rows
from suites.bias.maps import HeadMap


class BiasSettings(Settings):
    """Settings of the bias suites."""

    restricted: bool = Field(
        default=False, description="measure a head that lacks categories on the images it covers, as e.g. TI@7of16"
    )
    head: str = Field(
        default="",
        description="class list to whose classes the logits are narrowed, e.g. imagenet100, so that a 1000-way head "
        "can be set beside a 100-way one",
    )
    batch_size: int = Field(default=64, ge=1, description="images a step; changes no decision")
    threads: int = Field(default=1, ge=1, description="decoding threads; change no decision")

    def wording(self) -> str:
        """Return what the settings add to the protocol."""
        return f"; logits narrowed to {self.head}" if self.head else ""


def head_columns(head: HeadMap, label: npt.NDArray[np.int64]) -> Rows:
    """Return the columns that say what the head covers: of all categories, and in classes of the row's category.

    Args:
        head: The bound class map.
        label: Category index of every row, (n,).
    """
    full = not head.uncovered
    coverage = "" if full else f"{len(head.covered)}of{len(head.categories)}"
    return {"members": head.counts()[label], "coverage": np.full(len(label), coverage)}


def name_coverage(score: Score, rows: Mapping[str, Any], labels: Iterable[str], keep: Sequence[str] = ()) -> Score:
    """Append the coverage of a restricted head to the names of all metrics but those in `keep`, and say what it covers.

    Args:
        score: The score under the standard names.
        rows: Rows with the columns of `head_columns`; without them, or with full coverage, the score is returned.
        labels: Name of the category of every row.
        keep: Metrics that stay undefined under their own name.
    """
    coverage = coverage_of(rows)
    if not coverage:
        return score
    metrics = tuple(m if m.name in keep else replace(m, name=f"{m.name}@{coverage}") for m in score.metrics)
    counts = dict(zip(labels, np.asarray(rows["members"]).tolist(), strict=True))
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    covered, _, total = coverage.partition("of")
    note = f"covers {covered} of {total} categories (classes of the head: {listed}); not comparable with heads that cover all"
    return replace(score, metrics=metrics, notes=(note, *score.notes))


def coverage_of(rows: Mapping[str, Any]) -> str:
    """Return the coverage stored with rows, such as `7of16`; empty when every category is covered."""
    return str(np.asarray(rows["coverage"])[0]) if "coverage" in rows and len(rows["coverage"]) else ""


class NarrowedHead:
    """A classifier whose outputs are those of some classes only, in the order of its own head."""

    def __init__(self, classifier: Classifier, classes: Sequence[str]) -> None:
        chosen = set(classes)
        self._classifier = classifier
        self._outputs = [index for index, class_id in enumerate(classifier.classes) if class_id in chosen]
        self.classes = tuple(classifier.classes[index] for index in self._outputs)
        self.image_size, self.interpolation = classifier.image_size, classifier.interpolation

    def __call__(self, images: Any) -> Any:
        """Return the chosen logits (B, K)."""
        return self._classifier(images)[:, self._outputs]


def narrowed(classifier: Classifier, name: str) -> Classifier:
    """Narrow a classifier to a class list; an empty name leaves it alone.

    Raises:
        UserError: the head lacks a class of the list.
    """
    if not name:
        return classifier
    wanted = load_classes(name).ids
    missing = [class_id for class_id in wanted if class_id not in set(classifier.classes)]
    if missing:
        raise UserError(
            f"the head cannot be narrowed to {name}",
            f"it lacks {len(missing)} of its {len(wanted)} classes, e.g. {missing[0]}",
            "leave the setting 'head' out, or name a list whose classes the head has",
        )
    return NarrowedHead(classifier, wanted)
