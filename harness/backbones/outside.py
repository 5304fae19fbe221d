"""The weights of one network out of a checkpoint file of anybody: which are taken, by a stated rule, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.backbones.averages import with_averages
from harness.backbones.files import read_checkpoint
from harness.backbones.labels import check_labels_in
from harness.backbones.matching import (
    COUNTER,
    Candidate,
    Network,
    State,
    candidates,
    head_layers,
    head_of,
    inner_heads,
    linear_layers,
    network_of,
    same_tensors,
    sort_rest,
)
from harness.backbones.refusals import (
    REST,
    refuse_blue_first,
    refuse_choice,
    refuse_count,
    refuse_doubtful,
    refuse_misfit,
    refuse_sequence,
    refuse_unusable,
    refuse_weights,
)
from harness.backbones.renaming import load_versioned, renamed
from harness.core.classes import ClassList
from harness.core.errors import UserError
from harness.core.weights import check_state, refuse_partial

KINDS = ("ema", "raw")


@dataclass(frozen=True)
class Taken:
    """What was taken from a checkpoint file.

    Attributes:
        state: Tensors under the network's own names.
        kind: ``ema`` or ``raw``.
        entry: Where in the file they lay; empty where the file is the state dict itself.
        outputs: Number of outputs of its head; 0 if it gives features only.
        normaliser: Mean and standard deviation of a normalising layer inside, for pixels in [0, 1], or None.
        left_out: What carries weight and was left out, in words.
        completed: What of an average was completed by the raw weights, in words.
    """

    state: State
    kind: str
    entry: str
    outputs: int
    normaliser: tuple[tuple[float, ...], tuple[float, ...]] | None
    left_out: tuple[str, ...]
    completed: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return in sentences what a user would want to know of the choice."""
        lines = [f"weights: {self.kind}, from {self.entry}"] if self.entry else []
        if not self.outputs:
            lines.append("the file has no classifier head for these classes: features only")
            if heads := head_layers(self.left_out):
                lines.append(
                    f"heads that were not read: {', '.join(heads)}; a head is read if it is the only one of its width, with weight and "
                    "bias, at the root or beside the network; else give the one that is meant as --head FILE"
                )
        lines += [self.completed] if self.completed else []
        if self.left_out:
            shown = ", ".join(self.left_out[:4]) + (
                f" and {len(self.left_out) - 4} more" if len(self.left_out) > 4 else ""
            )
            lines.append(f"left out of the file: {shown}")
        return tuple(lines)


def take(
    path: Path,
    content: Mapping[str, Any],
    arch: str,
    classes: int,
    weights: str | None,
    kwargs: Mapping[str, Any],
    head_file: Path | None = None,
) -> Taken:
    """Take a network's weights from the content of a file.

    Args:
        path: The file, for messages.
        content: What `files.read_checkpoint` returned.
        arch: Architecture name.
        classes: Number of classes; 0 for a backbone without a head.
        weights: ``raw``, ``ema`` or the name of a place in the file; None takes the average where there is one.
        kwargs: Constructor arguments of the architecture.
        head_file: File of a linear head that was trained on the network's features.

    Raises:
        UserError: no place of the file, or more than one, holds the network; a tensor is left over; the class count differs.
    """
    network = network_of(arch, classes, kwargs)
    found = candidates(content, network)
    if not found or not found[0].complete:
        refuse_misfit(path, content, arch, network, found, weights)
    places, completed = with_averages(path, content, network, found, weights)
    chosen, kind = _choose(path, places, weights, network)
    head = head_of(chosen, network)
    outputs = _outputs(path, chosen, network, {} if head_file else head, classes)
    others = [one for one in places if one is not chosen]
    rest = sort_rest(chosen, others, network, head if outputs else {}, not outputs)
    if inner := inner_heads(rest.unexpected):
        if head_file is None:
            raise refuse_sequence(path, inner)
        rest.left_out += inner
        rest.unexpected = [key for key in rest.unexpected if key.rpartition(".")[0] not in inner]
    state = _assemble(chosen, network, head if outputs else {})
    if head_file is not None:
        state |= _linear_head(head_file, network, classes)
        outputs = classes
    spare = {key.removeprefix(chosen.prefix) if key.removeprefix(chosen.prefix) not in state else key: torch.empty(0)
             for key in rest.unexpected}  # fmt: skip
    wanted = network.full if outputs else network.body
    check_state({**state, **spare}, wanted, path, REST)
    refuse_unusable(path, state, wanted)
    if rest.normaliser is not None:
        refuse_blue_first(path, rest.normaliser[0])
    several = any(one.entry == chosen.entry for one in others)
    return Taken(
        state, kind, chosen.name if several else chosen.entry, outputs, rest.normaliser, tuple(rest.left_out), completed
    )


