"""Code by name: ``module:attribute`` loaded, and the identity of the code that some work runs.

The identity is a hash over the definitions that the work reaches: functions, classes and constants of this project (and of a
plugin's own package), followed by name from where it starts, imports within functions included, and over the files of the
package that they name (templates, cards, tables). Comments, docstrings, formatting, the words of an error or of a setting's
description, and where a definition lies are no part of it, nor are annotations but those of fields: settings are converted by
them. Not followed are other packages (their names count, their code does not), look-ups by name in a registry, and what
``closure.NO_PART`` lists.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from harness.core.errors import UserError
from harness.core.hashcache import HashCache
from harness.core.resources import cache_folder, data_of, package_places

PROJECT = ("harness", "generators", "suites", "leaderboard")
SCHEME = "syntax-2"
"""What a hash begins with. Hashes of another scheme cannot be compared: raised when the rules here or in ``syntax`` change."""


def load_attribute(location: str) -> object:
    """Import ``module:attribute``.

    Raises:
        UserError: no such module or attribute.
    """
    module, _, attribute = location.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot load {location}", f"{type(error).__name__}: {error}", "correct the name, or install its package"
        ) from error


def comparable(code_hash: str) -> bool:
    """Return whether a hash was made by the present rules."""
    return code_hash.startswith(f"{SCHEME}:")


def code_hash(*roots: str) -> str:
    """Return the identity of the code that is reached from ``module:function``, ``module:Class`` or ``module:Class.member``.

    Of a member of a class, members that it reaches through ``self`` are those of that class, inherited ones included.
    It is kept in the user's cache for as long as no source file of the packages concerned changes.
    """
    names = tuple(sorted(set(roots)))
    tops = tuple(sorted({*PROJECT, *(name.partition(".")[0].partition(":")[0] for name in names)}))
    return f"{SCHEME}:{_kept_hash(cache_folder() / 'code.json', names, tops, _state(tops))[:16]}"


@cache
def _kept_hash(place: Path, names: Sequence[str], tops: Sequence[str], state: str) -> str:
    kept, name = _table(place), " ".join(("code", *names))
    found = kept.get(name, state)
    if found is None:
        from harness.core.closure import closure_hash

        found = closure_hash(names, tops)
        with suppress(OSError):  # without a cache it is worked out again
            place.parent.mkdir(parents=True, exist_ok=True)
        kept.put(name, state, found)
    return found


@cache
def _table(place: Path) -> HashCache:
    return HashCache(place)


@cache
def _state(tops: Sequence[str]) -> str:
    """Return what the file system says of all source and data files of some packages."""
    digest = hashlib.sha256(SCHEME.encode())
    for top in tops:
        for path in _sources(top):
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _sources(top: str) -> Iterator[Path]:
    for place in package_places(top):
        yield from [place] if place.is_file() else [*sorted(place.rglob("*.py")), *data_of(place)]
