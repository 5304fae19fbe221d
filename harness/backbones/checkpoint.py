"""Backbone folders, and checkpoints from outside.

A backbone folder holds `raw.safetensors` and/or `ema.safetensors` and `backbone.json`, which says how to
build the network, how to feed it and which classes its outputs mean.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from harness.backbones.models import create
from harness.core.errors import DataMissing, UserError
from harness.core.files import atomic_file, write_json
from harness.core.intact import zip_damage
from harness.core.weights import check_state

WEIGHTS = ("ema", "raw")
_FORMAT = 1
_ADDED = ("crop", "precision", "warnings")
"""What older folders do not say."""
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "encoder.")
_HEADS = ("fc.weight", "fc.bias", "head.weight", "head.bias", "classifier.weight", "classifier.bias")
_CONTAINERS = {"ema": ("model_ema", "state_dict_ema", "ema"), "raw": ("state_dict", "model")}

_FIX = "check --arch; only the classifier head may differ"

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class BackboneInfo:
    """Describe a backbone folder; the content of `backbone.json`.

    Attributes:
        arch: Name of the architecture.
        kwargs: Constructor arguments.
        classes: Ordered class ids of the outputs; empty for a network without a classifier head.
        mean: Normalisation mean for images in [0, 1].
        std: Normalisation standard deviation.
        image_size: Side of the images the network was trained on, in pixels.
        interpolation: How images are resized for it.
        weights: Which of the two weight files is meant when none is named.
        recipe: Settings and facts of the training; of a checkpoint from outside, which entry of the file was taken
            ("" where the file is the state dict itself) and which weights were asked for.
        crop: Crop size over resized size, where a suite resizes and crops for it.
        precision: "fp32", or "bf16" for autocast to bfloat16.
        warnings: What of this contradicts what the network states itself; for a checkpoint from outside.
    """

    arch: str
    kwargs: dict[str, Any]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    interpolation: str
    weights: str
    recipe: dict[str, Any]
    crop: float = 0.875
    precision: str = "fp32"
    warnings: tuple[str, ...] = ()

    @property
    def outside(self) -> bool:
        """Return whether the weights come from outside: they were imported, not trained or made by this harness."""
        return "entry" in self.recipe


def write_backbone(folder: Path, info: BackboneInfo, states: Mapping[str, State]) -> None:
    """Write a backbone folder; `backbone.json` comes last.

    Args:
        folder: Where it goes.
        info: The description.
        states: State dict by kind of weights, "raw" and/or "ema".
    """
    hashes = {}
    for kind, state in states.items():
        content = save({key: value.detach().cpu().contiguous() for key, value in state.items()})
        hashes[kind] = hashlib.sha256(content).hexdigest()
        with atomic_file(folder / f"{kind}.safetensors") as stream:
            stream.write(content)
    record = {"format": _FORMAT, **asdict(info), "num_classes": len(info.classes), "sha256": hashes}
    write_json(folder / "backbone.json", record)


def read_info(folder: Path) -> BackboneInfo:
    """Read the description of a backbone folder.

    Raises:
        DataMissing: The folder holds no finished backbone.
        UserError: The description cannot be read.
    """
    path = folder / "backbone.json"
    if not path.is_file():
        raise DataMissing(f"{folder} holds no finished backbone", "backbone.json is not there",
                          "start the same command again; a begun training is continued")  # fmt: skip
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = BackboneInfo.__dataclass_fields__
        values = {name: record[name] for name in known if name in record or name not in _ADDED}
        values.update({name: tuple(values.get(name, ())) for name in ("classes", "mean", "std", "warnings")})
        return BackboneInfo(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(path, repr(error)) from error


def load_backbone(folder: Path, weights: str | None = None) -> tuple[torch.nn.Module, BackboneInfo, str]:
    """Build the network of a backbone folder and load its weights, strictly.

    Args:
        folder: The backbone folder.
        weights: "ema" or "raw"; the folder's own choice when not given.

    Returns:
        The network in eval mode, its description, and the SHA-256 of the weights.

    Raises:
        DataMissing: The folder, or this kind of weights, is not there.
        UserError: The weights are damaged or do not fit the architecture.
    """
    info = read_info(folder)
    path = folder / f"{_known(weights or info.weights)}.safetensors"
    if not path.is_file():
        raise DataMissing(f"{folder} has no {path.stem} weights", "the file is not there", "use the other weights")
    state = _read_safetensors(path)
    model = create(info.arch, len(info.classes), **info.kwargs)
    check_state(state, model.state_dict(), path, _FIX)
    model.load_state_dict(state)
    return model.eval(), info, hashlib.sha256(path.read_bytes()).hexdigest()


def import_checkpoint(
    path: Path,
    arch: str,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    out_folder: Path,
    weights: str | None = None,
    *,
    image_size: int = 224,
    interpolation: str = "bicubic",
    crop: float = 0.875,
    precision: str = "fp32",
    warnings: Sequence[str] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> BackboneInfo:
    """Turn a checkpoint from outside into a backbone folder.

    Accepted: safetensors, a plain state dict, or a training checkpoint with its state dict under a usual
    name; keys may carry the prefixes of data-parallel and compiled training. Every key but the classifier
    head's must match. Without a head (or with an empty class list) the backbone gives features only.

    Args:
        path: The checkpoint.
        arch: Architecture name.
        classes: Ordered class ids of the outputs; may be empty.
        mean: Normalisation mean for images in [0, 1].
        std: Normalisation standard deviation.
        out_folder: Where the backbone goes.
        weights: "ema" or "raw"; when not given, the average where the checkpoint keeps one.
        image_size: Side of the images it was trained on, in pixels.
        interpolation: How images are resized for it, "bicubic" or "bilinear".
        crop: Crop size over resized size.
        precision: "fp32" or "bf16".
        warnings: What of this contradicts the network's own statement; kept with it.
        kwargs: Constructor arguments of the architecture.

    Raises:
        DataMissing: There is no such file.
        UserError: The file is damaged or unsafe, keys or shapes do not fit, or the class count differs.
    """
    kind, entry, state = _pick(_read(path), path, weights)
    arguments = dict(kwargs or {})
    headless = create(arch, 0, **arguments).state_dict()
    full = create(arch, len(classes), **arguments).state_dict() if classes else headless
    state = _strip(state, set(full) | set(headless) | set(_HEADS), path)
    head = sorted(set(full) - set(headless))
    labels = tuple(classes) if head and all(key in state for key in head) else ()
    if labels and len(state[head[0]]) != len(labels):
        raise UserError(
            f"the class list does not fit {path}",
            f"the checkpoint has {len(state[head[0]])} outputs, the list {len(labels)} classes",
            "give the ordered list of the classes the network was trained on with --classes",
        )
    if not labels:
        state = {key: value for key, value in state.items() if key not in (*head, *_HEADS)}
    check_state(state, full if labels else headless, path, _FIX)
    info = BackboneInfo(arch, arguments, labels, tuple(mean), tuple(std), image_size, interpolation, kind,
                        {"entry": entry, "weights_asked": weights}, crop, precision, tuple(warnings))  # fmt: skip
    write_backbone(out_folder, info, {kind: state})
    return info


def _read(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint file without running any code in it."""
    if not path.is_file():
        raise DataMissing(f"there is no checkpoint {path}", "the file does not exist", "check --checkpoint")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if damaged := zip_damage(path):
        raise _corrupt(path, f"the checksum of {damaged} is wrong")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} cannot be read safely",
            str(error).split("\n")[0],
            "save the plain state dict (torch.save(model.state_dict(), ...)) or safetensors; "
            "if the file should hold tensors only, it is damaged",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _corrupt(path, str(error).split("\n")[0]) from error
    if not isinstance(content, Mapping):
        raise _corrupt(path, f"it holds a {type(content).__name__}, not a state dict")
    return content


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, str(error)) from error


