"""Look at every picture file of a run before it starts: hours of training should not end at a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.api import DataMissing, TooLarge, UserError

_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_TAIL = 4096
LABEL_MODES = ("L", "P")
SHOWN = 3


def check_pictures(paths: Sequence[Path], what: str) -> tuple[Path, ...]:
    """Require every file to be there and to begin as a JPEG or PNG file; nothing is decoded.

    Args:
        paths: Pictures of one run.
        what: Name of the data set.

    Returns:
        The JPEG files that end early. The toolboxes fill the rest with grey, so they are used all the same.

    Raises:
        DataMissing: A file is missing.
        UserError: A file is empty, of another kind, or a PNG file that ends early.
    """
    states = [(path, _state(path)) for path in paths]
    _refuse_sizes([path for path, state in states if state in ("", "ends early")])
    _refuse([path for path, state in states if state == "is missing"], len(paths), what, "missing", DataMissing)
    broken = [path for path, state in states if state not in ("", "ends early")]
    broken += [path for path, state in states if state == "ends early" and path.suffix == ".png"]
    _refuse(sorted(broken), len(paths), what, "empty, damaged or no pictures", UserError)
    return tuple(path for path, state in states if state == "ends early")


def check_labels(pairs: Sequence[tuple[Path, Path]], what: str) -> None:
    """Require label pictures of one 8-bit channel, as large as their pictures; only headers are read.

    Args:
        pairs: (picture, labels).
        what: Name of the data set.

    Raises:
        UserError: A label picture is of another kind (16 bits would wrap around silently) or size.
    """
    from harness.api import picture_header

    modes, sizes = [], []
    for picture, labels in pairs:
        mode, size = picture_header(labels)
        if mode not in LABEL_MODES:
            modes.append(labels)
        elif size != picture_header(picture)[1]:
            sizes.append(labels)
    _refuse(modes, len(pairs), what, "labels of more than one 8-bit channel", UserError)
    _refuse(sizes, len(pairs), what, "labels of another size than their pictures", UserError)


def check_label_values(labels: Sequence[Path], classes: int, what: str) -> None:
    """Require labels of 0 (none) to ``classes``; the pictures are decoded.

    Raises:
        UserError: A label lies beyond the class table.
    """
    from harness.api import read_indices

    beyond = [path for path in labels if int(read_indices(path).max()) > classes]
    _refuse(beyond, len(labels), what, f"labels beyond the {classes} classes", UserError)


def _refuse_sizes(paths: Sequence[Path]) -> None:
    """Refuse pictures that declare too many pixels: OpenCV would decode them.

    Raises:
        TooLarge: one does.
    """
    from harness.api import picture_header

    for path in paths:
        try:
            picture_header(path)
        except TooLarge:
            raise
        except UserError:  # a JPEG file that ends within its header is the toolboxes' to judge
            continue


def _state(path: Path) -> str:
    if not path.is_file():
        return "is missing"
    with path.open("rb") as handle:
        head = handle.read(len(_PNG))
        handle.seek(max(0, path.stat().st_size - _TAIL))
        tail = handle.read()
    if head.startswith(_JPEG):
        return "" if _JPEG_END in tail else "ends early"
    if head == _PNG:
        return "" if _PNG_END in tail else "ends early"
    return "is no picture" if head else "is empty"


def _refuse(paths: Sequence[Path], total: int, what: str, how: str, error: type[UserError]) -> None:
    if paths:
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        raise error(
            f"{what}: {len(paths)} of {total} files are {how}",
            ", ".join(map(str, paths[:SHOWN])) + more,
            "fetch them again and run the same command: what is finished stays",
        )
