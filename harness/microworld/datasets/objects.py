"""Objects of all sizes and places, in the layout of the backgrounds challenge: ``original`` and ``only_fg``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.microworld.causes import BALANCED, SHAPES, draw_causes
from harness.microworld.datasets.files import pixels, save_images, seeds
from harness.microworld.datasets.worlds import class_id
from harness.microworld.placement import planted_placement
from harness.microworld.renderer import render


def object_folders() -> tuple[str, ...]:
    """Return the class folders, ``00_disc`` and so on, in label order."""
    return tuple(f"{label:02d}_{name}" for label, name in enumerate(SHAPES))


def write_objects(root: Path, per_class: int, dose: float) -> None:
    """Write both variations, ``per_class`` of each shape, in balanced scenes, light, weather and textures.

    Size and position are drawn apart, each that of the shape with probability ``dose``, so that every shape has a usual size
    and a usual place and occurs in all others.
    """
    for shape, folder in enumerate(object_folders()):
        shapes = np.full(per_class, shape)
        own = seeds(("objects", shape, index) for index in range(per_class))
        place = planted_placement(shapes, own, dose, dose)
        made = render(draw_causes(shapes, own, BALANCED), own, place=place, coloured=True)
        alone = np.where((made.masks > 0.5)[:, None], made.images, 0.0)
        stems = [f"{class_id(shape)}_{shape * per_class + index:05d}" for index in range(per_class)]
        for variation, images in (("original", made.images), ("only_fg", alone)):
            base = root / "bg_challenge" / variation / "val" / folder
            save_images([base / f"{stem}.JPEG" for stem in stems], pixels(images))
