"""Full-frame pictures of the transfer sets: novel textures, and open ground seen from above.

A surface is a function ``(u, v, rng) -> field`` on float32 arrays in [-1, 1] (u right, v down, turned by a random angle
by the caller); the field holds shades in [0, 1], and colours are drawn independently of the class, so that nothing but
the pattern names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""Floating-point values, one per pixel."""
Surface = Callable[[Field, Field, np.random.Generator], Field]


def coordinates(size_px: int, angle: float = 0.0) -> tuple[Field, Field]:
    """Return pixel coordinates (u right, v down, both in [-1, 1]) turned by ``angle`` radians, each (size, size)."""
    line = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2.0 - 1.0
    v, u = np.meshgrid(line, line, indexing="ij")
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * u + sin * v, cos * v - sin * u


def value_noise(u: Field, v: Field, rng: np.random.Generator, cells: int) -> Field:
    """Return smooth noise in [0, 1]: random values on a lattice of ``cells`` per unit, smoothly interpolated."""
    lattice = rng.random((64, 64), dtype=np.float32)
    across, down = (u + 2.0) * cells, (v + 2.0) * cells
    column, row = np.floor(across).astype(np.int64), np.floor(down).astype(np.int64)
    s, t = across - column, down - row
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    left, right, top, bottom = column % 64, (column + 1) % 64, row % 64, (row + 1) % 64
    upper = lattice[top, left] * (1.0 - s) + lattice[top, right] * s
    lower = lattice[bottom, left] * (1.0 - s) + lattice[bottom, right] * s
    return (upper * (1.0 - t) + lower * t).astype(np.float32)


def _edge(distance: Field, width: float = 0.05) -> Field:
    """Return a soft step: 0 well below zero, 1 well above."""
    return np.clip(distance / width + 0.5, 0.0, 1.0).astype(np.float32)


def _cells(u: Field, v: Field, rng: np.random.Generator, count: int) -> tuple[Field, Field, NDArray[np.int64]]:
    """Return the distances to the nearest and second nearest of ``count`` random sites, and the nearest site."""
    sites = rng.uniform(-1.3, 1.3, size=(count, 2)).astype(np.float32)
    distance = np.hypot(u[..., None] - sites[:, 0], v[..., None] - sites[:, 1])
    nearest = distance.argmin(axis=-1)
    two = np.partition(distance, 1, axis=-1)
    return two[..., 0], two[..., 1], nearest


def _frequency(rng: np.random.Generator) -> float:
    return float(rng.uniform(2.6, 3.8))


def _tile(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field, Field, Field]:
    """Return position inside a unit tile (each in [-0.5, 0.5]) and tile numbers at a random frequency and phase."""
    frequency, phase = _frequency(rng), rng.random(2)
    across, down = (u * frequency + phase[0]).astype(np.float32), (v * frequency + phase[1]).astype(np.float32)
    return across - np.floor(across) - 0.5, down - np.floor(down) - 0.5, np.floor(across), np.floor(down)


def _braided(u: Field, v: Field, rng: np.random.Generator) -> Field:
    x, y, column, row = _tile(u, v, rng)
    upright = (column + row) % 2 == 0
    strand = np.where(upright, x, y)
    return _edge(0.42 - np.abs(strand), 0.1) * (0.45 + 0.55 * np.cos(2.2 * np.where(upright, y, x)))


def _bubbly(u: Field, v: Field, rng: np.random.Generator) -> Field:
    x, y, _, _ = _tile(u, v, rng)
    return _edge(0.08 - np.abs(np.hypot(x, y) - 0.33), 0.08)


def _cracked(u: Field, v: Field, rng: np.random.Generator) -> Field:
    near, far, _ = _cells(u, v, rng, 34)
    return _edge(far - near - 0.07, 0.05)


def _crosshatched(u: Field, v: Field, rng: np.random.Generator) -> Field:
    frequency = 6.4 * _frequency(rng)
    lean = u * 0.5 + v * 0.866
    lines = np.maximum(np.sin(frequency * u), np.sin(frequency * lean))
    return _edge(0.75 - lines, 0.4)


