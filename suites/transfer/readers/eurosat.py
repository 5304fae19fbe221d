"""EuroSAT RGB: class folders and no distributed split.

The toolbox draws the test set with an unseeded generator, so it differs from run to run. Here it is a function of the
file names and one fixed seed: per class the names are put into a seeded order, the first go to test, the next to
validation, the rest to training. Every backbone is measured on the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.api import UserError, find_root, list_files, list_folders
from suites.transfer.cards import DerivedSplit, TransferCard
from suites.transfer.data import LabelledImages, Part, checked
from suites.transfer.splits import seeded_order

_PLACES = ("", "2750", "eurosat/2750", "EuroSAT/2750", "EuroSAT", "EuroSAT_RGB", "eurosat", "eurosat/EuroSAT_RGB")
_SUFFIXES = (".jpg", ".jpeg")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read EuroSAT with the card's derived split; classes are the sorted folder names."""
    if card.derived is None:
        raise UserError(
            f"{card.name}: the card has no split",
            "this data set is distributed without one",
            "give the card 'derived' with test_per_class and val_per_class",
        )
    base = find_root(
        card.name, root, _PLACES, lambda folder: len(_class_files(folder)) > 1, "one folder of JPEG files per class"
    )
    return checked(derive_split(base, _class_files(base), card, card.derived), card)


def _class_files(base: Path) -> dict[str, list[str]]:
    found = {name: [f"{name}/{file}" for file in list_files(base / name, _SUFFIXES)] for name in list_folders(base)}
    return {name: listed for name, listed in found.items() if listed}


def derive_split(base: Path, listed: dict[str, list[str]], card: TransferCard, rule: DerivedSplit) -> LabelledImages:
    """Return the split of ``listed`` (class name to file names); it depends on names and the rule's seed only."""
    parts: dict[str, list[tuple[str, int]]] = {"test": [], "val": [], "train": []}
    first_train = rule.test_per_class + rule.val_per_class
    for label, (name, paths) in enumerate(sorted(listed.items())):
        if len(paths) <= first_train:
            raise UserError(
                f"{card.name}: class {name} is too small",
                f"expected more than {first_train} images, found {len(paths)}",
                "use the complete public release, or a card with smaller parts",
            )
        ordered = [paths[i] for i in seeded_order(paths, card.dataset, "derived split", name, rule.seed)]
        parts["test"] += [(path, label) for path in ordered[: rule.test_per_class]]
        parts["val"] += [(path, label) for path in ordered[rule.test_per_class : first_train]]
        parts["train"] += [(path, label) for path in ordered[first_train:]]
    trainval = sorted(parts["train"]) + sorted(parts["val"])
    official = np.arange(len(trainval)) >= len(parts["train"])
    return LabelledImages(
        card.dataset,
        f"class folders, split derived with seed {rule.seed}",
        base,
        tuple(sorted(listed)),
        _part(trainval),
        _part(sorted(parts["test"])),
        official,
    )


def _part(rows: list[tuple[str, int]]) -> Part:
    return Part(tuple(path for path, _ in rows), np.array([label for _, label in rows], dtype=np.int64))
