"""Recipes that differ in some settings from others."""

from __future__ import annotations

from typing import Any

from generators.lbgen.settings import RecipeSettings


def changed(settings: RecipeSettings, **values: Any) -> RecipeSettings:
    """Return validated settings with other values."""
    return RecipeSettings(**settings.model_dump() | values)
