"""Read images with a named geometry and run a classifier over them.

The geometries are those of the reference evaluations: cue-conflict and ImageNet-9 files are given to the
network as stored; FOCUS scales the shorter side to the input size and crops the centre. Colours are RGB in
[0, 1]; normalisation belongs to the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.api import NORMALISATIONS, UserError, refuse_files

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note)."""
Rows = dict[str, npt.NDArray[Any]]
"""Columns of equal length, one entry per test item."""


def is_clip(classifier: object) -> bool:
    """Tell whether a network is a CLIP encoder: its inputs are normalised with CLIP's constants."""
    info = getattr(classifier, "info", None)
    return info is not None and (tuple(info.mean), tuple(info.std)) == NORMALISATIONS["clip"]


class Classifier(Protocol):
    """What the suites need of a network; it owns normalisation and is in evaluation mode."""

    @property
    def classes(self) -> Sequence[str]:
        """Return the ordered class ids of the outputs."""

    @property
    def image_size(self) -> int:
        """Return the side of its input in pixels; 0 when any will do."""

    @property
    def interpolation(self) -> str:
        """Return how images are resized for it, by PIL's name: bilinear, bicubic, ..."""

    def __call__(self, images: Any) -> Any:
        """Map float RGB in [0, 1], (B, 3, H, W), to logits (B, K)."""


@dataclass(frozen=True)
class Geometry:
    """How a file becomes the square input of a network.

    Attributes:
        kind: "stored": the file must have this size; "resize-crop": shorter side to the network's side (PIL,
            antialiased), then the centre square.
        size: Side of the reference protocol, pixels.
        side: Side given to the network; another than `size` is not the reference geometry.
        interpolation: Filter of PIL, such as "bilinear"; that of the reference unless `side` differs or `resize` is set.
        resize: Pixels of the shorter side before the crop; 0: `side`.
    """

    kind: Literal["stored", "resize-crop"]
    size: int
    side: int = 0
    interpolation: str = "bilinear"
    resize: int = 0

    def __post_init__(self) -> None:
        if not self.side:
            object.__setattr__(self, "side", self.size)

    def __str__(self) -> str:
        if self.kind == "stored":
            scaled = "" if self.side == self.size else f", scaled to {self.side} (PIL {self.interpolation})"
            return f"as stored, {self.size}x{self.size}{scaled}"
        return f"shorter side {self.resize or self.side} (PIL {self.interpolation}), centre crop {self.side}"

    def of(self, classifier: Classifier) -> Geometry:
        """Return the geometry for a network: the reference, or scaled to the side it was made for.

        Raises:
            UserError: the shorter side would be smaller than the crop.
        """
        side = classifier.image_size or self.size
        if 0 < self.resize < side:
            raise UserError(
                f"a crop of {side} pixels cannot be cut from {self.resize}",
                f"the network's input has {side} pixels, and the setting resize is {self.resize}",
                "set resize to the network's size or more, or leave it out",
            )
        if side == self.size and not self.resize:
            return self
        return replace(self, side=side, interpolation=classifier.interpolation)

    def apply(self, image: Image, name: str) -> npt.NDArray[np.uint8]:
        """Return the RGB input (side, side, 3).

        Raises:
            UserError: a "stored" file of another size.
        """
        from PIL import Image as PILImage

        width, height = image.size
        if self.kind == "stored":
            if (width, height) != (self.size, self.size):
                raise UserError(
                    f"{name} is {width}x{height} pixels",
                    f"this data set is used as stored, {self.size}x{self.size}",
                    "fetch the data set again, or correct image_size in its card",
                )
            new = (self.side, self.side)
        else:
            short = min(width, height)
            target = self.resize or self.side
            new = (int(target * width / short), int(target * height / short))
        left, top = round((new[0] - self.side) / 2), round((new[1] - self.side) / 2)
        how = PILImage.Resampling[self.interpolation.upper()]
        scaled = image.resize(new, how) if new != image.size else image
        return np.asarray(scaled.crop((left, top, left + self.side, top + self.side)))


