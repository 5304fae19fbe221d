"""Models that live in this process: a module or a callable that is measured as it is, because no file could rebuild it.

They give logits only. The store keeps how they are fed and what they are identified by, never their weights: what is missing of
their results can be computed only in a process that holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.backbones.checkpoint import BackboneInfo
from harness.backbones.classifier import Classifier
from harness.core.errors import UserError

FILE = "live.json"
"""Marks the artifact of a live model, beside its ``backbone.json``."""
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}
"""By precision, what two answers to the same image may differ by, as a fraction of the range of the logits."""


@dataclass(frozen=True)
class LiveModel:
    """A model of this process.

    Attributes:
        identity: SHA-256 of its weights and code, or ``name:NAME`` if its caller vouches for it.
        call: From images (B, 3, H, W), normalised as ``info`` says, to logits (B, K).
        info: How it is fed and what its outputs mean.
    """

    identity: str
    call: Callable[[torch.Tensor], torch.Tensor]
    info: BackboneInfo


def live_info(
    arch: str, ids: Sequence[str], feed: Mapping[str, Any], facts: Mapping[str, Any], warnings: Sequence[str]
) -> BackboneInfo:
    """Return the description of a model that lives in a process.

    Args:
        arch: What it is, in a word.
        ids: Ordered class ids of its logits.
        feed: How images reach it, by name of ``Preprocessing``.
        facts: What else its function says of it.
        warnings: What of the feed contradicts it.
    """
    recipe = {"entry": "", "weights_asked": None, **facts}  # as of a plain state dict: nothing is known of its training
    fed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in feed.items()}
    return BackboneInfo(arch, {}, tuple(ids), weights="raw", recipe=recipe, warnings=tuple(warnings), **fed)


_MODELS: dict[str, LiveModel] = {}


@contextmanager
def registered(model: LiveModel) -> Iterator[None]:
    """Let the work of this process find a model; it is let go of at the end."""
    _MODELS[model.identity] = model
    try:
        yield
    finally:
        _MODELS.pop(model.identity, None)


def find_live(identity: str) -> LiveModel:
    """Return a registered model.

    Raises:
        UserError: this process does not hold it.
    """
    if identity not in _MODELS:
        raise UserError(
            "a model that was evaluated from Python is not in this process",
            "its weights are in no file of the store",
            "call harness.evaluate with it again",
        )
    return _MODELS[identity]


def live_classifier(model: LiveModel, device: str | torch.device = "cpu") -> Classifier:
    """Return the classifier of a model; its inputs arrive on ``device``, where a module is moved to."""
    return Classifier(_Opaque(model.call, len(model.info.classes)), model.info, model.identity, device)


def check_answers(model: LiveModel, device: str | torch.device = "cpu") -> None:
    """Ask a model about random images twice, and about one of them alone: what it says of an image depends on the image only.

    Logits may differ by ``TOLERANCE`` of their range: sums of floats depend on the batch, most on a GPU.

    Raises:
        UserError: the model fails, its logits have another shape, or they depend on chance or on the other images of a batch.
    """
    classify, side = live_classifier(model, device), model.info.image_size
    images = _probes(side)
    alone, first, again = classify(images[:1]), classify(images), classify(images)
    allowed = TOLERANCE[model.info.precision] * float(first.nan_to_num().max() - first.nan_to_num().min())
    for other, what, by, fix in (
        (again, "the model gives other logits when it is asked twice", "run", "leave out what draws random numbers"),
        (alone, "the logits of an image depend on the other images of its batch", "batch", "answer for each by itself"),
    ):
        apart = float((first[: len(other)] - other).nan_to_num().abs().max())
        if apart > allowed:
            raise UserError(
                what,
                f"they differ by {apart:.2g}, where {allowed:.2g} is allowed: the result would differ from {by} to {by}",
                f"call .eval() on the modules that it uses; {fix}",
            )


def _probes(side: int) -> torch.Tensor:
    """Return three images in [0, 1] of random colours, patches and noise, so that networks of any kind tell them apart."""
    chance = torch.Generator().manual_seed(0)
    colours, noise = (torch.rand(3, 3, size, size, generator=chance) for size in (1, side))
    patches = torch.nn.functional.interpolate(torch.rand(3, 3, 4, 4, generator=chance), size=(side, side))
    return 0.5 * colours + 0.3 * patches + 0.2 * noise


class _Opaque(torch.nn.Module):
    """A module around a callable, with nothing known of its inside."""

    num_prefix_tokens = 0
    """Nothing is assumed of its features, so that its memory layout stays as it is."""

    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor], outputs: int) -> None:
        super().__init__()
        self.call, self.outputs = call, outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of normalised images (B, 3, H, W).

        Raises:
            UserError: the model fails, or what comes out is not a tensor of that shape.
        """
        try:
            found: Any = self.call(images)
        except UserError:
            raise
        except Exception as error:  # a model is its author's code and may fail in any way; the cause stays attached
            raise UserError(
                f"the model failed on images of shape {tuple(images.shape)}",
                f"{type(error).__name__}: {error}",
                "correct the model; the whole traceback is above this error",
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != (len(images), self.outputs):
            what = (
                f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            )
            raise UserError(
                f"the model returned {what}",
                f"{len(images)} images and {self.outputs} classes want logits of shape ({len(images)}, {self.outputs})",
                "return one row of logits per image, in the order of the class list, or give the model's own list with classes=",
            )
        return found

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Refuse.

        Raises:
            UserError: always.
        """
        raise UserError(
            "a model evaluated from Python gives logits only",
            "features were asked for, and its layers are not known",
            "save its weights and evaluate the file with arch=, if timm has its architecture",
        )
