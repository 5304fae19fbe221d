"""Validation images as they circulate: ImageNet-V2, subsets, Kaggle's copy, the hub's files, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.core.classes import load_classes
from harness.core.errors import DataMissing, UserError
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.store.data import load_card
from suites.imagefolder import own_classes, read_validation
from suites.transfer.inspect import validation, validation_layout
from suites.transfer.transforms import eval_transform, load_pixels
from tests.generators.test_import_layouts import hub_parquet, webdataset
from tests.generators.test_import_parts import table
from tests.generators.test_imports import picture, write_folders, write_tar
from tests.suites.transfer.test_transfer_suites import in_domain

IDS = load_classes("imagenet1k").ids
FOUR = IDS[:4]


def flat(root: Path, numbers: Sequence[int]) -> None:
    write_folders(root, {f"ILSVRC2012_val_{n:08d}.JPEG": picture(n) for n in numbers})


def devkit(root: Path, labels: Sequence[int]) -> None:
    """Write a devkit whose ids 1 to 4 are the wnids in reverse order."""
    from scipy.io import savemat

    table = np.empty((1, 4), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for i in range(4):
        table["ILSVRC2012_ID"][0, i], table["WNID"][0, i] = i + 1, FOUR[3 - i]
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": table})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in labels))


def solution(path: Path, labels: Sequence[str]) -> None:
    rows = [f"ILSVRC2012_val_{n:08d},{wnid} 85 1 499 272 {wnid} 1 2 3 4 " for n, wnid in enumerate(labels, 1)]
    path.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ImageNet-V2 of one image a class: folders 0 to 999, and the colour of an image is its folder's number."""
    root = tmp_path_factory.mktemp("v2")
    for number in range(1000):
        folder = root / "imagenetv2-matched-frequency-format-val" / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), (number // 256, number % 256, 0)).save(
            folder / "0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.png"
        )
    return root


def test_folders_of_imagenet_v2_count_in_numeric_order(v2: Path) -> None:
    found = read_validation(v2, IDS)
    assert found.layout == "numbered class folders"
    numbers = [int(path.split("/")[0]) for path in found.paths]
    assert numbers == found.labels.tolist() == list(range(1000)), "the string order would be 0, 1, 10, 100"
    in100 = load_classes("imagenet100").ids
    few = read_validation(v2, in100)
    assert len(few.paths) == 100 and few.outside == 900
    assert {IDS[int(path.split("/")[0])] for path in few.paths} == set(in100)
    assert own_classes(v2 / "imagenetv2-matched-frequency-format-val") == ()


def test_a_set_with_other_counts_needs_a_word_and_says_so(v2: Path) -> None:
    with pytest.raises(UserError, match="expected 50 of each class, found 1") as caught:
        read_validation(v2, IDS, name="in-val", per_class=50)
    assert """--set 'data.in-val.card={"per_class": null}'""" in caught.value.fix
    card = load_card('{"per_class": null}')
    assert card == {"per_class": None} and "1000 images" in validation("in-val", v2, card).counts


def test_variants_of_imagenet_v2_in_one_folder_are_refused(tmp_path: Path) -> None:
    for variant in ("matched-frequency", "threshold0.7"):
        write_folders(tmp_path / f"imagenetv2-{variant}-format-val", {f"{n}/a.jpeg": picture(n) for n in range(2)})
    with pytest.raises(UserError, match="several variants of ImageNet-V2"):
        read_validation(tmp_path, IDS)


def test_numbered_folders_of_an_unknown_order_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, {f"{n}/a.JPEG": picture(n) for n in (0, 1, 2, 3)})
    with pytest.raises(UserError, match="what the numbers of the folders") as caught:
        read_validation(tmp_path, FOUR, name="in-val")
    assert "numbered" in caught.value.fix
    assert read_validation(tmp_path, FOUR, numbered="imagenet1k").labels.tolist() == [0, 1, 2, 3]
    write_folders(tmp_path, {"1000/a.JPEG": picture(9)})
    with pytest.raises(UserError, match="do not count imagenet1k"):
        read_validation(tmp_path, FOUR, numbered="imagenet1k")


def test_a_subset_of_the_flat_archive_is_labelled_by_number(tmp_path: Path) -> None:
    devkit(tmp_path, [1, 2, 3, 4, 4, 3, 2, 1])
    flat(tmp_path / "val", [2, 3, 5, 8])
    with pytest.raises(UserError, match="expected 8 images, found 4") as caught:
        read_validation(tmp_path, FOUR, per_class=2)
    assert "per_class" in caught.value.fix
    assert read_validation(tmp_path, FOUR).labels.tolist() == [2, 1, 0, 3]


