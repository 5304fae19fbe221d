"""Tar shards: bytes, order, damage."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import DataMissing, UserError
from harness.images import shards
from harness.images.shards import ShardImage, ShardReader, read_rows, rows_bytes, verify_shard, write_shard


def make(index: int, wnid: str = "n01", size: int = 8) -> ShardImage:
    pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return ShardImage(wnid, 0, index, pixels, "a ring", 7 + index)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "n01-0.tar"
    (tmp_path / "rows.jsonl").write_bytes(rows_bytes(write_shard(path, [make(i) for i in (3, 4, 12)])))
    return path


def test_extraction_is_an_image_folder(shard: Path, tmp_path: Path) -> None:
    with tarfile.open(shard) as tar:
        tar.extractall(tmp_path / "out", filter="data")
        infos = tar.getmembers()
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert found == ["n01/n01_00003.png", "n01/n01_00004.png", "n01/n01_00012.png"]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {(0, 0, 0, "", "", 0o644)}


def test_bytes_depend_on_the_images_only(shard: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again.tar"
    write_shard(again, (make(i) for i in (3, 4, 12)))
    assert again.read_bytes() == shard.read_bytes()


def test_pixels_and_rows_survive(shard: Path, tmp_path: Path) -> None:
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [(r.path, r.class_index, r.wnid, r.index, r.prompt, r.seed) for r in rows] == [
        (f"n01/n01_{i:05d}.png", 0, "n01", i, "a ring", 7 + i) for i in (3, 4, 12)
    ]
    reader = ShardReader(shard)
    assert reader.names == tuple(row.path for row in rows)
    assert len(reader.read(rows[1].path)) == rows[1].bytes
    np.testing.assert_array_equal(reader.pixels(rows[2].path), make(12).pixels)
    verify_shard(shard, rows)


def test_images_out_of_order_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="after"):
        write_shard(tmp_path / "x.tar", [make(4), make(3)])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_cut_anywhere_is_an_error_that_names_it(shard: Path, tmp_path: Path) -> None:
    whole = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    content_end = len(whole.rstrip(b"\0"))
    for length in (0, 100, 512, 600, 1024, content_end - 1, content_end + 200):
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            ShardReader(cut)
        assert str(cut) in caught.value.what, length


def test_flipped_bytes_are_found(shard: Path, tmp_path: Path) -> None:
    rows = read_rows(tmp_path / "rows.jsonl")
    damaged = bytearray(shard.read_bytes())
    damaged[512 + 60] ^= 1
    shard.write_bytes(bytes(damaged))
    with pytest.raises(UserError, match="SHA-1"):
        verify_shard(shard, rows)


def test_a_shard_without_one_image_of_its_manifest_is_an_error(shard: Path, tmp_path: Path) -> None:
    rows = read_rows(tmp_path / "rows.jsonl")
    write_shard(shard, [make(3), make(12)])
    with pytest.raises(UserError, match="n01_00004"):
        verify_shard(shard, rows)


def test_missing_files_and_bad_manifests(tmp_path: Path) -> None:
    with pytest.raises(DataMissing):
        ShardReader(tmp_path / "none.tar")
    with pytest.raises(DataMissing):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"path": "x"}\n')
    with pytest.raises(UserError, match="line 1"):
        read_rows(tmp_path / "bad.jsonl")


def test_a_full_disk_is_an_error_in_three_parts_and_keeps_the_old_file(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard.read_bytes()

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "encode_png", full)
    with pytest.raises(UserError) as caught:
        write_shard(shard, [make(1)])
    assert str(shard) in caught.value.what and caught.value.fix
    assert shard.read_bytes() == before
    assert sorted(p.name for p in shard.parent.iterdir()) == ["n01-0.tar", "rows.jsonl"]
