"""Images in parquet files: an image column with the bytes inside, and a label column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.files import parse_json
from harness.core.limits import refuse_expansion
from harness.images.entries import LABEL_KEYS, Entry
from harness.images.labels import UNLABELLED, decide, disagree, is_number, is_wnid
from harness.images.parts import part_of_facts, part_of_file, tells_part

_IMAGE_KEYS = ("image", "img", "jpg", "png")
_PEEK = 64
"""Rows by which a column of class ids is recognised."""
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
    stated = {name: [_label(value) for value in _column(path, name)] for name in _label_columns(path)}
    names = _names(path)
    for (first, labels), (other, values) in combinations(stated.items(), 2):
        _check_agree(path, (first, other), labels, values)
    splits = {name: _column(path, name) for name in open_parquet(path).schema_arrow.names if tells_part(name)}
    for row, beside in enumerate(zip(*stated.values(), strict=True)):
        label = decide(beside)
        part = part_of_facts({name: each[row] for name, each in splits.items()}) or part_of_file(container)
        yield Entry(
            f"{container}::{row:08d}",
            label.text or UNLABELLED,
            container,
            row,
            name=names[row] or "",
            number=label.number,
            part=part,
        )


def _label_columns(path: Path) -> list[str]:
    """Return the columns that state a class: those called so, in order, then those whose texts are class ids."""
    import pyarrow as pa

    image_column(path)
    file = open_parquet(path)
    known = [name for name in LABEL_KEYS if name in file.schema_arrow.names]
    kinds = {field.name: getattr(field.type, "value_type", field.type) for field in file.schema_arrow}
    texts = [
        name
        for name, kind in kinds.items()
        if name not in known and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    ]
    with refuse_damaged(path, "its first rows cannot be read"):
        first = next(file.iter_batches(_PEEK, columns=texts), None) if texts else None
        rows = first.to_pydict() if first is not None else {}
    found = [*known, *(name for name in texts if _are_wnids(rows.get(name, ())))]
    return found or [_refuse_columns(path)]


def _are_wnids(values: Iterable[Any]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(value, str) and is_wnid(value) for value in found)


def _label(value: Any) -> str:
    """Return a label as text: ``-1`` where there is none; libraries store integers with gaps as floats."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if value != value else value
    return UNLABELLED if value is None else str(value)


def _check_agree(path: Path, columns: tuple[str, str], one: Sequence[str], other: Sequence[str]) -> None:
    """Refuse two label columns that give a row different classes.

    Numbers must be equal, and so must names and class ids; each number goes with one name or class id.

    Raises:
        UserError: they disagree.
    """
    meant: dict[str, str] = {}
    for row, (first, second) in enumerate(zip(one, other, strict=True)):
        number, text = sorted((first, second), key=lambda label: not is_number(label))
        mixed = is_number(number) and not is_number(text) and UNLABELLED not in (first, second)
        if disagree(first, second) or (mixed and meant.setdefault(number, text) != text):
            raise UserError(
                f"{path} has two label columns that disagree",
                f"row {row} has {columns[0]} {first!r} and {columns[1]} {second!r}",
                "write it again with the column that holds the class",
            )


def label_names(path: Path) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ... that a file of the hub states in its schema's metadata; empty where none."""
    try:
        facts = parse_json((open_parquet(path).schema_arrow.metadata or {})[b"huggingface"])
        features = facts["info"]["features"]
        named = (features[key]["names"] for key in LABEL_KEYS if "names" in (features.get(key) or {}))
        return tuple(map(str, next(names for names in named if isinstance(names, list))))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return ()


def image_column(path: Path) -> str:
    """Return the image column of a parquet file.

    Raises:
        UserError: there is none.
    """
    names = open_parquet(path).schema_arrow.names
    return next((name for name in _IMAGE_KEYS if name in names), "") or _refuse_columns(path)


def _refuse_columns(path: Path) -> str:
    raise UserError(
        f"{path} holds no labelled images",
        f"its columns are {', '.join(open_parquet(path).schema_arrow.names)}",
        "an image column (image, bytes inside) and a label column (label, cls, class, wnid or labels) are needed",
    )


@lru_cache(maxsize=64)
def open_parquet(path: Path) -> Any:
    """Return an open parquet file.

    Raises:
        UserError: it is none.
    """
    import pyarrow.parquet as parquet

    with refuse_damaged(path, "it is not a whole parquet file"):
        file = parquet.ParquetFile(path)
        _refuse_declared(path, file.metadata)
        _ = file.schema_arrow  # types that are not read show here
    return file


@contextmanager
def refuse_damaged(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of pyarrow into one that names the file.

    Raises:
        UserError: it cannot be read.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path} is damaged", what, "fetch it again") from error


def _refuse_declared(path: Path, metadata: Any) -> None:
    """Refuse a file whose metadata declare sizes that it cannot hold.

    Raises:
        UserError: a row group would grow too much, or there are more rows than bytes.
    """
    size = path.stat().st_size
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    counts = [group.num_rows for group in groups]
    if sum(counts) != metadata.num_rows or min(counts, default=0) < 0 or metadata.num_rows > size:
        raise UserError(
            f"{path} is damaged", f"its {size:,} bytes declare {metadata.num_rows:,} rows", "fetch it again"
        )
    for group in groups:
        refuse_expansion(path, group.total_byte_size, size)


def _column(path: Path, column: str) -> list[Any]:
    """Return a column of a parquet file, or a field of one (``image.path``).

    Raises:
        UserError: it cannot be read.
    """
    with refuse_damaged(path, f"column {column} cannot be read"):
        values = open_parquet(path).read(columns=[column]).column(0).to_pylist()
    key = column.rpartition(".")[2]
    return [value.get(key) if isinstance(value, dict) else value for value in values]


def _names(path: Path) -> list[str]:
    """Return the file names that the rows of a parquet file bear: beside the bytes or in a column; empty where neither."""
    file = open_parquet(path)
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    places = [name for name in (f"{image_column(path)}.path", *_NAME_KEYS) if name in leaves]
    found = [""] * int(file.metadata.num_rows)
    for column in places:
        found = [one or str(other or "") for one, other in zip(found, _column(path, column), strict=True)]
    return found
