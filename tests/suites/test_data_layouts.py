"""Data sets of the suites as mirrors distribute them, and what is refused with the way out."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.core.classes import load_classes
from harness.core.errors import DataMissing, UserError
from leaderboard.footnotes import notable
from leaderboard.terms import Terms, column_names
from suites.bias.background import read_views
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.context import list_annotations
from suites.bias.texture import read_stimuli
from suites.imagefolder import unpublished_counts
from suites.perception.cards import AdeCard, CocoCard, ade_stems, read_coco, settle_ade, settle_coco
from suites.perception.coco_rows import coco_rows
from suites.transfer.cards import TransferCard
from suites.transfer.readers import read
from suites.transfer.transforms import eval_transform, load_pixels
from tests.suites.transfer.conftest import CARDS, WRITERS
from tests.tiny_roots import ade_set, coco_set, cue_set, focus_set, in9_set

Layout = Callable[[str], tuple[Path, TransferCard]]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a function that writes one layout of the transfer sets and returns (root, card)."""

    def write(name: str) -> tuple[Path, TransferCard]:
        dataset, writer = WRITERS[name]
        writer(tmp_path / "set")
        return tmp_path / "set", CARDS[dataset]

    return write


def nest(folder: Path) -> None:
    """Put a folder's content into one more folder of its name."""
    inner = folder.with_name(f"{folder.name}-moved")
    folder.rename(inner)
    folder.mkdir()
    inner.rename(folder / folder.name)


def test_kaggles_pets_with_doubled_folders_are_the_same_data(layout: Layout) -> None:
    root, card = layout("pets")
    before = read(root, card)
    for name in ("images", "annotations"):
        nest(root / "oxford-iiit-pet" / name)
    after = read(root, card)
    assert after.trainval.labels.tolist() == before.trainval.labels.tolist() and after.classes == before.classes
    assert after.test.paths[0].startswith("images/images/")


def test_kaggles_cars_with_its_own_devkit_folder_are_the_same_data(layout: Layout) -> None:
    root, card = layout("cars-split-nested")
    before = read(root, card)
    (root / "car_devkit").mkdir()
    (root / "devkit").rename(root / "car_devkit" / "devkit")
    after = read(root, card)
    assert (after.trainval.paths, after.test.labels.tolist()) == (before.trainval.paths, before.test.labels.tolist())


@pytest.mark.parametrize("name", sorted({dataset for dataset, _ in WRITERS.values()}))
def test_the_hubs_parquet_of_a_transfer_set_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataMissing) as caught:
        read(tmp_path, CARDS[name])
    assert "hub's parquet form" in caught.value.why and "get the archive as published" in caught.value.why


@pytest.mark.parametrize(
    ("name", "archive", "command"),
    [
        ("dtd", "dtd-r1.0.1.tar.gz", "tar -xf {} -C"),
        ("eurosat", "EuroSAT.zip", "unzip {} -d"),
        ("flowers", "102flowers.tgz", "tar -xf {} -C"),
    ],
)
def test_a_packed_transfer_set_is_refused_with_the_command(
    tmp_path: Path, name: str, archive: str, command: str
) -> None:
    (tmp_path / archive).write_bytes(b"x")
    with pytest.raises(DataMissing) as caught:
        read(tmp_path, CARDS[name])
    assert command.format(tmp_path / archive) in caught.value.fix


def test_converted_images_of_a_transfer_set_are_refused_by_name(layout: Layout) -> None:
    root, card = layout("food101-txt")
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(".webp"))
    with pytest.raises(DataMissing, match="8 listed images are missing") as caught:
        read(root, card)
    assert "but there is 0.webp: files were converted or renamed" in caught.value.why


@pytest.mark.parametrize("name", ["aircraft", "sun397"])
def test_a_class_that_is_listed_twice_is_refused(layout: Layout, name: str) -> None:
    root, card = layout(name)
    file = next(root.rglob("variants.txt" if name == "aircraft" else "ClassName.txt"))
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="is listed twice"):
        read(root, card)


READERS: dict[str, Callable[[Path], object]] = {
    "cue-conflict": lambda root: read_stimuli(root, CueConflictCard.load()),
    "focus": lambda root: list_annotations(root, FocusCard.load()),
    "in9": lambda root: read_views(root, In9Card.load()),
}


@pytest.mark.parametrize("name", READERS)
def test_a_bias_set_that_is_packed_or_in_the_hubs_form_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.tar.gz").write_bytes(b"x")
    with pytest.raises(DataMissing) as caught:
        READERS[name](tmp_path)
    assert f"tar -xf {tmp_path}/{name}.tar.gz -C {tmp_path}" in caught.value.fix
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataMissing, match="hub's parquet form"):
        READERS[name](tmp_path)


@pytest.mark.parametrize(("name", "write"), [("cue-conflict", cue_set), ("focus", focus_set), ("in9", in9_set)])
def test_a_part_of_a_bias_set_needs_a_card_of_its_counts(
    tmp_path: Path, name: str, write: Callable[[Path], tuple[Path, object]]
) -> None:
    root, _ = write(tmp_path)
    with pytest.raises(UserError) as caught:
        READERS[name](root)
    assert "card" in caught.value.fix and str(caught.value.what).startswith(str(root))


