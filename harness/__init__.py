"""A benchmark and evaluation harness for the bias of training data.

``evaluate`` measures a model of this process, ``read_records`` and ``read_rows`` read any store; ``Results`` is what ``evaluate``
returns. They are loaded when they are first used: importing the package imports neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.core.errors import UserError as UserError
    from harness.results.evaluate import evaluate as evaluate
    from harness.results.frames import read_records as read_records
    from harness.results.frames import read_rows as read_rows
    from harness.results.results import Results as Results

__version__ = "0.1.0"
__all__ = ["Results", "UserError", "__version__", "evaluate", "read_records", "read_rows"]

_HOMES = {
    "Results": "harness.results.results",
    "UserError": "harness.core.errors",
    "evaluate": "harness.results.evaluate",
    "read_records": "harness.results.frames",
    "read_rows": "harness.results.frames",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
