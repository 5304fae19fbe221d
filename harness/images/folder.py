"""Images of class folders (an ImageFolder)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.core.errors import DataMissing
from harness.core.tree import IMAGE_SUFFIXES, files


def image_folder(root: Path) -> Path:
    """Return the folder that holds the class folders: ``root/train`` where there is one, else ``root``."""
    return root / "train" if (root / "train").is_dir() else root


class FolderSource:
    """Images of an ImageFolder, in the order (class, file name); folders of classes not listed are left out.

    Raises:
        DataMissing: The folder, a class folder or the images of a class are not there.
    """

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        self._root = root
        self.labels: list[int] = []
        self.names: list[str] = []
        if not root.is_dir():
            raise DataMissing(
                f"there is no folder {root}",
                "an ImageFolder is expected",
                "give the right path with --data NAME=PATH",
            )
        for label, wnid in enumerate(classes):
            folder = root / wnid
            listed = files(folder, IMAGE_SUFFIXES) if folder.is_dir() else []
            self.names += [f"{wnid}/{name}" for name in listed]
            self.labels += [label] * len(listed)
        check_classes(self.labels, classes, str(root))

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image."""
        return (self._root / self.names[index]).read_bytes()


def check_classes(labels: Sequence[int], classes: Sequence[str], where: str) -> None:
    """Raise where a listed class has no image.

    Raises:
        DataMissing: Some class has none; they are named.
    """
    missing = [classes[label] for label in sorted(set(range(len(classes))) - set(labels))]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataMissing(
            f"{where} has no image of {len(missing)} of {len(classes)} classes",
            f"missing: {shown}",
            "check the path and the class list",
        )
