"""The vivid scenes behind the objects; the renderer mutes them afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def _rgb(red: float, green: float, blue: float) -> FloatArray:
    return np.array([red, green, blue], dtype=np.float32)[None, :, None, None]


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.float32(1) / (np.float32(1) + np.exp(np.clip(-z, -30.0, 30.0)))


def _city(x: FloatArray, y: FloatArray, up: FloatArray, blocks: FloatArray) -> FloatArray:
    tower = (y > blocks - np.float32(0.6)).astype(np.float32)
    lit = tower * (np.sin(22 * x) > 0.5) * (np.sin(26 * y) > 0.4)
    wall = _rgb(0.5, 0.55, 0.6) * (np.float32(0.6) + np.float32(0.4) * up)
    return wall - tower * _rgb(0.25, 0.25, 0.2) + lit.astype(np.float32) * _rgb(0.5, 0.45, 0.1)


def _room(x: FloatArray, y: FloatArray, horizon: FloatArray, up: FloatArray) -> FloatArray:
    depth = np.maximum(y - horizon + np.float32(0.6), np.float32(0.2))
    boards = (np.sin(14 * x / depth) > 0).astype(np.float32)
    floor = _rgb(0.55, 0.35, 0.2) * (np.float32(0.8) + np.float32(0.3) * boards)
    return up * _rgb(0.85, 0.8, 0.7) + (1 - up) * floor


def _forest(x: FloatArray, u: FloatArray, grain: FloatArray) -> FloatArray:
    trunks = _sigmoid((np.sin(11 * x + 6 * u[:, 1, None, None, None]) - np.float32(0.6)) * 8)
    return _rgb(0.1, 0.3, 0.1) * (np.float32(0.5) + grain) + _rgb(0.3, 0.2, 0.1) * trunks


def paint_scene(
    name: str, x: FloatArray, y: FloatArray, u: FloatArray,
    clouds: FloatArray, grain: FloatArray, blocks: FloatArray,
) -> FloatArray:  # fmt: skip
    """Return a vivid scene (n, 3, H, W).

    Args:
        name: one of SCENES.
        x, y: (1, 1, H, W) image coordinates.
        u: (n, k) uniforms of the image (horizon, trunk phase).
        clouds, grain, blocks: (n, 1, H, W) smooth noise of 5, 24 and 9 cells a side.
    """
    horizon = (u[:, 0] * np.float32(0.5) - np.float32(0.25))[:, None, None, None]
    up = (y < horizon).astype(np.float32)
    if name == "sky":
        white = np.float32(0.55) * _sigmoid((clouds - np.float32(0.55)) * 14)
        return _rgb(0.35, 0.6, 0.95) * (np.float32(0.8) + np.float32(0.2) * y) + white
    if name == "meadow":
        return up * _rgb(0.6, 0.8, 0.95) + (1 - up) * (_rgb(0.2, 0.6, 0.15) * (0.6 + np.float32(0.7) * grain))
    if name == "sea":
        swell = np.sin(18 * y * (1 + y) + 4 * clouds)
        return up * _rgb(0.75, 0.85, 0.95) + (1 - up) * (_rgb(0.05, 0.3, 0.55) * (0.8 + np.float32(0.5) * swell))
    if name == "desert":
        dunes = np.sin(9 * y + 5 * clouds + 2 * x)
        return up * _rgb(0.95, 0.85, 0.65) + (1 - up) * (_rgb(0.85, 0.65, 0.35) * (0.85 + np.float32(0.2) * dunes))
    if name == "forest":
        return _forest(x, u, grain)
    if name == "room":
        return _room(x, y, horizon, up)
    if name == "space":
        stars = np.float32(0.8) * _sigmoid((grain - np.float32(0.93)) * 40)
        return _rgb(0.04, 0.05, 0.15) + stars + np.float32(0.1) * clouds * _rgb(0.3, 0.2, 0.6)
    if name == "city":
        return _city(x, y, up, blocks)
    raise KeyError(name)
