"""Reading the MATLAB files that come with Cars, Flowers and the ImageNet devkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.api import DataMissing, UserError


def load_mat(dataset: str, path: Path, *names: str) -> dict[str, Any]:
    """Return variables of a MATLAB file with singleton dimensions squeezed away.

    Raises:
        DataMissing: the file is missing.
        UserError: the file cannot be read or lacks a variable.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DataMissing(
            f"{dataset}: {path.name} is missing",
            f"expected the file {path}, found none",
            "unpack the annotation archive of this data set again",
        )
    try:
        content = loadmat(path, squeeze_me=True, chars_as_strings=True)
    except Exception as error:  # a damaged file makes scipy fail in any way, down to IndexError and zlib.error
        raise UserError(
            f"{dataset}: {path.name} cannot be read",
            f"{type(error).__name__}: {error}",
            f"replace {path} by the file of the public release",
        ) from error
    absent = [name for name in names if name not in content]
    if absent:
        found = sorted(key for key in content if not key.startswith("__"))
        raise UserError(
            f"{dataset}: {path.name} lacks {', '.join(absent)}",
            f"expected {', '.join(names)}, found {', '.join(found) or 'no variables'}",
            f"replace {path} by the file of the public release",
        )
    return {name: content[name] for name in names}


def struct_field(dataset: str, table: Any, name: str, source: Path) -> list[Any]:
    """Return one field of a struct array as a list of plain Python values.

    Raises:
        UserError: the array has no such field.
    """
    array = np.atleast_1d(table)
    if array.dtype.names is None or name not in array.dtype.names:
        raise UserError(
            f"{dataset}: {source.name} has no field '{name}'",
            f"expected a struct array, found the fields {array.dtype.names}",
            "some releases leave labels out of the test annotations: get the labelled file",
        )
    return [value.item() if isinstance(value, np.ndarray | np.generic) else value for value in array[name]]


def strings(cell: Any) -> tuple[str, ...]:
    """Return a cell array of strings as a tuple."""
    return tuple(str(value) for value in np.atleast_1d(cell))
