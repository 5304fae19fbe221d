"""Labels of webdataset samples, in the files that lie beside the images of a tar file."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from harness.core.errors import UserError
from harness.core.files import parse_json
from harness.core.tree import archive_suffix, is_image
from harness.images.entries import LABEL_KEYS
from harness.images.labels import UNLABELLED, Label, decide, disagree, is_number, is_wnid
from harness.images.parts import part_of_facts, tells_part

_LABEL_SUFFIXES = frozenset({*LABEL_KEYS, "lbl", "target", "synset"})
"""Suffixes (lower case) of files that hold a label and nothing else."""
_MOST_BYTES = 64
"""Largest other file that may hold a class id."""
_Side = tuple[dict[str, dict[str, str]], dict[str, str], dict[str, None], dict[str, str]]


def sample(name: str) -> str:
    """Return the sample a webdataset member belongs to: its path up to the first dot of the file name."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def read_side_files(
    tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], where: str, stem: str
) -> tuple[dict[str, Label], dict[str, str]]:
    """Return the label of every webdataset sample that has one, and the part of every sample that names it.

    Labels are what ``.cls``, ``.label`` and the like hold, what a ``.json`` holds under a name of labels, and class ids in any
    other small file.

    Raises:
        UserError: the side files of a sample state different labels, two images claim one sample, or samples have no label
            and neither has the archive's name.
    """
    images = [name for name in members if is_image(name)]
    stated, splits, keys, other = _statements(tar, members, {sample(name) for name in images})
    labels = {key: label for key, each in stated.items() if (label := _agreed(each, key, where)).text}
    _check_images(images, labels, where)
    loose = [name for name in images if "/" not in name]
    if loose and not labels and not is_wnid(stem) and (keys or other or stem.isdigit()):
        raise _unlabelled(where, keys, other)
    return labels, splits


def _statements(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], samples: set[str]) -> _Side:
    """Return what side files state by sample and file, the parts, the keys of all ``.json``, and files that state nothing."""
    stated: dict[str, dict[str, str]] = {}
    splits: dict[str, str] = {}
    keys: dict[str, None] = {}
    other: dict[str, str] = {}
    for name, info in members.items():
        key, suffixes = sample(name), PurePosixPath(name).name.lower().split(".")[1:]
        if key not in samples or is_image(name) or archive_suffix(name) or not suffixes:
            continue
        named = bool(_LABEL_SUFFIXES & {*suffixes})
        stream = tar.extractfile(info) if named or suffixes[-1] == "json" or info.size <= _MOST_BYTES else None
        text = stream.read().decode("utf-8", "replace").strip() if stream is not None else ""
        found = {name: text} if named or is_wnid(text) else {}
        if suffixes[-1] == "json":
            facts = _facts(text)
            keys |= dict.fromkeys(facts)
            splits[key] = splits.get(key) or part_of_facts({k: v for k, v in facts.items() if tells_part(k)})
            found = {f"{name} ({k})": value for k, value in _json_labels(facts)}
        elif not found:
            other.setdefault(name, text)
        stated.setdefault(key, {}).update(found)
    return stated, splits, keys, other


def _agreed(stated: Mapping[str, str], key: str, where: str) -> Label:
    """Return the label that side files state; a class id says more than a name, and a name more than a number.

    Raises:
        UserError: two class ids, names or numbers differ.
    """
    for first, one in stated.items():
        for second, two in stated.items():
            if disagree(one, two):
                raise UserError(
                    f"{where}: sample {key.lstrip('/')} has two labels",
                    f"{first} says {one!r} and {second} {two!r} (the first dot of a file name ends its key)",
                    "pack it again with one label a sample",
                )
    return decide(sorted(stated.values(), key=is_number))


def _check_images(images: Iterable[str], labels: Mapping[str, Label], where: str) -> None:
    first: dict[str, str] = {}
    for name in images:
        other = first.setdefault(sample(name), name)
        if other != name and sample(name) in labels:
            raise UserError(
                f"{where}: two images claim the sample {sample(name).lstrip('/')}",
                f"{other} and {name} (the first dot of a file name ends its key)",
                "pack it again with one image a sample (masks and thumbnails would be trained on)",
            )


def _unlabelled(where: str, keys: Mapping[str, None], other: Mapping[str, str]) -> UserError:
    held = f"their .json files hold {', '.join(list(keys)[:8])}; " if keys else ""
    if other:
        name, text = next(iter(other.items()))
        held += f"beside them lie files such as {name}" + (f" ({text!r}); " if text else "; ")
    return UserError(
        f"the samples of {where} have no labels",
        f"{held or 'a number as the name of an archive is no class; '}a label is expected in a .json under "
        f"{', '.join(LABEL_KEYS)}, in .cls or in .label",
        "add the label when packing (img2dataset: --save_additional_columns '[\"label\"]'), or unpack into class folders",
    )


def _facts(text: str) -> dict[str, object]:
    try:
        facts = parse_json(text)
    except json.JSONDecodeError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _json_labels(facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what names of labels hold, and every class id."""
    for key, value in facts.items():
        text = "" if value is None or value == int(UNLABELLED) else str(value)
        if text and (key in LABEL_KEYS or is_wnid(text)):
            yield key, text
