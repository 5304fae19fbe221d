"""Models that come as a folder: a local one, or one in the cache of the Hugging Face hub. Nothing is downloaded.

The form read is what timm's ``push_to_hub`` writes: ``config.json``, which names the architecture and how it is fed, and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backbones.labels import in_order
from harness.backbones.preprocessing import BACKBONE, Layer, base_name, of_timm, stated_by
from harness.core.errors import DataMissing, UserError, refuse_malformed
from harness.core.files import parse_json

HUB, LOCAL = "hf-hub:", "local-dir:"
CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TRANSFORMERS = "--classifier harness.classifiers:transformers --set classifier.folder={}"
_OPEN_CLIP = "--classifier harness.classifiers:open_clip --set classifier.model=local-dir:{}"


@dataclass(frozen=True)
class Source:
    """Where weights are, and what is known of their network.

    Attributes:
        path: The file of weights.
        arch: Architecture, of timm with or without a tag.
        arguments: Constructor arguments beyond the class count and the image size.
        stated: What a ``config.json`` states of the inputs, with its origin; None where there is none.
        labels: What it lists as the outputs of the head; may be empty.
        name: What the board calls it; empty: the file's name.
    """

    path: Path
    arch: str
    arguments: Mapping[str, Any]
    stated: Layer | None = None
    labels: tuple[str, ...] = ()
    name: str = ""


def find_source(checkpoint: str, arch: str) -> Source:
    """Return what ``--checkpoint`` and ``--arch`` name together.

    Args:
        checkpoint: A file, a folder, ``local-dir:FOLDER`` or ``hf-hub:ORG/NAME[@REVISION]``.
        arch: A name of timm or of this project, ``local-dir:FOLDER`` or ``hf-hub:ORG/NAME``; may be empty for a folder.

    Raises:
        DataMissing: the model is not on this machine.
        UserError: the folder is of another kind, or the two contradict each other.
    """
    folder = folder_of(checkpoint)
    if folder is None:
        path = Path(checkpoint).expanduser().resolve()
        named = _config_source(arch) if arch.startswith((HUB, LOCAL)) else _beside(path, arch)
        return Source(path, named.arch, named.arguments, named.stated, named.labels)
    found = _read(folder, checkpoint)
    _same_arch(found, arch, checkpoint)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise _no_weights(folder, checkpoint)
    return Source(weights, found.arch, found.arguments, found.stated, found.labels, found.name)


def _beside(path: Path, arch: str) -> Source:
    """Return what timm's ``config.json`` beside a file of weights says; without one, what ``--arch`` says."""
    config = path.parent / CONFIG
    if path.name in _WEIGHTS and config.is_file():
        try:
            content = parse_json(config.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if isinstance(content, dict) and isinstance(content.get("architecture"), str):
            found = _read(path.parent, str(path.parent))
            _same_arch(found, arch, str(path.parent))
            return found
    return Source(Path(), arch, {})


def _same_arch(found: Source, arch: str, location: str) -> None:
    """Refuse an ``--arch`` that contradicts a ``config.json``."""
    if arch and not arch.startswith((HUB, LOCAL)) and base_name(arch) != base_name(found.arch):
        raise UserError(
            f"{location} is a {found.arch}", f"{CONFIG} in it says so; --arch is {arch}", "leave --arch out"
        )


def is_folder(location: str) -> bool:
    """Return whether a location names a model folder and not a file."""
    return location.startswith((HUB, LOCAL)) or Path(location).expanduser().is_dir()


def folder_of(location: str) -> Path | None:
    """Return the folder that a location names; None for a file.

    Raises:
        DataMissing: it is not on this machine.
    """
    if location.startswith(HUB):
        return _in_cache(location)
    folder = Path(location.removeprefix(LOCAL)).expanduser()
    if location.startswith(LOCAL) and not folder.is_dir():
        raise DataMissing(
            f"{location} does not exist", f"{folder} is not a folder", "correct the path after local-dir:"
        )
    return folder.resolve() if folder.is_dir() else None


def _in_cache(location: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, _, revision = location.removeprefix(HUB).partition("@")
    try:
        found = try_to_load_from_cache(name, CONFIG, revision=revision or None)
    except HFValidationError as error:
        raise UserError(
            f"{location} is no name of the hub",
            str(error).split("\n")[0],
            "write hf-hub:ORG/NAME, such as hf-hub:timm/resnet18.a1_in1k",
        ) from error
    if not isinstance(found, str):
        at = f" --revision {revision}" if revision else ""
        raise DataMissing(
            f"{location} is not on this machine",
            "the cache of the Hugging Face hub does not hold it, and nothing is downloaded here",
            f"fetch it: hf download {name}{at}; or give its folder as local-dir:FOLDER",
        )
    return Path(found).parent


def _config_source(arch: str) -> Source:
    """Return the network that ``hf-hub:`` or ``local-dir:`` names as an architecture.

    Models of the organisation ``timm`` are those that timm itself knows, by the same name and tag.
    """
    name = arch.removeprefix(HUB).partition("@")[0]
    if arch.startswith(HUB) and name.startswith("timm/"):
        known = name.removeprefix("timm/")
        of_timm(known)
        return Source(Path(), known, {})
    folder = folder_of(arch)
    assert folder is not None
    return _read(folder, arch)


def _read(folder: Path, location: str) -> Source:
    """Return what the ``config.json`` of a folder says.

    Raises:
        UserError: there is none, or it is not timm's.
    """
    with refuse_malformed(folder / CONFIG, "fetch the folder again"):
        return _stated(folder, location)


def _stated(folder: Path, location: str) -> Source:
    if not (folder / CONFIG).is_file():
        raise _unknown(folder, location)
    try:
        config = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is not JSON", str(error), "fetch the folder again") from error
    arch = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(arch, str):
        kind = ", ".join(map(str, config.get("architectures") or ())) if isinstance(config, dict) else ""
        raise UserError(
            f"{location} is not a folder of timm",
            f"its {CONFIG} names {kind or 'no architecture'}" + (", a network of transformers" if kind else ""),
            f"measure it by its own code: {_TRANSFORMERS.format(folder)}"
            if kind
            else f"name --arch and the file of weights in {folder}",
        )
    cfg = config.get("pretrained_cfg") or config
    tag = cfg.get("tag") or ""
    stated = (
        stated_by({"crop_pct": 0.875, "interpolation": "", **cfg}, f"{CONFIG} of {location}") if _feeds(cfg) else None
    )
    places = ("label_names", "labels", "id2label")
    labels = next((names for part in (config, cfg) for place in places if (names := in_order(part.get(place)))), ())
    arguments = {key: value for key, value in (config.get("model_args") or {}).items() if key != "num_classes"}
    _check_inputs(location, cfg, arguments)
    if stated and isinstance(
        arguments.get("img_size"), int
    ):  # the network is built for it, whatever its weights came from
        stated = stated[0], {**stated[1], "image_size": arguments["img_size"]}
    name = location.removeprefix(HUB).partition("@")[0].rpartition("/")[2] if location.startswith(HUB) else folder.name
    return Source(Path(), f"{arch}.{tag}" if tag and not stated else arch, arguments, stated, labels, name)


def _check_inputs(location: str, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse a network whose inputs are no square images of three colours.

    Raises:
        UserError: it is one.
    """
    shape = [*(cfg.get("input_size") or (3, 1, 1))]
    channels = arguments.get("in_chans", shape[0])
    if channels != 3 or shape[1] != shape[2]:
        raise UserError(
            f"{location} does not take square images of three colours",
            f"its {CONFIG} states {channels} channels, and inputs of {shape[1]} x {shape[2]} pixels",
            "measure it by a function of yours that turns images into its inputs: --classifier MODULE:FUNCTION (docs/checkpoints.md)",
        )


def _feeds(cfg: Mapping[str, Any]) -> bool:
    return all(name in cfg for name in ("mean", "std", "input_size"))


def _unknown(folder: Path, location: str) -> UserError:
    names = {path.name for path in folder.iterdir()}
    if BACKBONE in names:
        return UserError(
            f"{location} is a backbone folder",
            "it holds raw and averaged weights",
            f"give one of its files, such as {folder}/ema.safetensors",
        )
    if "open_clip_config.json" in names:
        return UserError(
            f"{location} is a CLIP model", "it compares images with texts, and has no head of classes",
            f"classify by texts: {_OPEN_CLIP.format(folder)}"
        )  # fmt: skip
    if any(name.endswith(".distcp") for name in names):
        return UserError(
            f"{location} is a sharded checkpoint", "torch.distributed.checkpoint wrote one part per process",
            f"join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pth"
        )  # fmt: skip
    return UserError(
        f"{location} is a folder without {CONFIG}", f"it holds {', '.join(sorted(names)[:6]) or 'nothing'}",
        "give the file of weights itself, with --arch"
    )  # fmt: skip


def _no_weights(folder: Path, location: str) -> UserError:
    parts = sorted(path.name for path in folder.glob("*.index.json"))
    if parts:
        return UserError(
            f"the weights of {location} lie in several files",
            f"{parts[0]} lists them",
            "save them as one model.safetensors",
        )
    hub = location.removeprefix(HUB).partition("@")[0]
    fix = f"fetch it: hf download {hub}" if location.startswith(HUB) else "give the file of weights itself, with --arch"
    return DataMissing(f"{location} has no weights", f"none of {', '.join(_WEIGHTS)} is in {folder}", fix)
