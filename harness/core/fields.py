"""Whether what a dataclass holds is what its annotations say: for objects that come from a plugin's code."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, the line separators, and bytes of a file name that are no text."""


def wrong_field(part: Any) -> str:
    """Return which field of a dataclass holds what, and what it should hold; empty if all are as annotated.

    Known are strings, booleans, finite numbers, ``Literal``, unions, mappings and tuples of these; a list does as a tuple.
    Numbers must be Python's own (or a subclass), since they are written as JSON. Other annotations are not looked at.
    """
    cls: Any = type(part)
    for name, kind in _kinds(cls).items():
        value = getattr(part, name)
        if not _fits(value, kind):
            return f"{name} is {type(value).__name__} {value!r}"[:100] + f", not {_words(kind)}"
    return ""


def unfit_name(text: Any) -> str:
    """Return why something cannot be a name in a store or a table; empty if it can."""
    if not isinstance(text, str):
        return f"{type(text).__name__} {text!r}"[:100] + " is not a string"
    if not text.strip():
        return f"{text!r} is empty"
    return f"{text!r}"[:100] + " holds a line feed or another control character" if _UNFIT.search(text) else ""


@cache
def _kinds(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        return isinstance(value, (tuple, list)) and all(_fits(each, inner[0]) for each in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(part, kind) for pair in value.items() for part, kind in zip(pair, inner, strict=True)
        )
    if kind is Any:
        return True
    return isinstance(value, kind) if isinstance(kind, type) else True


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in inner)
    if origin is tuple:
        return f"a tuple of {_words(inner[0])}"
    known = {
        str: "a string",
        bool: "True or False",
        int: "a Python int",
        float: "a finite number",
        types.NoneType: "None",
    }
    return known.get(kind, getattr(origin or kind, "__name__", str(kind)))
