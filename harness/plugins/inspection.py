"""What data inspectors share: a sample of images at even distances, and whether it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.core.errors import UserError

SAMPLE = 12
"""Images decoded per data set."""


def sample_paths(paths: Sequence[str], count: int = SAMPLE) -> tuple[str, ...]:
    """Return at most ``count`` paths at even distances, the first and the last among them."""
    if len(paths) <= count:
        return tuple(paths)
    return tuple(paths[round(i * (len(paths) - 1) / (count - 1))] for i in range(count))


def decode_sample(root: Path, paths: Sequence[str]) -> tuple[int, list[str]]:
    """Decode images below ``root``.

    Returns:
        The number of images that decode, and one line about the damaged ones (none if all decode).
    """
    from harness.images.decode import decode

    damaged: list[str] = []
    for path in paths:
        try:
            decode(root / path, path)
        except UserError as error:
            damaged.append(f"{path} ({error.why})")
    line = [f"{len(damaged)} damaged, first {damaged[0]}"] if damaged else []
    return len(paths) - len(damaged), line
