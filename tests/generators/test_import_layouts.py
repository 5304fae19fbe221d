"""Image sets as they circulate: what is read, which part is taken, and what is refused with the way out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from generators.published.inspect import inspect_published
from generators.published.mapping import class_map
from harness.core.classes import ClassList, load_classes
from harness.core.errors import DataMissing, UserError
from harness.images.label_names import match_label_names
from harness.images.published import EntryReader, Listing, list_images
from tests.generators.test_imports import (
    CLASSES,
    Make,
    as_parquet,
    contents,
    make,
    manifest,
    picture,
    write_folders,
    write_tar,
)

__all__ = ["make"]

KNOWN = load_classes("imagenet1k")
FILES = contents(2)


def some(*ids: str) -> ClassList:
    names = dict(zip(KNOWN.ids, KNOWN.names, strict=True))
    return ClassList("some", ids, tuple(names[i] for i in ids))


def by_folder(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in list_images(root).entries:
        found[entry.folder] = found.get(entry.folder, 0) + 1
    return found


def hub_parquet(
    path: Path, names: Sequence[str] | None, labels: Sequence[Any], paths: Sequence[str | None] = ()
) -> None:
    """Write a parquet file as the hub has them; ``names`` go into the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": picture(i), "path": paths[i] if paths else None} for i in range(len(labels))]
    table = pa.table({"image": rows, "label": list(labels)})
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        facts = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def webdataset(path: Path, keys: Sequence[str], labels: Sequence[str], extra: dict[str, bytes] | None = None) -> None:
    members = {}
    for i, (key, label) in enumerate(zip(keys, labels, strict=True)):
        members |= {f"{key}.jpg": picture(i), f"{key}.cls": label.encode()}
    write_tar(path, members | (extra or {}))


# --- label names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["wnid", "names"])
def test_labels_of_a_hub_parquet_mean_what_its_own_names_say(make: Make, tmp_path: Path, spec: str) -> None:
    order = [CLASSES[2], CLASSES[0], CLASSES[1]]  # the publisher's own
    classes = some(*CLASSES)
    names = [dict(zip(classes.ids, classes.names, strict=True))[i] for i in order]
    hub_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", names, [0, 0, 1, 1, 2, 2])
    cell, store = make(f"folder:{tmp_path / 'hub'}", [f"generators.folder.class_map={spec}"])
    rows = manifest(cell, store)
    assert {row["offset"]: row["wnid"] for row in rows} == {i: order[i // 2] for i in range(6)}
    assert "6 images" in inspect_published(tmp_path / "hub", spec, classes).counts


def test_a_class_map_that_contradicts_the_names_of_a_file_is_refused(make: Make, tmp_path: Path) -> None:
    hub_parquet(tmp_path / "hub" / "train-0.parquet", [CLASSES[1], CLASSES[0], CLASSES[2]], [0, 1, 2])
    with pytest.raises(UserError, match="contradicts the data set's own label names"):
        make(f"folder:{tmp_path / 'hub'}", ["generators.folder.class_map=index"])
    lines = tmp_path / "map.txt"
    lines.write_text("".join(f"{number} {wnid}\n" for number, wnid in enumerate(CLASSES)))
    with pytest.raises(UserError, match="map.txt contradicts the data set's own label names"):
        make(f"folder:{tmp_path / 'hub'}", [f"generators.folder.class_map={lines}"])
    hub_parquet(tmp_path / "unsure" / "train-0.parquet", ["first", "second", "third"], [0, 1, 2])
    cell, store = make(f"folder:{tmp_path / 'unsure'}", [f"generators.folder.class_map={lines}"])
    assert [row["wnid"] for row in manifest(cell, store)] == list(CLASSES)
    hub_parquet(tmp_path / "same" / "train-0.parquet", CLASSES, [0, 1, 2])
    cell, store = make(f"folder:{tmp_path / 'same'}", ["generators.folder.class_map=index"])
    assert [row["wnid"] for row in manifest(cell, store)] == list(CLASSES)


def test_numbers_without_names_are_asked_about_and_nothing_is_recommended(make: Make, tmp_path: Path) -> None:
    as_parquet(tmp_path / "a", FILES)
    with pytest.raises(UserError, match="only their publisher knows the order they count in"):
        make(f"folder:{tmp_path / 'a'}")


def test_file_names_that_bear_another_wnid_refute_the_labels(make: Make, tmp_path: Path) -> None:
    paths = [f"{CLASSES[2 - i]}_{i}.JPEG" for i in range(3)]
    hub_parquet(tmp_path / "hub" / "train-0.parquet", None, [0, 1, 2], paths)
    with pytest.raises(UserError, match="2 of 3 images bear the class id of another class"):
        make(f"folder:{tmp_path / 'hub'}", ["generators.folder.class_map=index"])


def test_names_are_matched_by_wnid_name_and_synonym() -> None:
    classes = some("n02869837", "n01440764", "n01484850", "n02051845")
    assert match_label_names(["bonnet, poke bonnet", "tench, Tinca tinca"], classes) == ("n02869837", "n01440764")
    assert match_label_names(["great_white_shark", "Tench"], classes) == ("n01484850", "n01440764")
    assert match_label_names(["n01440764", "n02869837"], classes) == ("n01440764", "n02869837")
    assert match_label_names(["white shark", "poke bonnet"], classes) == ("n01484850", "n02869837")
    assert match_label_names(KNOWN.ids, classes) == KNOWN.ids


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["crane", "tench"], "'crane' may be n02012849 or n03126707"),
        (["missile", "tench"], "'missile' may be"),
        (["my own name", "tench"], "names no class"),
        (["tench", "Tinca tinca"], "both stand for n01440764"),
        (["maillot"], "'maillot' may be n03710637 or n03710721"),
        (["maillot", "goldfish"], "'maillot' may be n03710637 or n03710721"),
        (["Cardigan", "Goldfish"], "'Cardigan' may be n02113186 or n02963159"),
        (["cardigan", "pembroke"], "'cardigan' may be n02113186 or n02963159"),
    ],
)
def test_a_name_that_is_not_certain_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        match_label_names(names, some("n01440764"))
    assert words in caught.value.why and "class_map" in caught.value.fix


