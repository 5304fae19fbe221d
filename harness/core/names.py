"""Names on the command line: lists of them, and near misses for error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` with up to three near names, or an empty text."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.55)
    return f"did you mean {' or '.join(repr(match) for match in matches)}?  " if matches else ""


def names_in(text: str) -> list[str]:
    """Return the names in a comma-separated list; commas in brackets belong to a name: ``a, b (x, y)`` are two."""
    return [name.strip() for name in re.split(r",(?![^(]*\))", text) if name.strip()]
