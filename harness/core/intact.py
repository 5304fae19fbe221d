"""Whether a file that holds checksums is what they say."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from harness.core.errors import first_line
from harness.core.limits import refuse_zip

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged zip file raises."""


def is_zip(path: Path) -> bool:
    """Return whether a file ends as a zip file does; damaged ones do."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def zip_damage(path: Path) -> str:
    """Return the first member of a zip file whose bytes differ from its checksum; empty for a whole file or one of another kind.

    Files of ``torch.save`` are zip files, and torch does not look at the checksums.

    Raises:
        UserError: its members declare sizes that are not unpacked.
    """
    if not is_zip(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_zip(archive, path, path.stat().st_size)
            return archive.testzip() or ""
    except ZIP_ERRORS as error:
        return f"its list of members ({first_line(error)})"


def read_array(path: Path, mmap: bool = False) -> Any:
    """Return the array of a ``.npy`` file; with ``mmap`` its values stay on the disk until they are used.

    Raises:
        ValueError: it is damaged, another kind of file, or holds Python objects.
        OSError: it cannot be read.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header fails in many ways
        raise ValueError(f"{path.name} holds no array: {first_line(error)}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path.name} is an archive of arrays")
    return found
