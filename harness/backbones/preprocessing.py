"""How images reach a checkpoint from outside: what its network states, what the command line says, and the origin of each value.

One checkpoint read with two normalisations gives two numbers, so nothing is taken silently. In order: the command line; the file
itself (a normalising layer, the size of its position embedding); ``backbone.json`` beside the file (a backbone that this harness
has trained), or ``config.json`` of its folder; timm's ``pretrained_cfg`` of the architecture; the profile's recipe for the network;
a default that is named as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args

from harness.core.errors import UserError
from harness.core.files import parse_json
from harness.core.names import did_you_mean
from harness.core.normalisation import KNOWN, Colour

SMALL_NETWORKS = ("resnet10", "vit_pico")
"""Architectures of this project, which timm does not know (``harness.backbones.small.SMALL``, which imports torch)."""
BACKBONE = "backbone.json"
STIMULI_PX = 224

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
"""Filters by which PIL resizes."""
Precision = Literal["fp32", "bf16"]
Layer = tuple[str, Mapping[str, Any]]
"""An origin in words, and the values that it states."""


@dataclass(frozen=True)
class Preprocessing:
    """How images reach a network.

    Attributes:
        mean: Normalisation mean of red, green, blue in [0, 1].
        std: Normalisation standard deviation.
        image_size: Side of the square input in pixels.
        interpolation: How images are resized for it.
        crop: Crop size over resized size, in (0, 1], where a suite resizes and crops.
        precision: ``fp32``, or ``bf16`` for autocast to bfloat16.
    """

    mean: Colour = KNOWN["imagenet"][0]
    std: Colour = KNOWN["imagenet"][1]
    image_size: int = 224
    interpolation: Interpolation = "bicubic"
    crop: float = 0.875
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, known in (("interpolation", get_args(Interpolation)), ("precision", get_args(Precision))):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"unknown {name} {value!r}", f"it is one of {', '.join(known)}", f"correct --{name}")
        if not 0 < self.crop <= 1:
            raise UserError(
                f"crop ratio {self.crop:g} is not possible",
                "it is crop size over resized size, above 0 and at most 1",
                "write e.g. --crop 0.875",
            )


NAMES = tuple(entry.name for entry in fields(Preprocessing))
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in NAMES} | dict.fromkeys(("mean", "std"), "--normalisation")


@dataclass(frozen=True)
class Resolved:
    """The values that are used, where each comes from, and what contradicts the network's own statement."""

    values: Preprocessing
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return all values with their origins in one line, values of one origin together."""
        by_origin: dict[str, list[str]] = {}
        for name in NAMES:
            by_origin.setdefault(self.origins[name], []).append(in_words(name, getattr(self.values, name)))
        return "input: " + "; ".join(f"{', '.join(parts)} ({origin})" for origin, parts in by_origin.items())


def resolve(
    arch: str,
    path: Path | None,
    flags: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    *,
    trained: bool = True,
    stated: Layer | None = None,
    inside: Layer | None = None,
    options: Mapping[str, str] = OPTIONS,
) -> Resolved:
    """Return how images reach a network.

    Args:
        arch: Architecture, of timm with or without a tag (``resnet50.a1_in1k``).
        path: The checkpoint; None where there is no file.
        flags: What the command line says, by name of ``Preprocessing``.
        recipe: The profile's recipe for this architecture, where it has one.
        trained: Whether the weights were trained elsewhere; for a network without training the recipe comes first.
        stated: What the network itself states, with its origin, if that is known already.
        inside: What the weights themselves say; it goes before what is stated.
        options: Name of ``Preprocessing`` to how the user spells it, for messages.

    Raises:
        UserError: a value is not possible, or timm has no such tag.
    """
    own: list[Layer] = [("the profile's recipe", recipe)] if recipe else []
    stated = (
        stated or _beside(arch, path) or (None if arch in SMALL_NETWORKS or (own and not trained) else of_timm(arch))
    )
    layers: list[Layer] = [*filter(None, [inside, stated]), *own, ("default", asdict(Preprocessing()))]
    chosen: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in NAMES:
        if name in flags:
            chosen[name], origins[name] = flags[name], options[name]
        else:
            origins[name], known = next(layer for layer in layers if name in layer[1])
            chosen[name] = known[name]
    made: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()}
    values = Preprocessing(**made)
    warnings = _contradictions(values, flags, _without(stated or next(iter(own), None), inside), options)
    warnings += _contradictions(values, flags, inside, options)
    if stated and own:
        warnings += _disagreements(values, flags, stated, own[0], options)
    return Resolved(values, origins, warnings)


def _without(stated: Layer | None, inside: Layer | None) -> Layer | None:
    if stated is None or inside is None:
        return stated
    return stated[0], {name: value for name, value in stated[1].items() if name not in inside[1]}


def in_words(name: str, value: Any) -> str:
    """Return a value as it is printed: ``224 px``, ``mean 0.5``, ``crop 0.875``."""
    if name in ("mean", "std"):
        numbers = [f"{number:g}" for number in value]
        return f"{name} {numbers[0] if len(set(numbers)) == 1 else ','.join(numbers)}"
    return f"{value} px" if name == "image_size" else f"{name} {value:g}" if name == "crop" else str(value)


def base_name(arch: str) -> str:
    """Return an architecture without its tag."""
    return arch.partition(".")[0]


def _contradictions(
    values: Preprocessing, flags: Mapping[str, Any], stated: Layer | None, options: Mapping[str, str]
) -> tuple[str, ...]:
    """Return one sentence for each value that the user chose and that differs from what the network states."""
    if stated is None:
        return ()
    origin, known = stated
    odd = [
        (name, getattr(values, name))
        for name in flags
        if name in known and name != "precision" and not _equal(getattr(values, name), known[name])
    ]
    lines = [
        f"{in_words(name, value)} ({options[name]}) instead of {in_words(name, known[name])} ({origin})"
        for name, value in odd
    ]
    return (*lines, *crop_warnings(stated))


def crop_warnings(stated: Layer | None) -> tuple[str, ...]:
    """Return a sentence if images are made square in another way than the suites do it."""
    mode = stated[1].get("crop_mode", "center") if stated else "center"
    return (
        (f"{stated[0]} asks for crop mode {mode}; the suites crop the centre",) if stated and mode != "center" else ()
    )


def _disagreements(
    values: Preprocessing, flags: Mapping[str, Any], stated: Layer, own: Layer, options: Mapping[str, str]
) -> tuple[str, ...]:
    """Return one sentence for each value that the profile's recipe trains this network with and that was not taken.

    A backbone of the profile that was copied away from its ``backbone.json`` looks like anybody's.
    """
    origin, recipe = own
    return tuple(
        f"{in_words(name, getattr(values, name))} ({stated[0]}) was taken; {origin} trains this network with "
        f"{in_words(name, value)} ({options[name]} decides)"
        for name, value in recipe.items()
        if name in NAMES and name in stated[1] and name not in flags and not _equal(getattr(values, name), value)
    )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(abs(x - y) < 1e-6 for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _beside(arch: str, path: Path | None) -> Layer | None:
    """Return what the backbone folder states in which a file lies; None where it lies in no such folder.

    Raises:
        UserError: the folder holds another architecture.
    """
    facts = backbone_facts(path)
    if facts is None:
        return None
    if facts["arch"] != base_name(arch):
        raise UserError(
            f"{path} is a {facts['arch']}",
            f"{BACKBONE} beside it says so; --arch is {arch}",
            f"write --arch {facts['arch']}",
        )
    return f"{BACKBONE} beside it", {"crop": 0.875, **{name: facts[name] for name in NAMES if name in facts}}


def backbone_facts(path: Path | None) -> dict[str, Any] | None:
    """Return the content of the ``backbone.json`` that describes a weights file, or None where there is none."""
    if path is None or path.stem not in ("raw", "ema") or not (path.parent / BACKBONE).is_file():
        return None
    try:
        return cast(dict[str, Any], parse_json((path.parent / BACKBONE).read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(
            f"{path.parent / BACKBONE} cannot be read", str(error), "copy the weights elsewhere, or restore the file"
        ) from error


def _unknown(arch: str) -> NoReturn:
    import timm

    known = [*SMALL_NETWORKS, *timm.list_models()]
    raise UserError(
        f"unknown architecture {arch!r}",
        "it is neither a small network of this project nor a timm name",
        f"{did_you_mean(base_name(arch.rpartition('/')[2]), known)}timm.list_models() names all; a model of the hub is hf-hub:ORG/NAME",
    )


def of_timm(arch: str) -> Layer | None:
    """Return what timm states of an architecture; None where it states nothing.

    Raises:
        UserError: timm does not know the architecture, or not this tag of it.
    """
    import timm
    from timm.models import get_pretrained_cfg

    base, _, tag = arch.partition(".")
    try:
        config = get_pretrained_cfg(arch)
    except RuntimeError as error:
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
        if not tag or not tags:
            return None if base in timm.list_models() else _unknown(arch)
        raise UserError(
            f"timm has no weights {arch!r}",
            f"its tags of {base}: {', '.join(tags)}",
            f"{did_you_mean(tag, tags)}correct --arch, or write {base}",
        ) from error
    if config is None:
        return None if base in timm.list_models() else _unknown(arch)
    return stated_by(config.to_dict(), f"timm's pretrained_cfg of {base}{f'.{config.tag}' if config.tag else ''}")


def stated_by(config: Mapping[str, Any], origin: str) -> Layer:
    """Return what a ``pretrained_cfg`` of timm states of a network's inputs.

    Some entries state two sizes, of training and of testing, each with its crop. That of training is taken, as timm's own
    transforms do, unless only the other is the 224 pixels of the public stimuli.

    Args:
        config: The configuration as a mapping, as networks of timm carry it.
        origin: Where it was found, in words.
    """
    size, crop, tested = int(config["input_size"][-1]), config["crop_pct"], config.get("test_input_size")
    if size != STIMULI_PX and tested and tested[-1] == STIMULI_PX:
        size, crop = STIMULI_PX, config.get("test_crop_pct") or crop
    stated = {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "image_size": size,
        "crop": float(crop),
        "crop_mode": config.get("crop_mode", "center"),
        **({"interpolation": config["interpolation"]} if config["interpolation"] in get_args(Interpolation) else {}),
    }
    return origin, stated