def _choose(path: Path, found: Sequence[Candidate], weights: str | None, network: Network) -> tuple[Candidate, str]:
    """Return the place that is taken, and which weights these are.

    The rule: what was asked for, else the average where there is one. A plain state dict does not say what it is: it is what
    the caller says. Equal copies count once.

    Raises:
        UserError: nothing, or more than one thing, is what was asked for.
    """
    plain = all(not one.averaged and not one.entry for one in found)
    averaged = any(one.averaged for one in found) if weights is None else weights == "ema"
    if weights is None or (weights in KINDS and not plain):
        left = [one for one in found if one.averaged == averaged]
    elif weights in KINDS:
        left = list(found)
    else:
        left = [one for one in found if weights in (one.name, one.entry, one.prefix.rstrip("."))]
    if not left:
        raise refuse_weights(path, str(weights), found)
    left.sort(key=lambda one: (not head_of(one, network), len(one.name), one.name))
    if any(not same_tensors(left[0], one, network) for one in left[1:]):
        raise refuse_choice(path, left)
    kind = "ema" if left[0].averaged or (plain and weights == "ema") else "raw"
    refuse_doubtful(path, left[0], kind)
    return left[0], kind


def _outputs(path: Path, chosen: Candidate, network: Network, head: Mapping[str, str], classes: int) -> int:
    """Return the number of outputs to be read.

    Raises:
        UserError: the file's head has another number of outputs than the class list.
    """
    if not head or not classes:
        return 0
    held = len(chosen.tensors[next(iter(head.values()))])
    if held != classes:
        raise refuse_count(path, held, classes)
    return classes


def _linear_head(path: Path, network: Network, classes: int) -> State:
    """Return the head's tensors from a file of their own.

    Raises:
        UserError: the file holds no linear layer, or several, or one of other features; or the class count differs.
    """
    found = linear_layers(read_checkpoint(path))
    if len(found) > 1:
        inner = inner_heads(f"{name}.weight" for name, _, _ in found)
        found = [one for one in found if one[0] in inner] or found
    weight = next((name for name in network.head if name.endswith("weight")), "")
    if len(found) != 1 or len(network.head) != 2:
        raise UserError(
            f"{path} is no linear head",
            f"it holds {len(found)} linear layers with a bias ({', '.join(name for name, _, _ in found[:4])})"
            if len(network.head) == 2 else f"the network's own head has the tensors {', '.join(network.head) or 'none'}",
            "give the file of one linear classifier with --head",
        )  # fmt: skip
    _, value, bias = found[0]
    width = network.head[weight].shape[1]
    if value.shape[1] != width:
        raise UserError(
            f"the head in {path} reads other features",
            f"it has {value.shape[1]} inputs, the network gives {width} features: some evaluations join the class tokens of several "
            "blocks, or add their mean",
            "measure network and head together by a function of yours: --classifier MODULE:FUNCTION",
        )
    if len(value) != classes:
        raise refuse_count(path, len(value), classes)
    return {name: value if name == weight else bias for name in network.head}


def _assemble(chosen: Candidate, network: Network, head: Mapping[str, str]) -> State:
    """Return the network's tensors; counters of batch norms that the file lacks are zero, as a new network's are."""
    state = {name: chosen.tensors[key] for name, key in head.items()}
    for name, value in network.body.items():
        key = chosen.prefix + name
        if key in chosen.tensors:
            state[name] = chosen.tensors[key]
        elif name.endswith(COUNTER):
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    return state


def load_into(model: torch.nn.Module, path: Path, name: str, classes: ClassList, fix: str) -> None:
    """Load the weights of a file into a network of another library, strictly.

    Old names are renamed as the network's modules do it.

    Args:
        model: The network.
        path: The file, in any form that ``--checkpoint`` reads.
        name: What the network is called in messages.
        classes: The classes of its head, which labels in the file must not contradict.
        fix: What to do where tensors do not fit.

    Raises:
        DataMissing: there is no such file.
        UserError: the file does not hold this network, or lists other classes.
    """
    wanted = model.state_dict()
    network = Network(wanted, wanted, {})
    content = renamed(read_checkpoint(path), model, network)
    found = candidates(content, network)
    if not found or not found[0].complete:
        held = found[0].tensors if found else {}
        check_state(
            {key.removeprefix(found[0].prefix) if found else key: value for key, value in held.items()},
            wanted,
            path,
            fix,
        )
        raise UserError(
            f"{path} does not hold {name}", "it has no such tensors", "give the file of this network's weights"
        )
    places, _ = with_averages(path, content, network, found, None)
    chosen, _ = _choose(path, places, None, network)
    rest = sort_rest(chosen, [one for one in places if one is not chosen], network, {}, False)
    refuse_partial(path, (), rest.unexpected, fix=REST)
    state = _assemble(chosen, network, {})
    refuse_unusable(path, state, wanted)
    check_labels_in(path, content, classes, len(classes))
    load_versioned(model, state, content, chosen)
