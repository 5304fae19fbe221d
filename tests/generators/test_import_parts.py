"""Training images are taken from mixed data sets only where names, columns or side files tell them; nothing is taken twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UserError
from harness.images.folder import FolderSource
from harness.images.published import list_images
from harness.images.tables import open_parquet
from tests.generators.test_import_layouts import hub_parquet, webdataset
from tests.generators.test_imports import CLASSES, contents, picture, write_folders, write_tar

FILES = contents(2)
HELD_OUT = "ILSVRC2012_val_00000293"


def table(path: Path, columns: dict[str, Sequence[Any]]) -> None:
    """Write a parquet file of pictures with columns beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    rows = [{"bytes": picture(i), "path": None} for i in range(count)]
    pq.write_table(pa.table({"image": rows, **columns}), path)


def test_of_a_table_with_a_column_split_the_training_rows_are_taken(tmp_path: Path) -> None:
    splits = ["train", "validation", "Train", "test"]
    table(tmp_path / "a" / "all.parquet", {"label": [0, 1, 2, 0], "split": splits})
    listing = list_images(tmp_path / "a")
    assert [entry.offset for entry in listing.entries] == [0, 2]
    assert listing.left_out == (
        "left out: 1 test images inside the files",
        "left out: 1 validation images inside the files",
    )
    assert [entry.offset for entry in list_images(tmp_path / "a", "validation").entries] == [1]
    table(tmp_path / "b" / "all.parquet", {"label": [0, 1], "split": ["val", None]})
    table(tmp_path / "c" / "all.parquet", {"label": [0, 1], "split": ["0", "1"]})
    for name in "bc":
        with pytest.raises(UserError, match="their names do not tell which are which"):
            list_images(tmp_path / name)


def test_of_samples_with_a_split_the_training_ones_are_taken(tmp_path: Path) -> None:
    members = {}
    for i, (key, split) in enumerate((("a", "train"), ("b", "val"))):
        members |= {f"{key}.jpg": picture(i), f"{key}.json": json.dumps({"label": i, "split": split}).encode()}
    write_tar(tmp_path / "shard.tar", members)
    assert [entry.folder for entry in list_images(tmp_path).entries] == ["0"]
    assert [entry.folder for entry in list_images(tmp_path, "validation").entries] == ["1"]


@pytest.mark.parametrize("form", ["class folder", "train.parquet", "images.parquet", "webdataset", "class tar"])
def test_names_of_imagenets_validation_images_are_refused_among_training_images(tmp_path: Path, form: str) -> None:
    if form == "class folder":
        write_folders(tmp_path, FILES | {f"{CLASSES[0]}/{HELD_OUT}.JPEG": picture(9)})
        with pytest.raises(UserError, match="are no training images"):
            FolderSource(tmp_path, CLASSES)
    elif form == "webdataset":
        webdataset(tmp_path / "0.tar", [HELD_OUT, "b"], CLASSES[:2])
    elif form == "class tar":
        write_tar(tmp_path / "all.tar", FILES | {f"{CLASSES[0]}/{HELD_OUT}_{CLASSES[0]}.JPEG": picture(9)})
    else:
        hub_parquet(tmp_path / form, CLASSES, [0, 1, 2], ["a.JPEG", f"{HELD_OUT}.JPEG", "c.JPEG"])
    with pytest.raises(UserError, match=r"1 of \d images in .* are no training images") as caught:
        list_images(tmp_path)
    assert HELD_OUT in caught.value.why
    if form in ("class folder", "class tar"):
        with pytest.raises(UserError, match="are no validation images"):
            list_images(tmp_path, "validation")
    elif form != "train.parquet":
        assert len(list_images(tmp_path, "validation").entries) > 1, "they may be validation images"


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("imagenetTrain.parquet", "imagenetVal.parquet"),
        ("imagenettrain.parquet", "imagenetval.parquet"),
        ("TRAIN2012.parquet", "minival.parquet"),
        ("train0.parquet", "HoldOut.parquet"),
        ("TrainVal.parquet", "ImageNetTEST.parquet"),
    ],
)
def test_parts_are_told_by_joined_words(tmp_path: Path, train: str, held_out: str) -> None:
    for name in (train, held_out):
        hub_parquet(tmp_path / name, CLASSES, [0, 1, 2])
    assert {entry.container for entry in list_images(tmp_path).entries} == {train}


def test_folders_of_parts_in_capitals_are_parts(tmp_path: Path) -> None:
    for place in ("Train", "Val"):
        write_folders(tmp_path / place, FILES)
    assert list_images(tmp_path).base == tmp_path / "Train"
    assert list_images(tmp_path, "validation").base == tmp_path / "Val"


