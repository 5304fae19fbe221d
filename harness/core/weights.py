"""Weights are loaded whole: a tensor that is missing, left over or of another shape is an error at every load.

Other libraries only warn, or log, and leave random values where a tensor is missing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_FIX = "use the configuration and the weights of the same model"
_SHOWN = 3
_TEXT_PREFIX = "text_model."
_POSITIONS = ("visual.positional_embedding", "positional_embedding", "text.positional_embedding")


def refuse_partial(
    source: object,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[str] = (),
    fix: str = _FIX,
    error: type[UserError] = UserError,
) -> None:
    """Raise an error that names the file and the tensors if there is any.

    Args:
        source: The file, folder or name that was loaded.
        missing: Tensors of the network that the file lacks.
        unexpected: Tensors of the file that the network lacks.
        shapes: Tensors whose shapes differ.
        fix: What to do about it.
        error: What is raised; ``CorruptArtifact`` for a file of a store.

    Raises:
        UserError: one of the three is not empty.
    """
    groups = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    found = [(word, sorted(names)) for word, names in groups]
    parts = [
        f"{len(names)} {word}: {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for word, names in found
        if names
    ]
    if parts:
        raise error(f"the weights in {source} do not fit the network", "; ".join(parts), fix)


def check_state(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: object,
    fix: str = _FIX,
    error: type[UserError] = UserError,
) -> None:
    """Compare a state dict with a network's: the same names, the same shapes.

    Args:
        state: What a file holds.
        wanted: The network's ``state_dict()``.
        source: The file, for the message.
        fix: What to do about a difference.
        error: What is raised; ``CorruptArtifact`` for a file of a store.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape.
    """
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    refuse_partial(source, wanted.keys() - state.keys(), state.keys() - wanted.keys(), shapes, fix, error)


def check_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Check that weights are numbers.

    Args:
        state: A network's ``state_dict()``.
        source: What it was loaded from, for the message.

    Raises:
        UserError: a tensor holds NaN or an infinite value.
    """
    odd = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if odd:
        shown = ", ".join(odd[:_SHOWN])
        raise UserError(
            f"{source} holds weights that are no numbers",
            f"{len(odd)} of {len(state)} tensors hold NaN or infinite values as {state[odd[0]].dtype}: {shown}",
            "take weights from before the training diverged, or a number format with their range",
        )


def load_pretrained(kind: Any, source: str | Path, **options: Any) -> Any:
    """Return ``kind.from_pretrained(source, **options)`` of diffusers or transformers, with every tensor from the file.

    Code that lies beside the weights is never run.

    Files of CLIP text encoders come with and without ``text_model.`` before each name: transformers wrote it up to
    5.5 and reads both from 5.6 on; for an older one the prefix is added here.

    Raises:
        UserError: a tensor is missing, unexpected, of another shape, or holds NaN or an infinite value.
        OSError: there is no such model.
    """
    if kind.__name__ == "CLIPTextModel" and _transformers() < (5, 6):
        options["key_mapping"] = {f"^(?!{re.escape(_TEXT_PREFIX)})": _TEXT_PREFIX}
    if kind.__module__.startswith("transformers.") and kind.__name__.startswith(
        "Auto"
    ):  # would ask whether to run code of the model
        options["trust_remote_code"] = False
    try:
        # Shapes that differ are reported with the keys; without this option the error may not name them.
        model, info = kind.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the weights in {source} cannot be loaded", _one_line(error), _FIX) from error
    shapes = {each if isinstance(each, str) else each[0] for each in info["mismatched_keys"]}
    refuse_partial(source, set(info["missing_keys"]) - shapes, info["unexpected_keys"], shapes)
    if info.get("error_msgs"):
        raise UserError(f"the weights in {source} cannot be loaded", str(info["error_msgs"][0]), _FIX)
    check_finite(model.state_dict(), source)
    return model


