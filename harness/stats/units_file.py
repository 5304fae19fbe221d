"""Units of many metrics in one small file: what is kept beside every evaluation and in the baselines of the gate."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

from harness.core.errors import UserError
from harness.core.files import parse_json
from harness.core.intact import ZIP_ERRORS
from harness.core.lazy import LazyModule
from harness.core.limits import refuse_zip
from harness.stats.difference import Units
from harness.stats.sound_units import unfit_ids

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = LazyModule("numpy")

PACK_SCHEMA = 1


def pack(units: Mapping[str, Sequence[Units]]) -> bytes:
    """Return units by owner as one compressed file; equal units give equal bytes, equal lists of names are kept once.

    Raises:
        ValueError: names of items are not unique, empty, or hold control characters (names are joined by line feeds).
    """
    pools: dict[tuple[str, ...], int] = {}
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    listed: list[dict[str, object]] = []
    for owner in sorted(units):
        for one in sorted(units[owner], key=lambda u: u.metric):
            if why := unfit_ids(one.ids):
                raise ValueError(f"{one.metric}: {why}")
            number, pool = len(listed), pools.setdefault(one.ids, len(pools))
            listed.append(
                {"owner": owner, "metric": one.metric, "statistic": one.statistic, "scale": one.scale, "ids": pool}
            )
            arrays[f"s{number}"], arrays[f"f{number}"] = _small(one.strata), _small(one.features)
    for ids, pool in pools.items():
        arrays[f"i{pool}"] = np.frombuffer("\n".join(ids).encode(), dtype=np.uint8)
    header = json.dumps({"schema": PACK_SCHEMA, "units": listed}, sort_keys=True).encode()
    stream = io.BytesIO()
    np.savez_compressed(
        stream, allow_pickle=False, header=np.frombuffer(header, dtype=np.uint8), **dict(sorted(arrays.items()))
    )
    return stream.getvalue()


def _small(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the array in the smallest type that holds its values exactly."""
    for kind in (np.uint8, np.int16, np.int32, np.float32):
        with np.errstate(all="ignore"):
            smaller = array.astype(kind)
        if np.array_equal(smaller, array):
            return smaller
    return array


def unpack(content: bytes, source: str) -> dict[str, tuple[Units, ...]]:
    """Return what ``pack`` was given.

    Raises:
        UserError: the bytes are damaged or of an unknown schema.
    """
    try:
        data = _arrays(content, source)
        header = parse_json(bytes(data["header"]).decode())
        if header["schema"] != PACK_SCHEMA:
            raise ValueError(f"schema {header['schema']}, this version reads {PACK_SCHEMA}")
        found: dict[str, list[Units]] = {}
        for number, one in enumerate(header["units"]):
            made = Units(
                one["metric"], one["statistic"], _names(bytes(data[f"i{one['ids']}"])), _strata(data[f"s{number}"]),
                data[f"f{number}"].astype(np.float64), float(one["scale"]),
            )  # fmt: skip
            found.setdefault(one["owner"], []).append(made)
    except (*ZIP_ERRORS, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"{source} is damaged", f"{type(error).__name__}: {error}", "make it again") from error
    return {owner: tuple(parts) for owner, parts in found.items()}


@lru_cache(maxsize=1024)
def _names(joined: bytes) -> tuple[str, ...]:
    """Return the names of a list; evaluations of one data set share one tuple, which also tells soonest that they are equal."""
    return tuple(joined.decode().split("\n")) if joined else ()


def _strata(small: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Return the strata of a metric's items; equal ones are one array that nobody can write to."""
    return _kept_strata(small.tobytes(), small.dtype.str)


@lru_cache(maxsize=1024)
def _kept_strata(content: bytes, kind: str) -> npt.NDArray[np.int64]:
    strata = np.frombuffer(content, kind).astype(np.int64)
    strata.flags.writeable = False
    return strata


def _arrays(content: bytes, source: str) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of an npz file; several times faster than ``np.load``, which parses each header anew.

    Raises:
        ValueError: an array is damaged.
        UserError: the file declares sizes that are not unpacked.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        refuse_zip(archive, source, len(content))
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}


def _array(raw: bytes) -> npt.NDArray[np.generic]:
    end = 10 + int.from_bytes(raw[8:10], "little")
    shape, order, kind = _header(raw[:end])
    return np.frombuffer(raw, kind, offset=end).reshape(shape, order=order)


@cache
def _header(raw: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[np.generic]]:
    """Return shape, order and type of an array; files of equal arrays share few headers."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("unknown version of the npy format")
    shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    if kind.hasobject:
        raise ValueError("an array of Python objects")
    return shape, "F" if fortran else "C", kind
