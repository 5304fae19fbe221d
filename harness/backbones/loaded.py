"""Classifiers that a function makes: what it may return, and how every process makes the same one again.

``--classifier MODULE:FUNCTION`` calls the function once while planning and once in each worker. What it made is known by the hash
of its weights and code, which each worker compares before it measures anything.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.backbones.checkpoint import BackboneInfo
from harness.backbones.live import LiveModel
from harness.backbones.model_identity import InTraining, NotHashable, model_hash
from harness.core.classes import load_classes
from harness.core.code import load_attribute
from harness.core.errors import UserError

Colour = tuple[float, float, float]
FEED = ("mean", "std", "image_size", "interpolation", "crop", "precision", "crop_mode")


@dataclass(frozen=True)
class ClassifierSpec:
    """A classifier with what must be known to measure it; ``harness.evaluate`` takes one too.

    Attributes:
        model: A ``torch.nn.Module`` from normalised images (B, 3, H, W) to logits (B, K), with ``mean`` and ``std``; or a callable
            from float32 RGB in [0, 1] to logits, which normalises by itself.
        classes: What the K logits mean, in order: a shipped class list or a file; empty: as the caller says.
        name: What the leaderboard calls it; if its code cannot be hashed, the name stands for it.
        mean: Normalisation mean of red, green and blue in [0, 1], of a module.
        std: Standard deviation, as ``mean``.
        image_size: Side of the square inputs in pixels.
        interpolation: How images are resized for it, by PIL's name.
        crop: Crop size over resized size, in (0, 1].
        precision: ``fp32`` or ``bf16``.
        crop_mode: How its library makes an image square: ``center``, or another word, which is printed and recorded as a warning,
            since suites crop the centre.
        origin: Where these values come from, as it is printed; empty: the function's name.
        facts: What else tells it apart, as plain JSON values; recorded with every result.
    """

    model: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor]
    classes: str = ""
    name: str = ""
    mean: Colour | None = None
    std: Colour | None = None
    image_size: int | None = None
    interpolation: str | None = None
    crop: float | None = None
    precision: str | None = None
    crop_mode: str | None = None
    origin: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feed(self) -> dict[str, Any]:
        """Return what it states of its inputs, by name."""
        found = {name: getattr(self, name) for name in FEED}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class CodeSource:
    """A function that makes a classifier.

    Attributes:
        function: ``module:function``.
        settings: Arguments by name, as plain JSON values.
        classes: Class list that the command line names; may be empty.
        folder: Folder in which modules are looked for last.
    """

    function: str
    settings: Mapping[str, Any]
    classes: str = ""
    folder: str = ""

    def make(self) -> ClassifierSpec:
        """Call the function.

        It gets the settings, and as ``classes`` the ``ClassList`` if it has a parameter of that name.

        Raises:
            UserError: there is no such function, it takes other settings, it fails, or what it returns is no classifier.
        """
        if ":" not in self.function:
            raise UserError(
                f"{self.function!r} is no function", "it has no colon", "write --classifier MODULE:FUNCTION"
            )
        if self.folder and self.folder not in sys.path:
            sys.path.append(self.folder)
        function: Any = load_attribute(self.function)
        try:
            found = function(**self._arguments(function))
        except UserError:
            raise
        except Exception as error:  # a function of the user's own may fail in any way; the cause stays attached
            raise UserError(
                f"{self.function} failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "correct the function or its settings (--set classifier.NAME=VALUE)"
            ) from error  # fmt: skip
        spec = found if isinstance(found, ClassifierSpec) else ClassifierSpec(found)
        if not callable(spec.model):
            raise UserError(
                f"{self.function} returned a {type(found).__name__}",
                "a classifier is a torch.nn.Module or a callable from images to logits",
                "return one, or harness.api.ClassifierSpec(model=..., classes=...)",
            )
        return spec

    def _arguments(self, function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters
        arguments = dict(self.settings)
        if "classes" in parameters and "classes" not in arguments:
            if not self.classes:
                raise UserError(
                    f"{self.function} needs a class list",
                    "it makes a classifier of the classes it is given",
                    "give --classes LIST",
                )
            arguments["classes"] = load_classes(self.classes)
        try:
            inspect.signature(function).bind(**arguments)
        except TypeError as error:
            known = [name for name in parameters if name != "classes"]
            raise UserError(
                f"{self.function} does not take these settings", str(error),
                f"its settings: {', '.join(known) or 'none'}; write --set classifier.NAME=VALUE"
            ) from error  # fmt: skip
        return arguments


def identity_of(model: Callable[..., Any], name: str, fix: str) -> str:
    """Return the hash of weights and code, or the name that stands for them.

    Args:
        model: The model; a module is taken as in evaluation mode.
        name: Its name; may be empty.
        fix: What to do if it can be identified by neither.

    Raises:
        UserError: they cannot be hashed, and there is no name; or a function uses a module in training mode.
    """
    try:
        return model_hash(model, evaluating=not isinstance(model, torch.nn.Module))
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
            fix,
        ) from reason


def made_again(source: CodeSource, identity: str, info: BackboneInfo) -> LiveModel:
    """Make a classifier in this process that another one has planned with.

    Args:
        source: The function.
        identity: What it made there.
        info: How it is fed and what its outputs mean.

    Raises:
        UserError: the function makes another classifier now.
    """
    spec = source.make()
    found = identity_of(spec.model, spec.name, "")
    if found != identity:
        raise UserError(
            f"{source.function} makes another classifier than when this run was planned",
            "the hash of its weights and code differs from process to process, or a file has changed since",
            "start the command again; if it happens again, let the function load saved weights and draw nothing at random",
        )
    return LiveModel(identity, spec.model, info)
