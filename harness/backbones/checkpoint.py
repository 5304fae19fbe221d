"""Backbone folders, and checkpoints from outside.

A backbone folder holds `raw.safetensors` and/or `ema.safetensors` and `backbone.json`, which says how to
build the network, how to feed it and which classes its outputs mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from harness.backbones.files import damaged, read_checkpoint, read_safetensors
from harness.backbones.models import create
from harness.backbones.outside import take
from harness.core.errors import DataMissing, UserError
from harness.core.fields import wrong_field
from harness.core.files import atomic_file, parse_json, write_json
from harness.core.intact import zip_damage
from harness.core.weights import check_state

WEIGHTS = ("ema", "raw")
_FORMAT = 1
_ADDED = ("crop", "precision", "warnings")
"""What older folders do not say."""
_FIX = "rebuild the backbone: its folder holds the weights of another network"

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
        record = parse_json(path.read_text(encoding="utf-8"))
        known = BackboneInfo.__dataclass_fields__
        values = {name: record[name] for name in known if name in record or name not in _ADDED}
        values.update({name: tuple(values.get(name, ())) for name in ("classes", "mean", "std", "warnings")})
        found = BackboneInfo(**values)
        if why := wrong_field(found):
            raise TypeError(why)
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, repr(error)) from error


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
    state = read_safetensors(path)
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
    head_file: Path | None = None,
) -> BackboneInfo:
    """Turn a checkpoint from outside into a backbone folder.

    The network is found wherever in the file it lies (`harness.backbones.outside`), and torch's strict load decides in the end.
    Without a head (or with an empty class list) the backbone gives features only.

    Args:
        path: The checkpoint.
        arch: Architecture name.
        classes: Ordered class ids of the outputs; may be empty.
        mean: Normalisation mean for images in [0, 1].
        std: Normalisation standard deviation.
        out_folder: Where the backbone goes.
        weights: "ema", "raw" or a place in the file; when not given, the average where the checkpoint keeps one.
        image_size: Side of the images it was trained on, in pixels.
        interpolation: How images are resized for it.
        crop: Crop size over resized size.
        precision: "fp32" or "bf16".
        warnings: What of this contradicts the network's own statement; kept with it.
        kwargs: Constructor arguments of the architecture.
        head_file: File of a linear head that was trained on the network's features.

    Raises:
        DataMissing: There is no such file.
        UserError: The file is damaged or no checkpoint, keys or shapes do not fit, or the class count differs.
    """
    for file in filter(None, (path, head_file)):
        if member := zip_damage(file):
            raise damaged(file, f"the checksum of {member} is wrong")
    arguments = dict(kwargs or {})
    taken = take(path, read_checkpoint(path), arch, len(classes), weights, arguments, head_file)
    labels = tuple(classes) if taken.outputs else ()
    create(arch, len(labels), **arguments).load_state_dict(taken.state, strict=True)
    recipe: dict[str, Any] = {"entry": taken.entry, "weights_asked": weights}
    recipe |= {"left_out": list(taken.left_out)} if taken.left_out else {}
    info = BackboneInfo(arch, arguments, labels, tuple(mean), tuple(std), image_size, interpolation, taken.kind,
                        recipe, crop, precision, tuple(warnings))  # fmt: skip
    write_backbone(out_folder, info, {taken.kind: taken.state})
    return info


def _known(weights: str) -> str:
    if weights not in WEIGHTS:
        raise UserError(f"unknown weights {weights!r}", "a backbone has raw and averaged weights", "use ema or raw")
    return weights
