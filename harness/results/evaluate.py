"""``harness.evaluate``: measure a model from Python, with the store, the cells and the records of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.core.errors import UserError
from harness.results import arguments
from harness.results.frames import Place, default_store
from harness.results.results import Results

if TYPE_CHECKING:
    import torch

    from harness.backbones.loaded import ClassifierSpec
    from harness.plan.model import Plan

Colour = Sequence[float]
DEVICES = ("auto", "cpu", "cuda")


@arguments.named_as_arguments()
def evaluate(
    model: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | ClassifierSpec | Place,
    suites: str | Sequence[str] = "bias",
    *,
    data: Mapping[str, Place] | None = None,
    classes: str = "",
    arch: str = "",
    name: str = "",
    mean: Colour | None = None,
    std: Colour | None = None,
    image_size: int | None = None,
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"] | None = None,
    crop: float | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    weights: str | None = None,
    head: Place | None = None,
    profile: str | None = None,
    settings: Mapping[str, object] | None = None,
    store: Place | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    stale: Literal["stop", "reuse", "redo"] = "stop",
    progress: bool | None = None,
) -> Results:
    """Measure a model with some suites, in this process, and return the results.

    What has been measured before, with the same weights, code, data and settings, is read from the store. A call that was
    interrupted goes on where it stopped. How the model is fed is printed to standard error, each value with its origin.

    A network of timm is stored like a checkpoint of the command line and gets the same numbers; all suites can measure it. Any
    other module or callable gives logits only: suites that need features or weights (``linear-probe``, ``few-shot``, ``coco``,
    ``ade20k``) are refused before work begins.

    Args:
        model: A ``torch.nn.Module`` from normalised images (B, 3, H, W) to logits (B, K); the path of a checkpoint file or of a model
            folder, with ``arch``; any callable from float32 RGB in [0, 1] of shape (B, 3, H, W) to logits (B, K), such as a
            zero-shot classifier, which normalises by itself; or a ``harness.api.ClassifierSpec`` of either, as ``--classifier``
            takes it. The model is left as it is; a module is copied and measured in evaluation mode.
        suites: Ids or groups of suites, such as ``("texture-bias", "context-bias")``; ``python -m harness list suites``.
        data: Data set name to its folder, such as ``{"cue-conflict": "/data/cue-conflict"}``. The profile ``micro`` brings its own.
        classes: What the K logits mean, in order: ``imagenet1k`` (default), ``imagenet100``, ``micro``, or a file with an id a line.
        arch: Name of the network in timm; needed for a path, known of modules that timm has made.
        name: What the leaderboard calls the model; default: its architecture, its class, or its function. If the code of a callable
            cannot be hashed, the name is its identity: the caller vouches that equal names mean equal models.
        mean: Normalisation mean of red, green and blue in [0, 1]; default: what the module's ``pretrained_cfg`` states. A module
            without one needs it; a callable must not have it. It goes with ``std``.
        std: Standard deviation in (0, 1], as ``mean``.
        image_size: Side of the square inputs in pixels; default: as ``mean``, else 224.
        interpolation: How images are resized for it; default: as ``mean``, else bicubic.
        crop: Crop size over resized size, in (0, 1]; default: as ``mean``, else 0.875.
        precision: ``fp32`` (default), or ``bf16`` by autocast.
        weights: Which weights of a checkpoint file: ``raw``, ``ema`` or a place in it; default: its average if it keeps one.
        head: File of a linear head of a checkpoint file that has none.
        profile: Sizes of the suites: ``micro``, ``in100``, ``in1k`` or a TOML file; default: the one with these classes.
        settings: Further settings by key, such as ``{"suites.texture-bias.restricted": True}``.
        store: Folder of the store; default: ``$HARNESS_STORE``, or ``./store``.
        device: Where it runs; ``auto`` is a GPU if one is visible. A callable gets its images on the CPU unless this says ``cuda``.
        stale: What to do with results of other code under the same version: ``stop``, ``reuse`` or ``redo``.
        progress: Whether progress is shown; default: if standard error is a terminal.

    Raises:
        DataMissing: there is no such checkpoint file.
        UserError: the data of a suite named here are not there, or nothing can be measured; an argument contradicts the model,
            the class list or the profile; ``name``, or ``mean`` and ``std``, are needed; a suite named here cannot measure the
            model; the model's outputs do not fit the classes, or depend on chance or on the other images of a batch.
    """
    from harness.backbones.loaded import ClassifierSpec
    from harness.plan.model import Selection
    from harness.plan.profile import load_profile
    from harness.plan.profile_choice import choose_profile
    from harness.results.subject import Wishes, prepared
    from harness.run.devices import choose_device
    from harness.run.facts import found_in
    from harness.run.inline import InlineExecutor
    from harness.run.session import run
    from harness.store.artifacts import Store

    arguments.known("device", device, DEVICES)
    arguments.known("stale", stale, ("stop", "reuse", "redo"))
    classes, arch, name = (arguments.text(*one) for one in (("classes", classes), ("arch", arch), ("name", name)))
    classes = classes or (model.classes if isinstance(model, ClassifierSpec) else "") or "imagenet1k"
    profile, wanted, roots = (
        arguments.text("profile", profile),
        arguments.listed("suites", suites),
        arguments.folders(data),
    )
    place = Store(Path(arguments.text("store", store) or default_store()).expanduser().resolve())
    feed = arguments.feed(mean, std, image_size, crop, interpolation=interpolation, precision=precision)
    if device == "cuda":
        choose_device(device)  # also where the result is in the store
    chosen, note = choose_profile(profile, "a model", classes, roots)
    sized = load_profile(chosen, arguments.assignments(settings), roots).profile
    wishes = Wishes(classes, feed, arch, name, weights, arguments.text("head", head))
    with prepared(model, sized, place.root, wishes) as subject:
        subject = replace(subject, notes=(*filter(None, [note]), *subject.notes))
        selection = Selection(sized, suites=wanted, external=subject)
        found, _ = run(
            selection,
            place,
            stale=stale,
            device="cpu" if device == "auto" and subject.arch == "callable" else device,
            quiet=not (sys.stderr.isatty() if progress is None else progress),
            announce=_announce,
            executor=InlineExecutor,
        )
    for finding in found_in(place, found.plan):
        print(f"warning: {finding}", file=sys.stderr)
    cells = [cell for cell in found.plan.cells.values() if cell.kind == "evaluate"]
    not_run = tuple(f"{entry.what}: {entry.reason}" for entry in found.plan.not_run)
    return Results(cells[0].params["subject"]["generator"], place.root, frozenset(cell.key for cell in cells), not_run)


def _announce(plan: Plan) -> None:
    """Print how the model is fed and what looks wrong, and refuse what was asked for by name and cannot be done.

    Raises:
        UserError: data are missing, a suite cannot measure the model, or there is nothing to do.
    """
    for text in (*(f"note: {note}" for note in plan.notes), *(f"warning: {warning}" for warning in plan.warnings)):
        print(text, file=sys.stderr)
    refused = [entry for entry in plan.not_run if entry.asked]
    if refused or not any(cell.kind == "evaluate" for cell in plan.cells.values()):
        what = ", ".join(dict.fromkeys(entry.what for entry in refused))
        raise UserError(
            f"{what} cannot be measured" if what else "nothing can be measured",
            "; ".join(dict.fromkeys(entry.reason for entry in refused or plan.not_run)) or "no suite was named",
            'give data={"NAME": FOLDER} if data are missing, and leave out suites that cannot measure this model',
        )
    for entry in plan.not_run:
        print(f"not run: {entry.what}: {entry.reason}", file=sys.stderr)
