"""What ``doctor`` says about the transfer data sets and the validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.api import DataMissing, DataReport, list_images, sample_paths
from suites.transfer.cards import card_for
from suites.transfer.data import file_md5_report
from suites.transfer.readers import read

ARCHIVES = {
    "eurosat": {"EuroSAT.zip": "c8fa014336c82ac7804f0398fcb19387"},
    "in-val": {
        "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90404af021442c21a62c3abf",
        "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    },
}
"""MD5 of public archives, checked if they are still in the root or next to it."""
_BLOCK = 2**22


def transfer(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """Read the lists of a transfer data set and compare annotation files and archives with the known hashes."""
    expected = card_for(name, card)
    images = read(root, expected)
    wrong = file_md5_report(expected, images.root)
    verified = () if wrong else tuple(sorted(expected.md5))
    good, bad = archives(name, root)
    if expected.listing:
        verified = (*verified, f"the list of files {images.listing_hash[:12]}")
    digest = hashlib.sha256("\n".join(images.classes).encode()).hexdigest()[:12]
    paths = [f"{images.root / path}" for path in (*images.trainval.paths, *images.test.paths)]
    return DataReport(
        f"{images.layout} in {images.root}",
        f"{len(images.trainval)} trainval and {len(images.test)} test images",
        f"{len(images.classes)} classes, {images.classes[0]} to {images.classes[-1]} ({digest})",
        sample_paths(paths),
        (*verified, *good),
        (*wrong, *bad),
    )


def validation(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """Inspect the validation images; every class folder counts, whatever head will be measured."""
    from harness.api import load_classes
    from suites.imagefolder import listed_classes, own_classes, read_validation, unpublished_counts
    from suites.in_domain import ValidationCard

    expected = ValidationCard.model_validate(dict(card))
    ids = () if expected.classes else own_classes(root)
    words = f"{len(ids)} class folders of no shipped list"
    if not ids:
        listed = load_classes(expected.classes) if expected.classes else listed_classes(root)
        ids, words = listed.ids, f"{len(listed)} classes of {listed.name} ({listed.ids_hash[:12]})"
    images = read_validation(root, ids, name=name, per_class=expected.per_class, numbered=expected.numbered)
    good, bad = archives(name, root)
    counts = unpublished_counts(images.labels, ids)
    outside = f", {images.outside} of other classes" if images.outside else ""
    return DataReport(
        images.layout,
        f"{len(images.paths)} images{outside}" + (f", {counts}" if counts else ""),
        words,
        sample_paths([str(images.root / path) for path in images.paths]) if images.read is None else (),
        good,
        bad,
    )


def validation_layout(name: str, root: Path, card: Mapping[str, Any]) -> None:
    """Refuse validation images that no head could be measured on: an unknown layout, labels, or counts of every class.

    Raises:
        DataMissing, UserError: as ``read_validation``.
    """
    from harness.api import load_classes
    from suites.imagefolder import check_layout, own_classes
    from suites.in_domain import ValidationCard

    expected = ValidationCard.model_validate(dict(card))
    ids = (
        load_classes(expected.classes).ids if expected.classes else own_classes(root) or load_classes("imagenet1k").ids
    )
    try:
        check_layout(root, ids, name, expected.per_class, expected.numbered)
    except DataMissing:
        if not _packed_labels(root):
            raise


def _packed_labels(root: Path) -> bool:
    """Return whether packed files hold labels, which may be a head's own classes."""
    try:
        listing = list_images(root, "validation")
    except DataMissing:
        return False
    return listing.layout != "class folders" and len({entry.folder for entry in listing.entries}) > 1


def archives(name: str, root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the archives with the expected MD5, and a line for each that differs."""
    good, bad = [], []
    for file, expected in ARCHIVES.get(name, {}).items():
        path = next((place / file for place in (root, root.parent) if (place / file).is_file()), None)
        if path is None:
            continue
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() == expected:
            good.append(file)
        else:
            bad.append(f"{file} has MD5 {digest.hexdigest()}, expected {expected}")
    return tuple(good), tuple(bad)
