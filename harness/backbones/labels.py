"""What a model says itself about the order of its outputs, compared with the class list that the user names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.classes import ClassList
from harness.core.errors import UserError
from harness.images.label_names import match_label_names

_PLACEHOLDER = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)
_FIX = "give a file of the classes in the head's order with --classes, one id a line"


def in_order(labels: Any) -> tuple[str, ...] | None:
    """Return names by output, of a list or a mapping from the output (``id2label``) or to it (``class_to_idx``).

    Returns:
        The names; None where these are no names of outputs 0, 1, ..., or where they only count (``LABEL_0``).
    """
    if isinstance(labels, Mapping):
        pairs = [(key, value) if str(key).isdecimal() else (value, key) for key, value in labels.items()]
        try:
            by_output = {int(output): str(name) for output, name in pairs}
        except (TypeError, ValueError):
            return None
        if sorted(by_output) != list(range(len(labels))):
            return None
        labels = [by_output[output] for output in range(len(labels))]
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(name, str) for name in labels):
        return None
    return None if all(_PLACEHOLDER.fullmatch(name) for name in labels) else tuple(labels)


def labels_in(content: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Return where a checkpoint file names its outputs, and the names; None where it does not.

    Args:
        content: What `files.read_checkpoint` returned: ``class_to_idx``, ``classes``, or mmpretrain's ``meta``.
    """
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    dataset = meta.get("dataset_meta")
    places = [("class_to_idx", content.get("class_to_idx")), ("id2label", content.get("id2label")),
              ("classes", content.get("classes")), ("meta.CLASSES", meta.get("CLASSES")),
              ("meta.dataset_meta.classes", dataset.get("classes") if isinstance(dataset, Mapping) else None)]  # fmt: skip
    return next(((place, names) for place, value in places if (names := in_order(value)) is not None), None)


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
    plain = [_plain(name) for name in labels]
    if plain == [_plain(name) for name in classes.names]:
        return
    shown = f"{place} lists {', '.join(labels[:3])}, ...; the class list {', '.join(classes.ids[:3])}, ..."
    try:
        found = match_label_names(labels, classes)
    except UserError as error:
        raise UserError(
            f"--classes {classes.name} is not known to be the head's", f"{shown} ({error.why})", _FIX
        ) from error
    if found == classes.ids:
        return
    if set(found) == set(classes.ids):
        raise UserError(f"--classes {classes.name} is not in the order of the head", shown, _FIX)
    raise UserError(f"--classes {classes.name} is not the head's set of classes", shown, _FIX)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