def test_a_holdout_beside_files_that_name_no_part_is_asked_about(tmp_path: Path) -> None:
    for name in ("part0.parquet", "holdout.parquet"):
        hub_parquet(tmp_path / name, CLASSES, [0, 1, 2])
    with pytest.raises(UserError, match="their names do not tell which are which"):
        list_images(tmp_path)


def test_label_columns_that_disagree_are_refused(tmp_path: Path) -> None:
    wnids = [CLASSES[1], CLASSES[0]]
    for name, columns in {
        "numbers": {"label": [0, 1], "cls": [1, 0]},
        "texts": {"class": ["a", "b"], "wnid": ["a", "c"]},
        "mixed": {"label": [0, 0], "wnid": wnids},
    }.items():
        table(tmp_path / name / "train.parquet", columns)
        with pytest.raises(UserError, match="two label columns that disagree"):
            list_images(tmp_path / name)
    table(tmp_path / "same" / "train.parquet", {"label": [0, 1], "cls": [0, 1], "wnid": wnids})
    assert [entry.folder for entry in list_images(tmp_path / "same").entries] == wnids, "a class id says more"


def test_rows_without_a_label_leave_the_others_as_they_are(tmp_path: Path) -> None:
    table(tmp_path / "null" / "train.parquet", {"label": [0, None, 2]})
    table(tmp_path / "float" / "train.parquet", {"labels": [0.0, float("nan"), 2.0]})
    for name in ("null", "float"):
        assert [entry.folder for entry in list_images(tmp_path / name).entries] == ["0", "-1", "2"]


def test_an_archive_beside_images_is_counted_and_dots_in_keys_are_explained(tmp_path: Path) -> None:
    write_tar(tmp_path / "zip" / "all.tar", FILES | {"more.zip": b"PK"})
    assert list_images(tmp_path / "zip").skipped == {".zip": 1}
    webdataset(tmp_path / "dots" / "0.tar", ["img.0001", "img.0002"], ["0", "1"])
    with pytest.raises(UserError, match="sample img has two labels") as caught:
        list_images(tmp_path / "dots")
    assert "the first dot of a file name ends its key" in caught.value.why


def test_two_configurations_of_one_data_set_are_asked_about(tmp_path: Path) -> None:
    for form in ("{}/train-00000-of-00001.parquet", "{}/train/0000.parquet"):
        root = tmp_path / str(len(form))
        for config in ("full_size", "160px"):
            hub_parquet(root / form.format(config), CLASSES, [0, 1, 2])
        with pytest.raises(UserError, match="several configurations") as caught:
            list_images(root)
        assert "160px (1 files) and full_size (1 files)" in caught.value.why
        assert len(list_images(root / "160px").entries) == 3


def test_the_hubs_converted_copy_is_left_out_or_asked_about(tmp_path: Path) -> None:
    own, copy = "data/train-00000-of-00001.parquet", "default/train/0000.parquet"
    hub_parquet(tmp_path / own, CLASSES, [0, 1, 2])
    hub_parquet(tmp_path / copy, CLASSES, [0, 1, 2])
    listing = list_images(tmp_path)
    assert {entry.container for entry in listing.entries} == {own} and copy in listing.left_out[0]
    hub_parquet(tmp_path / copy, CLASSES, [0, 1])
    open_parquet.cache_clear()
    with pytest.raises(UserError, match="the hub's converted copy, but they have 3 and 2 rows"):
        list_images(tmp_path)


@pytest.mark.parametrize("second", ["train-0 (1).tar", "train-0(1).tar", "train-0 - Copy.tar", "train-0 copy.tar"])
def test_a_second_copy_of_a_file_is_refused_by_its_name(tmp_path: Path, second: str) -> None:
    webdataset(tmp_path / "train-0.tar", ["a", "b"], CLASSES[:2])
    webdataset(tmp_path / second, ["c", "d"], CLASSES[:2])
    with pytest.raises(UserError, match=r"holds train-0\.tar twice"):
        list_images(tmp_path)


def test_an_archive_under_two_names_is_refused_and_a_key_with_two_labels_is_said(tmp_path: Path) -> None:
    for name in ("train-0.tar", "train-1.tar"):
        webdataset(tmp_path / "same" / name, ["a", "b"], CLASSES[:2])
    with pytest.raises(UserError, match="holds one archive twice"):
        list_images(tmp_path / "same")
    webdataset(tmp_path / "keys" / "train-0.tar", ["a", "b"], CLASSES[:2])
    webdataset(tmp_path / "keys" / "train-1.tar", ["a", "c"], CLASSES[1:])
    listing = list_images(tmp_path / "keys")
    assert len(listing.entries) == 4 and "1 sample keys stand in several archives" in listing.noted[0]
    assert CLASSES[0] in listing.noted[0] and CLASSES[1] in listing.noted[0]


