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
    **dict.fromkeys(("test", "testing"), TEST),
}
"""Words of file and folder names (lower case) that name a part."""
FOLDERS: Mapping[str, tuple[str, ...]] = {
    TRAINING: ("train", "training", "Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/train"),
    VALIDATION: ("val", "validation", "valid", "val.X", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val"),
}
"""Where distributed archives keep the images of a part; the long ones are Kaggle's copy of ILSVRC 2012."""
_SHOWN = 3


def part_of_file(path: str) -> str:
    """Return the part that the name of a container tells, such as ``imagenet1k-train-0000.tar`` or ``default/test/0.parquet``.

    The last component that holds a word of ``WORDS`` decides; one that holds words of two parts tells nothing. Empty: none.
    """
    for component in reversed(PurePosixPath(path).with_suffix("").parts):
        found = {WORDS[word] for word in re.findall(r"[a-z]+", component.lower()) if word in WORDS}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


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
