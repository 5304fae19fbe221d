"""Which part of a data set a file belongs to, by its name; images of another part are never taken unasked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core.errors import UserError

TRAINING, VALIDATION, TEST = "training", "validation", "test"
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), TEST),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabelled"),
}
"""Words of file and folder names (lower case) that name a part, also with ``set`` or ``split`` behind them."""
SPLIT_KEY = "split"
"""Column of tables and key of side files whose every value names a part, known or not."""
_SPLITS = frozenset({SPLIT_KEY, "splits", "subset", "partition", "set", "phase", "usage"})
"""Words of the names of columns whose values may name a part."""
_FLAG = re.compile(r"(?:is|in|for)_?(\w+)")
"""Names of columns that say whether a row is of a part, such as ``is_val``."""
FOLDERS: Mapping[str, tuple[str, ...]] = {
    TRAINING: ("train", "training", "Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/train"),
    VALIDATION: ("val", "validation", "valid", "val.X", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val"),
}
"""Where distributed archives keep the images of a part; the long ones are Kaggle's copy of ILSVRC 2012."""
_IMAGE = re.compile(r"(?<![a-z0-9])ilsvrc20\d\d_(val|test)_\d+")
"""Names of ILSVRC's validation and test images (lower case), whatever a packer put before or behind them."""
_TRAINING_IMAGE = re.compile(r"n\d{8}_\d+(_n\d{8})?")
"""Names of ILSVRC's training images (lower case); the hub's copy repeats the class."""
_RUN = re.compile(r"[A-Za-z]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_GLUED = re.compile(r"^(?:imagenet|ilsvrc|mini|tiny)|(?:set|split)$")
_HELD_OUT = re.compile(r"(held|hold)[^a-z]?out", re.IGNORECASE)
_SHOWN = 3


def part_of_image(name: str) -> str:
    """Return the part that ILSVRC's name of an image tells, such as ``ILSVRC2012_val_00000293``; empty: none."""
    stem = PurePosixPath(name.lower()).stem
    found = _IMAGE.search(name.lower())
    return WORDS[found[1]] if found else TRAINING if _TRAINING_IMAGE.fullmatch(stem) else ""


def part_of_word(word: str) -> str:
    """Return the part that a value of a column ``split`` names; a value that is not known is a part of its own."""
    found = _told(word)
    return found.pop() if len(found) == 1 else word.strip()


def check_images(base: Path, names: Mapping[str, str], wanted: str, place: Path | None = None) -> None:
    """Refuse images whose own names say that they are ILSVRC's images of another part.

    Training images that were held out, in a folder or file that is called by the validation part, are validation images.

    Args:
        base: Folder that holds them.
        names: Path to the image's own name, without folders.
        wanted: The part that is read.
        place: Folder of the class folders, where ``base`` is one.

    Raises:
        UserError: some are of another part.
    """
    found = [path for path, name in names.items() if part_of_image(name) not in ("", wanted)]
    if wanted == VALIDATION:
        found = [
            path for path in found if not (part_of_image(names[path]) == TRAINING and _held_out(place or base, path))
        ]
    if found:
        first = found[0]
        raise UserError(
            f"{len(found)} of {len(names)} images in {base} are no {wanted} images",
            f"{first} bears the name of one of ImageNet's {part_of_image(names[first])} images"
            + (f" ({names[first]})" if names[first] not in first else ""),
            f"remove them, or give the folder that holds the {wanted} images"
            + (" (one called val, where they were held out from training)" if wanted == VALIDATION else ""),
        )


def _held_out(place: Path, path: str) -> bool:
    return VALIDATION in (part_of_folder(place.name), part_of_file(path.partition("::")[0]))


def part_of_file(path: str) -> str:
    """Return the part that the name of a container tells, such as ``imagenet1k-train-0000.tar`` or ``default/test/0.parquet``.

    The last component that holds a word of ``WORDS`` decides; one that holds words of two parts tells nothing. Empty: none.
    Words may be joined as in ``imagenetVal`` and ``minival``.
    """
    for component in reversed(PurePosixPath(path).with_suffix("").parts):
        found = _told(component)
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


def _told(text: str) -> set[str]:
    text = _HELD_OUT.sub(r"\1out", text)
    return {WORDS[word] for run in _RUN.findall(text) for word in _words(run) if word in WORDS}


def _words(run: str) -> list[str]:
    """Return the words (lower case) of a run of letters: itself where it is one, else its parts."""
    whole = run.lower()
    joined = [whole, *map(str.lower, _CAMEL.findall(run))]
    return [whole] if whole in WORDS else [word for each in joined for word in (each, _GLUED.sub("", each))]


def part_of_folder(name: str) -> str:
    """Return the part that a folder's name tells, such as ``imagenet_val``; empty where it tells none, or two."""
    found = _told(name)
    return found.pop() if len(found) == 1 else ""


def tells_part(key: str) -> bool:
    """Return whether a column of a table, or a key of a side file, may tell the part of an image."""
    return bool(_flag(key) or set(map(str.lower, _RUN.findall(key))) & _SPLITS)


def part_of_facts(facts: Mapping[str, Any]) -> str:
    """Return the part of an image by its values of columns or keys that may tell one; empty where none does.

    Values that are not known are parts of their own under ``split``, and say nothing under other names. An image that a column
    such as ``is_val`` excludes is a training image, unless the column is of the training images.
    """
    named = {
        part_of_word(str(value)) if key == SPLIT_KEY else part_of_folder(str(value))
        for key, value in facts.items()
        if value is not None and not _flag(key)
    } - {""}
    flags = {part: str(value).lower() in ("true", "1") for key, value in facts.items() if (part := _flag(key))}
    named |= {part for part, is_true in flags.items() if is_true}
    if flags and not named:
        named.add(f"not {TRAINING}" if TRAINING in flags else TRAINING)
    return " or ".join(sorted(named))


def _flag(key: str) -> str:
    found = _FLAG.fullmatch(key.lower())
    return part_of_folder(found[1]) if found else ""


def take_part(base: Path, parts: Mapping[str, str], wanted: str) -> tuple[list[str], Counter[str]]:
    """Return the files of one part, and how many of other parts are left out.

    All are taken where no name tells a part, and where the folder is called by the wanted one and none is of another.

    Args:
        base: Folder, for messages.
        parts: Path to part of each file, in order.
        wanted: ``TRAINING`` or ``VALIDATION``.

    Raises:
        UserError: some files belong to other parts and the rest is not named as the wanted one, or some are named as the
            wanted part and others name none.
    """
    others = [path for path, part in parts.items() if part not in ("", wanted)]
    mine = [path for path, part in parts.items() if part == wanted]
    unnamed = [path for path, part in parts.items() if not part]
    if not others and (not mine or not unnamed or part_of_folder(base.name) == wanted):
        return list(parts), Counter()
    if not mine or unnamed:
        named = ", ".join(f"{path} ({parts[path]})" for path in others[:_SHOWN])
        told = [f"{len(others)} are of other parts, such as {named}"] if others else []
        told.append(f"{len(mine)} are named as {wanted} ones")
        told += [f"{_some(unnamed)} name no part"] if unnamed else []
        raise UserError(
            f"{base} may hold more than {wanted} images, and their names do not tell which are which",
            f"of {len(parts)} {'images' if '::' in next(iter(parts)) else 'files'}, {'; '.join(told)}",
            f"give a folder that holds the {wanted} images only, or move each part into a folder called train, val or test",
        )
    return mine, Counter(parts[path] for path in others)


def _some(paths: Sequence[str]) -> str:
    return f"{len(paths)}, such as {', '.join(paths[:_SHOWN])}"
