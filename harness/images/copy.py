"""The training copy: all images of a data set as one uint8 array of equal squares.

Decoding and resizing a PNG costs more than a training step of a small network, so it is done once. A square
centre crop of the data set at a size above the training resolution is what the random crops are taken from.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from harness.core.errors import DataMissing, UserError, refuse_malformed
from harness.core.files import atomic_file, explain_full_disk, parse_json, write_json
from harness.core.identity import content_key
from harness.core.intact import read_array
from harness.images.decode import decode
from harness.images.folder import check_classes
from harness.images.shards import ShardReader

_CHUNK = 256  # images between two durable marks
_FORMAT = 1


class ImageSource(Protocol):
    """List images with labels; `read(i)` returns the encoded bytes of image i, in any thread."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    def read(self, index: int) -> bytes: ...


class ShardSource:
    """Images of tar shards, in the order (class, name).

    Args:
        paths: Shard files.
        classes: Ordered class ids; the label is the position.

    Raises:
        UserError: A shard is damaged or holds a class that is not listed, or a listed class has no image.
    """

    def __init__(self, paths: Sequence[Path], classes: Sequence[str]) -> None:
        position = {wnid: label for label, wnid in enumerate(classes)}
        found: list[tuple[int, str, ShardReader]] = []
        for path in paths:
            shard = ShardReader(path)
            for name in shard.names:
                wnid = name.partition("/")[0]
                if wnid not in position:
                    raise UserError(
                        f"{path} holds images of class {wnid!r}",
                        f"the class list has {len(classes)} classes and not this one",
                        "use the class list the data set was made for",
                    )
                found.append((position[wnid], name, shard))
        found.sort(key=lambda item: item[:2])
        self.labels = [label for label, _, _ in found]
        self.names = [name for _, name, _ in found]
        self._shards = [shard for _, _, shard in found]
        check_classes(self.labels, classes, "the shards")

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image."""
        return self._shards[index].read(self.names[index])


def square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bicubic, antialiased) and crop the centre.

    Both as torchvision's Resize and CenterCrop do: the longer side is floor(size * long / short), the offsets are rounded
    (half to even).
    """
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = width * size // short, height * size // short
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image if (width, height) == (size, size) else image.crop((left, top, left + size, top + size))


