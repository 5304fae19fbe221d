"""A model of this process as something that can be planned: a checkpoint file if timm can rebuild it, else a live model."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.backbones.folders import is_folder
from harness.backbones.live import LiveModel, live_info, registered
from harness.backbones.loaded import ClassifierSpec, CodeSource, identity_of
from harness.backbones.models import create, size_arguments
from harness.backbones.preprocessing import (
    NAMES,
    Layer,
    Preprocessing,
    base_name,
    crop_warnings,
    in_words,
    resolve,
    stated_by,
)
from harness.core.classes import load_classes
from harness.core.disk import disk_errors
from harness.core.errors import UserError
from harness.plan.external import external_checkpoint, recipe_for
from harness.plan.model import ExternalCheckpoint
from harness.plan.profile import Profile

ARGUMENTS = {name: f"{name}=" for name in NAMES}
"""How a Python caller spells what it chooses."""
UNCHANGED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Mean and standard deviation that leave pixels as they are, for callables that normalise by themselves."""
_NAME_IT = "give name=: the name then stands for the model, and you vouch that it means the same model every time"
_NAME = re.compile(r"[\w.+-]+( [\w.+-]+)*")
_PROBES, _RTOL, _ATOL = 2, 1e-4, 1e-5
"""Random images, and how close the logits of a rebuilt network must come to those of the module."""


