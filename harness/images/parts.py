"""Which part of a data set a file belongs to, by its name; images of another part are never taken unasked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.core.errors import UserError

TRAINING, VALIDATION, TEST = "training", "validation", "test"
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trainval"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), VALIDATION),
    **dict.fromkeys(("test", "testing", "holdout"), TEST),
}
"""Words of file and folder names (lower case) that name a part."""
FOLDERS: Mapping[str, tuple[str, ...]] = {
    TRAINING: ("train", "training", "Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/train"),
    VALIDATION: ("val", "validation", "valid", "val.X", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val"),
}
"""Where distributed archives keep the images of a part; the long ones are Kaggle's copy of ILSVRC 2012."""
_IMAGE = re.compile(r"(?<![a-z0-9])ilsvrc20\d\d_(val|test)_\d+")
"""Names of ILSVRC's validation and test images (lower case), whatever a packer put before or behind them."""
_RUN = re.compile(r"[A-Za-z]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_GLUED = re.compile(r"^(?:imagenet|ilsvrc|mini|tiny)")
_SHOWN = 3


def part_of_image(name: str) -> str:
    """Return the part that ILSVRC's name of an image tells, such as ``ILSVRC2012_val_00000293``; empty: none."""
    found = _IMAGE.search(name.lower())
    return WORDS[found[1]] if found else ""


def part_of_word(word: str) -> str:
    """Return the part that a value of a column ``split`` names; a value that is not known is a part of its own."""
    found = _told(word)
    return found.pop() if len(found) == 1 else word.strip()


def check_images(base: Path, names: Mapping[str, str], wanted: str) -> None:
    """Refuse images whose own names say that they are ILSVRC's validation or test images.

    Args:
        base: Folder, for messages.
        names: Path to the image's own name, without folders.
        wanted: The part that is read.

    Raises:
        UserError: some are of another part.
    """
    found = [path for path, name in names.items() if part_of_image(name) not in ("", wanted)]
    if found:
        first = found[0]
        raise UserError(
            f"{len(found)} of {len(names)} images in {base} are no {wanted} images",
            f"{first} bears the name of one of ImageNet's {part_of_image(names[first])} images"
            + (f" ({names[first]})" if names[first] not in first else ""),
            f"remove them, or give the folder that holds the {wanted} images",
        )


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
    return {WORDS[word] for run in _RUN.findall(text) for word in _words(run) if word in WORDS}


def _words(run: str) -> list[str]:
    """Return the words (lower case) of a run of letters: itself where it is one, else its parts."""
    whole = run.lower()
    return [whole] if whole in WORDS else [_GLUED.sub("", whole), *map(str.lower, _CAMEL.findall(run))]


def part_of_folder(name: str) -> str:
    """Return the part that a folder is called by; its whole name counts, so that a class ``test tube`` is none."""
    return WORDS.get(name.lower(), "")


def take_part(base: Path, parts: Mapping[str, str], wanted: str) -> tuple[list[str], Counter[str]]:
    """Return the files of one part, and how many of other parts are left out.

    Where no file is of another part, all are taken.

    Args:
        base: Folder, for messages.
        parts: Path to part of each file, in order.
        wanted: ``TRAINING`` or ``VALIDATION``.

    Raises:
        UserError: some files belong to other parts and the rest is not named as the wanted one.
    """
    others = [path for path, part in parts.items() if part not in ("", wanted)]
    mine = [path for path, part in parts.items() if part == wanted]
    unnamed = [path for path, part in parts.items() if not part]
    if not others:
        return list(parts), Counter()
    if not mine or unnamed:
        named = ", ".join(f"{path} ({parts[path]})" for path in others[:_SHOWN])
        rest = f"; {_some(unnamed)} name no part" if unnamed else ""
        raise UserError(
            f"{base} holds more than {wanted} images, and their names do not tell which are which",
            f"{len(others)} files are of other parts, such as {named}; {len(mine)} are named as {wanted} files{rest}",
            f"give a folder that holds the {wanted} images only, or move each part into a folder called train, val or test",
        )
    return mine, Counter(parts[path] for path in others)


def _some(paths: Sequence[str]) -> str:
    return f"{len(paths)}, such as {', '.join(paths[:_SHOWN])}"
