"""ImageFolders of the embedded world: training and validation images of the web world, and the balanced world."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.microworld.causes import SHAPES, Doses, draw_causes
from harness.microworld.datasets.files import pixels, save_images, seeds
from harness.microworld.renderer import render


def class_id(shape: int) -> str:
    """Return the id under which a shape is listed in ``classes.txt``."""
    return f"m{shape + 1:08d}"


def write_folder(folder: Path, stream: str, per_class: int, dose: float, *, validation: bool, coloured: bool) -> None:
    """Write ``<class id>/<file>.JPEG``, named like ILSVRC-2012's training or validation images.

    Args:
        folder: the ImageFolder's root.
        stream: separates the images of this set from those of all others.
        per_class: images of each class.
        dose: planted correlation of every cause with the class.
        validation: number the files through the whole set instead of within the class.
        coloured: whether every texture has a hue of its own, as in the worlds of a calibration.
    """
    for shape in range(len(SHAPES)):
        own = seeds((stream, shape, index) for index in range(per_class))
        causes = draw_causes(np.full(per_class, shape), own, Doses.all(dose))
        if validation:
            first = shape * per_class + 1
            names = [f"ILSVRC2012_val_{first + index:08d}.JPEG" for index in range(per_class)]
        else:
            names = [f"{class_id(shape)}_{index}.JPEG" for index in range(per_class)]
        images = pixels(render(causes, own, coloured=coloured).images)
        save_images([folder / class_id(shape) / name for name in names], images)