def test_case_tells_two_classes_apart_where_all_names_keep_it_and_a_whole_list_decides() -> None:
    classes = some("n02113186", "n02963159", "n01443537")
    assert match_label_names(["Cardigan"], classes) == ("n02113186",)
    assert match_label_names(["Cardigan", "goldfish", "pug", "Pembroke"], KNOWN)[0] == "n02113186"
    assert match_label_names(["cardigan", "goldfish"], KNOWN)[0] == "n02963159"
    assert match_label_names(["goldfish", "CARDIGAN", "cardigan welsh corgi"], classes)[1] == "n02963159"
    hundred = load_classes("imagenet100")
    lemmas = dict(zip(KNOWN.ids, lemma_names(), strict=True))
    for names in ([lemmas[i] for i in hundred.ids], hundred.names):
        assert match_label_names(names, hundred) == hundred.ids


def lemma_names() -> list[str]:
    from timm.data import ImageNetInfo

    return [ImageNetInfo("imagenet-1k").label_name_to_description(i, detailed=False) for i in KNOWN.ids]


def test_shared_names_of_a_whole_list_are_told_by_their_place() -> None:
    """ILSVRC's hub names: "crane" stands twice, or once beside "crane2"."""
    names = lemma_names()
    assert match_label_names(names, KNOWN) == KNOWN.ids
    second = [i for i, name in enumerate(names) if name == "crane"][1]
    assert match_label_names([*names[:second], "crane2", *names[second + 1 :]], KNOWN) == KNOWN.ids
    assert match_label_names(KNOWN.names, KNOWN) == KNOWN.ids
    with pytest.raises(UserError, match="not certain"):
        match_label_names(list(reversed(names)), KNOWN)


def test_files_of_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    hub_parquet(tmp_path / "train-0.parquet", ["a", "b"], [0])
    hub_parquet(tmp_path / "train-1.parquet", ["b", "a"], [0])
    with pytest.raises(UserError, match="give labels different names"):
        list_images(tmp_path)


def test_labels_beyond_the_names_and_of_other_classes(tmp_path: Path) -> None:
    classes = some("n01440764", "n01443537")
    with pytest.raises(UserError, match="label 2 has no name"):
        class_map("wnid", classes, ["0", "2"], ["tench", "goldfish"])
    found = class_map("wnid", classes, ["0", "1"], ["goldfish", "great white shark"])
    assert found.labels == {"0": 1} and found.elsewhere == {"1"}
    assert class_map("wnid", classes, ["0", "-1"], ["goldfish"]).labels == {"0": 1}, "-1 is unlabelled, and asked about"