def build_copy(
    source: ImageSource,
    folder: Path,
    classes: Sequence[str],
    size: int,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingCopy:
    """Write the training copy of a source into a folder; a half-written copy is continued.

    Files: `images.npy` (n, size, size, 3) uint8, `labels.npy` (n,) int64, `classes.json`, and `copy.json`,
    which is written last. The bytes depend on source, classes and size only.

    Args:
        source: The images.
        folder: Where the copy goes.
        classes: Ordered class ids.
        size: Side of the stored squares in pixels.
        workers: Decoding threads.
        progress: Called with (images done, images in all).

    Raises:
        UserError: An image cannot be read, the disk is full, or the folder holds another begun copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "format": _FORMAT,
        "n": len(source.names),
        "size": size,
        "first": source.names[0],
        "last": source.names[-1],
    }
    images = folder / "images.npy"
    done, checksum = _resume(folder, images, spec)
    try:
        with open(images, "r+b") as stream, ThreadPoolExecutor(workers) as pool:
            stream.seek(0, os.SEEK_END)
            while done < len(source.names):
                chunk = range(done, min(done + _CHUNK, len(source.names)))
                for pixels in pool.map(lambda i: _load(source, i, size), chunk):
                    stream.write(pixels)
                    checksum = zlib.crc32(pixels, checksum)
                stream.flush()
                os.fsync(stream.fileno())
                done = chunk.stop
                write_json(folder / "progress.json", _sealed({"spec": spec, "done": done, "crc32": checksum}))
                if progress is not None:
                    progress(done, len(source.names))
    except OSError as error:
        raise explain_full_disk(images, error) from error
    with atomic_file(folder / "labels.npy") as out:
        np.save(out, np.asarray(source.labels, dtype=np.int64))
    write_json(folder / "classes.json", list(classes))
    write_json(folder / "copy.json", spec)
    (folder / "progress.json").unlink(missing_ok=True)
    return TrainingCopy.open(folder)


@dataclass(frozen=True)
class TrainingCopy:
    """Give the images and labels of a training set as arrays.

    Attributes:
        images: (n, H, H, 3) uint8, usually a read-only memory map.
        labels: (n,) int64, positions in `classes`.
        classes: Ordered class ids.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    cropped: ClassVar[bool] = False
    """The images are whole; the augmentation crops them."""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """Return the images of some sample numbers (n,): (n, H, H, 3) uint8, the same in every epoch."""
        return np.asarray(self.images[samples])

    @property
    def size(self) -> int:
        """Side of the stored squares in pixels."""
        return int(self.images.shape[1])

    @classmethod
    def open(cls, folder: Path) -> TrainingCopy:
        """Open a finished training copy.

        Raises:
            DataMissing: The folder holds no finished copy.
            UserError: A file is shorter or longer than the copy's description says, or none of a training copy.
        """
        with refuse_malformed(folder, f"delete {folder} and start the same command again"):
            return cls._opened(folder)

    @classmethod
    def _opened(cls, folder: Path) -> TrainingCopy:
        if not (folder / "copy.json").is_file():
            raise DataMissing(
                f"{folder} holds no finished training copy",
                "copy.json is not there",
                "start the same command again; a begun copy is continued",
            )
        spec = parse_json((folder / "copy.json").read_text(encoding="utf-8"))
        shape = (spec["n"], spec["size"], spec["size"], 3)
        path = folder / "images.npy"
        expected, found = len(_header(shape)) + int(np.prod(shape)), path.stat().st_size
        if found != expected:
            raise UserError(
                f"{path} is truncated or damaged",
                f"it has {found} bytes instead of {expected}",
                f"delete {folder} and start the same command again",
            )
        images = read_array(path, mmap=True)
        labels = read_array(folder / "labels.npy")
        classes = tuple(parse_json((folder / "classes.json").read_text(encoding="utf-8")))
        if images.shape != shape or labels.shape != shape[:1]:
            raise UserError(
                f"{folder} is not one training copy",
                f"{images.shape} images, {labels.shape} labels",
                f"delete {folder} and start the same command again",
            )
        return cls(images, labels, classes)


def _load(source: ImageSource, index: int, size: int) -> bytes:
    image = decode(source.read(index), source.names[index])
    return square(image, size).tobytes()


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the .npy header of a uint8 array; written alone so that the file can grow by appending."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _resume(folder: Path, images: Path, spec: dict[str, object]) -> tuple[int, int]:
    """Return how many images are safely stored and their CRC-32, with `images` cut to exactly those.

    A begun copy that is damaged, or that another version began, is begun anew.
    """
    size, n = int(str(spec["size"])), int(str(spec["n"]))
    header, row = _header((n, size, size, 3)), size * size * 3
    state = _state(folder / "progress.json")
    if state is not None and state["spec"] != spec:
        raise UserError(
            f"{folder} holds another begun training copy",
            f"{state['spec']} instead of {spec}",
            f"delete {folder} and start again",
        )
    end = len(header) + (state["done"] if state else 0) * row
    if state and images.is_file() and images.stat().st_size >= end and _stored(images, header, end) == state["crc32"]:
        os.truncate(images, end)
        return int(state["done"]), int(state["crc32"])
    with atomic_file(images) as stream:
        stream.write(header)
    (folder / "copy.json").unlink(missing_ok=True)
    return 0, 0


def _sealed(state: dict[str, object]) -> dict[str, object]:
    return {**state, "seal": content_key(state)}


def _state(mark: Path) -> dict[str, Any] | None:
    """Return what is written of a begun copy; None if there is none, or it is damaged."""
    try:
        state = parse_json(mark.read_text(encoding="utf-8"))
        return dict(state) if state.pop("seal") == content_key(state) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _stored(images: Path, header: bytes, end: int) -> int | None:
    """Return the CRC-32 of the pixels before a position; None if the header is damaged."""
    with open(images, "rb") as stream:
        if stream.read(len(header)) != header:
            return None
        found, left = 0, end - len(header)
        while left > 0 and (block := stream.read(min(left, 2**22))):
            found, left = zlib.crc32(block, found), left - len(block)
    return found
