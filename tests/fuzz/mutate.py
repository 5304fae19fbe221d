"""Ways to damage the content of a file: bits, bytes, lines, and values in JSON.

Every function draws from a ``random.Random``; hypothesis hands in one that it can shrink, the run by hand a seeded one.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

_NUMBERS = tuple(
    struct.pack(form, value) for form in ("<I", ">I", "<Q", ">Q") for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
)
_LINES = (b"", b" ", b"\x00", b"\xff\xfe\xff", b"\xef\xbb\xbf", "a\x85b\u2028c".encode(), b"..", b"../../outside", b"/outside", b"9" * 5000,
          b"-1", b"nan", b'"', b"'", b"\t", b",,,,", b"[" * 3000, b"x" * 200_000)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**64, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "x", "0", "-1", "\x00",
    "\ud800", "../../outside", "/outside", "a/b", "x" * 10_000, "\u2028", [], [[]], [None], [0], ["x"], {}, {"": {}}, {"x": 0},
    {"data_offsets": [0, 2**70]}, [2**63, -1], ["diffusers", "x"], ["diffusers", None],
)  # fmt: skip
_DEEP = b"[" * 60_000

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, len(data) - 1)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, len(data) - 1)] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    new, at = rng.choice(_NUMBERS), _place(rng, len(data))
    data[at : at + len(new)] = new


def _truncate(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, len(data))
    del data[at : at + rng.randint(1, 64)]


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, len(data))
    data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 16)))


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, to = _place(rng, len(data)), _place(rng, len(data))
    data[to:to] = data[at : at + rng.randint(1, 512)]


def _splice(rng: random.Random, data: bytearray, donors: Sequence[bytes]) -> None:
    other = rng.choice(donors)
    data[_place(rng, len(data)) :] = other[_place(rng, len(other)) :]


def _line(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Replace, drop or repeat a line, or a word of one."""
    lines = bytes(data).split(b"\n")
    at = rng.randrange(len(lines))
    words = lines[at].split(b" ")
    words[rng.randrange(len(words))] = rng.choice(_LINES)
    lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [rng.choice(_LINES)], [b" ".join(words)]))
    data[:] = b"\n".join(lines)


_CHANGES: tuple[Change, ...] = (_flip, _set, _number, _truncate, _cut, _insert, _repeat, _splice)


def _place(rng: random.Random, end: int) -> int:
    """Return a place in 0..end; the first bytes, which hold headers, are taken as often as all others."""
    return rng.randint(0, min(end, 200)) if rng.random() < 0.5 else rng.randint(0, end)


def damage(rng: random.Random, content: bytes, donors: Sequence[bytes], text: bool = False) -> bytes:
    """Return content with one to four changes; now and then random bytes in its place."""
    if rng.random() < 0.03:
        return bytes(rng.randrange(256) for _ in range(rng.randint(0, 64)))
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        rng.choice((*_CHANGES, *[_line] * 8) if text else _CHANGES)(rng, data, donors)
    return bytes(data)


def damage_json(rng: random.Random, content: bytes, donors: Sequence[bytes]) -> bytes:
    """Return JSON with values replaced, dropped or moved; now and then text that is no JSON."""
    if rng.random() < 0.15:
        return damage(rng, content, donors, text=True)
    if rng.random() < 0.01:
        return _DEEP
    root = [json.loads(content)]
    for _ in range(rng.randint(1, 3)):
        owner, key = rng.choice(list(_values(root)))
        if rng.random() < 0.2 and isinstance(owner, dict):
            del owner[key]
        elif rng.random() < 0.1 and isinstance(owner, dict):
            owner[str(rng.choice(_VALUES))] = deepcopy(owner[key])
        else:
            owner[key] = deepcopy(rng.choice(_VALUES))
    return json.dumps(root[0]).encode()


def damage_lines(rng: random.Random, content: bytes, donors: Sequence[bytes]) -> bytes:
    """Return lines of JSON with one of them damaged as JSON, or the whole as text."""
    lines = content.splitlines()
    if rng.random() < 0.3:
        return damage(rng, content, donors, text=True)
    at = rng.randrange(len(lines))
    lines[at] = damage_json(rng, lines[at], donors)
    return b"\n".join(lines) + b"\n"


def _values(owner: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value: what holds it, and its key or index."""
    pairs = list(owner.items()) if isinstance(owner, dict) else list(enumerate(owner))
    for key, value in pairs:
        yield owner, key
        if isinstance(value, dict | list):
            yield from _values(value)