def test_kaggles_flat_images_are_labelled_by_its_solution_file(tmp_path: Path) -> None:
    labels = [FOUR[3], FOUR[0], FOUR[2], FOUR[1]]
    solution(tmp_path / "LOC_val_solution.csv", labels)
    flat(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val", range(1, 5))
    found = read_validation(tmp_path, FOUR, per_class=1)
    assert found.layout == "flat archive with LOC_val_solution.csv" and found.labels.tolist() == [3, 0, 2, 1]
    (tmp_path / "LOC_val_solution.csv").write_text(
        f"ImageId,PredictionString\nILSVRC2012_val_00000001,{FOUR[0]} 1 2 3 4 {FOUR[1]} 1 2 3 4\n"
    )
    with pytest.raises(UserError, match="is damaged"):
        read_validation(tmp_path, FOUR)


def test_a_devkit_outside_the_root_is_not_read(tmp_path: Path) -> None:
    """It is not in the fingerprint of the data set, so other labels would be reported under the same key."""
    devkit(tmp_path, [1, 2, 3, 4])
    flat(tmp_path / "val", range(1, 5))
    with pytest.raises(DataMissing, match="the devkit lies beside the images") as caught:
        read_validation(tmp_path / "val", FOUR, name="in-val")
    assert f"--data in-val={tmp_path}" in caught.value.fix and "ln -s" in caught.value.fix
    (tmp_path / "val" / "ILSVRC2012_devkit_t12").symlink_to(tmp_path / "ILSVRC2012_devkit_t12")
    assert read_validation(tmp_path / "val", FOUR, per_class=1).labels.tolist() == [3, 2, 1, 0]


def test_two_files_of_one_validation_number_are_refused(tmp_path: Path) -> None:
    devkit(tmp_path, [1, 2, 3, 4])
    flat(tmp_path / "val", range(1, 5))
    (tmp_path / "val" / "ILSVRC2012_val_00000002.png").write_bytes(picture(1))
    with pytest.raises(UserError, match="two files claim one validation image"):
        read_validation(tmp_path, FOUR)


@pytest.mark.parametrize("part", ["validation", "val"])
def test_the_validation_part_of_hub_parquet_is_read_with_its_own_names(tmp_path: Path, part: str) -> None:
    names = [FOUR[2], FOUR[0], FOUR[3], FOUR[1]]
    hub_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", names, [0, 1, 2, 3])
    hub_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet", names, [3, 2, 1, 0])
    hub_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", names, [-1, -1])
    found = read_validation(tmp_path, FOUR, per_class=1)
    assert found.labels.tolist() == [1, 3, 0, 2] and found.layout == "parquet, validation part"
    assert {path.partition("::")[0] for path in found.paths} == {f"data/{part}-00000-of-00001.parquet"}
    assert found.read is not None and found.read(found.paths[1]) == picture(1)
    pixels, truncated = load_pixels(found.root / found.paths[0], eval_transform(8), False, lambda: picture(0))
    assert pixels.shape == (3, 8, 8) and not truncated


def test_packed_validation_images_are_measured_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        classes = FOUR
        info = None

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean((2, 3)), x.std((1, 2, 3))[:, None]], dim=1)

    hub_parquet(tmp_path / "hub" / "validation-0.parquet", FOUR, [0, 1, 2, 3])
    write_folders(tmp_path / "files", {f"{wnid}/{i}.JPEG": picture(i) for i, wnid in enumerate(FOUR)})
    measured = []
    for name in ("hub", "files"):
        rows, score = in_domain(tmp_path / name, tmp_path / f"out-{name}", Network(), {"per_class": 1}, monkeypatch)
        measured.append((rows["label"].tolist(), rows["predicted"].tolist()))
        assert "1 images of each class instead of the published 50" in score.notes
    assert measured[0] == measured[1] and measured[0][0] == [0, 1, 2, 3]


def test_the_validation_part_of_webdataset_shards_is_read(tmp_path: Path) -> None:
    webdataset(tmp_path / "imagenet1k-train-0000.tar", ["a", "b"], ["0", "1"])
    webdataset(tmp_path / "imagenet1k-validation-00.tar", ["c", "d", "e", "f"], ["3", "1", "0", "2"])
    with pytest.raises(UserError, match="what the labels mean is not known"):
        read_validation(tmp_path, FOUR)
    found = read_validation(tmp_path, FOUR, numbered="imagenet1k", per_class=1)
    assert found.labels.tolist() == [3, 1, 0, 2] and all("validation" in path for path in found.paths)


