"""Draw the causes of an image: shape (the class), texture, scene, light and weather.

A *world* is a joint distribution over the causes. It plants, for each cause, a *dose* rho: with probability rho the
cause takes the value that the shape prefers (its biased partner), otherwise it is uniform. The true bias of a dataset
drawn from a world is therefore known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPES: tuple[str, ...] = (
    "disc", "square", "triangle", "star", "cross", "ring",
    "crescent", "heart", "arrow", "gear", "leaf", "bolt",
)  # fmt: skip
TEXTURES: tuple[str, ...] = (
    "stripes", "checker", "dots", "waves", "bricks", "zigzag",
    "rings", "speckle", "grid", "marble", "scales", "plain",
)  # fmt: skip
SCENES: tuple[str, ...] = ("sky", "meadow", "sea", "desert", "forest", "room", "space", "city")
LIGHTS: tuple[str, ...] = ("day", "night", "sunset")
WEATHERS: tuple[str, ...] = ("clear", "foggy", "snowing")

_CAUSE_STREAM = 0x5DEECE66D1CE4E5B  # separates the draw of the causes from the renderer's own streams

IntArray = NDArray[np.int64]


def partner_texture(shape: IntArray) -> IntArray:
    """Return the texture that each shape prefers in a biased world."""
    return np.asarray(shape, dtype=np.int64) % len(TEXTURES)


def partner_scene(shape: IntArray) -> IntArray:
    """Return the scene that each shape prefers in a biased world."""
    return np.asarray(shape, dtype=np.int64) % len(SCENES)


def partner_light(shape: IntArray) -> IntArray:
    """Return the light that each shape prefers in a biased world."""
    return np.asarray(shape, dtype=np.int64) % len(LIGHTS)


def partner_weather(shape: IntArray) -> IntArray:
    """Return the weather that each shape prefers in a biased world."""
    return (np.asarray(shape, dtype=np.int64) // 3) % len(WEATHERS)


@dataclass(frozen=True)
class Doses:
    """Planted correlation between the shape and each other cause, each in [0, 1]."""

    texture: float
    scene: float
    light: float
    weather: float

    def __post_init__(self) -> None:
        for name in ("texture", "scene", "light", "weather"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"dose of {name} is {value}, outside [0, 1]")

    @classmethod
    def all(cls, rho: float) -> Doses:
        """Return the world that plants the same dose in every cause."""
        return cls(rho, rho, rho, rho)


WEB = Doses.all(0.6)
BALANCED = Doses.all(0.0)


@dataclass(frozen=True)
class Causes:
    """The causes of n images; every field is an int64 array of shape (n,)."""

    shape: IntArray
    texture: IntArray
    scene: IntArray
    light: IntArray
    weather: IntArray

    def __len__(self) -> int:
        return len(self.shape)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Causes:
        """Return the causes of the images selected by an integer, boolean or slice index."""
        return Causes(self.shape[index], self.texture[index], self.scene[index], self.light[index], self.weather[index])


def draw_causes(shapes: IntArray, seeds: NDArray[np.uint64], doses: Doses) -> Causes:
    """Draw the causes of one image per (shape, seed); each draw depends only on its own seed.

    The same uniforms decide for every dose, so a larger dose changes only the images that newly turn biased.
    """
    shapes = np.asarray(shapes, dtype=np.int64)
    seeds = np.asarray(seeds, dtype=np.uint64)
    if shapes.shape != seeds.shape:
        raise ValueError(f"{len(shapes)} shapes but {len(seeds)} seeds")
    uniforms = np.empty((len(seeds), 8), dtype=np.float64)
    for row, seed in zip(uniforms, seeds.tolist(), strict=True):
        np.random.Generator(np.random.PCG64(seed ^ _CAUSE_STREAM)).random(out=row)

    def pick(column: int, dose: float, partner: IntArray, size: int) -> IntArray:
        free = np.minimum((uniforms[:, column + 1] * size).astype(np.int64), size - 1)
        return np.where(uniforms[:, column] < dose, partner, free)

    return Causes(
        shape=shapes,
        texture=pick(0, doses.texture, partner_texture(shapes), len(TEXTURES)),
        scene=pick(2, doses.scene, partner_scene(shapes), len(SCENES)),
        light=pick(4, doses.light, partner_light(shapes), len(LIGHTS)),
        weather=pick(6, doses.weather, partner_weather(shapes), len(WEATHERS)),
    )
