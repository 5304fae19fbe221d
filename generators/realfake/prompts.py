"""Texts of RealFake: class names, training captions, prompts (pure, no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NEGATIVE = "distorted, unrealistic, blurry, out of frame, cropped, deformed"
SUFFIX = "best quality"
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "n02788148": "baluster handrail",
        "n02971356": "cardboard box carton",
        "n03871628": "product packet packaging",
        "n04008634": "projectile missile",
        "n04201297": "shoji screen room divider",
        "n04355933": "sunglass",
        "n04371430": "swim trunks shorts",
    }
)
"""Where RealFake's class names differ from CLIP's cleaned list; with them no two classes share a name."""


def class_name(class_id: str, name: str) -> str:
    """Return RealFake's name of a class."""
    return RENAMED.get(class_id, name)


def training_text(name: str, caption: str) -> str:
    """Return the text an image is trained with; without captions the bare ``photo of`` form."""
    return f"photo of {name}, {caption}" if caption else f"photo of {name}"


def prompt(name: str, caption: str) -> str:
    """Return the text an image is made from."""
    return f"photo of {name}, {caption}, {SUFFIX}" if caption else f"{name}, photo, {SUFFIX}"
