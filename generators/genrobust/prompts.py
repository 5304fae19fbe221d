"""Prompts of GenRobust: one of CLIP's 80 ImageNet templates per image (pure, no torch)."""

from __future__ import annotations

import importlib.resources
import random
from functools import cache
from typing import Literal

from harness.api import Request

Policy = Literal["clip80", "photo", "name"]
PHOTO = "a photo of a {name}"
"""The published script's prompt without its diversity option; it has no full stop."""


@cache
def templates() -> tuple[str, ...]:
    """Return the 80 templates of CLIP's ImageNet evaluation in their published order, each with its full stop."""
    text = importlib.resources.files("generators.genrobust").joinpath("templates.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def choose_template(seed: int) -> str:
    """Return one of the 80 templates, uniformly and with replacement from image to image."""
    return templates()[random.Random(seed).randrange(len(templates()))]


def prompt(request: Request, index: int, policy: Policy) -> str:
    """Return the prompt of one image: a template drawn by run seed, class and index, filled with the class name."""
    chosen = {"clip80": choose_template(request.seed(index, "template")), "photo": PHOTO, "name": "{name}"}[policy]
    return chosen.replace("{name}", request.class_name)
