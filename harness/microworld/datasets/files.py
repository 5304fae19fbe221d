"""Files of the embedded data sets: images, lists and MATLAB tables whose bytes depend on their content alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.core.identity import derive_seed
from harness.microworld.renderer import to_uint8

_MAT_BANNER = b"MATLAB 5.0 MAT-file"
_MAT_BANNER_BYTES = 116


def seed(*facts: str | int) -> int:
    """Return the seed of one item of the embedded data sets."""
    return derive_seed("microworld data", *facts)


def seeds(items: Iterable[tuple[str | int, ...]]) -> NDArray[np.uint64]:
    """Return one seed per item, (n,) uint64."""
    return np.array([seed(*item) for item in items], dtype=np.uint64)


def pixels(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn float (n, 3, H, W) in [0, 1] into uint8 (n, H, W, 3)."""
    return np.ascontiguousarray(to_uint8(images).transpose(0, 2, 3, 1))


def save_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a JPEG or PNG by its suffix, with pinned encoder settings and no metadata; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    if path.suffix.lower() == ".png":
        picture.save(path, format="PNG", compress_level=6, optimize=False)
    else:
        picture.save(path, format="JPEG", quality=93, subsampling=0, optimize=False, progressive=False)


def save_images(paths: Sequence[Path], images: NDArray[np.uint8]) -> None:
    """Write as many images as paths."""
    for path, image in zip(paths, images, strict=True):
        save_image(path, image)


def save_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def save_json(path: Path, value: Any) -> None:
    """Write compact JSON in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def save_mat(path: Path, variables: Mapping[str, NDArray[Any]]) -> None:
    """Write a MATLAB 5 file; its header, where SciPy writes the time of day, gets a fixed text."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    savemat(stream, dict(variables), do_compression=False)
    content = _MAT_BANNER.ljust(_MAT_BANNER_BYTES) + stream.getvalue()[_MAT_BANNER_BYTES:]
    path.write_bytes(content)


def struct_array(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> NDArray[Any]:
    """Return a MATLAB struct array (1, n) with the given field order."""
    table = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for index, row in enumerate(rows):
        for name in fields:
            table[name][0, index] = row[name]
    return table


def cell_array(texts: Sequence[str]) -> NDArray[Any]:
    """Return a MATLAB cell array (1, n) of strings."""
    cells = np.empty((1, len(texts)), dtype=object)
    cells[0, :] = list(texts)
    return cells
