"""One image of a published data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

LABEL_KEYS = ("label", "cls", "class", "wnid", "labels")
"""Columns of tables and keys of side files that hold a label, in the order in which they are looked for."""


@dataclass(frozen=True)
class Entry:
    """One image of a published data set: where it is and which class it is published under."""

    path: str
    """Name that is unique in the data set: ``n01440764/a.jpg``, ``00001.tar::n01440764/a.jpg``, ``p.parquet::00000017``."""
    folder: str
    """Class as published: a folder's name, a label, or the name of a shard that holds one class."""
    container: str = ""
    """File that holds it, relative to the root; empty for a file of its own."""
    offset: int = 0
    """Byte offset in a tar file, or row of a parquet file."""
    size: int = 0
    """Encoded bytes, where the container tells."""
    name: str = ""
    """File name before it was packed, where the container tells it beside the path (a column of a parquet file)."""

    number: str = ""
    """Number that stands beside the class id in ``folder``; empty where none does."""

    part: str = ""
    """Part of the data set that the container tells of this image (a folder, a column ``split``); empty where it does not."""

    @property
    def stem(self) -> str:
        """Return the file's own name without folders, container and suffix."""
        return PurePosixPath(self.name or self.path.rpartition("::")[2]).stem
