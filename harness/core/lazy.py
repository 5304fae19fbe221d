"""Modules that are imported when something of them is first used, so that commands that compute nothing start fast."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stand for a module until it is used.

    Where types matter, bind the name twice::

        if TYPE_CHECKING:
            import numpy as np
        else:
            np = LazyModule("numpy")
    """

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __getattr__(self, name: str) -> Any:
        """Return what the module has under a name, and keep it."""
        found = getattr(importlib.import_module(self._module_name), name)
        self.__dict__[name] = found
        return found
