"""SUN397: nested class folders, and partition files that are distributed separately."""

from __future__ import annotations

from pathlib import Path

from harness.api import find_root
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked, label_index, read_lines

_IMAGES = ("", "SUN397", "sun397", "SUN397/SUN397", "sun397/SUN397")
_PARTITIONS = ("", "Partitions", "SUN397", "SUN397/Partitions", "sun397", "sun397/Partitions")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read one partition of SUN397; a class is a path such as ``a/apartment_building/outdoor``."""
    lists = find_root(
        card.name,
        root,
        _PARTITIONS,
        lambda folder: (folder / "ClassName.txt").is_file(),
        "ClassName.txt and Training_01.txt (Partitions.zip)",
    )
    classes = tuple(sorted(line.strip("/") for line in read_lines(card, lists / "ClassName.txt")))
    base = find_root(
        card.name,
        root,
        _IMAGES,
        lambda folder: bool(classes) and (folder / classes[0]).is_dir(),
        f"the image folder {classes[0] if classes else 'a/abbey'}",
    )
    trainval, test = (_part(card, lists, classes, name) for name in ("Training", "Testing"))
    return checked(LabelledImages(card.dataset, "SUN397 with Partitions", base, classes, trainval, test), card)


def _part(card: TransferCard, lists: Path, classes: tuple[str, ...], name: str) -> Part:
    path = lists / f"{name}_{card.partition:02d}.txt"
    files = [line.lstrip("/") for line in read_lines(card, path)]
    labels = label_index(card, classes, [file.rpartition("/")[0] for file in files], path.name)
    return Part(tuple(files), labels)
