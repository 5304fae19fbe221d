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
    if form != "train.parquet":
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


def test_a_holdout_beside_files_that_name_no_part_is_asked_about(tmp_path: Path) -> None:
    for name in ("part0.parquet", "holdout.parquet"):
        hub_parquet(tmp_path / name, CLASSES, [0, 1, 2])
    with pytest.raises(UserError, match="their names do not tell which are which"):
        list_images(tmp_path)
