"""Names on the command line: lists of them, wildcards, and near misses for error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from harness.core.errors import UserError

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys, or that turn the direction of a text; line feeds and tabs are none of them."""


def plain(text: str) -> str:
    """Return a text from outside as a terminal, a log or an XML file may get it: without characters that act."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` with up to three near names, or an empty text."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.55)
    return f"did you mean {' or '.join(repr(match) for match in matches)}?  " if matches else ""


def names_in(text: str) -> list[str]:
    """Return the names in a comma-separated list; commas in brackets belong to a name: ``a, b (x, y)`` are two."""
    return [name.strip() for name in re.split(r",(?![^(]*\))", text) if name.strip()]


def is_pattern(name: str) -> bool:
    """Whether a name holds a wildcard; the argument of ``id:ARGUMENT`` is none, whatever it holds."""
    return ":" not in name and any(mark in name for mark in "*?")


def matches(pattern: str, known: Collection[str], kind: str) -> list[str]:
    """Known names that match a wildcard pattern, in their order; a name without a wildcard matches itself, known or not.

    Args:
        pattern: ``*`` stands for any letters, ``?`` for one.
        known: Names to choose from.
        kind: What they are, in the singular, such as ``suite``; for the message.

    Raises:
        UserError: nothing matches the pattern.
    """
    if not is_pattern(pattern):
        return [pattern]
    found = [name for name in known if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(
            f"no {kind} matches {pattern!r}",
            f"available: {', '.join(known)}",
            f"correct the pattern; quote it, as in --{kind} '{pattern}', so that the shell passes it on unchanged",
        )
    return found
