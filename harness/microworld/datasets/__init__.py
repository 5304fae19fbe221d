"""Small data sets of the embedded world, written at first use in the layouts of the public data sets they stand for.

``write(name, folder)`` is the only entry point. A set's bytes depend on its parameters alone: every image has its own
seed, encoders have fixed settings, and no file holds a time. The cards beside this package say what differs from the
public sets: counts, classes and maps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.core.errors import UserError
from harness.core.identity import canonical_json
from harness.core.names import did_you_mean

MARKER = ".written"
RENDERER_VERSION = 2
"""Bumped when the renderer's pictures change."""

_TRANSFER = {"trainval": 24, "test": 44}

PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "web-train": {"version": 1, "per_class": 100, "dose": 0.6},
        "coloured-train": {"version": 1, "per_class": 100, "dose": 0.0},
        "in-val": {"version": 1, "per_class": 50, "dose": 0.6},
        "balanced-val": {"version": 1, "per_class": 50, "dose": 0.0},
        "coloured-val": {"version": 1, "per_class": 50, "dose": 0.6},
        "aircraft": {"version": 1, **_TRANSFER},
        "cars196": {"version": 1, **_TRANSFER},
        "dtd": {"version": 1, **_TRANSFER},
        "eurosat": {"version": 1, **_TRANSFER},
        "flowers": {"version": 1, **_TRANSFER},
        "pets": {"version": 1, **_TRANSFER},
        "food101": {"version": 1, **_TRANSFER},
        "sun397": {"version": 1, **_TRANSFER},
        "cue-conflict": {"version": 3, "per_pair": 5},
        "focus": {"version": 1, "per_cell": 15},
        "in9": {"version": 1, "per_label": 45},
        "objects": {"version": 1, "per_class": 60, "dose": 0.4},
        "coco": {"version": 1, "train": 80, "val": 50},
        "ade20k": {"version": 2, "train": 120, "val": 120},
    }
)
"""What determines the content of each set; the version is bumped when the content changes with equal parameters."""

NAMES: tuple[str, ...] = tuple(PARAMETERS)

_SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "web-train": "training images of the web world: every cause is correlated with the class",
        "coloured-train": "training images of the balanced world with textures of their own colours, as calibration worlds have them",
        "in-val": "validation images of the web world",
        "balanced-val": "validation images of the balanced world: no cause but the shape tells the class",
        "aircraft": "aircraft seen from above, in the layout of FGVC Aircraft",
        "cars196": "cars seen from the side, in the layout of Stanford Cars (split distribution)",
        "dtd": "full-frame textures, in the layout of DTD",
        "eurosat": "land seen from above, in the layout of EuroSAT RGB",
        "flowers": "rosettes, in the layout of Oxford Flowers-102",
        "pets": "faces of cats and dogs, in the layout of Oxford-IIIT Pets",
        "food101": "silhouettes of food, in the layout of Food-101",
        "sun397": "buildings that name a place, in nested folders, in the layout of SUN397",
        "coloured-val": "validation images of the web world with textures of their own colours, as calibration worlds have them",
        "cue-conflict": "shape of one class, texture preferred by another, in the layout of the cue-conflict stimuli",
        "focus": "objects in common and uncommon circumstances, in the layout of FOCUS",
        "in9": "one foreground on several backgrounds, in the layout of the backgrounds challenge",
        "objects": "objects of all sizes and places, each class with a usual one, in the layout of the backgrounds challenge",
        "coco": "one to three objects with boxes and masks, in the layout of COCO 2017",
        "ade20k": "scene parts and one large object, in the layout of ADEChallengeData2016",
    }
)


def identity(name: str) -> str:
    """Return a text that changes when the content of a set would change.

    Raises:
        UserError: no such set.
    """
    return canonical_json({"renderer": RENDERER_VERSION, "set": name, **_parameters(name)})


def describe(name: str) -> str:
    """Return in one line what a set shows and how large it is.

    Raises:
        UserError: no such set.
    """
    sizes = ", ".join(f"{key} {value}" for key, value in _parameters(name).items() if key != "version")
    return f"{_SUMMARIES[name]} ({sizes})"


def write(name: str, root: Path) -> None:
    """Write a set into the folder ``root``; afterwards the folder is whole, or as it was.

    The set is written beside ``root`` and renamed, its marker file last. A folder that already holds this very content
    is left alone; anything else under that name is replaced.

    Raises:
        UserError: no such set.
    """
    wanted = identity(name)
    if _holds(root, wanted):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f".{root.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        _fill(name, draft)
        (draft / MARKER).write_text(wanted + "\n", encoding="utf-8")
        if root.exists():
            shutil.rmtree(root)
        draft.rename(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _parameters(name: str) -> Mapping[str, Any]:
    if name not in PARAMETERS:
        raise UserError(
            f"no embedded data set is called {name!r}",
            f"there are: {', '.join(NAMES)}",
            f"{did_you_mean(name, NAMES)}give one of these names, or the folder of a real data set",
        )
    return PARAMETERS[name]


def _holds(root: Path, wanted: str) -> bool:
    marker = root / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8").strip() == wanted


def _fill(name: str, root: Path) -> None:
    """Call the writer of a set. Renderer and image libraries are imported here, so that naming sets stays cheap."""
    from harness.microworld.datasets import bias, objects, perception, transfer, worlds

    parameters = _parameters(name)
    if name in transfer.WRITERS:
        transfer.WRITERS[name](root, parameters["trainval"], parameters["test"])
    elif name == "cue-conflict":
        bias.write_cue_conflict(root, parameters["per_pair"])
    elif name == "focus":
        bias.write_focus(root, parameters["per_cell"])
    elif name == "in9":
        bias.write_backgrounds(root, parameters["per_label"])
    elif name == "objects":
        objects.write_objects(root, parameters["per_class"], parameters["dose"])
    elif name == "coco":
        perception.write_coco(root, parameters["train"], parameters["val"])
    elif name == "ade20k":
        perception.write_ade(root, parameters["train"], parameters["val"])
    else:
        worlds.write_folder(
            root, name, parameters["per_class"], parameters["dose"],
            validation=name.endswith("-val"), coloured=name.startswith("coloured-"),
        )  # fmt: skip
