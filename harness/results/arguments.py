"""The arguments of ``harness.evaluate`` as a Python caller gives them, checked before any work."""

from __future__ import annotations

import json
import math
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.core.errors import UserError

Colour = tuple[float, float, float]
_PAIR = re.compile(r"--(data|set) ([^\s=]+)=(\S+)")
_CHOICE = re.compile(
    r"--(checkpoint|classes|device|interpolation|precision|profile|stale|weights) (?!out\b|or\b|is\b|and\b)([\w*.-]*\w)"
)
_OPTION = re.compile(
    r"--(arch|checkpoint|classes|crop|data|device|image-size|interpolation|mean|name|precision|profile|stale|std|store|suite|weights)\b"
)
_EXAMPLE = "write e.g. mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)"


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Let errors from within name arguments, where they would name options of the command line."""
    try:
        yield
    except UserError as error:
        error.what, error.why, error.fix = error.args = tuple(map(in_python, (error.what, error.why, error.fix)))
        raise


def in_python(words: str) -> str:
    """Return a message about options of the command line as one about arguments of ``evaluate``."""
    words = _PAIR.sub(lambda found: f"{_argument(found[1])}{{{json.dumps(found[2])}: {found[3]}}}", words)
    words = _CHOICE.sub(lambda found: f'{_argument(found[1])}"{found[2]}"', words)
    return _OPTION.sub(lambda found: _argument(found[1]), words)


def _argument(option: str) -> str:
    names = {"set": "settings", "suite": "suites", "checkpoint": "model"}
    return f"{names.get(option, option.replace('-', '_'))}="


def known(name: str, value: object, values: Sequence[str]) -> None:
    """Check that a value is one of a few.

    Raises:
        UserError: it is not.
    """
    if value not in values:
        raise UserError(f"unknown {name} {value!r}", f"it is one of {', '.join(values)}", f"correct {name}=")


def feed(mean: object, std: object, image_size: object, crop: object, **others: object) -> dict[str, Any]:
    """Return how images reach the model, as far as it is given.

    Raises:
        UserError: a value is not possible.
    """
    values = {"image_size": _pixels(image_size), "crop": _fraction(crop), **others}
    return _colours(mean, std) | {name: value for name, value in values.items() if value is not None}


def _colours(mean: object, std: object) -> dict[str, Colour]:
    """Return mean and standard deviation of the colours, as far as they are given.

    Raises:
        UserError: only one of them is given, or they are no three numbers in [0, 1].
    """
    if (mean is None) != (std is None):
        given, missing = ("mean=", "std=") if std is None else ("std=", "mean=")
        raise UserError(f"{given} is given without {missing}", "a network was trained with a pair of them", _EXAMPLE)
    return {} if mean is None else {"mean": _colour("mean", mean), "std": _colour("std", std)}


def _colour(name: str, value: object) -> Colour:
    found = _numbers(value)
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise UserError(f"{name}={value!r} is not possible", "it is a number for each of red, green and blue", _EXAMPLE)
    lowest = "more than 0, at most 1" if name == "std" else "in [0, 1]"
    if not all(0 <= number <= 1 and (name == "mean" or number) for number in found):
        raise UserError(
            f"{name}={value!r} is not possible",
            f"it is in units of pixels in [0, 1]: each number is {lowest}",
            "divide it by 255" if max(found) > 1 else _EXAMPLE,
        )
    return found[0], found[1], found[2]


def _numbers(value: Any) -> tuple[float, ...]:
    try:
        return () if isinstance(value, str) else tuple(map(float, value))
    except (TypeError, ValueError, RuntimeError):
        return ()


def _pixels(value: Any) -> int | None:
    if value is None:
        return None
    try:
        found = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise UserError(
            f"image_size={value!r} is not possible", "it is a whole number of pixels", "write e.g. image_size=224"
        )
    return found


def _fraction(value: Any) -> float | None:
    if value is None:
        return None
    found = () if isinstance(value, bool | str) else _numbers([value])
    if not found or not 0 < found[0] <= 1:
        raise UserError(
            f"crop={value!r} is not possible",
            "it is crop size over resized size, above 0 and at most 1",
            "write e.g. crop=0.875",
        )
    return found[0]


def listed(name: str, value: Any) -> str:
    """Return ids joined by commas.

    Raises:
        UserError: one of them is no text.
    """
    items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    for item in items:
        if not isinstance(item, str):
            raise UserError(f"{name}= holds {item!r}", "it takes names", f'write e.g. {name}=("texture-bias",)')
    return ",".join(items)


def text(name: str, value: Any) -> str:
    """Return a text or path as text; empty for None.

    Raises:
        UserError: it is neither.
    """
    if value is not None and not isinstance(value, str | os.PathLike):
        raise UserError(f"{name}={value!r} is not possible", f"it is a {type(value).__name__}", f"give {name}= as text")
    return "" if value is None else os.fspath(value)


def folders(value: Any) -> list[str]:
    """Return ``NAME=FOLDER`` of every data set.

    Raises:
        UserError: it is no mapping from names to paths.
    """
    found = _table("data", value, '{"cue-conflict": "/data/cue-conflict"}')
    return [f"{label}={text(f'data[{label!r}]', root)}" for label, root in found.items()]


def assignments(value: Any) -> list[str]:
    """Return ``KEY=VALUE`` of every setting, the value in JSON.

    Raises:
        UserError: it is no mapping from names to values that JSON has.
    """
    found = _table("settings", value, '{"suites.texture-bias.restricted": True}')
    try:
        return [f"{key}={json.dumps(each, allow_nan=False)}" for key, each in found.items()]
    except (TypeError, ValueError) as error:
        raise UserError(f"settings={value!r} is not possible", str(error), "give numbers, texts, lists") from error


def _table(name: str, value: Any, example: str) -> Mapping[str, Any]:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise UserError(f"{name}={value!r} is not possible", "it gives values by name", f"write e.g. {name}={example}")
    return value or {}
