"""Which tensors of a checkpoint are a network's, wherever in the file they lie and whatever stands before their names.

A file is searched for mappings of tensors (its *entries*); within each, a *prefix* is what stands before the names of the network.
Entry and prefix are found by whether the network's tensors are there, so that no list of trainers and wrappers has to be kept.
What is left over must be known by its kind: counters, index tables, a normaliser, copies, other networks. Anything else is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch

from harness.backbones.models import create

State = dict[str, torch.Tensor]
Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green, blue in [0, 1]."""
COUNTER = "num_batches_tracked"
"""Counts the training batches of a batch norm; no output depends on it. Weights saved before PyTorch 0.4.1 lack it."""
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_NO_NETWORKS = (
    "optimizer",
    "optimizers",
    "optimizer_states",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "scaler",
    "loops",
)
TEACHER = "teacher"
AVERAGED = frozenset({"ema", TEACHER, "averaged", "average", "avg", "swa"})
_SCALARS = frozenset({"decay", "steps", "step", "num_updates", "updates", "epoch"})
_COUNTERS = re.compile(
    r"num_batches_tracked|n_averaged|initted|position_ids|relative_position_index|relative_position_bucket|queue_ptr"
    r"|(global_|current_|_)?(step|steps|epoch|epochs|iter|iters|iteration|iterations)(_count)?|num_updates|updates"
    r"|total|correct|count|tp|fp|tn|fn|confmat"
)
"""Last words of whole numbers and truth values on which no output depends; any other may be a mask or an order of outputs."""
_NORMALISERS = {
    "mean": ("std", "sigma"), "new_mean": ("new_std",), "_mean": ("_std",), "mu": ("sigma", "std"), "pixel_mean": ("pixel_std",),
    "image_mean": ("image_std",), "means": ("stds", "sds"),
}  # fmt: skip
_HEADS = r"head\.fc|heads\.head|head|fc|classifier|last_linear|linear"
_HEAD = re.compile(rf"(?P<owner>(?:.*?\.)??)(?P<head>{_HEADS})\.(?P<part>weight|bias)")
_INNER_HEAD = re.compile(rf"(?:.*?\.)??(?:{_HEADS})\.(?:\d+\.)+(?:weight|bias)")
"""A layer of a head that is a sequence (``fc.1.weight``): what stands between its layers has no weights, so that no file says it."""
_PRETEXT = ("head", "projector", "projection_head", "predictor", "prototypes", "queue", "queue_ptr", "decoder", "mask_token",
            "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred")  # fmt: skip
"""Parts of self-supervised trainings beside the network; left out, and named, where the file has no classifier head."""


@dataclass(frozen=True)
class Network:
    """What an architecture wants: its tensors, with shapes, by name.

    Attributes:
        body: Without the classifier head.
        full: With a head of the wanted number of outputs; equal to ``body`` where none is wanted.
        head: The head's tensors alone, whether or not one is wanted.
    """

    body: Mapping[str, torch.Tensor]
    full: Mapping[str, torch.Tensor]
    head: Mapping[str, torch.Tensor]

    @property
    def wanted(self) -> frozenset[str]:
        """Return the names of the body's tensors that every file must have."""
        return frozenset(name for name in self.body if not name.endswith(COUNTER))


@dataclass(frozen=True)
class Candidate:
    """A place in a file where a network may lie."""

    entry: str
    prefix: str
    tensors: State = field(repr=False)
    """All tensors of the entry, without the names that wrappers put into the middle of a name."""
    averaged: bool
    fitting: int
    """How many tensors of the network's body are there under their names."""
    complete: bool
    clashes: tuple[str, ...] = ()
    """Names that two tensors of different values claim, with and without a wrapper's word."""

    @property
    def untouched(self) -> bool:
        """Return whether an average counts no weights in it, so that it is still the start of the training."""
        counters = (f"{place}n_averaged" for place in (self.prefix, _parent(self.prefix)))
        return any(name in self.tensors and not self.tensors[name].any() for name in counters)

    @property
    def name(self) -> str:
        """Return entry and prefix as they are written in messages and after ``--weights``."""
        return ".".join(filter(None, (self.entry, self.prefix.rstrip("."))))

    def at(self, name: str) -> torch.Tensor:
        """Return a tensor of the network."""
        return self.tensors[self.prefix + name]


@dataclass
class Rest:
    """What of an entry is no part of the network.

    Attributes:
        normaliser: Mean and standard deviation of a layer that normalises pixels in [0, 1], or None.
        left_out: What carries weight and is left out, in words.
        unexpected: Names of which nothing is known.
    """

    normaliser: Colours | None = None
    left_out: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def network_of(arch: str, outputs: int, kwargs: Mapping[str, Any]) -> Network:
    """Return what an architecture wants, without memory for its tensors.

    Args:
        arch: Architecture name.
        outputs: Outputs of its head; 0 for none.
        kwargs: Constructor arguments.
    """
    body, full = body_of(arch, kwargs).body, shapes(arch, outputs or 1, kwargs)
    return Network(body, full if outputs else body, {name: full[name] for name in sorted(set(full) - set(body))})