# --- parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("imagenet-train-000000.tar", "imagenet-val-000000.tar"),
        ("data/train_images_0.tar", "data/test_images.tar"),
    ],
)
def test_of_training_and_validation_shards_the_training_ones_are_taken(
    tmp_path: Path, train: str, held_out: str
) -> None:
    webdataset(tmp_path / train, ["a", "b"], CLASSES[:2])
    webdataset(tmp_path / held_out, ["c"], CLASSES[2:])
    listing = list_images(tmp_path)
    assert {entry.container for entry in listing.entries} == {train} and "left out: 1" in listing.left_out[0]


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("default/partial-train/0000.parquet", "default/test/0000.parquet"),
    ],
)
def test_of_training_and_validation_parquet_the_training_files_are_taken(
    make: Make, tmp_path: Path, train: str, held_out: str
) -> None:
    hub_parquet(tmp_path / "hub" / train, CLASSES, [0, 1, 2])
    hub_parquet(tmp_path / "hub" / held_out, CLASSES, [0, 1, 2])
    cell, store = make(f"folder:{tmp_path / 'hub'}")
    assert {row["container"] for row in manifest(cell, store)} == {train}
    assert "left out: 1" in store.folder(cell).joinpath("report.txt").read_text()


def test_of_folders_of_parts_the_training_folder_is_taken(tmp_path: Path) -> None:
    for place in ("train", "val", "test"):
        write_folders(tmp_path / "a" / place, FILES)
    assert list_images(tmp_path / "a").base == tmp_path / "a" / "train"
    write_folders(tmp_path / "b", FILES)
    write_folders(tmp_path / "b" / "val", FILES)
    listing = list_images(tmp_path / "b")
    assert by_folder(tmp_path / "b") == dict.fromkeys(CLASSES, 2) and listing.left_out == ("left out: the folder val",)
    write_tar(tmp_path / "b" / CLASSES[0] / "more.tar", FILES)
    assert "1 archives inside the folders" in list_images(tmp_path / "b").left_out[1]
    write_folders(tmp_path / "c" / "val", FILES)
    with pytest.raises(UserError, match="holds no training images"):
        list_images(tmp_path / "c")


@pytest.mark.parametrize(
    "names", [("00000.tar", "val-00000.tar"), ("validation-0.tar",), ("train-0.tar", "1.tar", "test-0.tar")]
)
def test_parts_that_names_do_not_tell_are_asked_about(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        webdataset(tmp_path / name, ["a"], CLASSES[:1])
    with pytest.raises(UserError, match="their names do not tell which are which") as caught:
        list_images(tmp_path)
    assert "move each part into a folder called train, val or test" in caught.value.fix


def test_parts_inside_one_archive(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "all.tar", {f"set/{part}/{n}": b for part in ("train", "val") for n, b in FILES.items()})
    listing = list_images(tmp_path / "a")
    assert len(listing.entries) == 6 and all("/train/" in entry.path for entry in listing.entries)
    write_tar(tmp_path / "b" / "all.tar", {f"val/{n}": b for n, b in FILES.items()})
    with pytest.raises(UserError, match="their names do not tell"):
        list_images(tmp_path / "b")


@pytest.mark.parametrize("packed", [True, False])
def test_smaller_copies_in_a_folder_beside_the_images_are_left_out_or_asked_about(tmp_path: Path, packed: bool) -> None:
    """``images/<wnid>/`` and ``thumbs/<wnid>/`` in one tar, or two such folders in each class on disk."""

    def listed(*folders: str, names: Mapping[str, bytes] = FILES) -> Listing:
        place = tmp_path / "-".join(folders) / str(len(names))
        if packed:
            write_tar(place / "all.tar", {f"{each}/{n}": b for each in folders for n, b in names.items()})
        else:
            write_folders(
                place, {f"{n.split('/')[0]}/{each}/{n.split('/')[1]}": b for each in folders for n, b in names.items()}
            )
        return list_images(place)

    listing = listed("images", "thumbs")
    assert len(listing.entries) == len(FILES) and all("images/" in entry.path for entry in listing.entries)
    assert listing.left_out == (f"left out: {len(FILES)} images in thumbs/, named as smaller copies of the others",)
    with pytest.raises(UserError, match="holds the same image names in large and in medium"):
        listed("large", "medium")
    assert len(listed("thumbs").entries) == len(FILES), "nothing but small images"
    assert not listed("thumbs").left_out


def test_folders_that_hold_other_names_are_all_read(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "all.tar", {f"one/{n}": b for n, b in FILES.items()} | {f"two/{CLASSES[0]}/other.jpg": picture(7)}
    )
    assert len(list_images(tmp_path).entries) == len(FILES) + 1


def test_validation_images_inside_a_class_folder_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, FILES | {f"{CLASSES[0]}/val/x.jpg": picture(9)})
    with pytest.raises(UserError, match="holds a folder 'val'"):
        list_images(tmp_path)


