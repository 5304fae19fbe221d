"""Requests for memory that were refused, as Python and libraries put them."""

from __future__ import annotations

import errno

from harness.core.errors import UserError

_TYPES = frozenset({"OutOfMemoryError", "ArrowMemoryError"})
"""Names of exceptions of libraries, which are not imported for this."""
_WORDS = ("can't allocate memory", "not enough memory", "out of memory")
"""Parts of a RuntimeError of torch's allocators."""


class OutOfMemory(UserError):
    """Report that memory ran out."""

    code = 1


def explain_memory(error: BaseException) -> OutOfMemory | None:
    """Return the three-part error for a refused request for memory; None for any other error."""
    words = str(error).split("\n")[0]
    refused = (
        isinstance(error, MemoryError)
        or type(error).__name__ in _TYPES
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(each in words for each in _WORDS))
    )
    if not refused:
        return None
    return OutOfMemory(
        "out of memory",
        words[:300] or "a request for memory was refused",
        "lower a batch size, or run fewer cells at once (--slots 1), then run the same command again; finished work is kept",
    )
