"""Near-miss names for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` with up to three near names, or an empty text."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.55)
    return f"did you mean {' or '.join(repr(match) for match in matches)}?  " if matches else ""
