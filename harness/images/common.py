"""One count and one codec for every source of a comparison, or for none."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from PIL import Image

from harness.core.errors import UserError
from harness.core.identity import derive_seed
from harness.images.copy import ImageSource
from harness.images.decode import decode


class CommonSource:
    """The images of a source, equally many of each class and all through one codec.

    Args:
        source: Any source; it is not changed.
        classes: Ordered class ids.
        count: Images kept of each class, chosen by name alone; 0 keeps all.
        codec: ``png``, ``jpeg-Q`` or ``webp-Q`` with quality Q; empty leaves the bytes as they are.
        size: Short side in pixels before encoding.

    Raises:
        UserError: a class has fewer images than ``count``, or the codec has no such name.
    """

    def __init__(self, source: ImageSource, classes: Sequence[str], count: int, codec: str, size: int) -> None:
        kept = _equal_counts(source, classes, count) if count else range(len(source.names))
        self._source, self._kept, self._size = source, list(kept), size
        self._codec = parse_codec(codec) if codec else None
        self.names = [source.names[i] for i in self._kept]
        self.labels = [source.labels[i] for i in self._kept]

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image."""
        content = self._source.read(self._kept[index])
        if self._codec is None:
            return content
        image = decode(content, self.names[index])
        width, height = image.size
        short = min(width, height)
        if short != self._size:
            sides = (width * self._size // short, height * self._size // short)
            image = image.resize(sides, Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        kind, quality = self._codec
        image.save(stream, format=kind, **({"quality": quality} if quality else {}))
        return stream.getvalue()


def parse_codec(text: str) -> tuple[str, int]:
    """Return (PIL format, quality) of ``png``, ``jpeg-95`` or ``webp-90``; PNG has no quality.

    Raises:
        UserError: another text.
    """
    match = re.fullmatch(r"(png)|(jpeg|webp)-(\d{1,2}|100)", text)
    if match is None:
        raise UserError(f"unknown codec {text!r}", "it is png, jpeg-QUALITY or webp-QUALITY", "write e.g. jpeg-95")
    return ("PNG", 0) if match[1] else (match[2].upper(), int(match[3]))


def _equal_counts(source: ImageSource, classes: Sequence[str], count: int) -> list[int]:
    members: dict[int, list[int]] = {}
    for position, label in enumerate(source.labels):
        members.setdefault(label, []).append(position)
    short = {classes[label]: len(found) for label, found in members.items() if len(found) < count}
    if short:
        name, least = min(short.items(), key=lambda item: item[1])
        raise UserError(
            f"{len(short)} classes have fewer than {count} images",
            f"{name} has {least}",
            f"set dataset.common_count to {least} or less: it holds for all sources",
        )
    chosen: list[int] = []
    for found in members.values():
        ranked = sorted(found, key=lambda position: derive_seed("common-count", source.names[position]))
        chosen += ranked[:count]
    return sorted(chosen)
