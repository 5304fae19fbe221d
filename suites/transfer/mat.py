"""Reading the MATLAB files that come with Cars, Flowers and the ImageNet devkit."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import DataMissing, UserError

_TRIAL = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], squeeze_me=True, chars_as_strings=True)"
_TRIAL_SECONDS = 120


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
    stat = path.stat()
    if why := _damage(path, stat.st_mtime_ns, stat.st_size):
        raise UserError(
            f"{dataset}: {path.name} cannot be read", why, f"replace {path} by the file of the public release"
        )
    content = loadmat(path, squeeze_me=True, chars_as_strings=True)
    absent = [name for name in names if name not in content]
    if absent:
        found = sorted(key for key in content if not key.startswith("__"))
        raise UserError(
            f"{dataset}: {path.name} lacks {', '.join(absent)}",
            f"expected {', '.join(names)}, found {', '.join(found) or 'no variables'}",
            f"replace {path} by the file of the public release",
        )
    return {name: content[name] for name in names}


@cache
def _damage(path: Path, *_: int) -> str:
    """Return why a MATLAB file cannot be read; empty if it can.

    A damaged file makes scipy fail in any way, and may end the process (scipy 1.17, SIGBUS), so that another one reads it first.
    """
    command = [sys.executable, "-c", _TRIAL, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TRIAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {_TRIAL_SECONDS} s"
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else said[-1] if done.returncode > 0 and said else "its structure is damaged"


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
