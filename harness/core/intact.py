"""Whether a file that holds checksums is what they say."""

from __future__ import annotations

import zipfile
from pathlib import Path


def zip_damage(path: Path) -> str:
    """Return the first member of a zip file whose bytes differ from its checksum; empty for a whole file or one of another kind.

    Files of ``torch.save`` are zip files, and torch does not look at the checksums.
    """
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() or ""
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"its list of members ({error})"
