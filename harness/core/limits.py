"""What is refused by the size it declares, before anything is unpacked or decoded."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

from harness.core.errors import UserError

MOST_PIXELS = 89_478_485
"""Pixels of one picture: where Pillow begins to warn, a quarter of a gigabyte as RGB. ILSVRC's largest has 60 million."""
MOST_EXPANSION = 100
"""Times that content may grow when it is unpacked ..."""
FREE_BYTES = 2**28
"""... beyond this size; all that stays below it is read, however well it was packed."""


class TooLarge(UserError):
    """Report a picture that declares more pixels than are decoded."""


def refuse_pixels(name: str, width: int, height: int) -> None:
    """Refuse a picture by its header.

    Raises:
        TooLarge: it declares more than ``MOST_PIXELS``.
    """
    if width * height > MOST_PIXELS:
        raise TooLarge(
            f"{name} is too large",
            f"it declares {width} x {height} pixels; pictures of more than {MOST_PIXELS:,} are not decoded",
            "make it smaller, or fetch it again: a damaged header declares anything",
        )


def refuse_expansion(source: object, declared: int, packed: int) -> None:
    """Refuse packed content by the size it declares, in bytes.

    Raises:
        UserError: it would grow beyond ``FREE_BYTES`` and by more than ``MOST_EXPANSION``.
    """
    if declared > max(FREE_BYTES, MOST_EXPANSION * packed):
        raise UserError(
            f"{source} is not unpacked",
            f"its {packed:,} bytes declare {declared:,} bytes of content, more than {MOST_EXPANSION} times as many",
            "fetch it again; content that is really so repetitive can be stored without compression",
        )


def refuse_zip(archive: zipfile.ZipFile, source: object, packed: int) -> None:
    """Refuse a zip archive by the sizes that its members declare; ``packed``: bytes of the file.

    Raises:
        UserError: as `refuse_expansion`.
    """
    refuse_expansion(source, sum(member.file_size for member in archive.infolist()), packed)


def gunzip(content: bytes, source: object) -> bytes:
    """Return what gzip has packed. A gzip file declares its size only modulo 4 GiB, so that reading ends at the limit.

    Raises:
        UserError: as `refuse_expansion`, or it is damaged.
    """
    most = max(FREE_BYTES, MOST_EXPANSION * len(content))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            found = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{source} is damaged", str(error), "restore the file") from error
    refuse_expansion(source, len(found), len(content))
    return found
