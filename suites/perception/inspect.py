"""What ``doctor`` says about COCO and ADE20K: annotation files, counts, class tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.api import DataMissing, DataReport, decode_sample, list_files, sample_paths
from suites.perception.cards import (
    AdeCard,
    CocoCard,
    ade_classes,
    ade_stems,
    check_count,
    coco_classes,
    read_coco,
    require,
    settle_ade,
    settle_coco,
)
from suites.perception.pictures import check_label_values, check_labels

PAIRS = 3
"""Pictures of each part of ADE20K that are decoded with their label maps."""


def coco(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """Parse both annotation files and check their images, categories and files."""
    expected = settle_coco(root, CocoCard.model_validate(dict(card)))
    numbers, sample = [], []
    for part, file, folder, count in (
        ("train", expected.train_json, expected.train_folder, expected.train_images),
        ("val", expected.val_json, expected.val_folder, expected.val_images),
    ):
        content = read_coco(root, file)
        classes = coco_classes(content, expected)
        check_count(len(content["images"]), count, f"COCO {part}")
        there = set(list_files(require(root / folder, "COCO")))
        missing = [image["file_name"] for image in content["images"] if image["file_name"] not in there]
        if missing:
            raise DataMissing(
                f"{name}: {len(missing)} {part} images are missing",
                f"first {root / folder / missing[0]}",
                "unpack the images again",
            )
        numbers.append(f"{len(content['images'])} {part} images with {len(content['annotations'])} objects")
        sample += [str(root / folder / image["file_name"]) for image in content["images"]]
    return DataReport(
        f"{expected.train_json} and {expected.val_json}",
        ", ".join(numbers),
        f"{len(classes)} categories",
        sample_paths(sample),
    )


def ade20k(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """Count pictures and label maps of both parts, read the class table, and look into a few label maps."""
    expected, root = AdeCard.model_validate(dict(card)), settle_ade(root)
    classes = ade_classes(root, expected)
    numbers, pairs = [], []
    for part, folder, labels, count in (
        ("training", expected.train_folder, expected.train_labels, expected.train_images),
        ("validation", expected.val_folder, expected.val_labels, expected.val_images),
    ):
        stems = ade_stems(root, folder)
        check_count(len(stems), count, f"ADE20K {part}")
        maps = {Path(name).stem for name in list_files(require(root / labels, "ADE20K"), {".png"})}
        missing = [stem for stem in stems if stem not in maps]
        if missing:
            raise DataMissing(
                f"{name}: {len(missing)} {part} label maps are missing",
                f"first {root / labels / missing[0]}.png",
                "unpack the annotations again",
            )
        numbers.append(f"{len(stems)} {part} images with label maps")
        pairs += [(root / folder / f"{stem}.jpg", root / labels / f"{stem}.png") for stem in sample_paths(stems, PAIRS)]
    whole = [
        pair for pair in pairs if decode_sample(root, tuple(map(str, pair)))[0] == len(pair)
    ]  # the others are reported
    check_labels(whole, "ADE20K")
    check_label_values([labels for _, labels in whole], len(classes), "ADE20K")
    return DataReport(
        f"ADEChallengeData2016 in {root}",
        ", ".join(numbers),
        f"{len(classes)} classes of {expected.object_info}",
        tuple(str(path) for pair in pairs for path in pair),
    )