@pytest.mark.parametrize(
    "other", ["heldout", "held-out", "evaluation", "valset", "testset", "tst", "development", "unlabeled", "test_split"]
)
def test_more_words_of_parts_are_left_out_of_training(tmp_path: Path, other: str) -> None:
    for name in ("data/train-00000-of-00001.parquet", f"data/{other}-00000-of-00001.parquet"):
        hub_parquet(tmp_path / name, CLASSES, [0, 1, 2])
    listing = list_images(tmp_path)
    assert {entry.container for entry in listing.entries} == {"data/train-00000-of-00001.parquet"}
    assert listing.left_out[0].startswith("left out: 1 ")


@pytest.mark.parametrize(("mine", "other"), [("train-0.parquet", "query-0.parquet"), ("train-0.tar", "1.tar")])
def test_files_of_an_unknown_part_beside_training_files_are_asked_about(tmp_path: Path, mine: str, other: str) -> None:
    for name in (mine, other):
        write = hub_parquet if name.endswith("parquet") else webdataset
        write(tmp_path / name, [*"abc"], CLASSES) if write is webdataset else write(tmp_path / name, CLASSES, [0, 1, 2])
    with pytest.raises(UserError, match="names do not tell which are which") as caught:
        list_images(tmp_path)
    assert f"such as {other} name no part" in caught.value.why and "into a folder called train" in caught.value.fix
    (tmp_path / "train").mkdir()
    for name in (mine, other):
        (tmp_path / name).rename(tmp_path / "train" / name)
    if mine.endswith("parquet"):
        assert len(list_images(tmp_path).entries) == 6, "the folder's name says what they are"


def test_set_and_split_behind_a_word_do_not_hide_it(tmp_path: Path) -> None:
    for name in ("trainset.parquet", "valset.parquet"):
        hub_parquet(tmp_path / "both" / name, CLASSES, [0, 1, 2])
    assert {entry.container for entry in list_images(tmp_path / "both").entries} == {"trainset.parquet"}
    assert {entry.container for entry in list_images(tmp_path / "both", "validation").entries} == {"valset.parquet"}
    hub_parquet(tmp_path / "one" / "trainset.parquet", CLASSES, [0, 1, 2])
    with pytest.raises(UserError, match="may hold more than validation images"):
        list_images(tmp_path / "one", "validation")


@pytest.mark.parametrize("inner", ["imagenet_train imagenet_val", "trainset valset", "train-images held_out"])
def test_folders_of_parts_are_told_by_the_words_of_their_names(tmp_path: Path, inner: str) -> None:
    files = {f"{part}/{name}": content for part in inner.split() for name, content in FILES.items()}
    write_tar(tmp_path / "tar" / "imagenet.tar", files)
    listing = list_images(tmp_path / "tar")
    assert len(listing.entries) == 6 and {entry.part for entry in listing.entries} == {"training"}
    write_folders(tmp_path / "folders", files)
    assert list_images(tmp_path / "folders").base.name == inner.split()[0]


@pytest.mark.parametrize("name", ["evaluation", "valset", "held_out", "test_images"])
def test_folders_of_other_parts_inside_a_class_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_folders(tmp_path, FILES | {f"{CLASSES[0]}/{name}/x.jpg": picture(9)})
    for read in (lambda: list_images(tmp_path), lambda: FolderSource(tmp_path, CLASSES)):
        with pytest.raises(UserError, match=f"holds a folder '{name}'"):
            read()


@pytest.mark.parametrize(
    "columns",
    [
        {"subset": ["train", "val", "train"]},
        {"Partition": ["Training", "PublicTest", "training"]},
        {"is_val": [False, True, False]},
        {"is_training": [True, False, True]},
        {"data_split": ["train", "heldout", "train"], "is_test": [False, False, False]},
    ],
)
def test_columns_of_other_names_tell_parts(tmp_path: Path, columns: dict[str, Sequence[Any]]) -> None:
    table(tmp_path / "all.parquet", {"label": [0, 1, 2], **columns})
    assert [entry.offset for entry in list_images(tmp_path).entries] == [0, 2]


def test_a_column_that_names_no_part_is_none(tmp_path: Path) -> None:
    table(tmp_path / "all.parquet", {"label": [0, 1], "subset": ["full_size", "160px"], "set": [None, "a"]})
    assert len(list_images(tmp_path).entries) == 2
