"""Tar shards of images; extracted, any number of them make an ImageFolder `{wnid}/{wnid}_{index:05d}.png`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
from PIL import Image

from harness.core.errors import DataMissing, UserError
from harness.core.files import atomic_file, parse_json
from harness.images.decode import decode

_BLOCK = 512
_END = 2 * _BLOCK  # a tar file ends with two zero blocks
_PNG_LEVEL = 3  # a third of the time of level 6 for about 3 % more bytes


@dataclass(frozen=True)
class ShardImage:
    """Hold one image on its way into a shard.

    Attributes:
        wnid: Class id.
        class_index: Position of the class in the ordered class list.
        index: Number of the image within its class, from 0.
        pixels: (H, W, 3) uint8.
        prompt: The text the image was made from; empty for photographs and renders.
        seed: Seed of the image's noise.
        negative_prompt: The text it was steered away from.
        parent: Path of the real image it was made from, if any.
    """

    wnid: str
    class_index: int
    index: int
    pixels: np.ndarray
    prompt: str
    seed: int
    negative_prompt: str = ""
    parent: str = ""


@dataclass(frozen=True)
class ImageRow:
    """Describe one stored image; one line of a manifest."""

    path: str
    class_index: int
    wnid: str
    index: int
    prompt: str
    seed: int
    sha1: str
    bytes: int
    negative_prompt: str = ""
    parent: str = ""


def member_name(wnid: str, index: int) -> str:
    """Name an image inside a shard and inside the extracted ImageFolder."""
    return f"{wnid}/{wnid}_{index:05d}.png"


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 pixels as PNG without metadata."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8 pixels, got {pixels.shape} {pixels.dtype}")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def write_shard(path: Path, images: Iterable[ShardImage]) -> list[ImageRow]:
    """Write a shard atomically and return its manifest rows.

    The bytes depend on the images only: no time, owner or host is stored. Images are streamed, so they must
    come in ascending order of (wnid, index).

    Raises:
        ValueError: The images are out of order or repeat.
        UserError: The disk is full.
    """
    rows: list[ImageRow] = []
    with (
        atomic_file(path) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for image in images:
            if rows and (image.wnid, image.index) <= (rows[-1].wnid, rows[-1].index):
                raise ValueError(f"{image.wnid} {image.index} after {rows[-1].wnid} {rows[-1].index}")
            content = encode_png(image.pixels)
            info = tarfile.TarInfo(member_name(image.wnid, image.index))
            info.size, info.mode, info.mtime, info.uid, info.gid = len(content), 0o644, 0, 0, 0
            tar.addfile(info, io.BytesIO(content))
            sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            rows.append(
                ImageRow(
                    info.name,
                    image.class_index,
                    image.wnid,
                    image.index,
                    image.prompt,
                    image.seed,
                    sha1,
                    len(content),
                    image.negative_prompt,
                    image.parent,
                )
            )
    return rows


def rows_bytes(rows: Iterable[ImageRow]) -> bytes:
    """Return manifest rows as JSON lines."""
    return b"".join(json.dumps(asdict(row), sort_keys=True, ensure_ascii=False).encode() + b"\n" for row in rows)


def read_rows(path: Path) -> list[ImageRow]:
    """Read manifest rows.

    Raises:
        DataMissing: There is no such file.
        UserError: A line is not a manifest row.
    """
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[ImageRow]:
    """Read manifest rows one after another; errors as ``read_rows``."""
    if not path.is_file():
        raise _absent(path)
    kinds = get_type_hints(ImageRow)
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                record = parse_json(line)
            except ValueError as error:  # neither JSON nor UTF-8
                raise _broken(path, f"line {number} is not JSON: {error}") from error
            if not isinstance(record, dict) or {name: type(value) for name, value in record.items()} != kinds:
                raise _broken(path, f"line {number} is not a manifest row")
            yield ImageRow(**record)


class ShardReader:
    """Read images of one shard by name; safe to share between threads.

    Raises:
        DataMissing: There is no such file.
        UserError: The shard is truncated or is not a tar file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = _index(path)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images in stored order."""
        return tuple(self._index)

    def read(self, name: str) -> bytes:
        """Return the encoded bytes of one image."""
        if name not in self._index:
            raise _broken(self.path, f"it holds no image {name!r}")
        offset, size = self._index[name]
        with open(self.path, "rb") as stream:  # no open file between reads: a data set may have thousands of shards
            stream.seek(offset)
            content = stream.read(size)
        if len(content) != size:
            raise _broken(self.path, f"{name} ends after {len(content)} of {size} bytes")
        return content

    def pixels(self, name: str) -> np.ndarray:
        """Return one image as (H, W, 3) uint8."""
        return np.asarray(decode(self.read(name), f"{name} in {self.path}"))


def verify_shard(path: Path, rows: Sequence[ImageRow]) -> None:
    """Check that a shard holds exactly the images of its manifest rows, byte for byte.

    Raises:
        UserError: A name, a size or a SHA-1 differs.
    """
    shard = ShardReader(path)
    listed = tuple(row.path for row in rows)
    if shard.names != listed:
        odd = sorted(set(shard.names) ^ set(listed))[:3] or ["the order"]
        raise _broken(path, f"its content differs from its manifest: {', '.join(odd)}")
    for row in rows:
        content = shard.read(row.path)
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != row.sha1:
            raise _broken(path, f"{row.path} has another SHA-1 than its manifest says")


def _index(path: Path) -> dict[str, tuple[int, int]]:
    """Map member names to (offset, size) and check that the file ends as a tar file must."""
    if not path.is_file():
        raise _absent(path)
    length = path.stat().st_size
    index: dict[str, tuple[int, int]] = {}
    end = 0
    try:
        with tarfile.open(path, mode="r:") as tar:
            for info in _members(tar):
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
                if end > length:
                    raise _broken(path, f"it ends within {info.name}")
                if not info.isfile() or info.name in index:
                    raise _broken(path, f"{info.name} is not a plain file or comes twice")
                index[info.name] = (info.offset_data, info.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _broken(path, f"it is not a whole tar file ({error})") from error
    with open(path, "rb") as stream:
        stream.seek(end)
        closing = stream.read(_END)
    if closing != bytes(_END):
        raise _broken(path, f"the end of the archive is missing after {len(index)} images")
    return index


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        yield info


def _absent(path: Path) -> DataMissing:
    return DataMissing(f"there is no file {path}", "a data set is incomplete", "start the same command again")


def _broken(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is truncated or damaged",
        why,
        "delete the file and start the same command again, or fetch it again",
    )
