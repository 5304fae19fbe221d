"""Imports through links, on disk and inside archives, and images that change after their scan."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.images.published import EntryReader, PublishedSource, list_images
from tests.generators.test_imports import CLASSES, Make, as_class_tars, as_parquet, contents, make, manifest, picture

__all__ = ["make"]


def test_parquet_files_behind_a_linked_folder_are_read(tmp_path: Path) -> None:
    as_parquet(tmp_path / "far", contents())
    root = tmp_path / "root"
    root.mkdir()
    (root / "data").symlink_to(tmp_path / "far" / "data")
    (root / ".cache").symlink_to(tmp_path / "far" / "data")
    (root / "data" / "loop").symlink_to(root)
    listing = list_images(root)
    assert listing.layout == "parquet" and len(listing.entries) == 12


def test_litter_is_no_shard(tmp_path: Path) -> None:
    as_class_tars(tmp_path, contents())
    (tmp_path / f"._{CLASSES[0]}.tar").write_bytes(b"resource fork")
    assert len(list_images(tmp_path).entries) == 12


def tar_of_links(path: Path, target: str) -> None:
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("./pool/a.jpg")
        content = picture(1)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        for name, kind, link in (
            ("b/hard.jpg", tarfile.LNKTYPE, "pool/a.jpg"),
            ("b/soft.jpg", tarfile.SYMTYPE, target),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)


def test_links_inside_an_archive_are_resolved(tmp_path: Path) -> None:
    tar_of_links(tmp_path / "x.tar", "../pool/a.jpg")
    listing, reader = list_images(tmp_path), EntryReader(tmp_path)
    assert [(entry.folder, entry.stem) for entry in listing.entries] == [("pool", "a"), ("b", "hard"), ("b", "soft")]
    assert {reader.read(entry) for entry in listing.entries} == {picture(1)}


@pytest.mark.parametrize("target", ["../gone.jpg", "soft.jpg"])
def test_a_link_to_nothing_inside_an_archive_is_named(tmp_path: Path, target: str) -> None:
    tar_of_links(tmp_path / "x.tar", target)
    with pytest.raises(UserError, match=r"the link b/soft.jpg in .*x\.tar leads nowhere"):
        list_images(tmp_path)


def test_an_image_that_changed_after_its_scan_is_not_taken(make: Make, tmp_path: Path) -> None:
    as_class_tars(tmp_path / "set", contents())
    cell, store = make(f"folder:{tmp_path / 'set'}")
    rows = manifest(cell, store)
    source = PublishedSource(tmp_path / "set", rows)
    assert source.read(0) == contents()[f"{CLASSES[0]}/{CLASSES[0]}_0.jpg"]
    path = tmp_path / "set" / f"{CLASSES[0]}.tar"
    damaged = bytearray(path.read_bytes())
    damaged[rows[0]["offset"] + 20] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="has changed since the data set was imported"):
        source.read(0)
