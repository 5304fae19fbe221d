"""Splits of the transfer sets and the subsets of few-shot runs."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import UserError
from suites.transfer.cards import PUBLIC_CARDS
from suites.transfer.readers import read
from suites.transfer.readers.eurosat import derive_split
from suites.transfer.splits import (
    nested_subset,
    official_split,
    stratified_folds,
    subset_size,
    toolbox_split,
    validation_folds,
)

EUROSAT_COUNTS = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
PETS_SPECIAL = {1: 93, 4: 96, 8: 96, 22: 96, 26: 99}


def problem(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{label}/{i:05d}.jpg" for label, count in enumerate(counts) for i in range(count)]
    return names, labels, [f"class {i}" for i in range(len(counts))]


@pytest.mark.parametrize(
    ("dataset", "counts", "val"),
    [
        ("aircraft", [67] * 67 + [66] * 33, 1300),
        ("dtd", [80] * 47, 752),
        ("flowers", [20] * 102, 408),
        ("pets", [PETS_SPECIAL.get(i, 100) for i in range(37)], 734),
        ("food101", [750] * 101, 15150),
        ("sun397", [50] * 397, 3970),
        ("eurosat", [n - 810 for n in EUROSAT_COUNTS.values()], 3780),
    ],
)
def test_transfer_splits_toolbox_sizes(dataset, counts, val):
    names, labels, classes = problem(counts)
    assert len(names) == PUBLIC_CARDS[dataset].trainval
    fold = toolbox_split(dataset, names, labels, classes, 22)
    assert len(fold.val) == val and len(fold.fit) == len(names) - val
    assert not set(fold.val) & set(fold.fit)
    assert set(labels[fold.val]) == set(range(len(counts)))


def test_transfer_splits_small_classes_keep_one():
    names, labels, classes = problem([2, 50, 4])
    fold = toolbox_split("x", names, labels, classes, 0)
    assert np.bincount(labels[fold.val]).tolist() == [1, 10, 1]  # the small first class changes nothing for the second
    with pytest.raises(UserError, match="single image"):
        toolbox_split("x", *problem([1, 5]), 0)


def test_transfer_splits_do_not_depend_on_order_or_other_classes():
    names, labels, classes = problem([20, 30])
    fold = toolbox_split("x", names, labels, classes, 3)
    chosen = {names[i] for i in fold.val}
    shuffle = np.random.default_rng(0).permutation(len(names))
    again = toolbox_split("x", [names[i] for i in shuffle], labels[shuffle], classes, 3)
    assert {names[shuffle[i]] for i in again.val} == chosen
    other = toolbox_split("x", names, labels, classes, 4)
    assert {names[i] for i in other.val} != chosen


def test_transfer_splits_same_in_another_process():
    code = (
        "import hashlib; import numpy as np\n"
        "from suites.transfer.splits import toolbox_split\n"
        "names = [f'{i:03d}' for i in range(60)]\n"
        "fold = toolbox_split('dtd', names, np.arange(60) % 3, ['a', 'b', 'c'], 22)\n"
        "print(hashlib.sha256(fold.val.astype('<i8').tobytes()).hexdigest())"
    )
    root = Path(__file__).parents[3]
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    }
    fold = toolbox_split("dtd", [f"{i:03d}" for i in range(60)], np.arange(60) % 3, ["a", "b", "c"], 22)
    assert found == {hashlib.sha256(fold.val.astype("<i8").tobytes()).hexdigest() + "\n"}
    assert found == {"88a13ceb237f646404692095b56c26e14b1f006770e971b84634e7e5e4a31ef6\n"}


def test_transfer_splits_eurosat_manifest():
    """The derived split of the real file names is pinned; it is a function of names and seed only."""
    card = PUBLIC_CARDS["eurosat"]
    files = {name: sorted(f"{name}/{name}_{i}.jpg" for i in range(1, n + 1)) for name, n in EUROSAT_COUNTS.items()}
    images = derive_split(Path("."), files, card, card.derived)
    assert (len(images.trainval), len(images.test), int(images.official_val.sum())) == (18900, 8100, 5400)
    assert np.bincount(images.test.labels).tolist() == [810] * 10
    assert not set(images.test.paths) & set(images.trainval.paths)
    backwards = {name: files[name] for name in reversed(files)}
    assert derive_split(Path("elsewhere"), backwards, card, card.derived).listing_hash == images.listing_hash
    assert images.listing_hash == "08116f8e10bee9f600fd44d0c06b63a7f3eaf53686ccc6ac23051144d22809a5"


def test_transfer_splits_eurosat_one_side_again(layout):
    root, card = layout("eurosat")
    first, second = read(root, card), read(root, card)
    assert not set(first.test.paths) & set(second.trainval.paths)
    assert first.test.paths == second.test.paths


def test_transfer_splits_eurosat_too_small(layout):
    root, card = layout("eurosat")
    rule = card.derived.model_copy(update={"test_per_class": 11})
    with pytest.raises(UserError, match="expected more than 13 images, found 12"):
        read(root, card.model_copy(update={"derived": rule}))


def test_transfer_splits_official(layout):
    images = read(*layout("flowers"))
    fold = official_split("flowers", images.official_val)
    assert fold.fit.tolist() == [0, 1] and fold.val.tolist() == [2, 3]
    with pytest.raises(UserError, match="no distributed validation"):
        official_split("pets", None)


def test_transfer_splits_folds_cover_everything_once():
    names, labels, classes = problem([7, 9, 3])
    folds = stratified_folds("x", names, labels, classes, 1)
    assert len(folds) == 3
    assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(19))
    for fold in folds:
        assert set(labels[fold.fit]) == set(labels[fold.val]) == {0, 1, 2}
    assert len(validation_folds("x", *problem([10, 12]), 0)) == 1
    assert len(validation_folds("x", *problem([9, 12]), 0)) == 5
    with pytest.raises(UserError, match="one image per class"):
        stratified_folds("x", *problem([1, 4]), 0)


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [
        (20, 0.5, 10),
        (20, 0.2, 4),
        (20, 0.1, 2),
        (50, 0.1, 5),
        (80, 0.1, 8),
        (67, 0.5, 34),
        (66, 0.2, 13),
        (66, 0.1, 7),
        (24, 0.5, 12),
        (24, 0.2, 5),
        (24, 0.1, 2),
        (750, 0.1, 75),
        (1190, 0.5, 595),
        (25, 0.1, 3),
        (5, 0.1, 2),
        (1, 0.5, 1),
        (17, 1.0, 17),
    ],
)
def test_transfer_few_shot_sizes(count, fraction, expected):
    assert subset_size(count, fraction=fraction) == expected


def test_transfer_few_shot_shots_and_bad_values():
    assert [subset_size(3, shots=k) for k in (1, 2, 4)] == [1, 2, 3]
    for bad in ({"fraction": 0.0}, {"fraction": 1.5}, {"shots": 0}):
        with pytest.raises(UserError):
            subset_size(10, **bad)
    with pytest.raises(ValueError, match="either"):
        subset_size(10)


def test_transfer_few_shot_nested_prefixes():
    names, labels, classes = problem([20, 37, 66])
    subsets = [set(nested_subset("x", names, labels, classes, 5, fraction=f)) for f in (0.1, 0.2, 0.5, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(subsets))
    assert subsets[-1] == set(range(123))
    shots = [set(nested_subset("x", names, labels, classes, 5, shots=k)) for k in (1, 2, 4, 8, 16)]
    assert all(small < large for small, large in itertools.pairwise(shots))
    assert [len(s) for s in shots] == [3, 6, 12, 24, 48]
    assert set(nested_subset("x", names, labels, classes, 6, shots=4)) != shots[2]
    chosen = nested_subset("x", names, labels, classes, 5, fraction=0.5)
    assert np.bincount(labels[chosen]).tolist() == [10, 19, 33]
