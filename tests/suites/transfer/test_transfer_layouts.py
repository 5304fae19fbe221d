"""Data sets of the transfer protocol: layouts in circulation with their awkward cases, split oracles, and what `doctor` says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cli.datacheck import data_findings
from harness.core.errors import DataMissing, UserError
from suites.transfer.cards import DATASETS, PUBLIC_CARDS
from suites.transfer.features import extract_features
from suites.transfer.inspect import archives
from suites.transfer.readers import read
from suites.transfer.readers.eurosat import derive_split
from suites.transfer.splits import membership, official_split, toolbox_split
from suites.transfer.transforms import probe_transform

SIZES = list(csv.DictReader((Path(__file__).parent / "data" / "sizes.csv").open()))
EUROSAT = {"AnnualCrop": 3000, "Forest": 3000, "HerbaceousVegetation": 3000, "Highway": 2500, "Industrial": 2500,
           "Pasture": 2000, "PermanentCrop": 2500, "Residential": 3000, "River": 2500, "SeaLake": 3000}  # fmt: skip


class Means:
    """Features: channel means."""

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        return x.mean((2, 3))


def test_transfer_data_sizes_of_the_oracle():
    assert [row["dataset"] for row in SIZES] == list(DATASETS)
    for row in SIZES:
        card = PUBLIC_CARDS[row["dataset"]]
        expected = (int(row["classes"]), int(row["toolbox_trainval"]), int(row["toolbox_test"]))
        assert (card.classes, card.trainval, card.test) == expected
        assert int(row["toolbox_train_80"]) + int(row["toolbox_val_20"]) == card.trainval
    assert sum(int(row["toolbox_trainval"]) + int(row["toolbox_test"]) for row in SIZES) == 215063


def test_transfer_data_one_more_folder_of_any_name(written, tmp_path_factory):
    """Mirrors unpack into folders of their own; one nested level is searched, two copies are refused."""
    name, _, root, card = written
    outer = tmp_path_factory.mktemp("outer")
    root.rename(outer / "a mirror, 2019")
    images = read(outer, card)
    assert len(images.trainval) == card.trainval and (images.root / images.test.paths[0]).is_file(), name


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("dtd-doubled", "dtd/dtd/labels/val1.txt", b"banded/banded_\xff.jpg\n", "val1.txt is damaged"),
        ("food101-json", "food-101/meta/train.json", b'{"apple_pie": 3}', "'apple_pie' holds '3', expected a list"),
        (
            "food101-json",
            "food-101/meta/train.json",
            b'{"apple_pie": "abc"}',
            "'apple_pie' holds 'abc', expected a list",
        ),
        ("food101-json", "food-101/meta/train.json", b"[1]", "it holds a list"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", b"Abyssinian_100 one 1 1\n", "test.txt is damaged"),
    ],
)
def test_transfer_data_damaged_lists_are_user_errors(layout, name, file, content, words):
    root, card = layout(name)
    (root / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read(root, card)


def test_transfer_data_two_copies_are_refused(layout, tmp_path):
    import shutil

    root, card = layout("pets")
    for copy in ("one", "two"):
        shutil.copytree(root / "oxford-iiit-pet", tmp_path / "mirrors" / copy / "oxford-iiit-pet")
    with pytest.raises(UserError, match="several copies") as caught:
        read(tmp_path / "mirrors", card)
    assert "one, two" in caught.value.why


def test_transfer_data_awkward_images_of_every_layout(written):
    """Grey, CMYK, palette and truncated files are read; one that is no picture is refused by name."""
    _, dataset, root, card = written
    images = read(root, card)
    paths = images.trainval.paths
    for path, mode in zip(paths, ("L", "CMYK", "L"), strict=False):
        Image.open(images.root / path).convert(mode).save(images.root / path, "JPEG")
    Image.open(images.root / paths[2]).convert("P").save(images.root / paths[2], "PNG")  # a PNG that says it is a JPEG
    whole = (images.root / images.test.paths[0]).read_bytes()
    (images.root / images.test.paths[0]).write_bytes(whole[:-20])
    again = read(root, card)
    for part in (again.trainval, again.test):
        found = extract_features(Means(), again.root, part.paths, part.labels, probe_transform(16), name=dataset)
        assert found.x.shape == (len(part), 3) and np.isfinite(found.x).all()
    assert len(found.notes) == 1 and "1 file(s) truncated" in found.notes[0] and images.test.paths[0] in found.notes[0]
    (images.root / images.test.paths[1]).write_bytes(b"no picture")
    part = again.test
    with pytest.raises(UserError, match="cannot be read as an image") as caught:
        extract_features(Means(), again.root, part.paths, part.labels, probe_transform(16), name=dataset)
    assert images.test.paths[1] in caught.value.what


@pytest.mark.parametrize("name", ["cars-consolidated", "cars-split", "flowers"])
def test_transfer_data_corrupt_matlab_file_is_one_line(layout, name):
    root, card = layout(name)
    path = next(iter(sorted(root.rglob("*.mat"))))
    path.write_bytes(b"MATLAB 5.0 MAT-file, but no more")
    with pytest.raises(UserError, match="cannot be read") as caught:
        read(root, card)
    assert path.name in caught.value.what and "\n" not in caught.value.what


def test_transfer_data_cars_mirror_without_devkit(layout):
    import shutil

    root, card = layout("cars-split-nested")
    shutil.rmtree(root / "devkit")
    (root / "cars_annos.mat").write_bytes(b"of the other distribution")
    with pytest.raises(DataMissing, match="does not fit these images"):
        read(root, card)


def test_transfer_data_cars_consolidated_nested_images(layout):
    root, card = layout("cars-consolidated")
    (root / "car_ims").rename(root / "inner")
    (root / "car_ims").mkdir()
    (root / "inner").rename(root / "car_ims" / "car_ims")
    assert read(root, card).trainval.paths[0] == "car_ims/car_ims/000001.jpg"


def test_transfer_data_eurosat_listing_is_checked(layout):
    root, card = layout("eurosat")
    known = read(root, card).listing_hash
    assert read(root, card.model_copy(update={"listing": known})).listing_hash == known
    with pytest.raises(UserError, match="not that of the public release"):
        read(root, card.model_copy(update={"listing": PUBLIC_CARDS["eurosat"].listing}))


def test_transfer_splits_checksummed_oracle():
    """EuroSAT's file names are known, so its parts and its toolbox split are, to the bit."""
    card = PUBLIC_CARDS["eurosat"]
    files = {name: [f"{name}/{name}_{i}.jpg" for i in range(1, n + 1)] for name, n in EUROSAT.items()}
    images = derive_split(Path("."), files, card, card.derived)
    assert images.listing_hash == card.listing
    names = images.trainval.paths
    fold = toolbox_split("eurosat", names, images.trainval.labels, images.classes, 22)
    assert (len(fold.fit), len(fold.val)) == (15120, 3780)
    assert membership(names, fold.val) == ORACLE["split"]
    assert membership(images.test.paths, np.arange(8100)) == ORACLE["test"]
    assert membership(names[::-1], len(names) - 1 - fold.val) == ORACLE["split"]


