"""Content that would grow without end is refused by the size that it declares, before anything of it is unpacked or decoded."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from harness.backbones.files import read_checkpoint
from harness.core import limits
from harness.core.errors import UserError
from harness.core.intact import zip_damage
from harness.images.archives import read_archive
from harness.images.decode import open_picture, picture_header
from harness.images.tables import open_parquet
from harness.stats.units_file import unpack

SIDE = 9_460
"""Pixels; a square of it has a few more than the limit."""


def png(width: int, height: int) -> bytes:
    """Return a PNG file of a size, with one line of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    """Return a JPEG file whose header declares a size."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(
    "content", [png(SIDE, SIDE), png(2**31 - 1, 1), jpeg(65_500, 65_500)], ids=["png", "wide", "jpeg"]
)
def test_a_picture_is_refused_by_its_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    for read in (lambda: open_picture(content, "a.png"), lambda: picture_header(tmp_path / "a.png")):
        with pytest.raises(UserError, match="pixels"):
            read()


def test_the_largest_pictures_of_public_sets_are_below_the_limit() -> None:
    limits.refuse_pixels("a.jpg", 9_400, 9_400)
    with pytest.raises(UserError, match="9460 x 9460"):
        limits.refuse_pixels("a.jpg", SIDE, SIDE)


def test_formats_that_start_a_program_are_no_pictures(tmp_path: Path) -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UserError) as caught:
        open_picture(content, "a.jpg")
    assert caught.value.why == "it is no image of a known format"


def zeros(path: Path, *names: str, size: int = limits.FREE_BYTES // 2 + 2**20) -> Path:
    """Write a zip file whose members are zeros, a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            with archive.open(name, "w", force_zip64=True) as stream:
                for _ in range(size // 2**20):
                    stream.write(bytes(2**20))
    return path


def test_a_zip_file_is_refused_by_the_sizes_of_its_members(tmp_path: Path) -> None:
    path = zeros(tmp_path / "net.pth", "a/data.pkl", "a/data/0")
    assert path.stat().st_size < 2**22
    for read in (
        lambda: zip_damage(path),
        lambda: read_checkpoint(path),
        lambda: unpack(path.read_bytes(), "units.npz"),
    ):
        with pytest.raises(UserError, match="times as many"):
            read()


def test_what_stays_small_is_read_however_well_it_was_packed() -> None:
    limits.refuse_expansion("x", limits.FREE_BYTES, 1)
    limits.refuse_expansion("x", 10 * limits.FREE_BYTES, limits.FREE_BYTES)
    assert limits.gunzip(gzip.compress(bytes(10_000_000)), "x") == bytes(10_000_000)


def test_gzip_is_read_up_to_the_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_BYTES", 1000)
    with pytest.raises(UserError, match="times as many"):
        limits.gunzip(gzip.compress(bytes(10_000_000)), "records.jsonl.gz")


@pytest.mark.parametrize("size", [10_000, 2**40])
def test_a_member_that_its_archive_cannot_hold_is_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("n01440764/a.jpg")
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512 + bytes(1024))
    with pytest.raises(UserError, match=r"declares|not a whole tar"):
        read_archive(tmp_path, "a.tar")


def test_members_of_a_tar_file_never_lead_out_of_it(tmp_path: Path) -> None:
    """Nothing is unpacked: a member's name is a name, wherever it points."""
    place = tmp_path / "inside"
    place.mkdir()
    with tarfile.open(place / "a.tar", "w") as tar:
        for name in ("../n01440764/a.jpg", "/n01440764/b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert [entry.path for entry in read_archive(place, "a.tar").entries] == ["a.tar::/n01440764/b.jpg"]
    assert sorted(tmp_path.rglob("*")) == [place, place / "a.tar"]


def test_a_table_that_declares_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"label": pa.array([0] * 100_000, pa.int8())}), path)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="100,000 rows"):
        open_parquet(path)
