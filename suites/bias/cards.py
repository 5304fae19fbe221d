"""Dataset cards of the bias suites: everything in which another data set of the same layout may differ.

The defaults are the public data sets; their facts are JSON files beside this module. A profile may give a
JSON object whose keys replace those of the default card.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.api import UserError

Categories = dict[str, tuple[str, ...]]
"""Category name to class ids (wnids), in the order that fixes labels and breaks ties."""


class BiasCard(BaseModel):
    """Common part of the cards."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    default_file: ClassVar[str]

    name: str
    attribution: str
    categories: Categories = Field(min_length=2)
    image_size: int = Field(ge=8)
    """Side of the square image given to the network, pixels."""

    @classmethod
    def load(cls, changes: Mapping[str, Any] | None = None) -> Self:
        """Return the public data set's card with top-level keys replaced by `changes`.

        Raises:
            UserError: an unknown key or a value of the wrong type.
        """
        text = importlib.resources.files("suites.bias").joinpath("data", cls.default_file).read_text("utf-8")
        try:
            return cls.model_validate(json.loads(text) | dict(changes or {}))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            known = ", ".join(cls.model_fields)
            raise UserError(
                f"dataset card of {cls.default_file.removesuffix('.json')}: {key!r} is not valid",
                f"{first['msg']}; known keys: {known}",
                "mend the card",
            ) from error


class CueConflictCard(BiasCard):
    """Card of a cue-conflict set (`<shape>/<shape><i>-<texture><j>.png`)."""

    default_file: ClassVar[str] = "cue_conflict.json"

    expected_images: int = Field(ge=1)
    expected_conflict: int = Field(ge=1)
    """Images whose shape and texture categories differ."""
    min_coverage: float = Field(0.40, ge=0, le=1)
    """Validity: smallest share of conflict images answered with one of their two cues."""
    min_same_category: float = Field(0.50, ge=0, le=1)
    """Validity: smallest accuracy on images whose two cues agree."""


class Vocabulary(BaseModel):
    """Values that the three attributes of FOCUS may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    time: tuple[str, ...]
    weather: tuple[str, ...]
    locations: tuple[str, ...]


class FocusCard(BiasCard):
    """Card of a FOCUS set (`annotations.db` and image folders)."""

    default_file: ClassVar[str] = "focus.json"

    vocabulary: Vocabulary
    uncommon: dict[str, Vocabulary]
    """Per category, the values of each attribute that count as uncommon."""
    expected_images: int = Field(ge=1)
    category_images: dict[str, int] = {}
    """Images of each category; compared where they sum up to ``expected_images``."""
    partition_images: tuple[int, ...] = ()
    """Images with 0, 1, 2, 3 uncommon attributes; compared likewise."""
    allow_duplicates: bool = False
    """Whether byte-identical files are accepted (a superseded release of FOCUS has them)."""
    min_acc0: float = Field(0.20, ge=0, le=1)
    """Validity: smallest accuracy in common context."""
    min_times_chance: float = Field(5.0, ge=1)
    """Validity: smallest multiple of the chance level that accuracy must reach."""


class In9Card(BiasCard):
    """Card of an ImageNet-9 backgrounds set (`<variation>/val/<folder>/<image>`)."""

    default_file: ClassVar[str] = "in9.json"

    folders: tuple[str, ...]
    """Class folders in label order, `00_dog`, ...; the numeric prefix is the label."""
    expected_per_variation: int = Field(ge=1)
    min_mixed_same: float = Field(0.50, ge=0, le=1)
    """Validity: smallest accuracy on Mixed-Same."""
