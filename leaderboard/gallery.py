"""What a store holds besides numbers: sample images, training curves, cost. Everything optional; nothing is copied."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.core import cost as costs
from harness.core.files import parse_json
from harness.core.intact import read_array
from leaderboard.rows import RowKey
from leaderboard.sources import MANIFEST
from leaderboard.tables import Table

PER_CLASS, CLASSES, SIDE = 2, 16, 72
"""Shown per generator: images of a class, classes, and the side in pixels."""


@dataclass(frozen=True)
class Cost:
    """What one artifact took."""

    kind: str
    spent: costs.Cost | None
    """None where it is not known."""
    bytes: int
    images: int
    """Images made; 0 where it makes none."""


class Unreadable(Exception):
    """A file behind a picture is damaged; the picture is left out, and the page names the file."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path.parent.parent.name}/{path.parent.name}/{path.name}: {why}")


def artifact(places: Sequence[Path], key: str) -> Path | None:
    """Return the folder of a finished artifact, or None; evaluations, of which there are thousands, are no input of a row."""
    for place in (place for place in places if place.is_dir()):
        for kind in sorted(kind for kind in place.iterdir() if kind.is_dir() and kind.name != "evaluate"):
            for folder in sorted(kind.glob(f"*-{key[:16]}")):
                if (folder / MANIFEST).is_file():
                    return folder
    return None


def inputs_of(table: Table, key: RowKey) -> dict[str, str]:
    """Return path of roles to key over all records of a row's first seed."""
    found: dict[str, str] = {}
    first = min(table.seeds(key))
    for value in table.rows[key].values():
        for entry in value.sources:
            s = entry.record.subject
            if (s.generator_seed, s.train_seed) == first and s.backbone != "-":
                found = dict(entry.record.inputs) | found
    return found


def read_log(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the lines of an append-only log, and whether a torn last line was left out.

    Raises:
        Unreadable: another line is damaged.
    """
    lines, torn = path.read_text(encoding="utf-8", errors="replace").splitlines(), False
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(dict(parse_json(line)))
        except (ValueError, TypeError):
            if number < len(lines):
                raise Unreadable(path, f"line {number} is damaged") from None
            torn = True
    return rows, torn


CURVES = {"log.jsonl": ("epoch", "loss"), "training-log.jsonl": ("step", "total")}
"""Logs of backbones and of fitted generators: the columns of place and loss."""
_MOST = 200


def loss_curve(places: Sequence[Path], key: str) -> list[tuple[float, float]]:
    """Return (epoch or step, training loss) of an artifact, thinned to 200 places; empty where it has no log.

    Raises:
        Unreadable: the log is damaged.
    """
    folder = artifact(places, key)
    for name, (place, loss) in CURVES.items() if folder is not None else ():
        path = (folder or Path()) / name
        if path.is_file():
            try:
                rows = [(float(row[place]) + 1, float(row[loss])) for row in read_log(path)[0] if loss in row]
            except (KeyError, TypeError, ValueError) as error:
                raise Unreadable(path, f"{type(error).__name__}: {error}") from error
            return rows[:: max(1, len(rows) // _MOST)]
    return []


def sample_grid(places: Sequence[Path], key: str) -> str:
    """Return the first images of the first classes of a training copy as a data address, or an empty text.

    Raises:
        Unreadable: the copy is damaged.
    """
    folder = artifact(places, key)
    if folder is None or not (folder / "images.npy").is_file():
        return ""
    try:
        images, labels = read_array(folder / "images.npy", mmap=True), read_array(folder / "labels.npy")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, {len(labels)} labels")
        return _drawn(images, labels)
    except (OSError, ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise Unreadable(folder / "images.npy", type(error).__name__) from error


def _drawn(images: Any, labels: Any) -> str:
    """Return a sheet of images (N, H, W, 3) uint8, a column for each of the first labels (N,), as a data address."""
    import numpy as np
    from PIL import Image

    classes = np.unique(labels)[:CLASSES]
    sheet = Image.new("RGB", (SIDE * len(classes), SIDE * PER_CLASS), "white")
    for column, label in enumerate(classes):
        for row, index in enumerate(np.flatnonzero(labels == label)[:PER_CLASS]):
            picture = Image.fromarray(np.asarray(images[index])).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(picture, (column * SIDE, row * SIDE))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def cost(places: Sequence[Path], key: str) -> Cost | None:
    """Return what an artifact took, or None where its manifest is not there.

    Raises:
        Unreadable: its manifest is damaged.
    """
    folder = artifact(places, key)
    if folder is None:
        return None
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        size = sum(int(entry["bytes"]) for entry in manifest["files"].values())
        took = costs.read_cost(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Unreadable(folder / MANIFEST, f"{type(error).__name__}: {error}") from error
    images = 0
    if folder.parent.name == "synthesise" and (folder / "images.jsonl").is_file():
        with (folder / "images.jsonl").open("rb") as stream:
            images = sum(1 for _ in stream)
    return Cost(folder.parent.name, took, size, images)


T = TypeVar("T")


class Gallery:
    """Pictures and costs of the artifacts in some places; damaged ones are left out, and ``left_out`` names them."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = tuple(places)
        self._left_out: dict[str, None] = {}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return the damaged files met so far, each with what is wrong."""
        return tuple(self._left_out)

    def loss_curve(self, key: str) -> list[tuple[float, float]]:
        """Return ``loss_curve``; empty where the log is damaged."""
        return self._read(loss_curve, key, [])

    def sample_grid(self, key: str) -> str:
        """Return ``sample_grid``; empty where the copy is damaged."""
        return self._read(sample_grid, key, "")

    def cost(self, key: str) -> Cost | None:
        """Return ``cost``; None where the manifest is damaged."""
        return self._read(cost, key, None)

    def _read(self, read: Callable[[Sequence[Path], str], T], key: str, nothing: T) -> T:
        try:
            return read(self._places, key)
        except Unreadable as error:
            self._left_out[str(error)] = None
            return nothing
