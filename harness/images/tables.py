"""Images in parquet files: an image column with the bytes inside, and a label column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.images.entries import LABEL_KEYS, Entry
from harness.images.parts import part_of_facts, part_of_file, tells_part

_IMAGE_KEYS = ("image", "img", "jpg", "png")
_NAME_KEYS = ("path", "file_name", "filename", "__key__")


def has_images(path: Path) -> bool:
    """Tell whether a parquet file has an image column; tables of facts beside images have none."""
    return any(name in open_parquet(path).schema_arrow.names for name in _IMAGE_KEYS)


def table_entries(base: Path, container: str) -> Iterator[Entry]:
    """Yield the rows of a parquet file.

    Raises:
        UserError: it is damaged, has no image and label columns, or two label columns that disagree.
    """
    path = base / container
    _, column = columns(path)
    labels, names = [_label(value) for value in _column(path, column)], _names(path)
    for other in (each for each in LABEL_KEYS if each in open_parquet(path).schema_arrow.names and each != column):
        _check_agree(path, (column, other), labels, [_label(value) for value in _column(path, other)])
    splits = {name: _column(path, name) for name in open_parquet(path).schema_arrow.names if tells_part(name)}
    for row, label in enumerate(labels):
        part = part_of_facts({name: values[row] for name, values in splits.items()}) or part_of_file(container)
        yield Entry(f"{container}::{row:08d}", label, container, row, 0, names[row] or "", part)


def _label(value: Any) -> str:
    """Return a label as text: ``-1`` where there is none; libraries store integers with gaps as floats."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if value != value else value
    return "-1" if value is None else str(value)


def _check_agree(path: Path, columns: tuple[str, str], one: Sequence[str], other: Sequence[str]) -> None:
    """Refuse two label columns that give a row different classes.

    Numbers must be equal, and so must texts; of a number and a text each number goes with one text.

    Raises:
        UserError: they disagree.
    """
    meant: dict[str, str] = {}
    for row, (first, second) in enumerate(zip(one, other, strict=True)):
        number, text = sorted((first, second), key=lambda label: not label.isdigit())
        same = number == text if number.isdigit() == text.isdigit() else meant.setdefault(number, text) == text
        if not same and "-1" not in (first, second):
            raise UserError(
                f"{path} has two label columns that disagree",
                f"row {row} has {columns[0]} {first!r} and {columns[1]} {second!r}",
                "write it again with the column that holds the class",
            )


def label_names(path: Path) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ... that a file of the hub states in its schema's metadata; empty where none."""
    label = columns(path)[1]
    try:
        facts = json.loads((open_parquet(path).schema_arrow.metadata or {})[b"huggingface"])
        names = facts["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def columns(path: Path) -> tuple[str, str]:
    """Return the image and the label column of a parquet file.

    Raises:
        UserError: there is no such pair.
    """
    names = list(open_parquet(path).schema_arrow.names)
    image = next((name for name in _IMAGE_KEYS if name in names), "")
    label = next((name for name in LABEL_KEYS if name in names), "")
    if not image or not label:
        raise UserError(
            f"{path} holds no labelled images",
            f"its columns are {', '.join(names)}",
            "an image column (image, bytes inside) and a label column (label, cls, class, wnid or labels) are needed",
        )
    return image, label


@lru_cache(maxsize=64)
def open_parquet(path: Path) -> Any:
    """Return an open parquet file.

    Raises:
        UserError: it is none.
    """
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a parquet file", str(error).splitlines()[0], "fetch it again") from error


def _column(path: Path, column: str) -> list[Any]:
    """Return a column of a parquet file, or a field of one (``image.path``).

    Raises:
        UserError: it cannot be read.
    """
    try:
        values = open_parquet(path).read(columns=[column]).column(0).to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged", f"column {column} cannot be read", "fetch it again") from error
    key = column.rpartition(".")[2]
    return [value.get(key) if isinstance(value, dict) else value for value in values]


def _names(path: Path) -> list[str]:
    """Return the file names that the rows of a parquet file bear: beside the bytes or in a column; empty where neither."""
    file = open_parquet(path)
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    places = [name for name in (f"{columns(path)[0]}.path", *_NAME_KEYS) if name in leaves]
    found = [""] * int(file.metadata.num_rows)
    for column in places:
        found = [one or str(other or "") for one, other in zip(found, _column(path, column), strict=True)]
    return found
