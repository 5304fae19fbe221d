"""Pictures of the eight transfer sets: n images of one novel class, each from its own seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import BALANCED, Causes, draw_causes
from harness.microworld.causes import TEXTURES as WORLD_TEXTURES
from harness.microworld.datasets.files import pixels, seeds
from harness.microworld.datasets.landmarks import LAND, PLACES
from harness.microworld.datasets.parts import Outline
from harness.microworld.datasets.silhouettes import AIRCRAFT, CARS, FLOWERS, FOODS, PETS
from harness.microworld.datasets.surfaces import TEXTURES, picture, soil
from harness.microworld.renderer import (
    SIZE_PX,
    compose,
    develop,
    natural_placement,
    object_masks,
    object_surfaces,
    render,
)

OBJECTS: Mapping[str, Mapping[str, Outline]] = {
    "aircraft": AIRCRAFT, "cars196": CARS, "eurosat": LAND, "flowers": FLOWERS, "food101": FOODS, "pets": PETS,
    "sun397": PLACES,
}  # fmt: skip

KNOWN_TEXTURES: Mapping[str, str] = {"dotted": "dots", "striped": "stripes"}
"""Textures of the embedded world that the texture set shows full frame, beside the novel ones."""


def class_names(name: str) -> tuple[str, ...]:
    """Return the classes of a transfer set in label order."""
    table = {**TEXTURES, **KNOWN_TEXTURES} if name == "dtd" else OBJECTS[name]
    return tuple(sorted(table, key=str.lower if name == "pets" else None))


def draw(name: str, label: int, count: int) -> NDArray[np.uint8]:
    """Return images 0 to ``count - 1`` of one class of a transfer set, (count, 64, 64, 3) uint8."""
    own = seeds((name, label, index) for index in range(count))
    chosen = class_names(name)[label]
    causes = draw_causes(np.zeros(count, dtype=np.int64), own, BALANCED)
    if name == "dtd":
        return _texture(chosen, own)
    outline = [_crisp(OBJECTS[name][chosen])]
    if name == "eurosat":
        return _from_above(outline, causes, own)
    return pixels(render(causes, own, shape_functions=outline).images)


def _texture(chosen: str, own: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Draw a texture over the whole picture by plain daylight; the world's own are turned and scaled as on objects."""
    plain = np.zeros(len(own), dtype=np.int64)
    if chosen in KNOWN_TEXTURES:
        known = plain + WORLD_TEXTURES.index(KNOWN_TEXTURES[chosen])
        images = object_surfaces(known, own, natural_placement(own))
    else:
        images = np.stack([picture(TEXTURES[chosen], np.random.default_rng(int(item)), SIZE_PX) for item in own])
    return pixels(develop(images, plain, plain, own))


def _from_above(outline: Sequence[Outline], causes: Causes, own: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Draw water, roofs or roads of any texture on open ground."""
    place = natural_placement(own)
    ground = np.stack([picture(soil, np.random.default_rng(int(item)), SIZE_PX) for item in own])
    masks = object_masks(causes.shape, place, shape_functions=outline)
    images = compose(ground, object_surfaces(causes.texture, own, place), masks)
    return pixels(develop(images, causes.light, causes.weather, own))


def _crisp(outline: Outline) -> Outline:
    """Return an outline whose rim is half as soft: eyes, wheels and engines are smaller than the parts of a class."""
    return lambda x, y: 2.0 * outline(x, y)