def test_a_class_whose_name_holds_a_part_stays_a_class(tmp_path: Path) -> None:
    write_folders(tmp_path / "a", {f"{name}/x.jpg": picture(1) for name in ("train", "bullet train", "test tube")})
    assert set(by_folder(tmp_path / "a")) == {"train", "bullet train", "test tube"}


def test_kaggle_imagenet_is_found_and_imagenet100_in_four_folders_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "k" / "ILSVRC" / "Data" / "CLS-LOC" / "train", FILES)
    write_folders(tmp_path / "k" / "ILSVRC" / "Data" / "CLS-LOC" / "val", {"ILSVRC2012_val_00000001.JPEG": picture(1)})
    assert by_folder(tmp_path / "k") == dict.fromkeys(CLASSES, 2)
    write_folders(tmp_path / "x", {f"train.X{i + 1}/{c}/a.jpg": picture(i) for i, c in enumerate(CLASSES)})
    with pytest.raises(UserError, match=r"spread over train\.X1, train\.X2, train\.X3") as caught:
        list_images(tmp_path / "x")
    assert "train.*/*" in caught.value.fix


# --- two claims on one place ----------------------------------------------------------------------------------


def repeated_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("n01/a.jpg", picture(1)), ("./n01/a.jpg", picture(2))], "holds n01/a.jpg twice"),
        ([("a.jpg", picture(1)), ("a.cls", b"0"), ("a.cls", b"1")], "holds a.cls twice"),
        ([("a.jpg", picture(1)), ("a.cls", b"0"), ("a.json", b'{"label": 1}')], "sample a has two labels"),
        ([("a.jpg", picture(1)), ("a.cls", b"0"), ("a.seg.png", picture(2))], "two images claim the sample a"),
    ],
)
def test_two_members_that_claim_one_key_are_refused(
    tmp_path: Path, members: Sequence[tuple[str, bytes]], words: str
) -> None:
    repeated_tar(tmp_path / "0.tar", members)
    with pytest.raises(UserError) as caught:
        list_images(tmp_path)
    assert words in caught.value.what and "0.tar" in caught.value.what


def test_two_archives_that_hold_one_image_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "part-0.tar", FILES)
    write_tar(tmp_path / "a" / "part-1.tar", dict([*FILES.items()][:1]))
    with pytest.raises(UserError, match=r"two archives in .* hold n01440764/n01440764_0\.jpg") as caught:
        list_images(tmp_path / "a")
    assert "part-0.tar::" in caught.value.why and "part-1.tar::" in caught.value.why


def test_two_numberings_of_one_part_are_refused_and_missing_files_are_said(tmp_path: Path) -> None:
    hub_parquet(tmp_path / "train-00000-of-00004.parquet", CLASSES, [0, 1, 2])
    assert list_images(tmp_path).missing == ("3 of the 4 files of train are missing",)
    hub_parquet(tmp_path / "train-00000-of-00002.parquet", CLASSES, [0, 1, 2])
    with pytest.raises(UserError, match="two numberings of train"):
        list_images(tmp_path)


# --- archives, tables beside them, folders --------------------------------------------------------------------


