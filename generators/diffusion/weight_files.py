"""What a weight file holds, from its header: names, shapes and number formats. No tensor is read, no code in it is run."""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.api import DataMissing, UserError, is_zip, parse_json, refuse_malformed, refuse_zip

Shape = tuple[int, ...]
AGAIN = "download the file again and compare its size with the published one"
_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_PLAIN = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"})
_LAST = ("weight", "bias", "alpha", "position_ids")
_AVERAGE = "model_ema."
"""What names of tensors end in, or begin with."""
_LEGACY_PICKLES = 4
"""Magic number, protocol and machine stand before the object in files of torch before 1.6."""


@dataclass(frozen=True)
class WeightFile:
    """The header of a weight file."""

    path: Path
    shapes: Mapping[str, Shape | None]
    """Name to shape; None in a pickle, whose shapes only torch can tell."""
    metadata: Mapping[str, str]

    def having(self, *words: str) -> list[str]:
        """Return the names that contain one of some words, sorted."""
        return sorted(name for name in self.shapes if any(word in name for word in words))

    def below(self, *prefixes: str) -> list[str]:
        """Return the names that begin with one of some prefixes, sorted."""
        return sorted(name for name in self.shapes if name.startswith(prefixes))


def read_header(path: Path) -> WeightFile:
    """Read the header of a ``.safetensors`` file, or the names in a file written by ``torch.save``.

    Raises:
        DataMissing: the file is missing, a link that leads nowhere, empty, or stands for one that was not downloaded.
        UserError: it is truncated, damaged, of another format, or in a number format that is not a plain float.
    """
    check_downloaded(path)
    with refuse_malformed(path, AGAIN):
        found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not found.shapes:
        raise UserError(f"{path} holds no tensors", "its list of tensors is empty", AGAIN)
    return found


def is_zero(path: Path, name: str) -> bool:
    """Return whether all bytes of a tensor are zero; False in a pickle, which is not read here."""
    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        start, end = json.loads(stream.read(length))[name]["data_offsets"]
        stream.seek(8 + length + start)
        return not any(stream.read(end - start))


def check_downloaded(path: Path) -> None:
    """Check that a file is there, and is not what is left of a download that did not happen.

    Raises:
        DataMissing: it is missing, a link that leads nowhere, empty, a Git LFS pointer, or a web page.
    """
    if path.is_symlink() and not path.exists():
        why = f"it is a link to {path.readlink()}, which does not exist"
        raise DataMissing(
            f"{path} cannot be read", why, "fetch the model again, or copy it with its links followed (cp -rL)"
        )
    if not path.is_file():
        raise DataMissing(f"{path} does not exist", "the model is incomplete", "fetch the missing file")
    with path.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise DataMissing(f"{path} is empty", "it has 0 bytes", AGAIN)
    if start.startswith(_POINTER):
        raise DataMissing(
            f"{path} is a Git LFS pointer, not the file itself",
            "the repository was cloned without its large files",
            "run git lfs pull in that folder, or download the file",
        )
    if path.suffix != ".txt" and start.lstrip().lower().startswith(_PAGES):
        raise DataMissing(f"{path} is a web page", "the download failed or needs a login", "download the file itself")


def _safetensors(path: Path) -> WeightFile:
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if start[:2] in (b"PK", b"\x80\x02"):
            raise UserError(
                f"{path} is not a safetensors file",
                "it was written by torch.save",
                f"rename it to {path.stem}.ckpt or .bin",
            )
        if not 0 < length <= size - 8:
            raise UserError(
                f"{path} is truncated or not a safetensors file", f"its {size:,} bytes hold no header", AGAIN
            )
        try:
            raw = parse_json(stream.read(length))
            metadata = raw.pop("__metadata__", {})
            ends = [entry["data_offsets"][1] for entry in raw.values()]
            shapes = {name: tuple(entry["shape"]) for name, entry in raw.items()}
            formats = {entry["dtype"] for entry in raw.values()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(
                f"{path} is not a safetensors file", f"its header is not readable: {error}", AGAIN
            ) from error
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise UserError(f"{path} is truncated", f"it has {size:,} bytes, its header promises {wanted:,}", AGAIN)
    if formats - _PLAIN:
        raise UserError(
            f"{path} holds quantised weights",
            f"their number format is {', '.join(sorted(formats - _PLAIN))}",
            "use the float32 or float16 file of the model",
        )
    return WeightFile(path, shapes, metadata)


def _pickled(path: Path) -> WeightFile:
    try:
        names = list(dict.fromkeys(_names(path)))
    except (
        ValueError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        StopIteration,
        IndexError,
        EOFError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise UserError(
            f"{path} is truncated or not a weight file", " ".join(str(error).split())[:200], AGAIN
        ) from error
    return WeightFile(path, dict.fromkeys(names), {})


def _names(path: Path) -> Iterator[str]:
    """Yield the texts in a pickle that look like names of tensors; its instructions are listed, not carried out."""
    if not is_zip(path):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise ValueError("its end is missing: the archive has no directory")
            stream.seek(0)
            for _ in range(_LEGACY_PICKLES):
                yield from _texts(stream)
        return
    with zipfile.ZipFile(path) as archive:
        refuse_zip(archive, path, path.stat().st_size)
        inside = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if not inside:
            raise ValueError("the archive was not written by torch.save")
        with archive.open(inside[0]) as stream:
            yield from _texts(stream)  # type: ignore[arg-type]


def _texts(stream: BinaryIO) -> Iterator[str]:
    for code, value, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "STACK_GLOBAL"):
            continue
        if isinstance(value, str) and (value.startswith(_AVERAGE) or value.rpartition(".")[2] in _LAST):
            yield value
