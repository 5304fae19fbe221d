"""Objects of all sizes and places, in the layout of the backgrounds challenge: ``original`` and ``only_fg``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.microworld.causes import BALANCED, SHAPES, draw_causes
from harness.microworld.datasets.files import pixels, save_images, seed, seeds
from harness.microworld.datasets.worlds import class_id
from harness.microworld.placement import POSITIONS, SIZES, half_widths, heights, partner_position, partner_size
from harness.microworld.renderer import Placement, natural_placement, render


def object_folders() -> tuple[str, ...]:
    """Return the class folders, ``00_disc`` and so on, in label order."""
    return tuple(f"{label:02d}_{name}" for label, name in enumerate(SHAPES))


def write_objects(root: Path, per_class: int, dose: float) -> None:
    """Write both variations, ``per_class`` of each shape, in balanced scenes, light, weather and textures.

    Size and position are drawn apart, each that of the shape with probability ``dose``, else any, so that every shape has a
    usual size and a usual place and occurs in all others.
    """
    for shape, folder in enumerate(object_folders()):
        shapes = np.full(per_class, shape)
        own = seeds(("objects", shape, index) for index in range(per_class))
        rng = np.random.default_rng(seed("objects", shape))
        sizes, places = (
            np.where(rng.random(per_class) < dose, usual(shapes), rng.integers(len(values), size=per_class))
            for usual, values in ((partner_size, SIZES), (partner_position, POSITIONS))
        )
        spread = rng.random((2, per_class), dtype=np.float32)
        natural = natural_placement(own)
        place = Placement(natural.cx, heights(places, spread[0]), half_widths(sizes, spread[1]), natural.rotation)
        made = render(draw_causes(shapes, own, BALANCED), own, place=place, coloured=True)
        solid = (made.masks > 0.5)[:, None]
        stems = [f"{class_id(shape)}_{shape * per_class + index:05d}" for index in range(per_class)]
        for variation, images in (("original", made.images), ("only_fg", np.where(solid, made.images, 0.0))):
            base = root / "bg_challenge" / variation / "val" / folder
            save_images([base / f"{stem}.JPEG" for stem in stems], pixels(images))