def _transformers() -> tuple[int, ...]:
    from transformers import __version__

    return tuple(int(part) for part in __version__.split(".")[:2])


def create_open_clip(name: str, pretrained: str | None, **options: Any) -> Any:
    """Return ``open_clip.create_model`` with every tensor from the file, in its shape, and the activation it needs.

    open_clip loads strictly, but interpolates position embeddings of another size, and only warns when the weights
    were trained with another activation than the architecture has.

    Args:
        name: ``local-dir:FOLDER`` or an architecture of open_clip.
        pretrained: Tag or file of an architecture; None for a folder.
        options: Further arguments of ``create_model``.

    Raises:
        UserError: weights and network do not fit.
        OSError, RuntimeError, ValueError: open_clip cannot find or read the model.
    """
    import open_clip

    from harness.core.clip_files import find_clip

    found = find_clip(name, pretrained)
    name, pretrained = found.name, found.pretrained
    if found.inputs:
        options["force_preprocess_cfg"] = dict(found.inputs)
    path = _open_clip_file(name, pretrained)
    if path is not None and pretrained and (state := _openai_state(path)):
        return _create_openai(name, path, state, options)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True, **options)
    except UserWarning as error:
        raise UserError(
            f"the CLIP model {name!r} does not fit its weights", str(error), f"use the model name {name}-quickgelu"
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise UserError(f"the weights of {name} do not fit the network", _one_line(error), _FIX) from error
    if path is not None:
        held, wanted = _shapes(path), {key: tuple(value.shape) for key, value in model.state_dict().items()}
        _refuse_cast(path, model.state_dict())
        other = [key for key in _POSITIONS if key in held and held[key] != wanted.get(key, held[key])]
        refuse_partial(path, (), (), [f"{key} {held[key]} instead of {wanted[key]}" for key in other])
    return model


def _openai_state(path: Path) -> dict[str, Tensor]:
    """Return the weights of a state dict of OpenAI's own; empty if the file is none."""
    from open_clip.factory import load_state_dict

    from harness.core.clip_files import OPENAI

    if path.suffix in (".npz", ".npy"):
        return {}
    state = load_state_dict(str(path))
    return {key: value.float() for key, value in state.items() if key not in OPENAI} if OPENAI[0] in state else {}


def _create_openai(name: str, path: Path, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Any:
    """Return an architecture with weights of OpenAI, whose networks compute with QuickGELU."""
    import open_clip

    from harness.core.clip_files import activation_refused

    if not (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        raise activation_refused(name, path, True)
    model = open_clip.create_model(name, pretrained=None, **options)
    check_state(state, model.state_dict(), path)
    model.load_state_dict(state)
    return model


def _open_clip_file(name: str, pretrained: str | None) -> Path | None:
    """Return the file that open_clip took; None for a published tag, whose sizes are those of its architecture."""
    if not name.startswith("local-dir:"):
        return Path(pretrained) if pretrained and Path(pretrained).is_file() else None
    from harness.core.clip_files import taken_file

    return taken_file(Path(name.removeprefix("local-dir:")))


def _refuse_cast(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse whole numbers in the place of weights, which open_clip casts.

    Raises:
        UserError: there are any.
    """
    from open_clip.factory import load_state_dict

    held = load_state_dict(str(path)) if path.suffix not in (".npz", ".npy") else {}
    odd = [
        key
        for key, value in held.items()
        if key in state and state[key].is_floating_point() and not value.is_floating_point()
    ]
    if odd:
        kind = str(held[odd[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"{path} holds {kind} in the place of weights",
            f"{len(odd)} tensors are no floats: {', '.join(odd[:_SHOWN])}; the scale of a quantised tensor is not in it",
            "save the weights as floats where their scale is known",
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            return {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}  # noqa: SIM118
    from open_clip.factory import load_state_dict

    return {key.removeprefix("module."): tuple(value.shape) for key, value in load_state_dict(str(path)).items()}


def _one_line(error: Exception, length: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[:length] + " ..."
