"""The file of units: damage told at every byte, and lists of names kept once."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from harness.core.errors import UserError
from harness.stats.difference import Units
from harness.stats.units_file import pack, unpack

IDS = tuple(f"item {number}" for number in range(40))


def units(metric: str, ids: tuple[str, ...] = IDS, strata: int = 3) -> Units:
    """Return units of some items."""
    rng = np.random.default_rng(len(metric))
    groups = np.arange(len(ids), dtype=np.int64) % strata
    return Units(metric, "mean share", ids, groups, rng.integers(0, 3, (len(ids), 4)).astype(np.float64), 100.0)


PACKED = pack({"record": [units("one"), units("another"), units("other", IDS[::2], 1)]})


def same(first: dict[str, tuple[Units, ...]], second: dict[str, tuple[Units, ...]]) -> bool:
    """Return whether two files say the same."""
    return pack(first) == pack(second)


def test_an_archive_of_another_kind_or_cut_off_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("header.npy", b"abc")
    for content in (stream.getvalue(), b"", PACKED[:10], PACKED[:-1], PACKED[5:], b"\0" * 30):
        with pytest.raises(UserError, match="f.npz is damaged"):
            unpack(content, "f.npz")


def test_an_array_that_grows_beyond_its_declared_size_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(10_000_000))
    bomb = bytearray(stream.getvalue())
    place = bomb.rindex(b"PK\1\2") + 24  # the size in the directory
    bomb[place : place + 4] = (100).to_bytes(4, "little")
    with pytest.raises(UserError, match="damaged"):
        unpack(bytes(bomb), "f.npz")


def test_no_flipped_bit_is_believed() -> None:
    whole = unpack(PACKED, "f.npz")
    for place in range(0, len(PACKED), 3):
        content = bytearray(PACKED)
        content[place] ^= 1 << place % 8
        try:
            found = unpack(bytes(content), "f.npz")
        except UserError:
            continue
        assert same(found, whole), place  # a bit that says nothing: a date, a version, a flag


def test_evaluations_of_the_same_items_share_names_and_strata() -> None:
    first, second = (unpack(PACKED, name)["record"] for name in ("a", "b"))
    assert first[0].ids is second[0].ids is first[1].ids and first[0].ids == IDS
    assert first[0].strata is second[0].strata and not first[0].strata.flags.writeable
    assert first[2].ids == IDS[::2] and same({"record": first}, {"record": second})