def body_of(arch: str, kwargs: Mapping[str, Any]) -> Network:
    """Return what an architecture wants without a head."""
    body = shapes(arch, 0, kwargs)
    return Network(body, body, {})


def shapes(arch: str, outputs: int, kwargs: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """Return the state dict of an architecture; where its constructor allows it, of tensors without content."""
    try:
        with torch.device("meta"):
            return create(arch, outputs, **kwargs).state_dict()
    except (NotImplementedError, RuntimeError):  # some constructors compute with their tensors
        return create(arch, outputs, **kwargs).state_dict()


def candidates(content: Mapping[str, Any], network: Network) -> list[Candidate]:
    """Return the places of a file where the network may lie: the complete ones, else the one that comes nearest."""
    found = [candidate for entry, tensors in entries(content) for candidate in within(entry, tensors, network, content)]
    complete = _with_students([candidate for candidate in found if candidate.complete])
    return complete or sorted(found, key=lambda one: (-one.fitting, len(one.name)))[:1]


def _with_students(found: list[Candidate]) -> list[Candidate]:
    """Return the places, where a teacher is the average of a student only: beside ``model`` it is a network of its own (distillation)."""
    words = {one.name: _words(one.name) for one in found}
    others = [place for place in words.values() if TEACHER not in place]
    if not others or any("student" in place for place in others):
        return found
    return [replace(one, averaged=one.averaged and bool(AVERAGED - {TEACHER} & words[one.name])) if TEACHER in words[one.name] else one
            for one in found]  # fmt: skip


def entries(content: Mapping[Any, Any], name: str = "", depth: int = 3) -> Iterator[tuple[str, State]]:
    if tensors := own_tensors(content):
        yield name, tensors
    for key, value in content.items():
        if isinstance(value, Mapping) and isinstance(key, str) and key not in _NO_NETWORKS and depth:
            yield from entries(value, f"{name}.{key}" if name else key, depth - 1)


def own_tensors(content: Mapping[Any, Any]) -> State:
    """Return the tensors of a mapping, without those of the mappings in it."""
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def within(entry: str, tensors: State, network: Network, content: Mapping[str, Any]) -> Iterator[Candidate]:
    clean = {WRAPPERS.sub("", key): value for key, value in tensors.items()}
    clashes = tuple(
        key for key, value in tensors.items()
        if (kept := clean[WRAPPERS.sub("", key)]) is not value and not (kept.shape == value.shape and torch.equal(kept, value))
    )  # fmt: skip
    wanted = network.wanted
    counts = Counter(key[: len(key) - len(name)] for key in clean for name in _tails(key) if name in wanted)
    best = max(counts.values(), default=0)
    for prefix, count in counts.items() or (("", 0),):
        if count == best or count == len(wanted):
            fits = count == len(wanted) and all(
                clean[prefix + name].shape == network.body[name].shape for name in wanted
            )
            yield Candidate(entry, prefix, clean, _averaged(entry, prefix, content), count, fits, clashes)


def _tails(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _averaged(entry: str, prefix: str, content: Mapping[str, Any]) -> bool:
    """Return whether these are averaged weights, by the words of their place.

    Two trainers exchange the two when they write a file: MMEngine keeps the raw weights under ``ema_state_dict``, Lightning's
    ``WeightAveraging`` under ``current_model_state``, and the average lies under ``state_dict``.
    """
    swapped = ("ema_state_dict",) if {"meta", "message_hub"} <= content.keys() else ("current_model_state",)
    if content.keys() & set(swapped):
        return entry == "state_dict"
    return bool(AVERAGED & _words(f"{entry}.{prefix}"))


def _words(place: str) -> set[str]:
    return set(re.split(r"[._]", place.lower()))


def same_tensors(first: Candidate, second: Candidate, network: Network) -> bool:
    """Return whether two places hold equal values of the network's body."""
    return all(torch.equal(first.at(name), second.at(name)) for name in network.wanted)


def head_of(chosen: Candidate, network: Network) -> dict[str, str]:
    """Return which name of the entry holds each tensor of the head; empty if the file has no such head.

    Beside a network that lies under a prefix (``backbone.``), a linear head may lie under another (``head.fc.``).
    """
    direct = {name: chosen.prefix + name for name in network.head}
    if network.head and all(key in chosen.tensors for key in direct.values()):
        return direct
    weights = [name for name in network.head if name.endswith(".weight")]
    if len(network.head) != 2 or len(weights) != 1:
        return {}
    width = network.head[weights[0]].shape[1:]
    found = [
        match[0].removesuffix(".weight")
        for key, value in chosen.tensors.items()
        if (match := _HEAD.fullmatch(key)) and match["part"] == "weight" and chosen.prefix.startswith(match["owner"])
        and value.shape[1:] == width and f"{key.removesuffix('weight')}bias" in chosen.tensors
    ]  # fmt: skip
    if len(found) != 1:
        return {}
    return {name: f"{found[0]}.{name.rpartition('.')[2]}" for name in network.head}


def head_layers(keys: Iterable[str]) -> list[str]:
    """Return the names of classifier heads whose weights are among these names."""
    found = (match for key in keys if (match := _HEAD.fullmatch(key)))
    return [match[0].removesuffix(".weight") for match in found if match["part"] == "weight"]


def inner_heads(keys: Iterable[str]) -> list[str]:
    """Return the layers of heads that are sequences, among these names of tensors."""
    return sorted({key.rpartition(".")[0] for key in keys if _INNER_HEAD.fullmatch(key)})


def linear_layers(content: Mapping[str, Any]) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Return the linear layers with a bias that a file holds: name, weight (K, d), bias (K,)."""
    return [
        (".".join(filter(None, (entry, key.removesuffix("weight").rstrip(".")))), value, bias)
        for entry, tensors in entries(content)
        for key, value in tensors.items()
        if key.rpartition(".")[2] == "weight" and value.ndim == 2
        and (bias := tensors.get(f"{key.removesuffix('weight')}bias")) is not None and bias.shape == value.shape[:1]
    ]  # fmt: skip


def sort_rest(
    chosen: Candidate, others: Iterable[Candidate], network: Network, head: Mapping[str, str], headless: bool
) -> Rest:
    """Sort what an entry holds beside the network by its kind.

    Args:
        chosen: Where the network is taken from.
        others: Other complete places of the file.
        network: What is wanted.
        head: Names of the head's tensors, see `head_of`.
        headless: Whether the backbone is read without a head.
    """
    rest, known = Rest(), {chosen.prefix + name for name in network.body} | set(head.values())
    for other in others:
        same = same_tensors(chosen, other, network)
        if not same:
            rest.left_out.append(f"the weights under {other.name or 'the top level'}")
        if other.entry == chosen.entry:
            mine = network.wanted | {*network.body, *network.head}
            known |= {other.prefix + name for name in mine}
    left = {key: value for key, value in chosen.tensors.items() if key not in known and not _is_bookkeeping(key, value)}
    left = _take_normaliser(rest, left, chosen.prefix, [one.prefix for one in others if one.entry == chosen.entry])
    for key in left:
        place = key.removeprefix(chosen.prefix)
        match = _HEAD.fullmatch(key)
        outside = any(part in _PRETEXT for part in place.split(".")) or match is not None
        if headless and outside:
            rest.left_out.append(key)
        else:
            rest.unexpected.append(key)
    return rest


def _is_bookkeeping(key: str, value: torch.Tensor) -> bool:
    """Return whether a tensor is a counter, an index table or the constant of an average, on which no output depends."""
    last = key.rpartition(".")[2]
    if value.is_floating_point() or value.is_complex():
        return value.numel() == 1 and last in _SCALARS
    return _COUNTERS.fullmatch(last) is not None


def _normalisers(left: State) -> Iterator[tuple[str, tuple[str, str], Colours]]:
    """Return owner, names, and mean with standard deviation for pixels in [0, 1], of layers that normalise colours."""
    for key in left:
        owner, dot, last = key.rpartition(".")
        std = next(
            (f"{owner}{dot}{name}" for name in _NORMALISERS.get(last, ()) if f"{owner}{dot}{name}" in left), None
        )
        if std is not None and left[key].numel() == left[std].numel() == 3:
            means, deviations = ([round(value, 7) for value in left[name].flatten().tolist()] for name in (key, std))
            scale = next((scale for scale in (1.0, 255.0) if _of_scale(means, deviations, scale)), None)
            if scale is not None:
                colours = tuple(tuple(value / scale for value in values) for values in (means, deviations))
                yield f"{owner}{dot}", (key, std), (colours[0], colours[1])


def _of_scale(means: list[float], deviations: list[float], scale: float) -> bool:
    """Return whether mean and standard deviation are both those of pixels from 0 to the scale."""
    return all(0 <= value <= scale for value in means) and all(0.01 * scale <= value <= scale for value in deviations)


def _take_normaliser(rest: Rest, left: State, prefix: str, others: Iterable[str]) -> State:
    """Set the normaliser of a network, and return what is left.

    It lies at the root of the entry, in the network's own folder of names or directly beside it. What lies nearer to another network
    of the file is that network's.
    """
    mine, theirs = {}, {}
    for owner, names, colours in _normalisers(left):
        nearest = max((_common(owner, other) for other in others), default=0)
        if nearest > _common(owner, prefix):
            theirs[names] = colours
        elif not owner or {owner, _parent(owner)} & {prefix, _parent(prefix)}:
            mine[names] = colours
    used: set[str] = {name for names in theirs for name in names}
    if len(set(mine.values())) == 1:
        rest.normaliser = next(iter(mine.values()))
        used |= {name for names in mine for name in names}
    rest.left_out += [names[0] for names, colours in theirs.items() if colours != rest.normaliser]
    return {key: value for key, value in left.items() if key not in used}


def _parent(place: str) -> str:
    return "".join(f"{part}." for part in place.split(".")[:-2])


def _common(first: str, second: str) -> int:
    pairs = zip(first.split(".")[:-1], second.split(".")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
