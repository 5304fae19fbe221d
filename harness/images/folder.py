"""Images of class folders (an ImageFolder)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.core.errors import DataMissing, UserError
from harness.core.tree import files_below, folders, is_image, not_read, unpacking
from harness.images.parts import FOLDERS, TRAINING, check_images, part_of_folder

_PACKED = (".tar", ".parquet", ".arrow", ".zip", ".gz", ".tgz")


def image_folder(root: Path, part: str = TRAINING) -> Path:
    """Return the folder that holds the images of a part: ``root/train`` or another of ``FOLDERS``, else ``root``.

    Where all folders are called by parts (``imagenet_train``, ``imagenet_val``), the one that is called by this part. A folder
    of such a name with neither folders nor archives in it is a class, and not a part.
    """
    places = (place for name in FOLDERS[part] for place in (root / name, _any_case(root, name)))
    found = next((place for place in places if _holds_part(place)), None)
    return found or _called_by_part(root, part) or root


def _called_by_part(root: Path, part: str) -> Path | None:
    parts = {name: part_of_folder(name) for name in folders(root)} if root.is_dir() else {}
    found = [
        root / name
        for name, each in parts.items()
        if each == part and _holds_part(root / name) and not _piece(name, part)
    ]
    return found[0] if len(found) == 1 and all(parts.values()) else None


def _piece(name: str, part: str) -> bool:
    """Return whether a folder holds some classes of a part, such as ``train.X1``."""
    return "." in name and part_of_folder(name.partition(".")[0]) == part


def _any_case(root: Path, name: str) -> Path:
    """Return the folder of a name in whatever case (``Train``); the name as it is where there is none."""
    found = (
        next((each for each in sorted(root.iterdir()) if each.name.lower() == name), None) if root.is_dir() else None
    )
    return found or root / name


def _holds_part(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return bool(folders(folder)) or any(path.suffix in (".tar", ".parquet") for path in folder.iterdir())


class FolderSource:
    """Images of an ImageFolder, in the order (class, file name); folders of classes not listed are left out.

    Images in subfolders of a class folder follow those of the class folder itself.

    Raises:
        DataMissing: The folder, a class folder or the images of a class are not there.
        UserError: Images of a class are in formats that are not read, or in a subfolder of another part.
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
            listed = class_images(root, wnid)
            self.names += [f"{wnid}/{name}" for name in listed]
            self.labels += [label] * len(listed)
        if not self.names:
            _explain_empty(root)
        check_classes(self.labels, classes, str(root))

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            DataMissing: the file is gone.
        """
        return read_file(self._root / self.names[index])


def read_file(path: Path) -> bytes:
    """Return the bytes of a listed file.

    Raises:
        DataMissing: it is gone.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(
            f"{path} is missing", "it was there when the data set was listed", "restore it, or run the command again"
        ) from error


def class_images(root: Path, name: str, part: str = TRAINING) -> list[str]:
    """Return the images below the class folder ``root/name``, relative to it; empty where there is no such folder.

    Raises:
        UserError: some are in formats that are not read, or in a subfolder that is called like another part.
    """
    if not (root / name).is_dir():
        return []
    found = files_below(root, name)
    odd = not_read(found)
    if odd:
        raise UserError(
            f"{len(odd)} images in {root / name} are in a format that is not read",
            f"such as {odd[0]}",
            "convert them (PNG keeps every pixel), or remove them",
        )
    listed = [path for path in found if is_image(path)]
    check_parts(root / name, listed, part)
    return listed


def check_parts(folder: Path, listed: Sequence[str], part: str) -> None:
    """Refuse a class folder some of whose images are of another part by their names or that of a subfolder.

    Raises:
        UserError: it does.
    """
    for path in listed:
        foreign = next((each for each in path.split("/")[:-1] if part_of_folder(each) not in ("", part)), "")
        if foreign:
            raise UserError(
                f"{folder} holds a folder {foreign!r}",
                f"its images, such as {path}, are not {part} images",
                f"move the folders of each part together: {part_of_folder(foreign)}/{folder.name}/",
            )
    check_images(folder, {path: path.rpartition("/")[2] for path in listed}, part, folder.parent)


def explain_parts(root: Path, names: Sequence[str], part: str = TRAINING) -> None:
    """Refuse a folder whose classes are spread over several folders of a part (Kaggle's ImageNet-100: ``train.X1`` ...).

    Raises:
        UserError: it is such a folder.
    """
    spread = [name for name in names if _piece(name, part)]
    if spread:
        whole = root / spread[0].partition(".")[0]
        raise UserError(
            f"the {part} images of {root} are spread over {', '.join(spread)}",
            "each holds the folders of some classes",
            f"put them together: mkdir {whole} && mv {root}/{whole.name}.*/* {whole}/",
        )


def _explain_empty(root: Path) -> None:
    """Raise where class folders are missing for a reason that can be seen."""
    explain_parts(root, folders(root))
    packed = [path for path in (*sorted(root.iterdir()), *sorted(root.glob("*/*"))) if path.suffix in _PACKED]
    if packed:
        command = unpacking(root)
        raise DataMissing(
            f"{root} holds no class folders",
            f"the images are packed, as in {packed[0].relative_to(root)}",
            f"measure them with --generator folder:NAME={root}, which reads tar and parquet files"
            + (f", or unpack: {command}" if command else ""),
        )


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
