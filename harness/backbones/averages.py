"""Averages of weights that a file holds in part: completed where that is certain, else refused, so that none is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.backbones.matching import COUNTER, Candidate, Network, entries, same_tensors, within
from harness.core.errors import UserError

_STATISTICS = ("running_mean", "running_var", COUNTER)
_RAW = "take the raw weights with --weights raw; or load the average where it was made, and save the state dict of that network"


def with_averages(
    path: Path, content: Mapping[str, Any], network: Network, found: Sequence[Candidate], weights: str | None
) -> tuple[Sequence[Candidate], str]:
    """Return the places of a file with an average of parameters alone, completed by the raw batch-norm statistics.

    Args:
        path: The file, for messages.
        content: What it holds.
        network: What is wanted.
        found: The complete places.
        weights: What was asked for; an average is looked for where None or ``ema`` is, or its place.

    Returns:
        The places, and in words what was completed; empty if nothing was.

    Raises:
        UserError: an average is there that cannot be completed, and ``raw`` was not asked for.
    """
    if any(one.averaged for one in found):
        return found, ""
    parts = [
        one
        for entry, tensors in entries(content)
        for one in within(entry, tensors, network, content)
        if one.averaged and not one.complete and 2 * one.fitting >= len(network.wanted)
    ]
    parts = [one for one in parts if weights in (None, "ema", one.name, one.entry)]
    lists = list(_lists(content, len(network.wanted) // 3)) if weights in (None, "ema") else []
    if not parts and not lists:
        return found, ""
    if len(parts) != 1 or lists:
        names = ", ".join([*(one.name for one in parts), *lists])
        raise UserError(
            f"the average in {path} cannot be read",
            f"{names} holds averaged weights without the names of their tensors"
            if lists
            else f"there are several: {names}",
            _RAW,
        )
    part, raw = parts[0], found[0]
    missing = [name for name in network.body if part.prefix + name not in part.tensors]
    misfit = [
        name for name in network.body
        if (name in missing and not name.endswith(_STATISTICS))
        or (name not in missing and part.at(name).shape != network.body[name].shape)
    ]  # fmt: skip
    if misfit or any(not same_tensors(raw, one, network) for one in found[1:]):
        why = f"it lacks {', '.join(misfit[:3])}" if misfit else "several raw networks could complete it"
        raise UserError(f"the average under {part.name} in {path} is incomplete", why, _RAW)
    borrowed = {part.prefix + name: raw.at(name) for name in missing if raw.prefix + name in raw.tensors}
    whole = replace(part, tensors={**part.tensors, **borrowed}, fitting=len(network.wanted), complete=True)
    said = f"{part.name} holds averaged parameters only: its batch-norm statistics are those of {raw.name or 'the top level'}"
    return [*found, whole], said


def _lists(content: Mapping[Any, Any], least: int, place: str = "", depth: int = 3) -> Iterator[str]:
    """Return where parameters lie as a list without names, as torch_ema writes them."""
    for key, value in content.items():
        name = f"{place}.{key}" if place else str(key)
        if isinstance(value, list | tuple) and "shadow" in str(key):
            if sum(isinstance(one, torch.Tensor) for one in value) >= max(1, least):
                yield name
        elif isinstance(value, Mapping) and depth:
            yield from _lists(value, least, name, depth - 1)