def _pick(content: Mapping[str, Any], path: Path, weights: str | None) -> tuple[str, str, State]:
    """Choose the state dict of a checkpoint; returns which weights it is, the entry that holds it, and it.

    A plain state dict does not say what it is: it is what the caller says, else raw.
    """
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return _known(weights or "raw"), "", dict(content)
    for kind in WEIGHTS if weights is None else (_known(weights),):
        for key in _CONTAINERS[kind]:
            inner = content.get(key)
            if isinstance(inner, Mapping):
                return kind, key, {name: v for name, v in inner.items() if isinstance(v, torch.Tensor)}
    wanted = weights or "model"
    raise UserError(
        f"{path} holds no {wanted} weights",
        f"its entries: {', '.join(map(str, list(content)[:8]))}",
        f"expected a plain state dict, or one under {', '.join(sum(_CONTAINERS.values(), ()))}"
        + ("; leave --weights out to take what there is" if weights else ""),
    )


def _strip(state: State, known: set[str], path: Path) -> State:
    """Take the wrappers' prefixes off the keys, one by one, until a key is known."""
    clean: State = {}
    for key, value in state.items():
        name = key
        while name not in known and (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)):
            name = name.removeprefix(prefix)
        if name in clean:
            raise UserError(f"{path} holds {name} twice", "two keys are the same without their prefixes",
                            "save the state dict of one network only")  # fmt: skip
        clean[name] = value
    return clean


def _known(weights: str) -> str:
    if weights not in WEIGHTS:
        raise UserError(f"unknown weights {weights!r}", "a backbone has raw and averaged weights", "use ema or raw")
    return weights


def _corrupt(path: Path, why: str) -> UserError:
    return UserError(f"{path} cannot be read", why, "the file is damaged or of another kind; fetch or make it again")
