"""What a head can express: coverage of restricted heads, heads restricted to a list.

A head that lacks the classes of some category (ImageNet-100 heads lack most) has no TI, CB_avg or BG_Gap. On request it
is measured on the images it covers, under names that carry the coverage: `TI@7of16`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.api import Score, UserError, load_classes
from suites.bias.cards import BiasCard
from suites.bias.images import Classifier, Rows
from suites.bias.maps import HeadMap


def head_columns(head: HeadMap, label: npt.NDArray[np.int64], classes: Sequence[str], card: BiasCard) -> Rows:
    """Return the columns that say what the head covers: of all categories, and in classes of the row's category.

    Args:
        head: The bound class map.
        label: Category index of every row, (n,).
        classes: Class ids of the head.
        card: The data set's card.
    """
    full = not head.uncovered
    coverage = "" if full else f"{len(head.covered)}of{len(head.categories)}"
    columns = {"coverage": coverage, "head": other_head(classes, card)}
    return {"members": head.counts()[label], **{name: np.full(len(label), text) for name, text in columns.items()}}


def other_head(classes: Sequence[str], card: BiasCard) -> str:
    """Say how a head differs from the one that the numbers are defined for; empty for that head in any order.

    That is the head of the thousand ImageNet classes for the public categories, and of the card's own classes for others.
    """
    public = card.categories == type(card).load().categories
    expected = set(load_classes("imagenet1k").ids) if public else {i for ids in card.categories.values() for i in ids}
    if set(classes) == expected:
        return ""
    return f"{len(classes)} classes, not the {len(expected)} {'of ImageNet' if public else 'of the data set'}"


def name_coverage(score: Score, rows: Mapping[str, Any], labels: Iterable[str], keep: Sequence[str] = ()) -> Score:
    """Append the coverage of a restricted head to the names of all metrics but those in `keep`, and say what it covers.

    A head that covers every category and is not the one the numbers are defined for keeps the names and gets a note.

    Args:
        score: The score under the standard names.
        rows: Rows with the columns of `head_columns`; without them the score is returned.
        labels: Name of the category of every row.
        keep: Metrics that stay undefined under their own name.
    """
    coverage, head = _text(rows, "coverage"), _text(rows, "head")
    if not coverage and not head:
        return score
    counts = dict(zip(labels, np.asarray(rows["members"]).tolist(), strict=True))
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    if not coverage:
        note = f"head of {head} (classes of the head: {listed}); not comparable with heads of other classes"
        return replace(score, notes=(note, *score.notes))

    def named(name: str) -> str:
        return name if name in keep else f"{name}@{coverage}"

    metrics = tuple(replace(m, name=named(m.name), beside=tuple(map(named, m.beside))) for m in score.metrics)
    covered, _, total = coverage.partition("of")
    note = f"covers {covered} of {total} categories (classes of the head: {listed}); not comparable with heads that cover all"
    return replace(score, metrics=metrics, notes=(note, *score.notes))


def coverage_of(rows: Mapping[str, Any]) -> str:
    """Return the coverage stored with rows, such as `7of16`; empty when every category is covered."""
    return _text(rows, "coverage")


def _text(rows: Mapping[str, Any], column: str) -> str:
    return str(np.asarray(rows[column])[0]) if column in rows and len(rows[column]) else ""


class RestrictedHead:
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


def restrict_logits(classifier: Classifier, name: str) -> Classifier:
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
            f"the head cannot be restricted to {name}",
            f"it lacks {len(missing)} of its {len(wanted)} classes, e.g. {missing[0]}",
            "leave the setting 'head' out, or name a list whose classes the head has",
        )
    return RestrictedHead(classifier, wanted)