ORACLE = {"split": "c9d21c94cd943ac285263fdb90076d57af25ee4eeedb3ce5480ea6439eb0476b",
          "test": "cac347869f3cb538c9eb902e716070548a7a53505ce3a566862a4101ecad55f0"}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 22])
def test_transfer_splits_of_every_layout(written, seed):
    """Disjoint, complete, at least one of each class to validate on, the same however often it is read."""
    _, dataset, root, card = written
    first, second = read(root, card), read(root, card)
    folds = [toolbox_split(dataset, i.trainval.paths, i.trainval.labels, i.classes, seed) for i in (first, second)]
    assert [membership(first.trainval.paths, fold.val) for fold in folds[:1]] == [
        membership(second.trainval.paths, folds[1].val)
    ]
    assert sorted([*folds[0].fit, *folds[0].val]) == list(range(card.trainval))
    assert set(first.trainval.labels[folds[0].val]) == set(range(card.classes))
    if first.official_val is not None:
        official = official_split(dataset, first.official_val)
        assert len(official.val) + len(official.fit) == card.trainval


# --- doctor -------------------------------------------------------------------------------------------------


def findings(tmp_path: Path, name: str, root: Path, card: dict) -> dict:
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "small.toml").write_text(
        f'name = "small"\nclasses = "imagenet100"\n[data.{name}]\nroot = "{root}"\ncard = "{tmp_path / "card.json"}"\n'
    )
    (found,) = data_findings(str(tmp_path / "small.toml"), [])
    return found


