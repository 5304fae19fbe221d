"""Data sets of the transfer protocol: public layouts, counts, errors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import DataMissing, UserError
from suites.transfer.cards import DATASETS, PUBLIC_CARDS, card_for
from suites.transfer.data import file_md5_report
from suites.transfer.readers import read
from suites.transfer.splits import toolbox_split


def test_transfer_data_every_layout(written):
    name, dataset, root, card = written
    images = read(root, card)
    assert len(images.classes) == card.classes
    assert (len(images.trainval), len(images.test)) == (card.trainval, card.test)
    assert not set(images.trainval.paths) & set(images.test.paths)
    for part in (images.trainval, images.test):
        assert part.labels.dtype == np.int64
        assert set(part.labels.tolist()) == set(range(card.classes))
        assert all((images.root / path).is_file() for path in part.paths), name
    has_val = dataset in ("aircraft", "dtd", "eurosat", "flowers")
    assert (images.official_val is not None) == has_val


def test_transfer_data_aircraft_names(layout):
    images = read(*layout("aircraft"))
    assert images.classes == ("707-320", "Cessna 172", "F/A-18")
    assert images.trainval.paths[:2] == ("images/0000001.jpg", "images/0000002.jpg")
    assert images.trainval.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.official_val.tolist() == [False] * 3 + [True] * 3


def test_transfer_data_sun_nested_classes(layout):
    images = read(*layout("sun397"))
    assert images.classes == ("a/abbey", "a/apartment_building/outdoor", "z/zen_garden")
    nested = [path for path, label in zip(images.test.paths, images.test.labels, strict=True) if label == 1]
    assert all(path.startswith("a/apartment_building/outdoor/sun_") for path in nested) and len(nested) == 2


@pytest.mark.parametrize("name", ["cars-split", "cars-split-nested"])
def test_transfer_data_cars_split_labels(layout, name):
    images = read(*layout(name))
    assert images.classes[0] == "AM General Hummer SUV 2000"
    assert images.trainval.labels.tolist() == [1, 0, 1, 0]
    assert images.trainval.paths[0].endswith("00001.jpg")


def test_transfer_data_cars_consolidated_labels(layout):
    images = read(*layout("cars-consolidated"))
    assert images.layout == "consolidated"
    assert images.trainval.paths == tuple(f"car_ims/{i:06d}.jpg" for i in (1, 2, 5, 6))
    assert images.trainval.labels.tolist() == [0, 0, 1, 1]


def test_transfer_data_cars_mixed_mirror(layout, tmp_path):
    """A mirror with consolidated annotations beside split images is read by its split annotations."""
    root, card = layout("cars-split")
    (root / "cars_annos.mat").write_bytes(b"names that fit no image here")
    assert read(root, card).layout == "split"


def test_transfer_data_cars_unlabelled_test(layout):
    root, card = layout("cars-split")
    (root / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(DataMissing, match="withlabels"):
        read(root, card)
    shutil.copy(root / "devkit" / "cars_test_annos.mat", root / "cars_test_annos_withlabels.mat")
    with pytest.raises(UserError, match="no field 'class'"):
        read(root, card)


def test_transfer_data_flowers_order(layout):
    root, card = layout("flowers")
    images = read(root, card)
    assert images.trainval.paths[:2] == ("jpg/image_00002.jpg", "jpg/image_00001.jpg")
    assert images.trainval.labels.tolist() == [1, 0, 0, 1]
    assert len(images.test) > len(images.trainval)
    assert len(file_md5_report(PUBLIC_CARDS["flowers"], images.root)) == 2
    assert file_md5_report(card, images.root) == ()


def test_transfer_data_pets_case_insensitive_order(layout):
    assert read(*layout("pets")).classes == ("Abyssinian", "american_bulldog", "Bengal")


def test_transfer_data_food_sorted(layout):
    images = read(*layout("food101-json"))
    assert images.classes == ("apple_pie", "waffles")
    assert images.trainval.paths[0] == "images/apple_pie/0.jpg"


def test_transfer_data_dtd_partition(layout):
    root, card = layout("dtd-doubled")
    assert read(root, card).classes == ("banded", "zigzagged")
    with pytest.raises(UserError, match="expected 2, found 1"):
        read(root, card.model_copy(update={"partition": 2}))


def test_transfer_data_wrong_count_names_expected_and_found(layout):
    root, card = layout("food101-txt")
    with pytest.raises(UserError) as caught:
        read(root, card.model_copy(update={"trainval": 75750, "title": "Food-101"}))
    text = str(caught.value)
    assert "Food-101" in text and "expected 75750" in text and "found 4" in text


def test_transfer_data_missing_image(written):
    _, _, root, card = written
    images = read(root, card)
    (images.root / images.test.paths[-1]).unlink()
    if card.dataset == "eurosat":  # without split files a missing image is a wrong count
        with pytest.raises(UserError, match="expected 24, found 23"):
            read(root, card)
        return
    with pytest.raises(DataMissing) as caught:
        read(root, card)
    assert card.name in str(caught.value) and images.test.paths[-1] in str(caught.value)


def test_transfer_data_missing_root_and_file(layout, tmp_path):
    root, card = layout("pets")
    with pytest.raises(DataMissing, match="does not exist"):
        read(tmp_path / "nowhere", card)
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").unlink()
    with pytest.raises(DataMissing, match=r"test\.txt"):
        read(root, card)


def test_transfer_data_overlap_is_refused(layout):
    root, card = layout("pets")
    folder = root / "oxford-iiit-pet" / "annotations"
    shutil.copy(folder / "trainval.txt", folder / "test.txt")
    with pytest.raises(UserError, match="disjoint"):
        read(root, card)


def test_transfer_data_incomplete_labels(layout):
    root, card = layout("pets")
    path = root / "oxford-iiit-pet" / "annotations" / "test.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "Bengal" not in line))
    with pytest.raises(UserError, match="labels of the test part"):
        read(root, card.model_copy(update={"test": None}))


def test_transfer_data_fingerprint_follows_content(layout):
    root, card = layout("pets")
    before = read(root, card).listing_hash
    path = root / "oxford-iiit-pet" / "annotations" / "trainval.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    assert read(root, card).listing_hash == before
    path.write_text("\n".join(rows[:-1]) + "\n")
    assert read(root, card.model_copy(update={"trainval": None})).listing_hash != before


def test_transfer_data_cards():
    assert card_for("flowers", {}) is PUBLIC_CARDS["flowers"] and len(PUBLIC_CARDS["flowers"].md5) == 2
    card = card_for("flowers", {"classes": 5, "trainval": None, "test": None})
    assert (card.classes, card.test, card.md5) == (5, None, {})
    with pytest.raises(UserError, match="clases"):
        card_for("dtd", {"clases": 5})
    with pytest.raises(UserError, match="unknown transfer data set"):
        card_for("cifar", {})


VAL_20 = {"aircraft": 1300, "cars196": 1546, "dtd": 752, "eurosat": 3780, "flowers": 408, "pets": 734, "food101": 15150,
          "sun397": 3970}  # fmt: skip


@pytest.mark.skipif(
    "HARNESS_DATA" not in os.environ, reason="wants HARNESS_DATA: a folder with the eight public data sets"
)
@pytest.mark.parametrize("dataset", DATASETS)
def test_transfer_data_real(dataset):
    root = Path(os.environ["HARNESS_DATA"]) / dataset
    images = read(root, PUBLIC_CARDS[dataset])
    fold = toolbox_split(dataset, images.trainval.paths, images.trainval.labels, images.classes, 22)
    assert len(fold.val) == VAL_20[dataset]
    if dataset == "flowers":
        assert file_md5_report(PUBLIC_CARDS[dataset], images.root) == ()
        assert images.trainval.paths[:3] == tuple(f"jpg/image_{i:05d}.jpg" for i in (6765, 6755, 6768))
        counts = np.bincount(images.test.labels)
        assert (counts.min(), counts.max()) == (20, 238)
    if dataset == "cars196":
        counts = np.bincount(images.trainval.labels)
        assert (counts.min(), counts.max()) == (24, 68)
        first = next(i for i, path in enumerate(images.trainval.paths) if path.endswith("/00001.jpg"))
        assert images.layout != "split" or images.trainval.labels[first] == 13
        assert images.classes[0] == "AM General Hummer SUV 2000"
