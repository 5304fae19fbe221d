"""The options that say what is run: ``run`` and ``plan`` share them, and what they mean is said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import UserError

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
ProfileOption = Annotated[str, typer.Option("--profile", help="micro, in100, in1k, or the path of a TOML file.")]
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
        help="What the checkpoint's inputs are normalised with: imagenet, half (mean = std = 0.5), clip, in9 or M,M,M/S,S,S.",
    ),
]
ImageSizeOption = Annotated[
    int,
    typer.Option(
        "--image-size", help="Side of the checkpoint's inputs in pixels; 0: that of the profile's first backbone."
    ),
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
    profile: ProfileOption = "micro",
    data: DataOption = [],
    set_: SetOption = [],
    checkpoint: CheckpointOption = None,
    arch: ArchOption = "",
    classes: ClassesOption = "",
    normalisation: NormalisationOption = "imagenet",
    image_size: ImageSizeOption = 0,
    weights: WeightsOption = "auto",
) -> Any:
    from harness.plan_model import Selection
    from harness.profile import load_profile

    resolved = load_profile(profile, set_, data).profile
    if vary not in ("", "all", "generator", "train"):
        raise UserError(f"unknown --vary {vary!r}", "it is one of all, generator, train", "correct it")
    if weights not in ("auto", "raw", "ema"):
        raise UserError(f"unknown --weights {weights!r}", "it is one of auto, raw, ema", "correct it")
    outside = None
    if checkpoint is not None:
        outside = _outside(resolved, checkpoint, arch, classes, normalisation, image_size)
        outside = replace(outside, weights=None if weights == "auto" else weights)
    elif not generator:
        raise UserError(
            "nothing to measure",
            "neither --generator nor --checkpoint was given",
            "e.g. --generator lbgen; all names: python -m harness list",
        )
    return Selection(resolved, generator, suite, backbone, seeds, vary, outside)


def _outside(profile: Any, checkpoint: Path, arch: str, classes: str, normalisation: str, image_size: int) -> Any:
    from harness.baselines import PREFIX, parse_baseline
    from harness.classes import load_classes
    from harness.normalisation import parse_normalisation
    from harness.plan_model import Outside

    first, recipe = next(iter(profile.backbones.items()))
    size = image_size or recipe.get("image_size", Outside.image_size)
    mean, std = parse_normalisation(normalisation)
    if str(checkpoint).startswith(PREFIX):
        chosen = classes or profile.classes
        baseline = parse_baseline(str(checkpoint), load_classes(chosen).ids)
        return Outside(checkpoint, arch or first, chosen, mean, std, size, baseline=baseline)
    if not arch or not classes:
        raise UserError(
            "--checkpoint needs --arch and --classes",
            "a head without its ordered class list means nothing",
            "e.g. --checkpoint w.pth --arch resnet50 --classes imagenet1k",
        )
    return Outside(checkpoint.resolve(), arch, classes, mean, std, size)


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