def test_transfer_doctor_one_line_for_every_layout(written, tmp_path_factory):
    _, dataset, root, card = written
    facts = card.model_dump(mode="json", exclude={"dataset", "md5"})
    found = findings(tmp_path_factory.mktemp("profile"), dataset, root, facts)
    assert (found.check, found.status) == (f"data {dataset}", "ok"), found
    for words in (
        str(root),
        f"{card.trainval} trainval and {card.test} test images",
        f"{card.classes} classes",
        "sampled images decode",
    ):
        assert words in found.text
    assert "\n" not in found.text


def test_transfer_doctor_names_damage_and_says_what_to_do(layout, tmp_path_factory):
    root, card = layout("flowers")
    profile = tmp_path_factory.mktemp("profile")
    facts = card.model_dump(mode="json", exclude={"dataset", "md5"})
    (root / "flowers-102" / "jpg" / "image_00002.jpg").write_bytes(b"x")
    found = findings(profile, "flowers", root, facts)
    assert found.status == "warning" and "1 damaged" in found.text and "image_00002.jpg" in found.text and found.fix
    found = findings(profile, "flowers", root, facts | {"md5": {"setid.mat": "0" * 32}})
    assert "setid.mat has MD5" in found.text and "expected 000" in found.text
    found = findings(profile, "flowers", root, facts | {"trainval": 2040})
    assert found.status == "problem" and "expected 2040, found 4" in found.text and found.fix
    (root / "flowers-102" / "imagelabels.mat").unlink()
    assert "no known layout" in findings(profile, "flowers", root, facts).text


def test_transfer_doctor_public_profile_without_and_with_wrong_data(tmp_path, layout):
    root, _ = layout("pets")
    found = {f.check: f for f in data_findings("in100", [f"pets={root}", f"dtd={tmp_path / 'nowhere'}"])}
    assert "expected 37, found 3" in found["data pets"].text and found["data pets"].status == "problem"
    assert found["data dtd"].status == "problem" and "not a folder" in found["data dtd"].text
    assert found["data flowers"].status == "warning" and found["data flowers"].fix == "--data flowers=PATH"
    assert len(found) >= 15


def test_transfer_doctor_validation_folders_and_training_images(tmp_path, save_image):
    from harness.core.classes import load_classes

    ids = load_classes("imagenet100").ids
    for part, count in (("train", 2), ("val", 1)):
        for k, wnid in enumerate(ids):
            for i in range(count):
                save_image(tmp_path / "in100" / part / wnid / f"{wnid}_{i}.JPEG", k)
    found = findings(tmp_path, "in-val", tmp_path / "in100", {"per_class": 1})
    assert (
        found.status == "ok"
        and "100 images" in found.text
        and "100 classes of imagenet100 (d61d354b64be)" in found.text
    )
    (tmp_path / "in100" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"not the devkit")
    found = findings(tmp_path, "in-val", tmp_path / "in100", {"per_class": 1})
    assert found.status == "warning" and "fa75699e90404af021442c21a62c3abf" in found.text
    found = findings(tmp_path, "train", tmp_path / "in100", {})
    assert found.status == "ok" and "200 images, 2 to 2 per class" in found.text and "in train/" in found.text


def test_transfer_doctor_checks_archives(tmp_path):
    (tmp_path / "2750").mkdir()
    (tmp_path / "EuroSAT.zip").write_bytes(b"not it")
    good, bad = archives("eurosat", tmp_path / "2750")
    assert good == () and "EuroSAT.zip has MD5" in bad[0]
    assert archives("dtd", tmp_path) == ((), ())
