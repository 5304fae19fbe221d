"""What a model says itself about the order of its outputs, compared with the class list that the user names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.classes import ClassList
from harness.core.errors import UserError
from harness.images.label_names import match_label_names

_PLACEHOLDER = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)
BACKGROUND = "background"
"""The first of 1001 outputs, before ImageNet's thousand classes."""
_NUMBER = re.compile(r"\d+$")
_PLACES = (
    "class_to_idx",
    "idx_to_class",
    "id2label",
    "label2id",
    "classes",
    "CLASSES",
    "class_names",
    "label_names",
    "labels",
)
"""Under which words files list the outputs of a head."""
_OWNERS = ("hyper_parameters", "datamodule_hyper_parameters", "hparams", "config", "args", "meta", "dataset_meta")
"""In which parts of a file these words count, beside its root."""
_FIX = "give a file of the classes in the head's order with --classes, one id a line"


def in_order(labels: Any) -> tuple[str, ...] | None:
    """Return names by output, of a list or a mapping from the output (``id2label``) or to it (``class_to_idx``).

    Returns:
        The names; None where these are no names of outputs 0, 1, ..., or where they only count (``LABEL_0``, ``LABEL_1``).
        Numbers in another order (0, 1, 10, 2: folders as text sorts them) are names.
    """
    if isinstance(labels, Mapping):
        by_name = not all(isinstance(key, int) for key in labels) and (
            all(isinstance(value, int) for value in labels.values()) or not all(str(key).isdecimal() for key in labels)
        )
        pairs = [(value, key) if by_name else (key, value) for key, value in labels.items()]
        try:
            by_output = {int(output): str(name) for output, name in pairs}
        except (TypeError, ValueError):
            return None
        if sorted(by_output) != list(range(len(labels))):
            return None
        labels = [by_output[output] for output in range(len(labels))]
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(name, str | int) for name in labels):
        return None
    labels = [str(name) for name in labels]
    return None if _only_count(labels) else tuple(labels)


def _only_count(labels: Sequence[str]) -> bool:
    """Return whether labels are numbers that follow each other, so that they say nothing of the order."""
    if not all(_PLACEHOLDER.fullmatch(name) for name in labels):
        return False
    numbers = [int(match[0]) for name in labels if (match := _NUMBER.search(name))]
    return numbers == list(range(numbers[0], numbers[0] + len(labels)))


def labels_in(content: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return where a checkpoint file names outputs, and the names in their order.

    Args:
        content: What `files.read_checkpoint` returned: with ``class_to_idx`` and the like at its root, in the hyper-parameters of
            Lightning, or in mmpretrain's ``meta``.
        owner: What stands before the words, in messages.
    """
    for word in _PLACES:
        if (names := in_order(content.get(word))) is not None:
            yield owner + word, names
    for word in _OWNERS:
        if isinstance(inner := content.get(word), Mapping):
            yield from labels_in(inner, f"{owner}{word}.")


def check_labels_in(path: Path, content: Mapping[str, Any], classes: ClassList, outputs: int) -> None:
    """Check that a class list does not contradict any labels in a checkpoint file.

    Raises:
        UserError: as `check_labels`.
    """
    for place, labels in labels_in(content):
        check_labels(f"{place} of {path.name}", labels, classes, outputs)


def check_labels(place: str, labels: Sequence[str], classes: ClassList, outputs: int | None = None) -> None:
    """Check that a class list does not contradict the head's own labels.

    Args:
        place: Where the labels are written, for messages.
        labels: Ids or names by output; empty: nothing is checked.
        classes: The class list.
        outputs: Outputs of the head where they are known; labels of another number are not its own.

    Raises:
        UserError: the labels are of other classes, or in another order; or what they mean is not known.
    """
    if not labels or tuple(labels) == classes.ids or (outputs is not None and len(labels) != outputs):
        return
    if len(labels) != len(classes):
        raise UserError(
            f"--classes {classes.name} does not fit the head", f"{place} names {len(labels)} classes, the list {len(classes)}", _FIX
        )  # fmt: skip
    if {labels[0], classes.ids[0]} == {BACKGROUND} and len(labels) > 1:
        check_labels(place, labels[1:], replace(classes, ids=classes.ids[1:], names=classes.names[1:]))
        return
    plain = [_plain(name) for name in labels]
    if plain == [_plain(name) for name in classes.names]:
        return
    shown = f"{place} lists {', '.join(labels[:3])}, ...; the class list {', '.join(classes.ids[:3])}, ..."
    try:
        found = match_label_names(labels, classes)
    except UserError as error:
        raise UserError(
            f"--classes {classes.name} is not known to be the head's",
            f"{shown} ({error.why})",
            f"{_FIX}, and after it the name that the head has for it",
        ) from error
    if found == classes.ids:
        return
    if set(found) == set(classes.ids):
        raise UserError(f"--classes {classes.name} is not in the order of the head", shown, _FIX)
    raise UserError(f"--classes {classes.name} is not the head's set of classes", shown, _FIX)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
