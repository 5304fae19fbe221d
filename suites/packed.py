"""Validation images in tar shards and parquet files: the hub's validation part, read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.api import DataMissing, EntryReader, UserError, list_images, load_classes, match_label_names
from suites.class_images import ClassImages

_LAYOUTS = ("tar shards", "parquet")


def read_packed(root: Path, class_ids: Sequence[str], name: str, numbered: str) -> ClassImages | None:
    """Read the validation part of tar shards or parquet files; None where none has a label.

    Labels are class ids, or numbers whose names the files state themselves or whose list the card names (``numbered``).

    Raises:
        UserError: the parts cannot be distinguished, or what the labels mean is not known.
    """
    try:
        listing = list_images(root, "validation")
    except DataMissing:
        return None
    folders = {entry.folder for entry in listing.entries}
    ids = _meaning(folders, listing.label_names, name, numbered)
    if listing.layout not in _LAYOUTS or not ids.keys() | folders & set(load_classes("imagenet1k").ids) | folders & set(
        class_ids
    ):
        return None
    known = {class_id: label for label, class_id in enumerate(class_ids)}
    kept = sorted(
        (entry for entry in listing.entries if ids.get(entry.folder, entry.folder) in known),
        key=lambda entry: entry.path,
    )
    reader, by_path = EntryReader(listing.base), {entry.path: entry for entry in kept}
    return ClassImages(
        listing.base,
        f"{listing.layout}, validation part",
        tuple(entry.path for entry in kept),
        np.array([known[ids.get(entry.folder, entry.folder)] for entry in kept], dtype=np.int64),
        len(listing.entries) - len(kept),
        lambda path: reader.read(by_path[path]),
    )


def _meaning(folders: set[str], names: Sequence[str], name: str, numbered: str) -> dict[str, str]:
    """Return the class id of each label that is a number."""
    numbers = {folder: int(folder) for folder in folders if folder.isascii() and folder.isdigit()}
    if not numbers:
        return {}
    if not names and not numbered:
        raise UserError(
            f"{name}: what the labels mean is not known",
            f"they are numbers, such as {min(numbers.values())}, and the files state no names for them",
            f'say which list they count: --set \'data.{name}.card={{"numbered": "imagenet1k"}}\'',
        )
    full = load_classes(numbered or "imagenet1k")
    ids = match_label_names(names, full) if names else full.ids
    if max(numbers.values()) >= len(ids):
        raise UserError(
            f"{name}: label {max(numbers.values())} has no class",
            f"{len(ids)} names are known",
            "name the list they count in the card's 'numbered'",
        )
    if names and numbered and any(ids[number] != full.ids[number] for number in numbers.values() if number < len(full)):
        raise UserError(
            f"{name}: the card contradicts the files' own label names",
            f"label 0 is {names[0]!r} by the files and {full.ids[0]} by 'numbered'",
            "leave 'numbered' out: the names are read",
        )
    return {folder: ids[number] for folder, number in numbers.items()}
