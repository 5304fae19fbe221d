"""One policy for pictures: what every reader does with the odd ones."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.core.errors import DataMissing, UserError
from harness.images.decode import decode, open_picture, picture_header, read_indices

ROOT = Path(__file__).parents[3]
PIXELS = np.random.default_rng(3).integers(0, 256, (30, 44, 3), dtype=np.uint8)
COLOUR = Image.fromarray(PIXELS)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(decode(content, "x"))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(form: str) -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    content = encoded(Image.fromarray(values), form)
    found = rgb(content)
    assert np.array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))
    assert found.mean() == 127.5 and open_picture(content, "x").mode.startswith("I")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bit_pixels_have_no_range_and_are_refused(dtype: Any) -> None:
    with pytest.raises(UserError, match="32-bit numbers"):
        rgb(encoded(Image.fromarray(np.full((5, 5), 70_000, dtype)), "TIFF"))


def test_alpha_and_transparent_colours_are_dropped_and_not_blended() -> None:
    with_alpha = COLOUR.copy()
    with_alpha.putalpha(Image.new("L", COLOUR.size, 7))
    assert np.array_equal(rgb(encoded(with_alpha, "PNG")), PIXELS)
    palette = COLOUR.quantize(64)
    plain = np.asarray(palette.convert("RGB"))
    for transparency in (3, bytes(range(64))):
        assert np.array_equal(rgb(encoded(palette, "PNG", transparency=transparency)), plain)


def test_cmyk_grey_and_bilevel_pictures_are_converted_as_pillow_does() -> None:
    for mode, form in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "PNG"), ("LA", "PNG"), ("1", "PNG")):
        content = encoded(COLOUR.convert(mode), form)
        with Image.open(io.BytesIO(content)) as image:
            assert np.array_equal(rgb(content), np.asarray(image.convert("RGB"))), mode


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    first, second = Image.new("RGB", (20, 10), (200, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 200))
    options = {"lossless": True} if form == "WEBP" else {}
    found = rgb(encoded(first, form, save_all=True, append_images=[second], **options))
    assert (found == (200, 0, 0)).all()


def test_the_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert np.array_equal(rgb(encoded(COLOUR, "PNG", exif=exif)), PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF"])
def test_a_truncated_file_is_refused_by_name_and_completed_only_on_request(form: str) -> None:
    whole = encoded(COLOUR, form)
    part = whole[: int(0.7 * len(whole))]
    with pytest.raises(UserError, match=r"cats/7\.img cannot be read as an image") as caught:
        decode(part, "cats/7.img")
    assert caught.value.why == "it is truncated or damaged"
    found = open_picture(part, "x", complete=True)
    assert found.truncated and found.image.size == COLOUR.size and not open_picture(whole, "x", complete=True).truncated


def test_what_is_no_picture_is_refused_even_where_truncated_files_are_completed() -> None:
    with pytest.raises(UserError, match="cannot be read as an image") as caught:
        open_picture(b"no picture", "x", complete=True)
    assert caught.value.why == "it is no image of a known format"


def test_a_decompression_bomb_is_refused_by_its_declared_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(UserError) as caught:
        decode(encoded_before, "x")
    assert "more pixels than are decoded safely" in caught.value.why


encoded_before = encoded(COLOUR, "PNG")


def test_a_missing_file_is_missing_data_and_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"none\.png is missing"):
        open_picture(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read as an image"):
        open_picture(tmp_path)


def test_label_pictures_keep_their_numbers(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(labels)
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "labels.png")
    assert picture_header(tmp_path / "labels.png") == ("P", (4, 3))
    assert np.array_equal(read_indices(tmp_path / "labels.png"), labels)
    (tmp_path / "labels.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as an image"):
        picture_header(tmp_path / "labels.png")


def test_no_other_module_of_the_product_opens_pictures() -> None:
    opens = re.compile(r"\b(?:PIL)?Image\.open\(|\bimread\(|LOAD_TRUNCATED_IMAGES\s*=|torchvision\.io|decode_jpeg\(")
    rooms = ("harness", "generators", "suites", "leaderboard")
    found = [
        str(path.relative_to(ROOT))
        for room in rooms
        for path in sorted((ROOT / room).rglob("*.py"))
        if opens.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["harness/images/decode.py"]


def deep_png(pixels: np.ndarray, colour: int) -> bytes:
    """Encode (H, W, channels) uint16 as a PNG of 16 bits a channel, which Pillow writes for grey alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def deep_tiff(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint16 as an uncompressed little-endian TIFF."""
    height, width = pixels.shape[:2]
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 200),
            (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, pixels.size * 2)]  # fmt: skip
    body = struct.pack("<2sHI3HH", b"II", 42, 16, 16, 16, 16, 0) + struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    return body.ljust(200, b"\0") + pixels.astype("<u2").tobytes()


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_sixteen_bit_png_of_every_kind_gives_its_high_byte(colour: int, channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    high = (pixels >> 8).astype(np.uint8)
    expected = high[..., :3] if channels > 2 else np.repeat(high[..., :1], 3, axis=2)
    assert np.array_equal(rgb(deep_png(pixels, colour)), expected)


def test_sixteen_bit_tiff_of_either_byte_order_gives_its_high_byte() -> None:
    values = np.random.default_rng(2).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    assert np.array_equal(rgb(deep_tiff(values)), (values >> 8).astype(np.uint8))
    for order in ("<u2", ">u2"):
        grey = Image.frombytes("I;16" if order == "<u2" else "I;16B", (5, 6), values[..., 0].astype(order).tobytes())
        assert np.array_equal(rgb(encoded(grey, "TIFF"))[..., 0], values[..., 0] >> 8)


def test_cmyk_jpeg_as_adobe_writes_it_keeps_its_colour() -> None:
    """Adobe's files hold inverted inks, and the decoder turns them back."""
    content = encoded(Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in content and open_picture(content, "x").mode == "CMYK"
    assert np.abs(rgb(content).astype(int) - (200, 40, 90)).max() <= 2


def test_the_exif_orientation_of_a_jpeg_is_not_applied_either() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(rgb(encoded(COLOUR, "JPEG", exif=exif)), rgb(encoded(COLOUR, "JPEG")))
