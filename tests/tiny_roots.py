"""Tiny data roots in the public layouts: what a profile for full-size data reads, at a few images each.

Every writer gives back the card that tells the counts apart from the public data set's.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.microworld.datasets import perception, transfer
from harness.microworld.datasets.pictures import class_names
from suites.bias.cards import CueConflictCard, FocusCard, In9Card

TRANSFER = tuple(transfer.WRITERS)


def save_image(path, colour, size=(24, 24), mode="RGB", noise=0):
    """Save a flat image of a colour; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), colour, dtype=np.int16)
    if noise:
        pixels += np.random.default_rng(noise).integers(-8, 9, pixels.shape).astype(np.int16)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path)
    return path


def imagenet(root: Path, class_ids: Sequence[str], per_class: int, validation: bool = False) -> None:
    """Write class folders of one noise picture each, under the names of ImageNet's training or validation files."""
    for place, class_id in enumerate(class_ids):
        stream = io.BytesIO()
        pixels = np.random.default_rng(place).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, format="JPEG")
        folder = root / class_id
        folder.mkdir(parents=True)
        for number in range(per_class):
            valid = f"ILSVRC2012_val_{per_class * place + number + 1:08d}"
            (folder / f"{valid if validation else f'{class_id}_{number}'}.JPEG").write_bytes(stream.getvalue())


def transfer_set(root: Path, name: str, trainval: int, test: int) -> dict[str, Any]:
    """Write one of the eight transfer sets with so many images of each class, more or fewer where the public set is uneven."""
    transfer.WRITERS[name](root, trainval, test)
    total = transfer.sizes(name, trainval, test)
    card: dict[str, Any] = {"classes": len(class_names(name)), "trainval": total[0], "test": total[1]}
    return card | ({"derived": {"test_per_class": test, "val_per_class": 1}} if name == "eurosat" else {})


def coco_set(root: Path, train: int, val: int) -> dict[str, Any]:
    """Write COCO with the categories of the embedded world."""
    perception.write_coco(root, train, val)
    return {"classes": None, "train_images": train, "val_images": val}


def ade_set(root: Path, train: int, val: int) -> dict[str, Any]:
    """Write ADE20K with the classes of the embedded world."""
    perception.write_ade(root, train, val)
    return {"n_classes": len(perception.ADE_CLASSES), "train_images": train, "val_images": val}


def cue_set(root: Path) -> tuple[Path, CueConflictCard]:
    """Write one stimulus per ordered pair of the public categories."""
    names = list(CueConflictCard.load().categories)
    for i, shape in enumerate(names):
        for j, other in enumerate(names):
            save_image(root / shape / f"{shape}1-{other}1.png", (i * 15, j * 15, 99), (24, 24))
    card = {"image_size": 24, "expected_images": 256, "expected_conflict": 240}
    return root, CueConflictCard.load(card)


def focus_set(root: Path) -> tuple[Path, FocusCard]:
    """Write two images per category and number of uncommon attributes; frogs have none at night."""
    rows = []
    for i, (name, table) in enumerate(FocusCard.load().uncommon.items()):
        for k in range(4 if table.time else 3):
            for copy in range(2):
                place = ", ".join(
                    (*table.locations[:1], "street" if name in ("truck", "car") else "none")[: 1 + (k > 0)]
                )
                line = (f"/{name}-day/{k}{copy}.jpg", name, "night" if k > 2 else "day", "snowing" if k > 1 else "none",
                        place if k else "none", "no")  # fmt: skip
                rows.append(line)
                save_image(root / line[0][1:], (i * 20, k * 60, copy * 100), (30, 26), noise=len(rows))
    connection = sqlite3.connect(root / "annotations.db")
    connection.execute("CREATE TABLE annotations (file_name TEXT PRIMARY KEY, category TEXT, time TEXT, weather TEXT, "
                       "locations TEXT, humans TEXT)")  # fmt: skip
    connection.executemany("INSERT INTO annotations VALUES (?,?,?,?,?,?)", rows)
    connection.commit()
    connection.close()
    return root, FocusCard.load({"image_size": 24, "expected_images": len(rows)})


def in9_set(root: Path) -> tuple[Path, In9Card]:
    """Write two foregrounds per coarse label in the three variations that BG_Gap reads."""
    card = In9Card.load({"image_size": 24, "expected_per_variation": 18})
    for label, folder in enumerate(card.folders):
        for i in range(2):
            key = f"n0{label:07d}_{i:05d}"
            mixed = f"fg_{key}_bg_n01614925_{i:05d}"
            for variation, name in (("original", key), ("mixed_same", mixed), ("mixed_rand", mixed)):
                path = root / "bg_challenge" / variation / "val" / folder / f"{name}.JPEG"
                save_image(path, (label * 25, i * 90, len(variation) * 9))
    return root, card


BIAS: dict[str, Callable[[Path], tuple[Path, Any]]] = {"cue-conflict": cue_set, "focus": focus_set, "in9": in9_set}
