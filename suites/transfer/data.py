"""Labelled image lists: what readers return and everything after them works on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.api import DataMissing, UserError, list_files
from suites.transfer.cards import TransferCard

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a data set: paths relative to the root, and their labels, in one order."""

    paths: tuple[str, ...]
    labels: IntArray
    """(n,) int64 in 0 ... classes-1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        if self.labels.shape != (len(self.paths),):
            raise ValueError(f"{len(self.paths)} paths but labels of shape {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, index: npt.NDArray[np.int64]) -> Part:
        """Return the items at ``index`` (positions), in that order."""
        return Part(tuple(self.paths[i] for i in index), self.labels[index])


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A transfer data set as it was found on disk."""

    dataset: str
    layout: str
    """Which public layout was recognised."""
    root: Path
    classes: tuple[str, ...]
    trainval: Part
    test: Part
    official_val: npt.NDArray[np.bool_] | None = None
    """(len(trainval),) True for members of the distributed validation part; None if there is none."""

    @property
    def listing_hash(self) -> str:
        """Return the SHA-256 of names, labels and parts (not of pixels, and not of the root)."""
        digest = hashlib.sha256()
        digest.update("\n".join((self.dataset, *self.classes)).encode())
        for name, part in (("trainval", self.trainval), ("test", self.test)):
            rows = sorted(f"{path}\t{label}" for path, label in zip(part.paths, part.labels, strict=True))
            digest.update("\n".join((f"\n[{name}]", *rows)).encode())
        return digest.hexdigest()


_LONGEST_NAME = 255
"""Bytes of a file's name."""


def read_lines(card: TransferCard, path: Path) -> list[str]:
    """Return the non-empty lines without surrounding white space (CRLF files included).

    Raises:
        DataMissing: the file is missing.
        UserError: the file is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(
            f"{card.name}: {path.name} is damaged", f"{path} is no text in UTF-8: {error}", "unpack the archive again"
        ) from error
    except FileNotFoundError as error:
        raise DataMissing(
            f"{card.name}: {path.name} is missing",
            f"expected the file {path}, found none",
            "unpack the whole archive of this data set again",
        ) from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    refuse_names(card, path, found)
    return found


def refuse_names(card: TransferCard, path: Path, names: Sequence[str]) -> None:
    """Refuse what cannot be part of a path below the data set.

    Raises:
        UserError: a name is longer than a file system allows, or holds a zero byte.
    """
    for name in names:
        parts = name.split("/")
        if "\0" in name or max(len(part.encode(errors="surrogatepass")) for part in parts) > _LONGEST_NAME:
            raise UserError(
                f"{card.name}: {path.name} is damaged",
                f"{path} lists {name[:60]!r}, no name of a file",
                "unpack the archive again",
            )


def label_index(card: TransferCard, classes: Sequence[str], names: Sequence[str], source: str) -> IntArray:
    """Return the position of every name in ``classes``.

    Raises:
        UserError: a name that is no class, or a class that is listed twice.
    """
    position = {name: i for i, name in enumerate(classes)}
    if len(position) != len(classes):
        twice = next(name for i, name in enumerate(classes) if position[name] != i)
        raise UserError(
            f"{card.name}: the class {twice!r} is listed twice",
            "its images would get the label of the last line",
            "use the files of the public release",
        )
    unknown = sorted({name for name in names if name not in position})
    if unknown:
        raise UserError(
            f"{card.name}: {source} names unknown classes",
            f"expected names out of {len(position)} classes, found {', '.join(unknown[:3])}",
            "do not mix files of different releases of this data set",
        )
    return np.array([position[name] for name in names], dtype=np.int64)


def checked(images: LabelledImages, card: TransferCard) -> LabelledImages:
    """Return ``images`` after checking counts, labels, disjoint parts and the presence of every file.

    Raises:
        DataMissing: a listed file does not exist.
        UserError: anything else differs from the card or from a proper data set.
    """
    for what, expected, found in (
        ("classes", card.classes, len(images.classes)),
        ("trainval images", card.trainval, len(images.trainval)),
        ("test images", card.test, len(images.test)),
    ):
        if expected is not None and expected != found:
            raise UserError(
                f"{card.name}: wrong number of {what}",
                f"expected {expected}, found {found} in {images.root}",
                "use the complete public release, or a data set card that describes this data",
            )
    for name, part in (("trainval", images.trainval), ("test", images.test)):
        _check_labels(card, name, part, len(images.classes))
    _check_disjoint(card, images)
    if card.listing and images.listing_hash != card.listing:
        raise UserError(
            f"{card.name}: the list of files is not that of the public release",
            f"expected the fingerprint {card.listing[:12]}, found {images.listing_hash[:12]}: files are named or "
            "sorted into classes differently, so the split would be another one",
            'use the public release, or a data set card with listing = ""',
        )
    _check_files(card, images)
    return images


def _check_labels(card: TransferCard, name: str, part: Part, classes: int) -> None:
    present = set(np.unique(part.labels).tolist())
    if present != set(range(classes)):
        odd = sorted(present.symmetric_difference(range(classes)))
        raise UserError(
            f"{card.name}: labels of the {name} part are not complete",
            f"expected every label 0 to {classes - 1}, found differences at {odd[:5]}",
            "use the complete public release of this data set",
        )


def _check_disjoint(card: TransferCard, images: LabelledImages) -> None:
    paths = images.trainval.paths + images.test.paths
    if len(set(paths)) != len(paths):
        seen: set[str] = set()
        twice = next(path for path in paths if path in seen or seen.add(path))  # type: ignore[func-returns-value]
        raise UserError(
            f"{card.name}: an image is listed twice",
            f"expected disjoint parts, found {twice} again",
            "use split files of one release only",
        )


def _check_files(card: TransferCard, images: LabelledImages) -> None:
    """List every folder once instead of testing every file: hundreds of listings, not 100,000 system calls."""
    present: dict[str, set[str]] = {}
    missing: list[str] = []
    for path in images.trainval.paths + images.test.paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise UserError(
                f"{card.name}: a listed image lies outside the data set",
                f"{path} leads out of {images.root}",
                "use the lists of the public release, with all images below one folder",
            )
        folder, _, name = path.rpartition("/")
        if folder not in present:
            place = images.root / folder
            present[folder] = set(list_files(place)) if place.is_dir() else set()
        if name not in present[folder]:
            missing.append(path)
    if missing:
        total = len(images.trainval) + len(images.test)
        folder, _, name = missing[0].rpartition("/")
        other = next((file for file in sorted(present[folder]) if Path(file).stem == Path(name).stem), "")
        raise DataMissing(
            f"{card.name}: {len(missing)} listed images are missing",
            f"expected {total} files, found {total - len(missing)}; the first missing one is "
            f"{images.root / missing[0]}"
            + (f", but there is {other}: files were converted or renamed" if other else ""),
            "unpack the image archive of this data set again",
        )


def file_md5_report(card: TransferCard, folder: Path) -> tuple[str, ...]:
    """Return one line per annotation file in ``folder`` whose MD5 differs from the card's."""
    lines = []
    for name, expected in sorted(card.md5.items()):
        path = folder / name
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else "no file"
        if found != expected:
            lines.append(f"{card.name}: {name} has MD5 {found}, expected {expected}")
    return tuple(lines)