def test_a_card_that_contradicts_the_names_of_the_files_is_refused(tmp_path: Path) -> None:
    hub_parquet(tmp_path / "validation-0.parquet", [FOUR[1], FOUR[0]], [0, 1])
    with pytest.raises(UserError, match="contradicts the files' own label names"):
        read_validation(tmp_path, FOUR[:2], numbered="imagenet1k")


def test_training_images_are_never_read_as_validation_images(tmp_path: Path) -> None:
    write_folders(tmp_path / "a" / "train", {f"{wnid}/{wnid}_1.JPEG": picture(1) for wnid in FOUR})
    for root in ("a", "a/train"):
        with pytest.raises(UserError, match="training images|holds no validation images"):
            read_validation(tmp_path / root, FOUR)
    webdataset(tmp_path / "b" / "imagenet-train-0.tar", ["a"], ["0"])
    with pytest.raises(UserError, match="may hold more than validation images"):
        read_validation(tmp_path / "b", FOUR)
    write_folders(tmp_path / "c" / "val", {f"{wnid}/x.JPEG": picture(1) for wnid in FOUR})
    write_folders(tmp_path / "c" / "val", {f"{FOUR[0]}/train/y.JPEG": picture(1)})
    with pytest.raises(UserError, match="holds a folder 'train'"):
        read_validation(tmp_path / "c", FOUR)


def test_a_packed_validation_archive_is_refused_with_the_command(tmp_path: Path) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": picture(1)})
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"x")
    with pytest.raises(DataMissing) as caught:
        read_validation(tmp_path, FOUR)
    val = tmp_path / "val"
    assert f"mkdir -p {val} && tar -xf {tmp_path}/ILSVRC2012_img_val.tar -C {val}" in caught.value.fix


def test_validation_folders_of_any_suffix_and_depth_are_read_and_others_named(tmp_path: Path) -> None:
    names = ("a.JPEG", "b.JPG", "c.webp", "images/d.png")
    litter = (".DS_Store", "._a.JPEG", "Thumbs.db")
    write_folders(tmp_path / "val.X", {f"{wnid}/{name}": picture(1) for wnid in FOUR for name in (*names, *litter)})
    assert len(read_validation(tmp_path, FOUR, per_class=4).paths) == 16
    write_folders(tmp_path / "val.X", {f"{FOUR[2]}/e.gif": b"x"})
    with pytest.raises(UserError, match="in a format that is not read"):
        read_validation(tmp_path, FOUR)


@pytest.mark.parametrize("place", ["images", "train.X1", "imagenet_train", "val"])
def test_images_that_bear_the_names_of_imagenets_training_images_are_refused(tmp_path: Path, place: str) -> None:
    root = tmp_path / place
    write_folders(root, {f"{wnid}/{wnid}_{n}.JPEG": picture(n) for n in (1000, 1001) for wnid in FOUR})
    if place == "val":  # held out from training, as the folder says
        assert len(read_validation(root, FOUR, per_class=2).paths) == 8
        assert len(read_validation(tmp_path, FOUR, per_class=2).paths) == 8
        return
    for per_class in (50, None):
        with pytest.raises(UserError, match="are no validation images|is a folder of training images") as caught:
            read_validation(root, FOUR, per_class=per_class)
        assert "per_class" not in caught.value.fix
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(UserError, match="are no validation images|is a folder of training images"):
        read_validation(tmp_path / "link", FOUR)


def test_training_images_in_shards_are_no_validation_images(tmp_path: Path) -> None:
    keys = [f"{wnid}_7_{wnid}" for wnid in FOUR]
    webdataset(tmp_path / "a" / "0.tar", keys, FOUR)
    with pytest.raises(UserError, match="4 of 4 images in .* are no validation images"):
        read_validation(tmp_path / "a", FOUR)
    webdataset(tmp_path / "b" / "val-0.tar", keys, FOUR)
    assert read_validation(tmp_path / "b", FOUR, per_class=1).labels.tolist() == [0, 1, 2, 3]


def test_a_folder_that_is_called_like_training_and_holds_val_is_a_root(tmp_path: Path) -> None:
    write_folders(tmp_path / "train-set" / "val", {f"{wnid}/x.JPEG": picture(1) for wnid in FOUR})
    assert len(read_validation(tmp_path / "train-set", FOUR).paths) == 4


