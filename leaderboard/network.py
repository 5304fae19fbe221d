"""What is known of the network behind a result: its weights, its preprocessing, its pre-training; as facts and in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from harness.core.normalisation import KNOWN
from harness.store.records import Record

OUTSIDE = ("outside", "none")
"""Recipes that say nothing: of imported checkpoints and of trivial baselines."""
OLDER, RECIPE = "older record", "pre-training recipe"
UNSAID = ("weights_asked",)
"""Which weights were asked for is no fact of the network; which were taken is."""
NAMES = {
    "weights": "weights",
    "normalisation": "mean/std",
    "image_size": "image size",
    "interpolation": "interpolation",
    "crop": "crop",
    "precision": "precision",
}


def facts_of(record: Record) -> dict[str, Any]:
    """Return the facts of a record's network, flat; empty where it says none."""
    raw = dict(record.subject.network)
    recipe = raw.pop("recipe", None) or {}
    if "mean" in raw or "std" in raw:
        raw["normalisation"] = normalisation(tuple(raw.pop("mean", None) or ()), tuple(raw.pop("std", None) or ()))
    found = {
        name: raw[name] for name in (*NAMES, *sorted(raw.keys() - NAMES.keys())) if raw.get(name) not in (None, "")
    }
    return found | {
        f"recipe {name}": value
        for name, value in sorted(recipe.items())
        if name not in UNSAID and value is not None and value != ""
    }


@cache
def normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Return the name of a normalisation as the command line takes it, or its numbers."""
    for name, (known_mean, known_std) in KNOWN.items():
        if _colour(mean) == _colour(known_mean) and _colour(std) == _colour(known_std):
            return name
    return "/".join(",".join(f"{value:g}" for value in part) for part in (mean, std))


def _colour(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def words(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return each fact in words that stand alone, by name, in the order in which they distinguish rows."""
    return {name: _word(name, value) for name, value in facts.items()}


def _word(name: str, value: Any) -> str:
    if name == "image_size":
        return f"{value} px"
    if name in ("weights", "interpolation", "precision"):
        return str(value)
    return f"{name.removeprefix('recipe ')} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return in what two networks differ, each fact with both values; facts that one side does not know are left out."""
    found, recipe = [], []
    for name in first:
        if name in second and first[name] != second[name]:
            text = f"{_text(first[name])} / {_text(second[name])}"
            if name.startswith("recipe "):
                recipe.append(f"{name.removeprefix('recipe ')} {text}")
            else:
                found.append(f"{NAMES.get(name, name)}: {text}")
    here, there = ({name for name in facts if name.startswith("recipe ")} for facts in (first, second))
    if here and there:
        recipe += [f"{name.removeprefix('recipe ')} stated by one only" for name in sorted(here ^ there)]
    return [*found, f"{RECIPE}: {', '.join(recipe)}"] if recipe else found
