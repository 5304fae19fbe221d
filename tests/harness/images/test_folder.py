"""Class folders as training images: where they are found, what is refused, and trees of links."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core import tree
from harness.core.errors import DataMissing, UserError
from harness.core.tree import find_root, unpacking, walk
from harness.images.copy import build_copy
from harness.images.folder import FolderSource, image_folder
from harness.images.published import EntryReader, list_images
from tests.generators.test_imports import CLASSES, picture, write_folders, write_tar

FILES = {f"{wnid}/{wnid}_{i}.JPEG": picture(i) for wnid in CLASSES for i in range(2)}


def test_the_training_folder_of_every_archive_is_found(tmp_path: Path) -> None:
    for place in ("train", "training", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train"):
        root = tmp_path / place.replace("/", "-")
        write_folders(root / place, FILES)
        assert image_folder(root) == root / place and len(FolderSource(image_folder(root), CLASSES).names) == 6


def test_images_in_subfolders_follow_those_of_their_class_folder(tmp_path: Path) -> None:
    write_folders(tmp_path, FILES | {f"{CLASSES[0]}/images/a.png": picture(7)})
    names = FolderSource(tmp_path, CLASSES).names
    assert names[:3] == [
        f"{CLASSES[0]}/{CLASSES[0]}_0.JPEG",
        f"{CLASSES[0]}/{CLASSES[0]}_1.JPEG",
        f"{CLASSES[0]}/images/a.png",
    ]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({f"{CLASSES[0]}/x.gif": b"x"}, "in a format that is not read"),
        ({f"{CLASSES[1]}/val/x.png": b"x"}, "holds a folder 'val'"),
    ],
)
def test_what_would_be_left_out_or_leak_is_refused(tmp_path: Path, extra: dict[str, bytes], words: str) -> None:
    write_folders(tmp_path, FILES | extra)
    with pytest.raises(UserError, match=words):
        FolderSource(tmp_path, CLASSES)


def test_packed_training_images_are_refused_with_what_reads_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "train" / f"{CLASSES[0]}.tar", {"a.jpg": picture(1)})
    with pytest.raises(DataMissing, match="the images are packed") as caught:
        FolderSource(image_folder(tmp_path / "a"), CLASSES)
    assert "--generator folder:NAME=" in caught.value.fix and "tar -xf" in caught.value.fix
    write_folders(tmp_path / "b", {f"train.X1/{CLASSES[0]}/a.JPEG": picture(1)})
    with pytest.raises(UserError, match=r"spread over train\.X1"):
        FolderSource(image_folder(tmp_path / "b"), CLASSES)


def test_an_image_that_is_gone_is_missing_data(tmp_path: Path) -> None:
    write_folders(tmp_path / "set", FILES)
    source, listing = FolderSource(tmp_path / "set", CLASSES), list_images(tmp_path / "set")
    (tmp_path / "set" / source.names[0]).unlink()
    with pytest.raises(DataMissing, match=r"_0\.JPEG is missing"):
        source.read(0)
    with pytest.raises(DataMissing, match=r"_0\.JPEG is missing"):
        EntryReader(listing.base).read(listing.entries[0])
    with pytest.raises(DataMissing, match=r"_0\.JPEG is missing"):
        build_copy(source, tmp_path / "copy", CLASSES, 8)


def crosswise(root: Path, depth: int) -> None:
    """Make folders each of which holds two links to the next."""
    for level in range(depth):
        (root / f"level-{level}").mkdir(parents=True)
        for name in ("a", "b"):
            (root / f"level-{level}" / name).symlink_to(root / f"level-{level + 1}")
    write_folders(root, {f"level-{depth}/x.png": picture(1)})


def test_links_that_cross_are_walked_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree.MOST_PATHS == 10_000
    monkeypatch.setattr(tree, "MOST_PATHS", 50)
    crosswise(tmp_path / "few", 3)
    assert len([*walk(tmp_path / "few" / "level-0")]) == 8, "a folder that is reached by two links is read twice"
    crosswise(tmp_path / "many", 30)
    with pytest.raises(UserError, match="by more than 50 paths") as caught:
        [*walk(tmp_path / "many" / "level-0")]
    assert "/level-" in caught.value.what


@pytest.mark.parametrize(
    ("archive", "command"),
    [
        ("a.tar.gz", "tar -xf {file} -C {folder}"),
        ("a.ZIP", "unzip {file} -d {folder}"),
        ("a.tar", "tar -xf {file} -C {folder}"),
    ],
)
def test_a_packed_data_set_is_answered_with_the_command(tmp_path: Path, archive: str, command: str) -> None:
    root = tmp_path / "my data"
    root.mkdir()
    (root / archive).write_bytes(b"x")
    expected = command.format(file=f"'{root / archive}'", folder=f"'{root}'")
    assert unpacking(root) == expected
    with pytest.raises(DataMissing) as caught:
        find_root("set", root, ("",), lambda folder: False, "images/")
    assert expected in caught.value.fix