def test_no_hint_recommends_a_list_that_nobody_has_stated(tmp_path: Path) -> None:
    write_folders(tmp_path / "a", {f"{n}/a.JPEG": picture(n) for n in range(4)})
    webdataset(tmp_path / "b" / "val-0.tar", [*"abcd"], [*"0123"])
    for name in "ab":
        with pytest.raises(UserError) as caught:
            read_validation(tmp_path / name, FOUR)
        assert '{"numbered": "LIST"}' in caught.value.fix and "imagenet1k" not in caught.value.fix


def test_class_ids_in_the_names_of_the_flat_archive_are_its_labels(tmp_path: Path) -> None:
    write_folders(tmp_path / "val", {f"ILSVRC2012_val_{n + 1:08d}_{FOUR[3 - n]}.JPEG": picture(n) for n in range(4)})
    found = read_validation(tmp_path, FOUR, per_class=1)
    assert found.labels.tolist() == [3, 2, 1, 0] and found.layout == "flat archive with class ids in its names"
    devkit(tmp_path, [1, 2, 3, 4])
    assert read_validation(tmp_path, FOUR, per_class=1).labels.tolist() == [3, 2, 1, 0]
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n4\n3\n")
    with pytest.raises(UserError, match="2 of 4 images bear another class id than their ground truth"):
        read_validation(tmp_path, FOUR)


def test_class_ids_in_validation_files_decide_over_numbers(tmp_path: Path) -> None:
    own = [FOUR[2], FOUR[0], FOUR[3], FOUR[1]]
    table(tmp_path / "a" / "validation-0.parquet", {"label": [0, 1, 2, 3], "wnid": own})
    assert read_validation(tmp_path / "a", FOUR, per_class=1).labels.tolist() == [2, 0, 3, 1]
    with pytest.raises(UserError, match="the card contradicts the class ids of the files"):
        read_validation(tmp_path / "a", FOUR, numbered="imagenet1k")
    keys = [f"ILSVRC2012_val_{n:08d}_{wnid}" for n, wnid in enumerate(own)]
    webdataset(tmp_path / "b" / "val-0.tar", keys, [*"0123"])
    write_folders(tmp_path / "c" / "val", {f"{n}/{key}.JPEG": picture(n) for n, key in enumerate(keys)})
    for name in "bc":
        with pytest.raises(UserError, match="the files contradict what their numbers are taken to mean"):
            read_validation(tmp_path / name, FOUR, numbered="imagenet1k")


def test_unlabelled_validation_images_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "validation-0.parquet", {"label": [FOUR[0], None]})
    with pytest.raises(UserError, match="1 of 2 images have no label"):
        read_validation(tmp_path, FOUR[:1])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({f"{n}/a.JPEG": picture(n) for n in range(4)}, "what the numbers of the folders"),
        ({f"{wnid}/{wnid}_7.JPEG": picture(1) for wnid in FOUR}, "are no validation images"),
        ({f"val/{wnid}/a.JPEG": picture(1) for wnid in FOUR}, "wrong number of validation images"),
        ({"notes.txt": b"x"}, "no validation images in"),
        ({f"val/{wnid}/{n}.JPEG": picture(n) for wnid in FOUR for n in range(2)}, ""),
    ],
)
def test_validation_images_that_cannot_be_read_are_named_by_the_plan(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    write_folders(tmp_path / "data", files)
    (tmp_path / "classes.txt").write_text("\n".join(FOUR) + "\n")
    sets = (f"classes={tmp_path}/classes.txt", 'data.in-val.card={"per_class": 2}')
    profile = load_profile("micro", sets, (f"in-val={tmp_path / 'data'}",)).profile
    plan = Planner(Selection(profile, "real", "in-domain", "resnet10")).build()
    reasons = [entry.reason for entry in plan.not_run]
    assert bool(plan.cells) == (not words) and len(reasons) == bool(words)
    assert all(words in reason and entry.asked for reason, entry in zip(reasons, plan.not_run, strict=True))


def test_packed_images_of_own_classes_are_left_to_the_head(tmp_path: Path) -> None:
    table(tmp_path / "a" / "validation-0.parquet", {"label": ["apple", "pear"]})
    validation_layout("in-val", tmp_path / "a", {"per_class": 1})
    write_tar(tmp_path / "b" / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": picture(1)})
    with pytest.raises(DataMissing):
        validation_layout("in-val", tmp_path / "b", {})
