"""Read images with a named geometry and run a classifier over them.

The geometries are those of the reference evaluations: cue-conflict and ImageNet-9 files are given to the
network as stored; FOCUS scales the shorter side to the input size and crops the centre. Colours are RGB in
[0, 1]; normalisation belongs to the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.errors import DataMissing, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note)."""
Rows = dict[str, npt.NDArray[Any]]
"""Columns of equal length, one entry per test item."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


class Classifier(Protocol):
    """What the suites need of a network; it owns normalisation and is in evaluation mode."""

    @property
    def classes(self) -> Sequence[str]:
        """Return the ordered class ids of the outputs."""

    def __call__(self, images: Any) -> Any:
        """Map float RGB in [0, 1], (B, 3, H, W), to logits (B, K)."""


@dataclass(frozen=True)
class Geometry:
    """How a file becomes the square input of a network.

    Attributes:
        kind: "stored": the file must have this size; "resize-crop": shorter side to `size` (PIL, bilinear,
            antialiased), then the centre square.
        size: Side, pixels.
    """

    kind: Literal["stored", "resize-crop"]
    size: int

    def __str__(self) -> str:
        if self.kind == "stored":
            return f"as stored, {self.size}x{self.size}"
        return f"shorter side {self.size} (PIL bilinear), centre crop {self.size}"

    def apply(self, image: Image, name: str) -> npt.NDArray[np.uint8]:
        """Return the RGB input (size, size, 3).

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
            return np.asarray(image)
        short = min(width, height)
        new = (int(self.size * width / short), int(self.size * height / short))
        left, top = round((new[0] - self.size) / 2), round((new[1] - self.size) / 2)
        scaled = image.resize(new, PILImage.Resampling.BILINEAR) if new != image.size else image
        return np.asarray(scaled.crop((left, top, left + self.size, top + self.size)))


@dataclass(frozen=True)
class Predictions:
    """Outputs of a classifier on a list of files.

    Attributes:
        logits: (n, K) float32.
        classes: Class id of every output.
        converted: Whether a file was not stored as RGB, (n,).
        truncated: Whether a file ended early and was completed by the decoder, (n,).
    """

    logits: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    converted: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]

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
        }


def predict(
    classifier: Classifier,
    root: Path,
    names: Sequence[str],
    geometry: Geometry,
    *,
    accept_truncated: bool = False,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Predictions:
    """Classify the files `root / name` in order.

    Raises:
        DataMissing: a file is not there.
        UserError: a file cannot be decoded or has a wrong size, or the network's outputs are not finite or
        not
            as many as its classes.
    """
    import torch

    classes = tuple(classifier.classes)
    logits = np.empty((len(names), len(classes)), dtype=np.float32)
    converted, truncated = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=bool)
    for start in range(0, len(names), batch_size):
        part = names[start : start + batch_size]
        batch = np.empty((len(part), geometry.size, geometry.size, 3), dtype=np.uint8)
        for offset, name in enumerate(part):
            image, converted[start + offset], truncated[start + offset] = read_image(
                root / name, accept_truncated
            )
            batch[offset] = geometry.apply(image, name)
        with torch.inference_mode():
            inputs = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0
            out = classifier(inputs).float().cpu().numpy()
        _check_outputs(out, classes, part)
        logits[start : start + len(part)] = out
        if progress is not None:
            progress(start + len(part), len(names), "images")
    return Predictions(logits, classes, converted, truncated)


def read_image(path: Path, accept_truncated: bool = False) -> tuple[Image, bool, bool]:
    """Decode a file to RGB; return the image, whether it was converted and whether it was truncated.

    Raises:
        DataMissing: no such file.
        UserError: the file cannot be decoded.
    """
    from PIL import Image as PILImage

    truncated = False
    try:
        with PILImage.open(path) as image:
            converted = image.mode != "RGB"
            try:
                rgb = image.convert("RGB")
            except OSError:
                if not accept_truncated:
                    raise
                truncated = True
        if truncated:
            with _truncated_allowed(), PILImage.open(path) as image:
                rgb = image.convert("RGB")
    except FileNotFoundError as error:
        raise DataMissing(
            f"{path} is missing", "the data set lists it", "fetch the data set again"
        ) from error
    except (OSError, SyntaxError) as error:
        raise UserError(
            f"{path} cannot be decoded", str(error), "fetch this file of the data set again"
        ) from error
    return rgb, converted, truncated


def reading_notes(rows: Any) -> tuple[str, ...]:
    """Say how many files had to be converted or completed, from the stored columns."""
    notes = []
    for column, text in (
        ("converted", "were not stored as RGB"),
        ("truncated", "ended early and were completed"),
    ):
        count = int(np.asarray(rows[column]).sum())
        if count:
            notes.append(f"{count} files {text}")
    return tuple(notes)


def find_root(root: Path, marker: Callable[[Path], bool], inner: Sequence[str], what: str) -> Path:
    """Return `root` or one of its usual inner folders, whichever holds the data set.

    Raises:
        DataMissing: neither does.
    """
    for folder in (root, *(root / name for name in inner)):
        if folder.is_dir() and marker(folder):
            return folder
    raise DataMissing(
        f"no {what} under {root}", f"looked there and in {', '.join(inner)}", "give the unpacked folder"
    )


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
            f"the classifier's outputs for {first} are not finite", "broken weights", "train it again"
        )


@contextmanager
def _truncated_allowed() -> Iterator[None]:
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
