"""The surface patterns of the world, as fields in [0, 1] over rotated object coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def _edge(z: FloatArray) -> FloatArray:
    """Soften a level set into a field in [0, 1]."""
    return np.float32(1) / (np.float32(1) + np.exp(np.clip(-6 * z, -30.0, 30.0)))


def _bricks(a: FloatArray, b: FloatArray) -> FloatArray:
    courses = b * np.float32(0.75 / np.pi)
    row = np.floor(courses)
    column = a * np.float32(0.75 / (2 * np.pi)) + np.float32(0.5) * (row % 2)
    mortar_v = np.float32(0.5) - np.abs(courses - row - np.float32(0.5))
    mortar_h = (np.float32(0.5) - np.abs(column - np.floor(column) - np.float32(0.5))) * 2
    return _edge((np.minimum(mortar_v, mortar_h) - np.float32(0.13)) * 3)


def _scales(a: FloatArray, b: FloatArray) -> FloatArray:
    a, b = a * np.float32(0.32), b * np.float32(0.32)
    row = np.floor(b)
    u = a + np.float32(0.5) * (row % 2)
    u = u - np.floor(u) - np.float32(0.5)
    v = b - row
    return _edge(np.float32(0.5) - np.sqrt(u * u + v * v))


def texture_field(
    name: str, u: FloatArray, v: FloatArray, frequency: FloatArray, *, coarse: FloatArray, fine: FloatArray
) -> FloatArray:
    """Return the pattern of a named texture.

    Args:
        name: one of TEXTURES.
        u, v: (n, H, W) coordinates across and along the pattern.
        frequency: (n, 1, 1) radians per unit of u, v.
        coarse, fine: (n, H, W) smooth noise in [0, 1] for the irregular textures.
    """
    a, b = frequency * u, frequency * v
    if name == "stripes":
        return _edge(np.sin(a))
    if name == "checker":
        return _edge(np.sin(a) * np.sin(b) * 2)
    if name == "dots":
        return _edge(np.cos(a) + np.cos(b) - np.float32(0.7))
    if name == "waves":
        return _edge(np.sin(a + 2 * np.sin(b * np.float32(0.5))))
    if name == "bricks":
        return _bricks(a, b)
    if name == "zigzag":
        ramp = b / 4 - 2 * np.floor(b / 8)
        return _edge(np.sin(a + 3 * np.abs(ramp - 1)))
    if name == "rings":
        return _edge(np.sin(frequency * np.float32(1.2) * np.sqrt(u * u + v * v)))
    if name == "speckle":
        return _edge((fine - np.float32(0.62)) * 5)
    if name == "grid":
        lines = np.minimum(np.abs(np.sin(a * np.float32(0.5))), np.abs(np.sin(b * np.float32(0.5))))
        return _edge((lines - np.float32(0.25)) * 3)
    if name == "marble":
        return _edge(np.sin(a * np.float32(0.6) + 6 * coarse) * np.float32(0.6))
    if name == "scales":
        return _scales(a, b)
    if name == "plain":
        return np.full_like(u, 0.8)
    raise KeyError(name)
