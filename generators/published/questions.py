"""The questions an import may ask, and the possible answers (no heavy imports)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Question = Literal[
    "unknown-folders", "undecodable", "near-constant", "across-classes", "real-duplicates", "wrong-suffix"
]
ANSWERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "unknown-folders": ("drop",),
        "undecodable": ("drop",),
        "near-constant": ("keep", "drop"),
        "across-classes": ("keep", "drop"),
        "real-duplicates": ("keep", "drop"),
        "wrong-suffix": ("keep", "drop"),
    }
)
"""What the user decides; images that cannot be used can only be dropped."""
BLACK_IMAGES = "keep reproduces the release, in which images that its safety checker flagged are black"
ADVICE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "genrobust-base-released": {"near-constant": BLACK_IMAGES},
        "genrobust-ft-released": {"near-constant": BLACK_IMAGES},
    }
)
"""What is known of the answers for a data set, by generator and question; part of the message that asks."""
