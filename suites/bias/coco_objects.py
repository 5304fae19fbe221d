"""Objects of known size and place in COCO's own annotations, for the sixteen categories that cue-conflict took from COCO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from harness.api import UserError, refuse_malformed
from suites.bias.cards import BiasCard, CueConflictCard
from suites.bias.images import Geometry
from suites.perception.cards import CocoCard, read_coco, require

SEEN = 0.5
"""Smallest part of an object's box that the network must see: its input is the centre square of the picture."""
GEOMETRY = Geometry("resize-crop", 224)


class CocoObjectsCard(BiasCard):
    """The sixteen categories with their ImageNet classes, and where the annotations lie."""

    default_file: ClassVar[str] = CueConflictCard.default_file
    layout: CocoCard

    @classmethod
    def load(cls, changes: Mapping[str, Any] | None = None) -> Self:
        """Return the card; ``changes`` are those of the suite `coco`: file and folder names.

        Raises:
            UserError: an unknown key or a value of the wrong type.
        """
        public = CueConflictCard.load()
        return cls(
            name="COCO 2017 val",
            attribution=public.attribution,
            categories=public.categories,
            image_size=GEOMETRY.size,
            layout=CocoCard(**dict(changes or {})),
        )


def visible_box(box: tuple[float, float, float, float], width: float, height: float) -> tuple[float, float]:
    """Return size and height of the visible part of a box (x, y, width, height, pixels) in the centre square of a picture.

    Size is the square root of the share of the square's area; height is the vertical centre, 0 at the top and 1 at the
    bottom. NaN where less than half of the box is visible.
    """
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    x0, y0, wide, tall = box
    across = min(x0 + wide, left + side) - max(x0, left)
    upper, lower = max(y0, top), min(y0 + tall, top + side)
    if min(across, lower - upper, wide, tall) <= 0 or across * (lower - upper) < SEEN * wide * tall:
        return float("nan"), float("nan")
    return float(np.sqrt(across * (lower - upper)) / side), float(((upper + lower) / 2 - top) / side)


def _objects(content: Mapping[str, Any], names: list[str]) -> list[tuple[str, int, tuple[float, float]]]:
    """Return the pictures with objects of one category: name, category, and size and height of the largest object."""
    label_of = {item["id"]: names.index(item["name"]) for item in content["categories"] if item["name"] in names}
    boxes: dict[int, dict[int, tuple[float, float, float, float]]] = {}
    for item in content["annotations"]:
        if item["category_id"] in label_of and not item.get("iscrowd"):
            own, box = boxes.setdefault(item["image_id"], {}), tuple(map(float, item["bbox"]))
            label = label_of[item["category_id"]]
            if label not in own or box[2] * box[3] > own[label][2] * own[label][3]:
                own[label] = box  # type: ignore[assignment]
    found = []
    for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
        for label, box in boxes.get(image["id"], {}).items() if len(boxes.get(image["id"], {})) == 1 else ():
            seen = visible_box(box, float(image["width"]), float(image["height"]))
            if np.isfinite(seen).all():
                found.append((str(image["file_name"]), label, seen))
    return found


def read_coco_objects(
    root: Path, card: CocoObjectsCard
) -> tuple[Path, list[str], list[int], list[tuple[float, float]]]:
    """Return the folder of the pictures, their names, categories, and sizes and heights of their objects.

    A picture is taken if its objects (crowds apart) belong to exactly one of the categories; whatever else it shows is not
    looked at. Its largest box counts, and must be visible.

    Raises:
        DataMissing: no annotations or no pictures.
        UserError: damaged annotations, or no object of two of the categories.
    """
    content = read_coco(root, card.layout.val_json)
    nested = root / "images" / card.layout.val_folder
    folder = (
        nested if nested.is_dir() and not (root / card.layout.val_folder).is_dir() else root / card.layout.val_folder
    )
    require(folder, "COCO")
    with refuse_malformed(root / card.layout.val_json, "download it again"):
        found = _objects(content, list(card.categories))
    if len({label for _, label, _ in found}) < 2:
        raise UserError(
            f"{root / card.layout.val_json} has no objects to recognise",
            f"fewer than two categories of {', '.join(card.categories)} are shown alone and visible",
            "give COCO 2017, or leave out suites.object-bias.data=coco",
        )
    return folder, [name for name, _, _ in found], [label for _, label, _ in found], [seen for _, _, seen in found]
