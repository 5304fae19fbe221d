"""Detection and segmentation sets of the embedded world, in the layouts of COCO 2017 and ADEChallengeData2016."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.microworld import renderer
from harness.microworld.causes import BALANCED, SCENES, SHAPES, WEB, Doses, draw_causes
from harness.microworld.datasets.files import pixels, save_image, save_json, save_lines, seed, seeds
from harness.microworld.datasets.outlines import outline_polygon, run_lengths
from harness.microworld.renderer import Placement

WIDTH_PX, HEIGHT_PX = 128, 96
CATEGORY_IDS = (1, 2, 3, 4, 6, 7, 8, 10, 11, 13, 14, 15)
"""COCO ids of the twelve shapes; like the public ids they have gaps."""

# What the two parts of each scene are called: above and below the horizon, or behind and on the towers of the city.
_PARTS = {
    "sky": ("sky", "sky"), "meadow": ("sky", "grass"), "sea": ("sky", "water"), "desert": ("sky", "sand"),
    "forest": ("trees", "trees"), "room": ("wall", "floor"), "space": ("space", "space"), "city": ("sky", "building"),
}  # fmt: skip
STUFF = ("sky", "grass", "water", "sand", "trees", "wall", "floor", "space", "building")
ADE_CLASSES = (*STUFF, *SHAPES)
"""Segmentation classes; index 1 is the first, 0 means other: here the soft rim of an object."""


@dataclass(frozen=True)
class _Composition:
    """How the pictures of a set are drawn: up to how many objects, range of half-widths (half the picture's width is 1),
    and how strongly the other causes go with the shape."""

    most: int
    smallest: float
    largest: float
    doses: Doses


_DETECTION = _Composition(most=3, smallest=0.22, largest=0.42, doses=BALANCED)
# One object about as large as in the pictures of pre-training, in the world that those show: a class has a few pictures
# only, and what a backbone has learned about it must be able to tell.
_SEGMENTATION = _Composition(most=1, smallest=0.4, largest=0.56, doses=WEB)


@dataclass(frozen=True)
class _View:
    """One picture: pixels (96, 128, 3) uint8, the shape and visible mask of every object, the soft rims, the scene."""

    image: NDArray[np.uint8]
    shapes: tuple[int, ...]
    masks: tuple[NDArray[np.bool_], ...]
    rim: NDArray[np.bool_]
    scene: str
    parts: NDArray[np.int64]


def _crop(square: NDArray[Any]) -> NDArray[Any]:
    """Cut the middle 96 rows out of square pictures (..., 128, 128)."""
    margin = (WIDTH_PX - HEIGHT_PX) // 2
    return square[..., margin : margin + HEIGHT_PX, :]


def _places(rng: np.random.Generator, composition: _Composition) -> list[tuple[float, float, float]]:
    """Draw centres and half-widths of objects that overlap little."""
    wanted, found = int(rng.integers(1, composition.most + 1)), list[tuple[float, float, float]]()
    for _ in range(200):
        half = float(rng.uniform(composition.smallest, composition.largest))
        x, y = float(rng.uniform(half - 1.0, 1.0 - half)), float(rng.uniform(half - 0.72, 0.72 - half))
        if all(np.hypot(x - a, y - b) > 0.85 * (half + size) for a, b, size in found):
            found.append((x, y, half))
        if len(found) == wanted:
            break
    return found


def _draw_view(stream: str, index: int, composition: _Composition) -> _View:
    """Compose one picture; scene, light and weather are those of its first object."""
    rng = np.random.default_rng(seed(stream, "places", index))
    places = _places(rng, composition)
    count = len(places)
    own = seeds((stream, "object", index, number) for number in range(count))
    causes = draw_causes(rng.integers(len(SHAPES), size=count), own, composition.doses)
    x, y, half = np.array(places, dtype=np.float32).T
    place = Placement(x, y, half, rng.uniform(-0.3, 0.3, size=count).astype(np.float32))
    masks = renderer.object_masks(causes.shape, place, WIDTH_PX)
    surfaces = renderer.object_surfaces(causes.texture, own, place, WIDTH_PX)
    canvas = renderer.background(causes.scene[:1], own[:1], WIDTH_PX)
    for number in range(count):
        canvas = renderer.compose(canvas, surfaces[number : number + 1], masks[number : number + 1])
    image = renderer.develop(canvas, causes.light[:1], causes.weather[:1], own[:1])
    solid = _crop(masks > 0.5)
    visible = tuple(solid[number] & ~solid[number + 1 :].any(axis=0) for number in range(count))
    rim = _crop(np.any((masks > 0.3) & (masks < 0.7), axis=0))
    scene = SCENES[int(causes.scene[0])]
    return _View(
        pixels(_crop(image))[0],
        tuple(int(shape) for shape in causes.shape),
        visible,
        rim,
        scene,
        _scene_parts(scene, own[:1]),
    )


def _scene_parts(scene: str, own: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return 0 above the horizon and 1 below it (city: 0 beside and 1 on the towers), (96, 128).

    Horizon and towers come from the renderer's own background stream, so the labels are exact.
    """
    start = renderer._N_SCENE + renderer._CLOUD**2 + renderer._GRAIN**2
    numbers = renderer._uniforms(own, renderer._BACKGROUND_STREAM, start + renderer._BLOCK**2)
    _, y = renderer.pixel_grid(WIDTH_PX)
    if scene == "city":
        blocks = renderer.smooth_noise(renderer._grids(numbers, start, renderer._BLOCK), WIDTH_PX)
        lower = y > blocks - np.float32(0.6)
    else:
        lower = y >= numbers[:, :1, None] * np.float32(0.5) - np.float32(0.25)
    return _crop(lower.astype(np.int64))[0]


def write_coco(root: Path, train: int, val: int) -> None:
    """Write images and ``instances_*2017.json``: polygons for objects without holes, run lengths for the others."""
    categories = [
        {"supercategory": "shape", "id": number, "name": name}
        for number, name in zip(CATEGORY_IDS, SHAPES, strict=True)
    ]
    for part, count in (("train", train), ("val", val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            view = _draw_view(f"coco {part}", index, _DETECTION)
            number = 9 + 31 * index + (500000 if part == "val" else 0)
            name = f"{number:012d}.jpg"
            save_image(root / f"{part}2017" / name, view.image)
            images.append({"id": number, "file_name": name, "width": WIDTH_PX, "height": HEIGHT_PX, "license": 1})
            annotations += _instances(view, number, len(annotations) + 1)
        content = {
            "info": {"description": "embedded world", "version": "1.0"},
            "licenses": [{"id": 1, "name": "that of this software", "url": ""}],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        save_json(root / "annotations" / f"instances_{part}2017.json", content)


def _instances(view: _View, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Return the COCO annotations of a picture; an object hidden to a few pixels is left out."""
    rows: list[dict[str, Any]] = []
    for shape, mask in zip(view.shapes, view.masks, strict=True):
        area = int(mask.sum())
        if area < 30:
            continue
        down, across = np.nonzero(mask)
        left, top = int(across.min()), int(down.min())
        polygon = outline_polygon(mask)
        rows.append(
            {
                "id": first_id + len(rows),
                "image_id": image_id,
                "category_id": CATEGORY_IDS[shape],
                "iscrowd": 0,
                "area": area,
                "bbox": [left, top, int(across.max()) + 1 - left, int(down.max()) + 1 - top],
                "segmentation": [polygon] if polygon else {"size": [HEIGHT_PX, WIDTH_PX], "counts": run_lengths(mask)},
            }
        )
    return rows


def write_ade(root: Path, train: int, val: int) -> None:
    """Write images, indexed label pictures, and the tables of objects and scenes."""
    pictures_with = np.zeros((2, len(ADE_CLASSES) + 1), dtype=np.int64)
    area = np.zeros(len(ADE_CLASSES) + 1, dtype=np.int64)
    scenes: list[str] = []
    for row, (folder, part, count) in enumerate((("training", "train", train), ("validation", "val", val))):
        for index in range(count):
            view = _draw_view(f"ade {part}", index, _SEGMENTATION)
            labels = _labels(view)
            stem = f"ADE_{part}_{index + 1:08d}"
            save_image(root / "images" / folder / f"{stem}.jpg", view.image)
            _save_indexed(root / "annotations" / folder / f"{stem}.png", labels)
            scenes.append(f"{stem} {view.scene}")
            pictures_with[row, np.unique(labels)] += 1
            if part == "train":
                area += np.bincount(labels.ravel(), minlength=len(area))
    ratio = area / area.sum()
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    table += [
        f"{i}\t{ratio[i]:.4f}\t{pictures_with[0, i]}\t{pictures_with[1, i]}\t{int(name in STUFF)}\t{name}"
        for i, name in enumerate(ADE_CLASSES, start=1)
    ]
    save_lines(root / "objectInfo150.txt", table)
    save_lines(root / "sceneCategories.txt", scenes)


def _labels(view: _View) -> NDArray[np.uint8]:
    """Return the label picture: scene parts, objects over them, and 0 on the objects' soft rims."""
    names = np.array([ADE_CLASSES.index(part) + 1 for part in _PARTS[view.scene]], dtype=np.uint8)
    labels = names[view.parts]
    for shape, mask in zip(view.shapes, view.masks, strict=True):
        labels[mask] = len(STUFF) + shape + 1
    labels[view.rim] = 0
    return labels


def _save_indexed(path: Path, labels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels, mode="L").save(path, format="PNG", compress_level=6, optimize=False)
