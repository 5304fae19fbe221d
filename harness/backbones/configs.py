"""The configuration that OpenMMLab's trainings store in a checkpoint (``meta.cfg``): what it says of the inputs and of the network.

It is the text of a Python file. It is parsed, and never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UserError

_OWN = "measure the network by its own code: --classifier MODULE:FUNCTION (docs/checkpoints.md)"
_SHALLOW = (18, 34)
"""Depths of ResNets without bottleneck blocks, which are the same in both styles."""
_SWAPPED = ("to_rgb", "bgr_to_rgb")
"""Whether images, which are read with blue first, are turned; the older step ``Normalize`` does so unless it is told otherwise."""


def stated_in(path: Path, content: Mapping[str, Any], normalised: bool) -> dict[str, Any]:
    """Return what ``meta.cfg`` states of a network's inputs, by name of ``Preprocessing``; empty where there is none.

    Args:
        path: The file, for messages.
        content: What `files.read_checkpoint` returned.
        normalised: Whether the user states the normalisation.

    Raises:
        UserError: the network takes blue first or is one of another kind than timm's; or the text states two normalisations, or cannot
            be read, and the user states none.
    """
    meta = content.get("meta")
    text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return {}
    try:
        parts = list(_dicts(ast.parse(text)))
    except (SyntaxError, ValueError) as error:
        if normalised:
            return {}
        raise UserError(
            f"the configuration in {path} cannot be read", f"meta.cfg is no Python text: {error}", _STATE
        ) from error
    _refuse_style(path, parts)
    colours = _colours(path, parts)
    if len(colours) > 1 and not normalised:
        shown = " and ".join(f"mean {list(mean)}, std {list(std)}" for mean, std in sorted(colours))
        raise UserError(f"the configuration in {path} states several normalisations", shown, _STATE)
    found: dict[str, Any] = _sizes(parts)
    if len(colours) == 1:
        found |= {
            name: tuple(value / 255 for value in values)
            for name, values in zip(("mean", "std"), next(iter(colours)), strict=True)
        }
    return found


_STATE = "state mean and standard deviation with --normalisation"


def _dicts(tree: ast.AST) -> Iterator[dict[str, Any]]:
    """Return the literal values of each ``dict(...)`` and ``{...}`` of a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            pairs = [(word.arg, word.value) for word in node.keywords if word.arg]
        elif isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant) and isinstance(key.value, str)]  # fmt: skip
        else:
            continue
        yield dict(_literals(pairs))


def _literals(pairs: list[tuple[str, ast.expr]]) -> Iterator[tuple[str, Any]]:
    for name, node in pairs:
        try:
            yield name, ast.literal_eval(node)
        except (ValueError, TypeError):
            continue


def _refuse_style(path: Path, parts: list[dict[str, Any]]) -> None:
    if any(part.get("style") == "caffe" and part.get("depth") not in _SHALLOW for part in parts):
        raise UserError(
            f"{path} is a ResNet in Caffe's style",
            "its configuration (meta.cfg) says style='caffe': its blocks stride in the 1 x 1 convolution, timm's in the 3 x 3; the "
            "tensors are alike, the network is another one",
            _OWN,
        )


def _colours(path: Path, parts: list[dict[str, Any]]) -> set[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return the pairs of mean and standard deviation of pixels from 0 to 255, red first."""
    found = set()
    for part in parts:
        mean, std = part.get("mean"), part.get("std")
        if not all(isinstance(one, list | tuple) and len(one) == 3 for one in (mean, std)):
            continue
        swapped = next((part[name] for name in _SWAPPED if name in part), part.get("type") == "Normalize")
        if not swapped:
            said = "to_rgb=False" if any(name in part for name in _SWAPPED) else "no to_rgb, which is False then"
            raise UserError(
                f"{path} takes blue first",
                f"its configuration (meta.cfg) says {said}, mean {list(mean or ())}: images are fed as red, green, blue here",
                _OWN,
            )
        found.add((tuple(map(float, mean or ())), tuple(map(float, std or ()))))
    return found


def _sizes(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return size, crop and interpolation where one resize of the short edge and one centre crop state them."""
    crops = {
        part["crop_size"]
        for part in parts
        if part.get("type") == "CenterCrop" and isinstance(part.get("crop_size"), int)
    }
    edges = {
        (part["scale"], part.get("interpolation", "bilinear"))
        for part in parts
        if part.get("type") == "ResizeEdge" and isinstance(part.get("scale"), int) and part.get("edge") == "short"
    }
    if len(crops) != 1 or len(edges) != 1:
        return {}
    (size,), ((edge, interpolation),) = crops, edges
    return {"image_size": size, "crop": size / edge, "interpolation": interpolation} if 0 < size <= edge else {}
