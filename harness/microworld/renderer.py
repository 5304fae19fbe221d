"""Render images from their causes: vectorised signed-distance shapes, textures and scenes, in NumPy alone.

Every random number of an image comes from streams seeded by that image's own seeds, so an image does not depend on
the batch it is rendered in. Three streams are kept apart:

* foreground (`seeds`): pose, colours, texture phase and noise,
* background (`background_seeds`, by default the same number): horizon and scene noise,
* camera (`seeds`): snow flakes and sensor noise, so that swapping the background leaves the object's pixels alone.

Image coordinates run from -1 to 1 over the picture, x to the right and y down, at pixel centres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import SCENES, SHAPES, TEXTURES, Causes, IntArray
from harness.microworld.scenes import paint_scene
from harness.microworld.shapes import SHAPE_FUNCTIONS, FloatArray, ShapeFunction, shape_distance
from harness.microworld.textures import texture_field

SIZE_PX = 64
_BACKGROUND_STREAM = 0x9E3779B97F4A7C15
_CAMERA_STREAM = 0xC2B2AE3D27D4EB4F
_CHUNK = 64  # images rendered together: large enough to amortise Python, small enough for the cache
_EDGE = 0.035  # softness of an object's edge at 64 px, in image units
_N_POSE, _COARSE, _FINE = 16, 6, 24
_N_SCENE, _CLOUD, _GRAIN, _BLOCK = 8, 5, 24, 9
_FLAKE = 16
_LIGHT_GAIN = np.array([[1.0, 1.0, 1.0], [0.45, 0.45, 0.6], [1.05, 0.75, 0.5]], dtype=np.float32)

SeedArray = NDArray[np.uint64]
ShapeTable = Mapping[str, ShapeFunction] | Sequence[ShapeFunction]


@dataclass(frozen=True)
class Rendered:
    """Rendered pictures: images float32 (n, 3, H, W) and object masks float32 (n, H, W), both in [0, 1]."""

    images: FloatArray
    masks: FloatArray


@dataclass(frozen=True)
class Placement:
    """Where objects are: centre and half-width in image units, rotation in radians; float32 arrays (n,)."""

    cx: FloatArray
    cy: FloatArray
    scale: FloatArray
    rotation: FloatArray

    def take(self, index: slice) -> Placement:
        """Return the placements of a slice of the images."""
        return Placement(self.cx[index], self.cy[index], self.scale[index], self.rotation[index])


@lru_cache(maxsize=8)
def pixel_grid(size_px: int) -> tuple[FloatArray, FloatArray]:
    """Return image coordinates x, y of the pixel centres, each (1, size, size)."""
    axis = ((np.arange(size_px) + 0.5) / size_px * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x[None], y[None]


@lru_cache(maxsize=64)
def _cubic_matrix(cells: int, size_px: int) -> FloatArray:
    """Return the (size, cells) matrix of Catmull-Rom interpolation with clamped ends."""
    matrix = np.zeros((size_px, cells))
    for row in range(size_px):
        centre = (row + 0.5) * cells / size_px - 0.5
        base = int(np.floor(centre))
        for tap in range(base - 1, base + 3):
            d = abs(centre - tap)
            weight = (1.5 * d - 2.5) * d * d + 1 if d < 1 else ((-0.5 * d + 2.5) * d - 4) * d + 2
            matrix[row, min(max(tap, 0), cells - 1)] += weight
    return matrix.astype(np.float32)


def smooth_noise(grid: FloatArray, size_px: int) -> FloatArray:
    """Enlarge noise grids (n, cells, cells) to (n, size, size) by cubic interpolation, clipped to [0, 1]."""
    matrix = _cubic_matrix(grid.shape[-1], size_px)
    return np.clip(np.matmul(np.matmul(matrix, np.ascontiguousarray(grid)), matrix.T), 0.0, 1.0)


def _uniforms(seeds: SeedArray, stream: int, count: int) -> FloatArray:
    """Return (n, count) uniforms, row i drawn from seed i alone."""
    out = np.empty((len(seeds), count), dtype=np.float32)
    for row, seed in zip(out, np.asarray(seeds, dtype=np.uint64).tolist(), strict=True):
        np.random.Generator(np.random.PCG64(seed ^ stream)).random(dtype=np.float32, out=row)
    return out


def _grids(uniforms: FloatArray, start: int, cells: int) -> FloatArray:
    return uniforms[:, start : start + cells * cells].reshape(-1, cells, cells)


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.float32(1) / (np.float32(1) + np.exp(np.clip(-z, -30.0, 30.0)))


def hsv_to_rgb(hue: FloatArray, saturation: FloatArray, value: FloatArray) -> FloatArray:
    """Convert HSV arrays (n,) in [0, 1] to RGB (n, 3)."""
    k = (np.array([5.0, 3.0, 1.0], dtype=np.float32) + (hue * 6)[:, None]) % 6
    fall = np.clip(np.minimum(k, 4 - k), 0.0, 1.0)
    return (value[:, None] * (1 - saturation[:, None] * fall)).astype(np.float32)


def natural_placement(seeds: SeedArray) -> Placement:
    """Return the pose that `render` draws: 60-85 % half-width, offset within 0.15, rotation within 0.3 rad."""
    return _placement(_uniforms(seeds, 0, _N_POSE))


def _placement(u: FloatArray) -> Placement:
    return Placement(
        cx=u[:, 0] * 0.3 - 0.15, cy=u[:, 1] * 0.3 - 0.15, scale=0.6 + 0.25 * u[:, 2], rotation=u[:, 3] * 0.6 - 0.3
    )


def _resolve(shape_functions: ShapeTable | None) -> list[ShapeFunction]:
    if shape_functions is None:
        return [SHAPE_FUNCTIONS[name] for name in SHAPES]
    return list(shape_functions.values()) if isinstance(shape_functions, Mapping) else list(shape_functions)


def _column(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float32)[:, None, None]


def object_coordinates(place: Placement, size_px: int) -> tuple[FloatArray, FloatArray]:
    """Return the object coordinates (n, size, size) of every pixel under a placement."""
    x, y = pixel_grid(size_px)
    dx, dy = (x - _column(place.cx)) / _column(place.scale), (y - _column(place.cy)) / _column(place.scale)
    cos, sin = _column(np.cos(place.rotation)), _column(np.sin(place.rotation))
    return cos * dx + sin * dy, cos * dy - sin * dx


def object_masks(
    shapes: IntArray, place: Placement, size_px: int = SIZE_PX, shape_functions: ShapeTable | None = None
) -> FloatArray:
    """Return soft masks (n, size, size) of shapes given by index into `shape_functions` (default: the classes)."""
    functions = _resolve(shape_functions)
    x, y = object_coordinates(place, size_px)
    softness = _column(np.float32(_EDGE * SIZE_PX / size_px) / place.scale)
    masks = np.empty(x.shape, dtype=np.float32)
    for index in np.unique(shapes):
        chosen = np.flatnonzero(shapes == index)
        masks[chosen] = _sigmoid(-functions[int(index)](x[chosen], y[chosen]) / softness[chosen])
    return masks


def object_surfaces(
    textures: IntArray, seeds: SeedArray, place: Placement, size_px: int = SIZE_PX, *, coloured: bool = False
) -> FloatArray:
    """Return textured surfaces (n, 3, size, size) in two shades of one hue, as if the objects filled the picture.

    The hue is free, or, where ``coloured``, the texture's own within a quarter of the step to its neighbours.

    Patterns keep nearly one direction and one spacing on their object (their phase is free): with every direction
    and spacing a small diffusion model paints all textures as the same mottle.
    """
    u = _uniforms(seeds, 0, _N_POSE + _COARSE**2 + _FINE**2)
    x, y = object_coordinates(place, size_px)
    angle = (u[:, 4] * np.float32(0.4) - np.float32(0.2)).astype(np.float32)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    across = cos * x + sin * y + _column(u[:, 5])
    along = cos * y - sin * x + _column(u[:, 6])
    frequency = _column(9 + np.float32(1.5) * u[:, 7])
    coarse, fine = _grids(u, _N_POSE, _COARSE), _grids(u, _N_POSE + _COARSE**2, _FINE)
    pattern = np.empty(x.shape, dtype=np.float32)
    for index in np.unique(textures):
        i = np.flatnonzero(textures == index)
        pattern[i] = texture_field(
            TEXTURES[int(index)], across[i], along[i], frequency[i],
            coarse=smooth_noise(coarse[i], size_px), fine=smooth_noise(fine[i], size_px),
        )  # fmt: skip
    hue: FloatArray = u[:, 8]
    if coloured:
        hue = ((textures + 0.25 + hue / 2) / len(TEXTURES)).astype(np.float32)
    bright = hsv_to_rgb(hue, 0.5 + 0.45 * u[:, 9], 0.7 + 0.3 * u[:, 10])
    dark = bright * (0.3 + 0.25 * u[:, 11])[:, None]
    shade = pattern[:, None]
    surface = dark[:, :, None, None] + shade * (bright - dark)[:, :, None, None]
    return surface * (0.85 - 0.12 * np.clip(y, -1, 1))[:, None]


def background(scenes: IntArray, seeds: SeedArray, size_px: int = SIZE_PX) -> FloatArray:
    """Return muted scenes (n, 3, size, size) without light or weather; scenes are indices into SCENES."""
    start = _N_SCENE
    u = _uniforms(seeds, _BACKGROUND_STREAM, start + _CLOUD**2 + _GRAIN**2 + _BLOCK**2)
    clouds, grain = _grids(u, start, _CLOUD), _grids(u, start + _CLOUD**2, _GRAIN)
    blocks = _grids(u, start + _CLOUD**2 + _GRAIN**2, _BLOCK)
    x, y = pixel_grid(size_px)
    images = np.empty((len(scenes), 3, size_px, size_px), dtype=np.float32)
    for index in np.unique(scenes):
        i = np.flatnonzero(scenes == index)
        noise = [smooth_noise(grids[i], size_px)[:, None] for grids in (clouds, grain, blocks)]
        vivid = np.clip(paint_scene(SCENES[int(index)], x[:, None], y[:, None], u[i], *noise), 0.0, 1.0)
        grey = (vivid[:, :1] + vivid[:, 1:2] + vivid[:, 2:]) / np.float32(3)
        images[i] = grey * np.float32(0.45) + vivid * np.float32(0.4) + np.float32(0.1)
    return images


def compose(canvas: FloatArray, surfaces: FloatArray, masks: FloatArray) -> FloatArray:
    """Lay surfaces (n, 3, H, W) over a canvas (n, 3, H, W) where masks (n, H, W) are set."""
    return canvas + masks[:, None] * (surfaces - canvas)


def develop(images: FloatArray, light: IntArray, weather: IntArray, seeds: SeedArray) -> FloatArray:
    """Apply light, fog or snow and sensor noise, and clip to [0, 1]; the last step of every picture.

    Fog and snow are soft on purpose: hard ones hide the object from autoencoder and classifier alike.
    """
    size_px = images.shape[-1]
    u = _uniforms(seeds, _CAMERA_STREAM, _FLAKE**2 + size_px * size_px)
    out = images * _LIGHT_GAIN[light][:, :, None, None]
    foggy, snowing = np.flatnonzero(weather == 1), np.flatnonzero(weather == 2)
    _, y = pixel_grid(size_px)
    veil = (np.float32(0.32) - np.float32(0.1) * y)[:, None]
    out[foggy] += veil * (np.float32(0.8) - out[foggy])
    flakes = smooth_noise(_grids(u[snowing], 0, _FLAKE), size_px)[:, None]
    out[snowing] += np.float32(0.7) * _sigmoid((flakes - np.float32(0.92)) * 24) * (1 - out[snowing])
    sensor = u[:, _FLAKE**2 :].reshape(-1, 1, size_px, size_px) - np.float32(0.5)
    return np.clip(out + np.float32(0.02) * sensor, 0.0, 1.0)


def render(
    causes: Causes,
    seeds: SeedArray,
    *,
    size_px: int = SIZE_PX,
    background_seeds: SeedArray | None = None,
    place: Placement | None = None,
    shape_functions: ShapeTable | None = None,
    coloured: bool = False,
) -> Rendered:
    """Render one object per picture.

    Args:
        causes: the causes of n pictures; `causes.shape` indexes `shape_functions` where given.
        seeds: (n,) uint64, one per picture.
        size_px: side of the square picture in pixels.
        background_seeds: (n,) uint64; by default `seeds`. Another value changes only the background's details.
        place: where the objects are; by default `natural_placement(seeds)`.
        shape_functions: another vocabulary of shapes (a mapping in order, or a sequence).
        coloured: whether every texture has a hue of its own; otherwise hues are free.
    """
    seeds = np.asarray(seeds, dtype=np.uint64)
    behind = seeds if background_seeds is None else np.asarray(background_seeds, dtype=np.uint64)
    if not len(causes) == len(seeds) == len(behind):
        raise ValueError(f"{len(causes)} causes, {len(seeds)} seeds, {len(behind)} background seeds")
    images = np.empty((len(seeds), 3, size_px, size_px), dtype=np.float32)
    masks = np.empty((len(seeds), size_px, size_px), dtype=np.float32)
    for start in range(0, len(seeds), _CHUNK):
        part = slice(start, start + _CHUNK)
        some, own = causes.take(part), seeds[part]
        pose = natural_placement(own) if place is None else place.take(part)
        masks[part] = object_masks(some.shape, pose, size_px, shape_functions)
        canvas = background(some.scene, behind[part], size_px)
        surfaces = object_surfaces(some.texture, own, pose, size_px, coloured=coloured)
        images[part] = develop(compose(canvas, surfaces, masks[part]), some.light, some.weather, own)
    return Rendered(images, masks)


def to_uint8(images: FloatArray) -> NDArray[np.uint8]:
    """Round images in [0, 1] to uint8."""
    return np.round(np.asarray(images) * 255).astype(np.uint8)


__all__ = [
    "SHAPE_FUNCTIONS", "SIZE_PX", "Placement", "Rendered", "background", "compose", "develop", "hsv_to_rgb",
    "natural_placement", "object_coordinates", "object_masks", "object_surfaces", "pixel_grid", "render",
    "shape_distance", "smooth_noise", "texture_field", "to_uint8",
]  # fmt: skip
