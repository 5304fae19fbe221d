"""Images of several data sets, in the order of one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.errors import DataMissing
from harness.images.copy import ImageSource


class MixedSource:
    """Images that a list names in several sources; an image is called ``PART/NAME``.

    Args:
        sources: Name of each part to its images.
        rows: One per image: ``part``, ``path`` (its name in that part) and ``class_index``.

    Raises:
        DataMissing: a part no longer has an image that the list names.
    """

    def __init__(self, sources: Mapping[str, ImageSource], rows: Sequence[Mapping[str, Any]]) -> None:
        places = {part: {name: i for i, name in enumerate(source.names)} for part, source in sources.items()}
        self.names = [f"{row['part']}/{row['path']}" for row in rows]
        self.labels = [int(row["class_index"]) for row in rows]
        self._sources = sources
        self._places: list[tuple[str, int]] = []
        for row in rows:
            place = places[row["part"]].get(row["path"])
            if place is None:
                raise DataMissing(
                    f"{row['part']} has no image {row['path']}",
                    "it had one when the mix was drawn",
                    "restore it, or run the same command in another store",
                )
            self._places.append((row["part"], place))

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image."""
        part, place = self._places[index]
        return self._sources[part].read(place)
