"""What is asked of a generator and what it gives; names of shards are made and read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.classes import ClassList
from harness.core.identity import derive_seed

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Request:
    """A run of images of one class."""

    class_index: int
    class_id: str
    """Such as ``n01440764``."""
    class_name: str
    """Such as ``tench``."""
    start: int
    stop: int
    size_px: int
    generator_seed: int

    def seed(self, index: int, stream: str = "image") -> int:
        """Return the seed of image ``index``: from run seed, class and index only, never from the generator's name."""
        return derive_seed(stream, self.generator_seed, self.class_id, index)

    @property
    def shard(self) -> str:
        """Return the shard's name."""
        return f"{self.class_id}_{self.start:05d}_{self.stop:05d}"


@dataclass(frozen=True)
class Sample:
    """One synthesised image with its facts."""

    index: int
    image: np.ndarray
    """(H, W, 3) uint8."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    parent: str = ""
    """Path of the real image it was made from, if any."""


def shards(classes: ClassList, images_per_class: int, chunk: int) -> tuple[str, ...]:
    """Return the names of all shards: every class in runs of ``chunk`` images."""
    return tuple(
        Request(i, class_id, "", start, min(start + chunk, images_per_class), 0, 0).shard
        for i, class_id in enumerate(classes.ids)
        for start in range(0, images_per_class, chunk)
    )


def parse_shard(shard: str, classes: ClassList, size_px: int, generator_seed: int) -> Request:
    """Return the request a shard's name stands for."""
    class_id, start, stop = shard.rsplit("_", 2)
    index = classes.ids.index(class_id)
    return Request(index, class_id, classes.names[index], int(start), int(stop), size_px, generator_seed)
