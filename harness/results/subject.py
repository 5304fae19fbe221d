"""A model of this process as something that can be planned: a checkpoint file if timm can rebuild it, else a live model."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.backbones.checkpoint import BackboneInfo
from harness.backbones.live import LiveModel, registered
from harness.backbones.models import create, size_arguments
from harness.backbones.preprocessing import NAMES, Layer, Preprocessing, base_name, in_words, resolve, stated_by
from harness.core.classes import load_classes
from harness.core.disk import disk_errors
from harness.core.errors import UserError
from harness.plan.external import external_checkpoint, recipe_for
from harness.plan.model import ExternalCheckpoint
from harness.plan.profile import Profile
from harness.results.model_identity import InTraining, NotHashable, model_hash

ARGUMENTS = {name: f"{name}=" for name in NAMES}
"""How a Python caller spells what it chooses."""
UNCHANGED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Mean and standard deviation that leave pixels as they are, for callables that normalise by themselves."""
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
    for name in ("mean", "std"):
        values = wishes.chosen.get(name, (1.0, 1.0, 1.0))
        if len(values) != 3 or (name == "std" and not all(0 < value < 10 for value in values)):
            raise UserError(
                f"{name}={values!r} is not possible",
                "it has one number for each of red, green and blue, in units of pixels in [0, 1]"
                + (", all positive" if name == "std" else ""),
                "write e.g. mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)",
            )


def _of_path(path: Path, profile: Profile, wishes: Wishes) -> ExternalCheckpoint:
    if not wishes.arch:
        raise UserError(
            f"the architecture of {path} is not known",
            "a file of weights does not say which network they belong to",
            'give its name in timm, e.g. arch="resnet50"',
        )
    path = path.expanduser().resolve()
    found = external_checkpoint(profile, path, wishes.arch, wishes.classes, wishes.chosen, wishes.weights, ARGUMENTS)
    return replace(found, name=wishes.name)


@contextmanager
def _of_module(model: torch.nn.Module, profile: Profile, store: Path, wishes: Wishes) -> Iterator[ExternalCheckpoint]:
    """Yield a module: as a file if a network that timm builds gives its logits, else as a live model."""
    config = _config(model)
    arch = wishes.arch or _tagged(config)
    if not (arch or config.get("mean") or {"mean", "std"} <= wishes.chosen.keys()):
        raise UserError(
            f"the normalisation of this {type(model).__name__} is not known",
            "it has no pretrained_cfg of timm that states it, and the same weights give other numbers with another one",
            "give mean= and std= of its inputs (pixels in [0, 1]), three numbers each",
        )
    stated: Layer | None = (
        stated_by(config, f"the module's pretrained_cfg, {_tagged(config)}") if config.get("mean") else None
    )
    stated = stated if stated or arch else ("the module", {})
    feed = resolve(arch, None, wishes.chosen, recipe_for(profile, arch), stated=stated, options=ARGUMENTS)
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
        copied = copy.deepcopy(model)
    except Exception as error:  # copying runs the module's own code, which may fail in any way
        raise UserError(
            f"this {type(model).__name__} cannot be copied",
            f"{type(error).__name__}: {error}",
            "give a function that calls it",
        ) from error
    info = _info(type(model).__name__, wishes.classes, values, feed.warnings)
    identity = _identity(model, wishes.name)
    with registered(LiveModel(identity, copied, info)):
        yield ExternalCheckpoint(
            Path(), info.arch, wishes.classes, values, notes=notes, warnings=feed.warnings, name=name, identity=identity
        )


@contextmanager
def _of_callable(model: Callable[..., Any], wishes: Wishes) -> Iterator[ExternalCheckpoint]:
    if {"mean", "std"} & wishes.chosen.keys():
        raise UserError(
            "mean and std do not go with a callable",
            "it gets pixels in [0, 1] and normalises them by itself",
            "leave them out, or give the torch.nn.Module that is to be fed with normalised inputs",
        )
    fed: dict[str, Any] = {"mean": UNCHANGED[0], "std": UNCHANGED[1], **wishes.chosen}
    values = Preprocessing(**fed)
    words = ", ".join(
        in_words(part, getattr(values, part)) for part in ("image_size", "interpolation", "crop", "precision")
    )
    origin = f"{', '.join(ARGUMENTS[part] for part in wishes.chosen)} given" if wishes.chosen else "default"
    made = re.sub(r"[^\w.+-]+", "-", getattr(model, "__name__", type(model).__name__)).strip("-")
    identity = _identity(model, wishes.name)
    with registered(LiveModel(identity, model, _info("callable", wishes.classes, values, ()))):
        yield ExternalCheckpoint(
            Path(),
            "callable",
            wishes.classes,
            values,
            notes=(f"input: pixels in [0, 1], {words} ({origin})",),
            name=wishes.name or made,
            identity=identity,
        )


def _info(arch: str, classes: str, feed: Preprocessing, warnings: tuple[str, ...]) -> BackboneInfo:
    recipe = {"entry": "", "weights_asked": None}  # as of a plain state dict: nothing is known of its training
    ids = load_classes(classes).ids
    return BackboneInfo(arch, {}, ids, weights="raw", recipe=recipe, warnings=warnings, **asdict(feed))


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


def _identity(model: Callable[..., Any], name: str) -> str:
    """Return the hash of weights and code, or the name that stands for them.

    Raises:
        UserError: they cannot be hashed, and there is no name; or a function uses a module in training mode.
    """
    try:
        return model_hash(
            model, evaluating=not isinstance(model, torch.nn.Module)
        )  # a module's copy is put in that mode
    except InTraining as reason:
        raise UserError(
            f"the model uses a {reason} in training mode",
            "its answers would depend on the other images of a batch, or on chance",
            "call .eval() on it first",
        ) from reason
    except NotHashable as reason:
        if name:
            return f"name:{name}"
        raise UserError(
            "this model cannot be identified by its weights and code",
            f"it reaches {reason}, which cannot be hashed",
            "give name=: the name then stands for the model, and you vouch that it means the same model every time",
        ) from reason