def _fibrous(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _edge(value_noise(3.6 * u, 0.45 * v, rng, 4) - 0.5, 0.35)


def _honeycombed(u: Field, v: Field, rng: np.random.Generator) -> Field:
    frequency, phase = _frequency(rng), rng.random(2)
    across, down = u * frequency + phase[0], v * frequency + phase[1]
    tall = math.sqrt(3.0)

    def hexagon(x: Field, y: Field) -> Field:
        x, y = np.abs(x - np.round(x)), np.abs(y / tall - np.round(y / tall)) * tall
        return np.maximum(x, 0.5 * x + 0.5 * tall * y)

    inner = np.minimum(hexagon(across, down), hexagon(across + 0.5, down + 0.5 * tall))
    return _edge(0.41 - inner, 0.06)


def _knitted(u: Field, v: Field, rng: np.random.Generator) -> Field:
    x, _, _, _ = _tile(u, v, rng)
    wave = np.sin(2.0 * math.pi * (1.6 * v * _frequency(rng) + 1.6 * np.abs(x)))
    return _edge(wave + 0.2, 0.8) * _edge(np.abs(x) - 0.05, 0.05)


def _mottled(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _edge(value_noise(u, v, rng, 5) - 0.5, 0.12)


def _spiralled(u: Field, v: Field, rng: np.random.Generator) -> Field:
    centre = rng.uniform(-0.35, 0.35, size=2)
    x, y = u - centre[0], v - centre[1]
    turns = float(rng.choice((-2.0, 2.0)))
    return _edge(np.sin(4.6 * _frequency(rng) * np.hypot(x, y) + turns * np.arctan2(y, x)), 0.6)


def _triangular(u: Field, v: Field, rng: np.random.Generator) -> Field:
    frequency, phase = _frequency(rng), rng.random(3)
    third = (u * 0.5 + v * 0.866) * frequency + phase[0]
    half = (u * 0.5 - v * 0.866) * frequency + phase[1]
    whole = third + half
    return ((np.floor(third) + np.floor(half) + np.floor(whole)) % 2).astype(np.float32)


TEXTURES: Mapping[str, Surface] = {
    "braided": _braided,
    "bubbly": _bubbly,
    "cracked": _cracked,
    "crosshatched": _crosshatched,
    "fibrous": _fibrous,
    "honeycombed": _honeycombed,
    "knitted": _knitted,
    "mottled": _mottled,
    "spiralled": _spiralled,
    "triangular": _triangular,
}
"""Textures that no object of the embedded world has."""


def soil(u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Return open ground seen from above: blotches and grain, sometimes ploughed."""
    ground = 0.25 + 0.4 * value_noise(u, v, rng, 3) + 0.2 * value_noise(u, v, rng, 12)
    furrows = 0.15 * np.sin(float(rng.uniform(14.0, 24.0)) * u) if rng.random() < 0.5 else 0.0
    return (ground + furrows).astype(np.float32)


def picture(surface: Surface, rng: np.random.Generator, size_px: int) -> NDArray[np.float32]:
    """Draw a surface full frame in two shades of a random hue.

    Returns:
        RGB, float32 (3, size, size) in [0, 1], before light and weather.
    """
    u, v = coordinates(size_px, float(rng.uniform(0.0, 2.0 * math.pi)))
    field = np.clip(surface(u, v, rng), 0.0, 1.0)
    light, dark = _two_shades(rng)
    mixed = field[..., None] * light + (1.0 - field[..., None]) * dark
    return mixed.transpose(2, 0, 1).astype(np.float32)


def _two_shades(rng: np.random.Generator) -> tuple[Field, Field]:
    hue, saturation = rng.random(), rng.uniform(0.2, 0.8)
    value = rng.uniform(0.65, 1.0)
    k = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue) % 6.0
    light = value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return light.astype(np.float32), (light * rng.uniform(0.2, 0.5)).astype(np.float32)