@dataclass(frozen=True)
class Wishes:
    """What the caller says about the model; see ``harness.evaluate``."""

    classes: str
    chosen: Mapping[str, Any]
    """Values of ``Preprocessing`` that were given, by name."""
    arch: str = ""
    name: str = ""
    weights: str | None = None
    head: str = ""
    stated: Layer | None = None
    """What the function that made the model states of its inputs, with its origin."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: CodeSource | None = None
    """The function by which another process makes the model again."""
    options: Mapping[str, str] = field(default_factory=lambda: ARGUMENTS)

    def with_spec(self, spec: ClassifierSpec) -> Wishes:
        """Return them with what a classifier states of itself."""
        origin = spec.origin or (self.source.function if self.source else "the ClassifierSpec")
        return replace(
            self,
            classes=self.classes or spec.classes,
            name=self.name or spec.name,
            stated=(origin, spec.feed) if spec.feed else None,
            facts=spec.facts,
        )


@contextmanager
def prepared(model: Any, profile: Profile, store: Path, wishes: Wishes) -> Iterator[ExternalCheckpoint]:
    """Yield a model as it is planned; inside the block its weights can be found, in a file or in this process.

    Args:
        model: A module, a path or a callable.
        profile: The profile of the run.
        store: Folder of the store, where a module's weights lie until they are imported.
        wishes: What the caller says about it.

    Raises:
        UserError: an argument is missing, is one too many or contradicts the model.
    """
    if isinstance(model, ClassifierSpec):
        model, wishes = model.model, wishes.with_spec(model)
    _check(wishes)
    if isinstance(model, str | os.PathLike):
        yield _of_path(Path(model), profile, wishes)
    elif isinstance(model, torch.nn.Module):
        with _of_module(model, profile, store, wishes) as subject:
            yield subject
    elif callable(model):
        with _of_callable(model, wishes) as subject:
            yield subject
    else:
        raise UserError(
            f"a {type(model).__name__} is no model",
            "it is neither a torch.nn.Module, nor a path, nor callable",
            "give the network itself, its checkpoint file, or a function from images to logits",
        )


def _check(wishes: Wishes) -> None:
    if wishes.name and not _NAME.fullmatch(wishes.name):
        raise UserError(
            f"{wishes.name!r} is no name for a leaderboard",
            "it has letters, digits, blanks and . _ + -, and begins and ends with none of the blanks",
            "correct name=",
        )


def _of_path(path: Path, profile: Profile, wishes: Wishes) -> ExternalCheckpoint:
    if not wishes.arch and not is_folder(str(path)):
        raise UserError(
            f"the architecture of {path} is not known",
            "a file of weights does not say which network they belong to",
            'give its name in timm, e.g. arch="resnet50"',
        )
    found = external_checkpoint(
        profile, str(path), wishes.arch, wishes.classes, wishes.chosen, wishes.weights, ARGUMENTS, wishes.head
    )
    return replace(found, name=wishes.name or found.name)


@contextmanager
def _of_module(model: torch.nn.Module, profile: Profile, store: Path, wishes: Wishes) -> Iterator[ExternalCheckpoint]:
    """Yield a module: as a file if a network that timm builds gives its logits, else as a live model."""
    config = _config(model)
    arch = wishes.arch or _tagged(config)
    known = {**(wishes.stated[1] if wishes.stated else {}), **wishes.chosen}
    if not (arch or config.get("mean") or {"mean", "std"} <= known.keys()):
        raise UserError(
            f"the normalisation of this {type(model).__name__} is not known",
            "it has no pretrained_cfg of timm that states it, and the same weights give other numbers with another one",
            "give mean= and std= of its inputs (pixels in [0, 1]), three numbers each",
        )
    stated: Layer | None = (
        stated_by(config, f"the module's pretrained_cfg, {_tagged(config)}") if config.get("mean") else None
    )
    stated = stated if stated or arch else ("the module", {})
    recipe = recipe_for(profile, arch)
    feed = resolve(arch, None, wishes.chosen, recipe, stated=stated, inside=wishes.stated, options=wishes.options)
    label, values = base_name(arch) or type(model).__name__, feed.values
    name = wishes.name or label
    if arch and _rebuilds(model, label, len(load_classes(wishes.classes)), values.image_size):
        with _folder(store) as folder:
            path = folder / "model.safetensors"
            with disk_errors(path):
                save_file(
                    {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}, path
                )
            yield ExternalCheckpoint(
                path, label, wishes.classes, values, notes=(feed.line,), warnings=feed.warnings, name=name
            )
        return
    notes = (
        feed.line,
        *([f"timm's {label} does not give the logits of this module: it is measured as it is"] if arch else []),
    )
    try:
        with torch.no_grad():  # a copy of a traced module would not be a leaf
            copied = copy.deepcopy(model)
    except Exception as error:  # copying runs the module's own code, which may fail in any way
        raise UserError(
            f"this {type(model).__name__} cannot be copied",
            f"{type(error).__name__}: {error}",
            "give a function that calls it",
        ) from error
    found = ExternalCheckpoint(
        Path(), type(model).__name__, wishes.classes, values, notes=notes, warnings=feed.warnings, name=name
    )
    with _live(found, copied, identity_of(model, wishes.name, _NAME_IT), wishes) as live:
        yield live


@contextmanager
def _of_callable(model: Callable[..., Any], wishes: Wishes) -> Iterator[ExternalCheckpoint]:
    if {"mean", "std"} & {*wishes.chosen, *(wishes.stated[1] if wishes.stated else {})}:
        raise UserError(
            "mean and std do not go with a callable",
            "it gets pixels in [0, 1] and normalises them by itself",
            "leave them out, or give the torch.nn.Module that is to be fed with normalised inputs",
        )
    stated = wishes.stated[1] if wishes.stated else {}
    fed: dict[str, Any] = {"mean": UNCHANGED[0], "std": UNCHANGED[1], **stated, **wishes.chosen}
    values = Preprocessing(**{name: value for name, value in fed.items() if name in NAMES})
    parts = ("image_size", "interpolation", "crop", "precision")
    words = ", ".join(in_words(part, getattr(values, part)) for part in parts)
    origins = [
        *([wishes.stated[0]] if wishes.stated else []),
        *(f"{wishes.options[part]} given" for part in wishes.chosen),
    ]
    notes = (f"input: pixels in [0, 1], {words} ({', '.join(origins) or 'default'})",)
    made = re.sub(r"[^\w.+-]+", "-", getattr(model, "__name__", type(model).__name__)).strip("-")
    found = ExternalCheckpoint(
        Path(),
        "callable",
        wishes.classes,
        values,
        notes=notes,
        warnings=crop_warnings(wishes.stated),
        name=wishes.name or made,
    )
    with _live(found, model, identity_of(model, wishes.name, _NAME_IT), wishes) as live:
        yield live


@contextmanager
def _live(
    found: ExternalCheckpoint, call: Callable[..., Any], identity: str, wishes: Wishes
) -> Iterator[ExternalCheckpoint]:
    """Yield a model that no file could rebuild; it is found in this process, or made again by the function that made it."""
    found = replace(found, identity=identity, facts=wishes.facts, source=wishes.source)
    ids = load_classes(found.classes).ids
    with registered(
        LiveModel(identity, call, live_info(found.arch, ids, asdict(found.feed), found.facts, found.warnings))
    ):
        yield found


def _config(model: torch.nn.Module) -> Mapping[str, Any]:
    """Return what timm notes on its networks about their inputs; empty for other modules."""
    found: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    return found if isinstance(found, Mapping) else found.to_dict() if hasattr(found, "to_dict") else {}


def _tagged(config: Mapping[str, Any]) -> str:
    arch, tag = config.get("architecture") or "", config.get("tag") or ""
    return f"{arch}.{tag}" if arch and tag else str(arch)


def _rebuilds(model: torch.nn.Module, arch: str, outputs: int, image_size: int) -> bool:
    """Return whether timm's network with the module's weights is the module: the same tensors, the same logits of random images."""
    state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            rebuilt = create(arch, outputs, **size_arguments(arch, image_size))
            rebuilt.load_state_dict(state)
            torch.manual_seed(0)
            images = torch.rand(_PROBES, 3, image_size, image_size)
            first, second = (network.float().cpu().eval()(images) for network in (rebuilt, copy.deepcopy(model)))
        except (
            UserError,
            RuntimeError,
            TypeError,
            ValueError,
        ):  # another architecture, or none that takes plain images
            return False
    return (
        isinstance(second, torch.Tensor) and first.shape == second.shape and torch.allclose(first, second, _RTOL, _ATOL)
    )


@contextmanager
def _folder(store: Path) -> Iterator[Path]:
    """Yield a folder below the store that is gone afterwards.

    Raises:
        UserError: the store cannot be written to.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".model-", dir=store)
    except OSError as error:
        raise UserError(f"cannot write to the store {store}", str(error), "give another folder with store=") from error
    with folder as path:
        yield Path(path)
