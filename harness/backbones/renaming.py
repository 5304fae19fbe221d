"""Old names of tensors, renamed as the network's own library renames them when it loads a file.

Modules rename in ``_load_from_state_dict``, by the version that a state dict notes in ``_metadata``; torchvision renames those of DenseNet
only where it fetches the file itself.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from harness.backbones.matching import WRAPPERS, Candidate, Network, State, own_tensors, within

_DENSE_LAYER = re.compile(r"(?<=denselayer)(\d+\.(?:norm|conv))\.([12]\.)")
"""``denselayer1.norm.1.weight`` is ``denselayer1.norm1.weight`` since names of modules have no dots (torchvision 0.2)."""
Metadata = dict[str, dict[str, Any]]


def renamed(content: Mapping[Any, Any], model: torch.nn.Module, network: Network, depth: int = 3) -> Mapping[Any, Any]:
    """Return the content of a file with the names that a network's tensors have today.

    Args:
        content: What `files.read_checkpoint` returned.
        model: The network.
        network: Its tensors.
        depth: How many mappings deep is looked.
    """
    found: OrderedDict[Any, Any] = OrderedDict(content)
    tensors = own_tensors(content)
    for one in within("", tensors, network, content):
        if not one.complete:
            inside = {key: value for key, value in tensors.items() if key.startswith(one.prefix)}
            for key in inside:
                found.pop(key)
            state = {_DENSE_LAYER.sub(r"\1\2", key.removeprefix(one.prefix)): value for key, value in inside.items()}
            found.update(
                {
                    one.prefix + key: value
                    for key, value in _by_modules(model, state, _metadata(content, one.prefix)).items()
                }
            )
    for key, value in found.items():
        if isinstance(value, Mapping) and depth:
            found[key] = renamed(value, model, network, depth - 1)
    found._metadata = getattr(content, "_metadata", {})  # type: ignore[attr-defined]
    return found


def load_versioned(model: torch.nn.Module, state: State, content: Mapping[str, Any], chosen: Candidate) -> None:
    """Load a state dict strictly, with the versions that its file notes; where it notes none, they are today's.

    Args:
        model: The network.
        state: Its tensors under its own names.
        content: What `renamed` returned.
        chosen: The place where the tensors lie.
    """
    place: Any = content
    rest = chosen.entry
    while rest:
        key = next(key for key in place if isinstance(key, str) and f"{rest}.".startswith(f"{key}."))
        place, rest = place[key], rest[len(key) + 1 :]
    versioned = OrderedDict(state)
    today: Metadata = {"": {"version": model._version}}
    versioned._metadata = {**today, **_metadata(place, chosen.prefix)}  # type: ignore[attr-defined]
    model.load_state_dict(versioned, strict=True)


def _metadata(content: Mapping[Any, Any], prefix: str) -> Metadata:
    """Return by module of the network what a state dict notes of it."""
    noted = {
        WRAPPERS.sub("", f"{key}.").rstrip("."): value
        for key, value in (getattr(content, "_metadata", None) or {}).items()
    }
    return {
        f"{key}."[len(prefix) :].rstrip("."): value
        for key, value in noted.items()
        if f"{key}.".startswith(prefix or f"{key}.")
    }


def _by_modules(model: torch.nn.Module, state: State, metadata: Metadata) -> State:
    """Return a state dict as the modules of a network rename it; the network keeps its values."""
    skeleton = copy.deepcopy(model).to("meta")
    for name, module in list(skeleton.named_modules()):
        if type(module)._load_from_state_dict is not torch.nn.Module._load_from_state_dict:
            noted = metadata.get(name, {} if name else {"version": module._version})
            module._load_from_state_dict(state, f"{name}." if name else "", noted, False, [], [], [])
    return state