def test_two_stimuli_of_one_name_are_refused(tmp_path: Path) -> None:
    root, card = cue_set(tmp_path)
    first = next(iter(sorted(root.glob("airplane/*.png"))))
    shutil.copy(first, first.with_name(f"0001_s5n_dnn_0_airplane_00_{first.name}"))
    with pytest.raises(UserError, match="claim one stimulus"):
        read_stimuli(root, card)


@pytest.mark.parametrize(
    ("name", "words"), [("truck-day/00.jpg", "twice"), ("/../elsewhere.jpg", "outside the data set")]
)
def test_rows_of_focus_that_repeat_or_leave_the_data_set_are_refused(tmp_path: Path, name: str, words: str) -> None:
    root, card = focus_set(tmp_path)
    connection = sqlite3.connect(root / "annotations.db")
    connection.execute(
        "INSERT INTO annotations SELECT ?, category, time, weather, locations, humans FROM annotations LIMIT 1", (name,)
    )
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match=words):
        list_annotations(root, card)


def test_coco_one_folder_deeper_or_packed_is_refused_with_the_way_out(tmp_path: Path) -> None:
    coco_set(tmp_path / "a" / "coco2017", 2, 2)
    with pytest.raises(DataMissing) as caught:
        settle_coco(tmp_path / "a", CocoCard())
    assert caught.value.fix == f"point --data at {tmp_path / 'a' / 'coco2017'}"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "annotations_trainval2017.zip").write_bytes(b"PK")
    with pytest.raises(DataMissing) as caught:
        settle_coco(tmp_path / "b", CocoCard())
    assert "unzip" in caught.value.fix


@pytest.mark.parametrize("name", ["../train2017/000000000001.jpg", "/tmp/x.jpg"])
def test_pictures_outside_the_folder_of_coco_are_refused(tmp_path: Path, name: str) -> None:
    coco_set(tmp_path, 2, 2)
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="outside its folder"):
        read_coco(tmp_path, "annotations/instances_val2017.json")


def test_detections_of_other_images_are_refused_by_name() -> None:
    truth = {
        "images": [{"id": 1, "width": 9, "height": 9}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [],
    }
    for key, found in (
        ("image_id", {"image_id": 2, "category_id": 3}),
        ("category_id", {"image_id": 1, "category_id": 4}),
    ):
        detection = {**found, "bbox": [1, 1, 2, 2], "score": 0.5}
        with pytest.raises(UserError, match="are not of these COCO annotations") as caught:
            coco_rows(truth, {"bbox": [detection], "segm": []})
        assert key in caught.value.why


def test_the_full_release_of_ade20k_is_no_challenge_release(tmp_path: Path) -> None:
    (tmp_path / "a" / "ADE20K_2021_17_01" / "images").mkdir(parents=True)
    with pytest.raises(DataMissing, match="ADE20K data not found") as caught:
        settle_ade(tmp_path / "a")
    assert "the full release" in caught.value.why and caught.value.fix == "get ADEChallengeData2016.zip"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ADEChallengeData2016.zip").write_bytes(b"PK")
    with pytest.raises(DataMissing) as caught:
        settle_ade(tmp_path / "b")
    assert "unzip" in caught.value.fix


def test_pictures_of_ade20k_that_the_toolbox_would_leave_out_are_refused(tmp_path: Path) -> None:
    ade_set(tmp_path, 2, 2)
    folder = settle_ade(tmp_path) / AdeCard().val_folder
    first = next(iter(sorted(folder.glob("*.jpg"))))
    first.rename(first.with_suffix(".JPG"))
    with pytest.raises(UserError, match="1 pictures of ADE20K are not called .jpg"):
        ade_stems(folder.parent, folder.name)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_reaches_the_networks_of_the_suites_scaled(tmp_path: Path, form: str) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "x.png", form)
    found = load_pixels(tmp_path / "x.png", eval_transform(28), False)
    assert not isinstance(found, UserError) and abs(float(found[0].mean()) - 0.5) < 0.01


def column(data: str) -> Terms:
    return Terms("in1k", 2, "c", "p", (("top1", (("in-val", data),)),))


def test_other_counts_are_noted_and_stand_in_a_column_of_their_own() -> None:
    ids = load_classes("imagenet1k").ids

    def words(per_class: int, listed: tuple[str, ...] = ids) -> str:
        return unpublished_counts(np.repeat(np.arange(len(listed)), per_class), listed)

    assert words(50) == "" and words(10) == "10 images of each class instead of the published 50"
    assert notable(words(10)), "the board prints it under its table"
    assert words(1, load_classes("imagenet100").ids).startswith("1 images of each class")
    assert words(3, ("my-class", "other")) == "", "nothing is published of other classes"
    names = [name for _, name in column_names("top1", {column("a" * 64): True, column("b" * 64): False}).values()]
    assert names == ["top1", "top1 (data bbbb)"]


@pytest.mark.parametrize("name", ["eurosat", "dtd-doubled", "food101-json", "sun397", "flowers", "aircraft"])
def test_hidden_files_and_litter_are_no_images(layout: Layout, name: str) -> None:
    root, card = layout(name)
    before = read(root, card).listing_hash
    for folder in {path.parent for path in root.rglob("*.jpg")}:
        for file in (".DS_Store", "Thumbs.db", f"._{next(folder.glob('*.jpg')).name}"):
            (folder / file).write_bytes(b"litter")
    assert read(root, card).listing_hash == before