@dataclass(frozen=True)
class Predictions:
    """Outputs of a classifier on a list of files.

    Attributes:
        logits: (n, K) float32.
        classes: Class id of every output.
        converted: Whether a file was not stored as RGB, (n,).
        truncated: Whether a file ended early and was completed by the decoder, (n,).
        geometry: How files became inputs, in words.
    """

    logits: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    converted: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    geometry: str

    @property
    def top1(self) -> npt.NDArray[np.int64]:
        """Return the index of the largest logit, the first one of equals: (n,)."""
        best: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return best

    def columns(self) -> Rows:
        """Return the columns that every suite stores: top-1 and top-5 class ids and how the file was read."""
        names = np.asarray(self.classes)
        order = np.argsort(-self.logits, axis=1, kind="stable")[:, :5]
        return {
            "top1": names[self.top1],
            "top5": np.asarray([" ".join(line) for line in names[order]]),
            "converted": self.converted,
            "truncated": self.truncated,
            "geometry": np.full(len(self.logits), self.geometry),
        }


def predict(
    classifier: Classifier,
    root: Path,
    names: Sequence[str],
    geometry: Geometry,
    *,
    accept_truncated: bool = False,
    batch_size: int = 64,
    threads: int = 1,
    progress: Progress | None = None,
) -> Predictions:
    """Classify the files `root / name` in order; the outputs of a file do not depend on its neighbours.

    Bad files are looked for to the end, so that one message names them all.

    Raises:
        DataMissing: a file is not there.
        UserError: files cannot be decoded or have a wrong size, or the network's outputs are not finite or not as
            many as its classes.
    """
    import torch

    classes, geometry = tuple(classifier.classes), geometry.of(classifier)
    logits = np.empty((len(names), len(classes)), dtype=np.float32)
    converted, truncated = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=bool)
    bad: list[UserError] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(names), batch_size):
            part = names[start : start + batch_size]
            files = list(pool.map(lambda name: _decode_file(root / name, name, geometry, accept_truncated), part))
            bad += [file for file in files if isinstance(file, UserError)]
            good = [file for file in files if isinstance(file, _File)]
            if bad:
                continue
            stop = start + len(part)
            converted[start:stop] = [file.converted for file in good]
            truncated[start:stop] = [file.truncated for file in good]
            batch = np.stack([file.pixels for file in good])
            with torch.inference_mode():
                inputs = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0
                out = classifier(inputs).float().cpu().numpy()
            _check_outputs(out, classes, part)
            logits[start:stop] = out
            if progress is not None:
                progress(stop, len(names), "images")
    refuse_files(bad)
    return Predictions(logits, classes, converted, truncated, str(geometry))


@dataclass(frozen=True)
class _File:
    """A decoded file."""

    pixels: npt.NDArray[np.uint8]
    converted: bool
    truncated: bool


def _decode_file(path: Path, name: str, geometry: Geometry, accept_truncated: bool) -> _File | UserError:
    from harness.api import open_picture

    try:
        found = open_picture(path, complete=accept_truncated)
        return _File(geometry.apply(found.image, name), found.mode != "RGB", bool(found.truncated))
    except UserError as error:
        return error


def reading_notes(rows: Any, reference: Geometry, *others: Geometry) -> tuple[str, ...]:
    """Say how many files had to be converted or completed, and whether the geometry is the reference's, or one of its others."""
    notes = []
    if "geometry" in rows and len(rows["geometry"]):
        used = str(np.asarray(rows["geometry"])[0])
        if used not in map(str, (reference, *others)):
            notes.append(f"non-reference geometry: {used}; the reference is {reference}")
        elif used != str(reference):
            notes.append(
                f"geometry: {used}, the reference's for this kind of network, not that of the protocol's words"
            )
    for column, text in (
        ("converted", "were not stored as RGB"),
        ("truncated", "ended early and were completed"),
    ):
        count = int(np.asarray(rows[column]).sum())
        if count:
            notes.append(f"{count} files {text}")
    return tuple(notes)


def _check_outputs(out: npt.NDArray[np.float32], classes: Sequence[str], names: Sequence[str]) -> None:
    if out.shape != (len(names), len(classes)):
        raise UserError(
            f"the classifier has {out.shape[-1]} outputs but lists {len(classes)} classes",
            "class list and head do not belong together",
            "give the class list the head was trained with (--classes)",
        )
    bad = ~np.isfinite(out).all(axis=1)
    if bad.any():
        first = names[int(bad.argmax())]
        raise UserError(
            f"the classifier's outputs for {first} are not finite",
            "the weights are damaged, or the function that gives the logits divides by zero or overflows",
            "correct that function, or fetch or train these weights again",
        )
