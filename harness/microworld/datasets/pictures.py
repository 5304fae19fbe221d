"""Pictures of the eight transfer sets: n images of one novel class, each from its own seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import BALANCED, SCENES, SHAPES, WEATHERS, Causes, draw_causes
from harness.microworld.causes import TEXTURES as WORLD_TEXTURES
from harness.microworld.datasets.files import pixels, seeds
from harness.microworld.datasets.silhouettes import AIRCRAFT, CARS, FLOWERS, FOODS, LAND, PETS, Outline
from harness.microworld.datasets.surfaces import TEXTURES, picture, soil
from harness.microworld.renderer import (
    SIZE_PX,
    Placement,
    compose,
    develop,
    natural_placement,
    object_masks,
    object_surfaces,
    render,
)

OBJECTS: Mapping[str, Mapping[str, Outline]] = {
    "aircraft": AIRCRAFT, "cars196": CARS, "eurosat": LAND, "flowers": FLOWERS, "food101": FOODS, "pets": PETS,
}  # fmt: skip

KNOWN_TEXTURES: Mapping[str, str] = {"dotted": "dots", "striped": "stripes"}
"""Textures of the embedded world that the texture set shows full frame, beside the novel ones."""

PLACES: Mapping[str, tuple[str, str]] = {
    "c/city": ("city", "clear"),
    "c/city_in_winter": ("city", "snowing"),
    "d/desert": ("desert", "clear"),
    "f/forest/broadleaf": ("forest", "clear"),
    "f/forest/misty": ("forest", "foggy"),
    "m/meadow/misty": ("meadow", "foggy"),
    "m/meadow/summer": ("meadow", "clear"),
    "r/room": ("room", "clear"),
    "s/sea/calm": ("sea", "clear"),
    "s/sea/wintry": ("sea", "snowing"),
    "s/sky": ("sky", "clear"),
    "s/space": ("space", "clear"),
}
"""Classes of the scene set: path below the image folder, and the scene and weather that make it."""


def class_names(name: str) -> tuple[str, ...]:
    """Return the classes of a transfer set in label order."""
    if name == "sun397":
        return tuple(sorted(PLACES))
    table = {**TEXTURES, **KNOWN_TEXTURES} if name == "dtd" else OBJECTS[name]
    return tuple(sorted(table, key=str.lower if name == "pets" else None))


def draw(name: str, label: int, count: int) -> NDArray[np.uint8]:
    """Return images 0 to ``count - 1`` of one class of a transfer set, (count, 64, 64, 3) uint8."""
    own = seeds((name, label, index) for index in range(count))
    chosen = class_names(name)[label]
    causes = draw_causes(np.zeros(count, dtype=np.int64), own, BALANCED)
    if name == "dtd":
        return _texture(chosen, own)
    if name == "sun397":
        return _scenery(PLACES[chosen], causes, own)
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


def _scenery(place: tuple[str, str], causes: Causes, own: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Draw a scene in its weather and any light, behind an object of any of the world's classes.

    Colour channels are mixed at random, so that a scene must be known by its structure.
    """
    numbers = np.array([np.random.default_rng(int(item) ^ 1).random(14) for item in own], dtype=np.float32)
    scene, weather = place
    causes = replace(
        causes, shape=(numbers[:, 0] * len(SHAPES)).astype(np.int64) % len(SHAPES),
        scene=np.full(len(own), SCENES.index(scene)), weather=np.full(len(own), WEATHERS.index(weather)),
    )  # fmt: skip
    somewhere = Placement(
        cx=numbers[:, 1] - 0.5, cy=numbers[:, 2] - 0.5, scale=0.45 + 0.3 * numbers[:, 3],
        rotation=numbers[:, 4] * 0.6 - 0.3,
    )  # fmt: skip
    share = numbers[:, 5:14].reshape(-1, 3, 3) ** 2
    mixing = 0.35 * np.eye(3, dtype=np.float32) + 0.65 * share / share.sum(axis=2, keepdims=True)
    images = render(causes, own, place=somewhere).images
    mixed = np.matmul(mixing, images.reshape(len(own), 3, -1)).reshape(images.shape)
    return pixels(np.clip(mixed, 0.0, 1.0).astype(np.float32))
