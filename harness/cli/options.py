"""The options that say what is run: ``run`` and ``plan`` share them, and what they mean is said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.core.errors import UserError

GeneratorOption = Annotated[
    str, typer.Option("--generator", help="Generators or groups, comma separated; 'all' for every default one.")
]
SuiteOption = Annotated[str, typer.Option("--suite", help="Suites or groups, comma separated.")]
BackboneOption = Annotated[
    str, typer.Option("--backbone", help="Backbones of the profile, comma separated; default: all of them.")
]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds.")]
VaryOption = Annotated[
    str, typer.Option("--vary", help="Which seeds vary: all, generator or train; default: as the profile says.")
]
_PROFILES = "micro, in100, in1k, or the path of a TOML file"
ProfileOption = Annotated[str, typer.Option("--profile", help=f"{_PROFILES}.")]
ImpliedProfileOption = Annotated[
    str,
    typer.Option("--profile", help=f"{_PROFILES}; default: the one that --classes implies, micro for generators."),
]
StoreOption = Annotated[Path, typer.Option("--store", envvar="HARNESS_STORE", help="Folder of the artifacts.")]
DataOption = Annotated[list[str], typer.Option("--data", help="NAME=PATH of a data set; may be repeated.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="KEY=VALUE, e.g. generators.lbgen.weight_q=0; may be repeated.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Evaluate these weights; no generator, no pre-training. Or a trivial baseline: baseline:constant[:CLASS], "
        "baseline:uniform, baseline:untrained, baseline:humans.",
    ),
]
ArchOption = Annotated[str, typer.Option("--arch", help="timm name of the checkpoint's network.")]
ClassesOption = Annotated[
    str,
    typer.Option(
        "--classes",
        help="Class list of the checkpoint's head, in the head's order: imagenet1k, imagenet100 or a file, an id a line.",
    ),
]
NormalisationOption = Annotated[
    str,
    typer.Option(
        "--normalisation",
        help="What the checkpoint's inputs are normalised with: imagenet, half (mean = std = 0.5), clip, in9 or M,M,M/S,S,S; "
        "default, here and below: what backbone.json beside it or timm's pretrained_cfg of --arch states, which is printed.",
    ),
]
ImageSizeOption = Annotated[int, typer.Option("--image-size", help="Side of the checkpoint's inputs in pixels.")]
InterpolationOption = Annotated[
    str, typer.Option("--interpolation", help="How images are resized for the checkpoint: bilinear or bicubic.")
]
CropOption = Annotated[
    float, typer.Option("--crop", help="Crop size over resized size of the checkpoint's evaluation, such as 0.875.")
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="What the checkpoint computes in: fp32 (default), or bf16 by autocast.")
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        help="Which weights of the checkpoint: raw, ema or auto (its average where it keeps one, else what there is).",
    ),
]
StaleOption = Annotated[str, typer.Option("--stale", help="Stale artifacts: stop, reuse or redo.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_STORE = Path("store")


def _selection(
    generator: GeneratorOption = "",
    suite: SuiteOption = "all",
    backbone: BackboneOption = "",
    seeds: SeedsOption = 1,
    vary: VaryOption = "",
    profile: ImpliedProfileOption = "",
    data: DataOption = [],
    set_: SetOption = [],
    checkpoint: CheckpointOption = None,
    arch: ArchOption = "",
    classes: ClassesOption = "",
    normalisation: NormalisationOption = "",
    image_size: ImageSizeOption = 0,
    interpolation: InterpolationOption = "",
    crop: CropOption = 0.0,
    precision: PrecisionOption = "",
    weights: WeightsOption = "auto",
) -> Any:
    from harness.plan.model import Selection
    from harness.plan.profile import load_profile
    from harness.plan.profile_choice import choose_profile

    name, note = choose_profile(profile, str(checkpoint or ""), classes, data)
    resolved = load_profile(name, set_, data).profile
    if vary not in ("", "all", "generator", "train"):
        raise UserError(f"unknown --vary {vary!r}", "it is one of all, generator, train", "correct it")
    if weights not in ("auto", "raw", "ema"):
        raise UserError(f"unknown --weights {weights!r}", "it is one of auto, raw, ema", "correct it")
    external = None
    if checkpoint is not None:
        numbers = {"image_size": image_size, "interpolation": interpolation, "crop": crop, "precision": precision}
        flags = _colours(normalisation) | {key: value for key, value in numbers.items() if value}
        external = _outside(resolved, checkpoint, arch, classes, flags, None if weights == "auto" else weights)
        external = replace(external, notes=(*([note] if note else []), *external.notes))
    elif not generator:
        raise UserError(
            "nothing to measure",
            "neither --generator nor --checkpoint was given",
            "e.g. --generator lbgen; all names: python -m harness list",
        )
    return Selection(resolved, generator, suite, backbone, seeds, vary, external)


def _colours(normalisation: str) -> dict[str, Any]:
    from harness.core.normalisation import parse_normalisation

    return dict(zip(("mean", "std"), parse_normalisation(normalisation), strict=True)) if normalisation else {}


def _outside(
    profile: Any, checkpoint: Path, arch: str, classes: str, flags: dict[str, Any], weights: str | None
) -> Any:
    from harness.backbones.baseline import PREFIX, parse_baseline
    from harness.backbones.preprocessing import base_name, resolve
    from harness.core.classes import load_classes
    from harness.plan.model import ExternalCheckpoint

    if str(checkpoint).startswith(PREFIX):
        chosen, arch = classes or profile.classes, arch or next(iter(profile.backbones))
        baseline = parse_baseline(str(checkpoint), load_classes(chosen).ids)
        found = ExternalCheckpoint(checkpoint, base_name(arch), chosen, baseline=baseline)
        if baseline.kind != "untrained":
            return found
        feed = resolve(arch, None, flags, _recipe(profile, arch), trained=False)
        return replace(found, feed=feed.values, notes=(feed.line,), warnings=feed.warnings)
    if not arch or not classes:
        raise UserError(
            "--checkpoint needs --arch and --classes",
            "a head without its ordered class list means nothing",
            "e.g. --checkpoint w.pth --arch resnet50 --classes imagenet1k",
        )
    path = checkpoint.resolve()
    _same_classes(path, classes)
    feed = resolve(arch, path, flags, _recipe(profile, arch))
    held = _kind(path)
    if weights and held and weights != held:
        raise UserError(
            f"--weights {weights} is not what {path.name} holds",
            f"backbone.json beside it says that these are the {held} weights",
            f"leave --weights out, or give {weights}.safetensors",
        )
    weights = weights or held
    return ExternalCheckpoint(
        path, base_name(arch), classes, feed.values, weights, notes=(feed.line,), warnings=feed.warnings
    )


def _recipe(profile: Any, arch: str) -> dict[str, Any]:
    """Return what the profile's recipe for an architecture says of its inputs; nothing where the profile does not train it."""
    if arch not in profile.backbones:
        return {}
    from harness.backbones.recipe import PretrainSettings

    values = {key: value for key, value in profile.backbones[arch].items() if key not in ("devices", "threads")}
    recipe = PretrainSettings.from_mapping({"arch": arch, **values})
    return {"mean": recipe.mean, "std": recipe.std, "image_size": recipe.image_size}


def _kind(path: Path) -> str | None:
    """Return which weights a file of a backbone folder holds; None for any other file."""
    from harness.backbones.preprocessing import backbone_facts

    return path.stem if backbone_facts(path) is not None else None


def _same_classes(path: Path, classes: str) -> None:
    """Refuse a class list that contradicts the backbone folder in which a file lies.

    Raises:
        UserError: the folder lists other classes, or another order.
    """
    from harness.backbones.preprocessing import BACKBONE, backbone_facts
    from harness.core.classes import load_classes

    facts = backbone_facts(path)
    if facts is not None and facts["classes"] and tuple(facts["classes"]) != load_classes(classes).ids:
        raise UserError(
            f"--classes {classes} is not the class list of {path.name}",
            f"{BACKBONE} beside it lists {len(facts['classes'])} classes, {', '.join(facts['classes'][:3])}, ...",
            "give the list it was trained with, in its order",
        )


def selects(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what is run; its first argument is the ``Selection`` they make."""
    shared = list(inspect.signature(_selection, eval_str=True).parameters.values())
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        command(_selection(**{option.name: values.pop(option.name) for option in shared}), **values)

    options = [*shared, *own]
    wrapped.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {option.name: option.annotation for option in options}
    return wrapped