def packed(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_the_training_archive_of_imagenet_a_tar_of_tars_is_read_in_place(make: Make, tmp_path: Path) -> None:
    inner = {f"{c}.tar": packed({n.split("/")[1]: b for n, b in FILES.items() if n.startswith(c)}) for c in CLASSES}
    write_tar(tmp_path / "a" / "ILSVRC2012_img_train.tar", inner)
    write_tar(tmp_path / "a" / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": picture(77)})
    (tmp_path / "a" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"the devkit")
    cell, store = make(f"folder:{tmp_path / 'a'}")
    assert [row["wnid"] for row in manifest(cell, store)] == [c for c in CLASSES for _ in range(2)]
    listing = list_images(tmp_path / "a")
    reader = EntryReader(listing.base)
    assert [reader.read(entry) for entry in listing.entries] == list(FILES.values())
    write_tar(tmp_path / "a" / "ILSVRC2012_img_train_t3.tar", dict([*inner.items()][:1]))
    with pytest.raises(UserError, match="two archives"):
        list_images(tmp_path / "a")


def test_compressed_archives_inside_an_archive_are_refused_with_a_command(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "all.tar", {"train.zip": b"PK"})
    with pytest.raises(UserError, match="it is an archive inside another, and compressed") as caught:
        list_images(tmp_path / "a")
    assert "tar -xf all.tar, then train.zip" in caught.value.fix
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "imagenet100.zip").write_bytes(b"PK")
    with pytest.raises(DataMissing) as missing:
        list_images(tmp_path / "z")
    assert f"unzip {tmp_path / 'z'}/imagenet100.zip -d {tmp_path / 'z'}" in missing.value.fix


def img2dataset(root: Path, facts: dict[str, Any]) -> None:
    """Write a shard as img2dataset does: samples with captions, a table of the downloads, and statistics."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    members = {}
    for i in range(2):
        key = f"{i:09d}"
        members |= {f"{key}.jpg": picture(i), f"{key}.txt": b"a caption"}
        members[f"{key}.json"] = json.dumps({"caption": "x", "key": key, "status": "success", **facts}).encode()
    write_tar(root / "00000.tar", members)
    pq.write_table(pa.table({"url": ["u", "v"], "key": ["000000000", "000000001"]}), root / "00000.parquet")
    (root / "00000_stats.json").write_text("{}")


def test_img2dataset_is_read_by_its_labels_or_refused(tmp_path: Path) -> None:
    img2dataset(tmp_path / "labelled", {"label": CLASSES[1]})
    assert by_folder(tmp_path / "labelled") == {CLASSES[1]: 2}, "the table beside the archive holds no images"
    img2dataset(tmp_path / "captions", {})
    with pytest.raises(UserError, match=r"the samples of 00000\.tar have no labels") as caught:
        list_images(tmp_path / "captions")
    assert "caption, key, status" in caught.value.why and "save_additional_columns" in caught.value.fix


def test_shard_folders_of_img2dataset_are_no_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, {"00000/000000000.jpg": picture(1), "00000/000000000.json": b"{}"})
    (tmp_path / "00000_stats.json").write_text("{}")
    with pytest.raises(UserError, match="shards of a download and no classes"):
        list_images(tmp_path)


def test_a_data_set_saved_to_disk_as_arrow_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataMissing, match="save_to_disk") as caught:
        list_images(tmp_path)
    assert "to_parquet" in caught.value.fix


def test_images_in_subfolders_of_a_class_are_read(tmp_path: Path) -> None:
    """As Tiny ImageNet has them: ``train/<wnid>/images/``, with boxes beside."""
    files = {f"train/{c}/images/{c}_{i}.JPEG": picture(i) for c in CLASSES for i in range(2)}
    write_folders(tmp_path, files | {f"train/{c}/{c}_boxes.txt": b"0 0 1 1" for c in CLASSES})
    assert by_folder(tmp_path) == dict.fromkeys(CLASSES, 2)


def test_every_suffix_in_any_case_is_read_and_litter_is_not(tmp_path: Path) -> None:
    names = ("a.JPG", "b.JPEG", "c.png", "d.WebP", "e.bmp", "f.TIF", "g.tiff", "h.jfif", "i.ppm")
    litter = (".DS_Store", "._a.JPG", "Thumbs.db", "notes.txt")
    write_folders(tmp_path, {f"{CLASSES[0]}/{name}": picture(1) for name in (*names, *litter)})
    assert [entry.path.split("/")[1] for entry in list_images(tmp_path).entries] == sorted(names)


def test_a_flat_folder_says_that_classes_are_missing(tmp_path: Path) -> None:
    write_folders(tmp_path, {f"{CLASSES[0]}_1.JPEG": picture(1)})
    with pytest.raises(DataMissing, match="lie in no class folder"):
        list_images(tmp_path)
