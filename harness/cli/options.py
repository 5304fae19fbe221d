"""Options of the command line: each is defined once, whichever commands take it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.core.errors import UserError

_LISTS = "comma separated; wildcards in quotes"
GeneratorOption = Annotated[
    str,
    typer.Option(
        "--generator", metavar="NAMES", help=f"Generators or groups, {_LISTS} ('lbgen-*'); all: every default one."
    ),
]
SuiteOption = Annotated[
    str,
    typer.Option("--suite", metavar="NAMES", help=f"Suites or groups, {_LISTS} ('*-bias'); all: every default one."),
]
BackboneOption = Annotated[
    str,
    typer.Option(
        "--backbone", metavar="NAMES", help=f"Backbones of the profile, {_LISTS} ('resnet*'); default: all of them."
    ),
]
SeedsOption = Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Number of seeds.")]
VaryOption = Annotated[
    str,
    typer.Option(
        "--vary", metavar="WHICH", help="Seeds that vary: all, generator or train; default: set by the profile."
    ),
]
_PROFILES = "micro, in100, in1k, or the path of a TOML file"
ProfileOption = Annotated[str, typer.Option("--profile", metavar="PROFILE", help=f"{_PROFILES}.")]
ImpliedProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help=f"{_PROFILES}; default: the one implied by --classes, else micro.",
    ),
]
StoreOption = Annotated[
    Path, typer.Option("--store", metavar="FOLDER", envvar="HARNESS_STORE", help="Folder of the artifacts.")
]
OneStore = Annotated[Path | None, typer.Argument(metavar="STORE", help="Store; default: ./store.")]
DataOption = Annotated[
    list[str], typer.Option("--data", metavar="NAME=PATH", help="Where a data set is; may be repeated.")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as generators.lbgen.weight_q=0; may be repeated."),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Evaluate these weights, without generator or pre-training: a file, a folder with config.json, or "
        "hf-hub:ORG/NAME. Or a trivial baseline: "
        "baseline:constant[:CLASS], baseline:uniform, baseline:untrained, baseline:humans.",
    ),
]
ClassifierOption = Annotated[
    str,
    typer.Option(
        "--classifier",
        metavar="MODULE:FUNCTION",
        help="Evaluate the classifier that a function returns, on the suites that read logits; --set classifier.NAME=VALUE are "
        "its arguments. Shipped: harness.classifiers:open_clip, :torchvision and :transformers.",
    ),
]
ArchOption = Annotated[
    str,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="timm name of the checkpoint's network, with or without a tag; or hf-hub:ORG/NAME, local-dir:FOLDER.",
    ),
]
ClassesOption = Annotated[
    str,
    typer.Option(
        "--classes",
        metavar="LIST",
        help="Class list of the checkpoint's head, in the head's order: imagenet1k, imagenet100, micro, or a file with "
        "one id per line.",
    ),
]
NormalisationOption = Annotated[
    str,
    typer.Option(
        "--normalisation",
        metavar="NAME",
        help="Normalisation of the checkpoint's inputs: imagenet, half (mean = std = 0.5), clip, in9 or M,M,M/S,S,S. "
        "Default of this and the next four options: backbone.json beside the file, else timm's pretrained_cfg of --arch; "
        "the choice is printed.",
    ),
]
ImageSizeOption = Annotated[
    int,
    typer.Option("--image-size", metavar="PX", show_default=False, help="Side of the checkpoint's inputs in pixels."),
]
InterpolationOption = Annotated[
    str,
    typer.Option(
        "--interpolation",
        metavar="NAME",
        help="How images are resized for the checkpoint: bilinear, bicubic, nearest, lanczos, box or hamming.",
    ),
]
CropOption = Annotated[
    float,
    typer.Option(
        "--crop",
        metavar="RATIO",
        show_default=False,
        help="Crop size divided by resized size, for the checkpoint's evaluation, such as 0.875.",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", help="Precision of the checkpoint: fp32, or bf16 by autocast."),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="WHICH",
        help="Weights of the checkpoint: auto (the average if the file holds one), raw, ema, or a place in the file such as "
        "teacher.",
    ),
]
HeadOption = Annotated[
    Path | None,
    typer.Option(
        "--head", metavar="FILE", help="Linear head of the checkpoint, in a file of its own (as DINO publishes it)."
    ),
]
StaleOption = Annotated[
    str, typer.Option("--stale", metavar="ACTION", help="What to do about stale artifacts: stop, reuse or redo.")
]
SlotsOption = Annotated[
    int,
    typer.Option(
        "--slots", metavar="N", show_default=False, help="Number of workers; default: one per GPU or processor."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu or cuda.")]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where the work is done: local, slurm or a plugin's; default: on this machine.",
    ),
]


def _refuse_network(wanted: bool) -> bool:
    from harness.core.offline import offline, refuse_network

    if wanted or offline():
        refuse_network()
    return wanted


OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_refuse_network,
        is_eager=True,
        help="Refuse any network, also to workers, as HF_HUB_OFFLINE=1 does; see fetch.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_STORE = Path("store")
_EXAMPLES = "Examples:\n\n  python -m harness {0}\n\n  python -m harness {1}"


def examples(first: str, second: str) -> str:
    """End of a command's help: two commands to copy, without the program's name."""
    return _EXAMPLES.format(first, second)


@contextmanager
def _selection(
    store: Path,
    generator: GeneratorOption = "",
    suite: SuiteOption = "all",
    backbone: BackboneOption = "",
    seeds: SeedsOption = 1,
    vary: VaryOption = "",
    profile: ImpliedProfileOption = "",
    data: DataOption = [],
    set_: SetOption = [],
    checkpoint: CheckpointOption = None,
    classifier: ClassifierOption = "",
    arch: ArchOption = "",
    classes: ClassesOption = "",
    normalisation: NormalisationOption = "",
    image_size: ImageSizeOption = 0,
    interpolation: InterpolationOption = "",
    crop: CropOption = 0.0,
    precision: PrecisionOption = "",
    weights: WeightsOption = "auto",
    head: HeadOption = None,
) -> Iterator[Any]:
    from harness.plan.model import Selection

    if vary not in ("", "all", "generator", "train"):
        raise UserError(f"unknown --vary {vary!r}", "choices: all, generator, train", "correct --vary")
    if not (generator or checkpoint or classifier):
        raise UserError(
            "nothing to measure",
            "none of --generator, --checkpoint and --classifier was provided",
            "for example --generator lbgen; all names: python -m harness list",
        )
    numbers = {"image_size": image_size, "interpolation": interpolation, "crop": crop, "precision": precision}
    flags = _normalisation(normalisation) | {key: value for key, value in numbers.items() if value}
    wanted = None if weights == "auto" else weights
    if classifier:
        from harness.cli.classifier import planned

        _refuse_both(
            {"--checkpoint": checkpoint, "--generator": generator, "--arch": arch, "--weights": wanted, "--head": head}
        )
        with planned(classifier, store, profile, classes, data, set_, flags) as (sized, external):
            yield Selection(sized, generator, suite, backbone, seeds, vary, external)
        return
    name, note = _choose_profile(profile, str(checkpoint or ""), classes, data)
    resolved, subject = _load_profile(name, set_, data), None
    if checkpoint is not None:
        subject = _external(resolved, checkpoint, arch, classes, flags, wanted, str(head or ""))
        subject = replace(subject, notes=(*([note] if note else []), *subject.notes))
    yield Selection(resolved, generator, suite, backbone, seeds, vary, subject)


def _choose_profile(profile: str, subject: str, classes: str, data: list[str]) -> tuple[str, str]:
    from harness.plan.profile_choice import choose_profile

    return choose_profile(profile, subject, classes, data)


def _load_profile(name: str, set_: list[str], data: list[str]) -> Any:
    from harness.plan.profile import load_profile

    return load_profile(name, set_, data).profile


def _refuse_both(given: dict[str, Any]) -> None:
    odd = [name for name, value in given.items() if value]
    if odd:
        raise UserError(
            f"{', '.join(odd)} and --classifier do not go together",
            "the function returns the whole classifier",
            "leave one of them out; arguments of the function are --set classifier.NAME=VALUE",
        )


def _normalisation(normalisation: str) -> dict[str, Any]:
    from harness.core.normalisation import parse_normalisation

    return dict(zip(("mean", "std"), parse_normalisation(normalisation), strict=True)) if normalisation else {}


def _external(
    profile: Any, checkpoint: Path, arch: str, classes: str, flags: dict[str, Any], weights: str | None, head: str
) -> Any:
    from harness.backbones.baseline import PREFIX, parse_baseline
    from harness.backbones.folders import is_folder
    from harness.backbones.preprocessing import base_name, resolve
    from harness.core.classes import load_classes
    from harness.plan.external import external_checkpoint, recipe_for
    from harness.plan.model import ExternalCheckpoint

    if str(checkpoint).startswith(PREFIX):
        chosen, arch = classes or profile.classes, arch or next(iter(profile.backbones))
        baseline = parse_baseline(str(checkpoint), load_classes(chosen).ids)
        found = ExternalCheckpoint(checkpoint, base_name(arch), chosen, baseline=baseline)
        if baseline.kind != "untrained":
            return found
        feed = resolve(arch, None, flags, recipe_for(profile, arch), trained=False)
        return replace(found, feed=feed.values, notes=(feed.line,), warnings=feed.warnings)
    if not classes or not (arch or is_folder(str(checkpoint))):
        raise UserError(
            "--checkpoint needs --arch and --classes",
            "the outputs of a head have no meaning without the ordered list of its classes",
            "for example --checkpoint w.pth --arch resnet50 --classes imagenet1k",
        )
    return external_checkpoint(profile, str(checkpoint), arch, classes, flags, weights, head=head)


def selects(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select a run to a command with ``store``; its first argument is the ``Selection`` made from them."""
    shared = list(inspect.signature(_selection, eval_str=True).parameters.values())[1:]
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        options = {option.name: values.pop(option.name) for option in shared}
        with _selection(values["store"], **options) as selection:
            command(selection, **values)

    options = [*shared, *own]
    wrapped.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {option.name: option.annotation for option in options}
    return wrapped
