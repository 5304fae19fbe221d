"""Validation images in tar shards and parquet files: the hub's validation part, read where it lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.api import DataMissing, EntryReader, UserError, list_images, load_classes, match_label_names
from suites.class_images import ClassImages

_LAYOUTS = ("tar shards", "parquet")
_UNLABELLED = "-1"
_WNID = re.compile(r"(?<![a-z0-9])n\d{8}(?!\d)")


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
    if listing.layout in _LAYOUTS and _UNLABELLED in folders:
        odd = [entry.path for entry in listing.entries if entry.folder == _UNLABELLED]
        raise UserError(
            f"{name}: {len(odd)} of {len(listing.entries)} images have no label",
            f"such as {odd[0]}",
            "complete the labels, or leave these images out when packing",
        )
    ids = _meaning(folders, listing.label_names, name, numbered)
    if listing.layout not in _LAYOUTS or not ids.keys() | folders & set(load_classes("imagenet1k").ids) | folders & set(
        class_ids
    ):
        return None
    _check_beside(listing.beside, name, numbered)
    told = ((each.path, each.stem, ids[each.folder]) for each in listing.entries if each.folder in ids)
    refuse_named_otherwise(name, told)
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


def counted_list(name: str) -> str:
    """Return the option that says what numbers mean; only their publisher knows it."""
    return (
        f'say by what their publisher says which list they count: --set \'data.{name}.card={{"numbered": "LIST"}}\', LIST a shipped '
        "one or a file of class ids in that order, one a line"
    )


def refuse_named_otherwise(name: str, images: Iterable[tuple[str, str, str]]) -> None:
    """Refuse what numbers are taken to mean where ImageNet's file names hold other class ids.

    Args:
        name: Data set name for messages.
        images: Path, file name and class id of each image whose label is a number.

    Raises:
        UserError: some name holds the class id of another class.
    """
    known = set(load_classes("imagenet1k").ids)
    for path, file, class_id in images:
        found = {*_WNID.findall(file)} & known
        if found and class_id not in found:
            raise UserError(
                f"{name}: the files contradict what their numbers are taken to mean",
                f"{path} bears the class id {min(found)} and would be {class_id}",
                "name the list they count in the card's 'numbered'",
            )


def _check_beside(beside: Mapping[str, str], name: str, numbered: str) -> None:
    ids = load_classes(numbered).ids if numbered else ()
    for number, class_id in beside.items():
        if int(number) < len(ids) and ids[int(number)] != class_id:
            raise UserError(
                f"{name}: the card contradicts the class ids of the files",
                f"label {number} is {class_id} by the files and {ids[int(number)]} by 'numbered'",
                "leave 'numbered' out: the class ids are read",
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
            counted_list(name),
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
