"""The command ``calibrate``: plant known bias, train, measure, and test whether the metrics respond."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import (
    DEFAULT_STORE,
    ProfileOption,
    QuietOption,
    SetOption,
    SlotsOption,
    StoreOption,
)
from harness.core.errors import UserError

FLAWS = ("duplicates", "modes", "labels", "tint")
"""Flaws of the data set, to which the suite images must respond; no backbone is trained for them."""
CAUSES = ("texture", "scene", "light", "weather", "size", "position", "all", *FLAWS)
VARIED = ("size", "position")
"""Causes that only their own worlds vary: the response to them begins with a world of their own."""
SUITES = "texture-bias,context-bias,background-bias,cue-suppression,object-bias"
IMAGES = "image?"
"""The suite images alone, as a pattern: its plain name is that of a group, too."""
VALIDATION = "coloured-val"
"""Embedded validation images whose textures have the colours of the worlds' own: in-domain for their networks."""
TRAINING = "coloured-train"
"""Embedded training images that stand for the real ones: the balanced world, so that its own images differ from them in nothing."""
DOSES = "0,0.16,0.32,0.48,0.64,0.8"


def calibrate(
    causes: Annotated[
        str,
        typer.Option(
            "--causes",
            metavar="NAMES",
            help="Causes, each planted alone; all: the first four together; the last four are flaws of the images.",
        ),
    ] = ",".join(CAUSES),
    doses: Annotated[
        str, typer.Option("--doses", metavar="NUMBERS", help="Planted correlations from 0 to 1; 0 is always included.")
    ] = DOSES,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Dataset and training seeds of each world.")
    ] = 3,
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="NAME", help="Backbone of the profile; default: the first.")
    ] = "",
    profile: ProfileOption = "micro",
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = [],
    slots: SlotsOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Measure known, planted bias: do the metrics respond?

    Tests whether TI, CB_avg, BG_Gap, the secondary metrics and those of the images rise with the bias planted in the embedded
    world, each with its own cause only.
    Takes hours; may be interrupted and continued.
    """
    from harness.cli.summary import print_summary
    from harness.plan.model import Selection
    from harness.plan.profile import load_profile
    from harness.results.leaderboard import board
    from harness.run import session as running
    from harness.store.artifacts import Store

    data = (f"data.in-val.writer_name={VALIDATION}", f"data.train.writer_name={TRAINING}")
    resolved = load_profile(profile, [*data, *set_], []).profile
    _embedded(profile, resolved.classes)
    chosen = backbone or next(iter(resolved.backbones))
    names = worlds(causes.split(","), doses.split(","))
    place, failed = Store(store.resolve()), False
    keys: set[str] = set()
    for suites, group in _groups(names):
        selection = Selection(resolved, ",".join(group), suites, chosen, seeds, "all")
        found, summary = running.run(selection, place, slots=slots, quiet=quiet)
        print_summary(found, summary, quiet)
        keys |= {key for key, cell in found.plan.cells.items() if cell.kind == "evaluate"}
        failed |= summary is not None and bool(summary.failures)
    board().calibrate(place.root, frozenset(keys))
    if failed:
        raise typer.Exit(1)


def _groups(names: list[str]) -> list[tuple[str, list[str]]]:
    """Return suites and the worlds that they measure.

    Networks are trained in worlds of planted bias. Images are measured in worlds of planted flaws; the strongest biases answer for
    their cross-talk, since they cost as much as all flaws together.
    """
    cause_of = {name: name.partition(":")[2].partition("=")[0] for name in names}
    flawed = [name for name in names if cause_of[name] in FLAWS]
    biased = [name for name in names if name not in flawed]
    strongest = list({cause_of[name]: name for name in biased}.values())
    groups = [(SUITES, biased)] if len(biased) > 1 else []
    return [*groups, (IMAGES, list(dict.fromkeys([biased[0], *flawed, *strongest])))] if flawed else groups


def _embedded(profile: str, classes: str) -> None:
    """Raise if a profile has classes that the embedded world cannot render."""
    from harness.core.classes import load_classes
    from harness.microworld.causes import SHAPES

    strangers = [name for name in load_classes(classes).names if name not in SHAPES]
    if strangers:
        raise UserError(
            f"profile {profile} cannot be calibrated",
            f"bias is planted in renders of the embedded world, which has no class {strangers[0]!r}",
            "leave out --profile, or choose a profile with the embedded world's classes",
        )


def worlds(causes: list[str], doses: list[str]) -> list[str]:
    """Generators of all worlds, the balanced one first.

    Raises:
        UserError: an unknown cause, or a dose outside [0, 1].
    """
    chosen = [cause.strip() for cause in causes if cause.strip()]
    try:
        steps = sorted({float(dose) for dose in doses} - {0.0})
    except ValueError as error:
        raise UserError(
            f"--doses {','.join(doses)}", str(error), f"use numbers from 0 to 1, such as {DOSES}"
        ) from error
    unknown = [cause for cause in chosen if cause not in CAUSES]
    if unknown or not chosen or not steps or not 0 < steps[0] <= steps[-1] <= 1:
        raise UserError(
            f"cannot calibrate causes {','.join(causes)} at doses {','.join(doses)}",
            f"causes are {', '.join(CAUSES)}; doses lie from 0 to 1, one of them above 0",
            f"for example --causes texture,scene --doses {DOSES}",
        )
    own_start = [f"world:{cause}=0" for cause in chosen if cause in VARIED]
    return ["world:all=0", *own_start, *(f"world:{cause}={dose:g}" for dose in steps for cause in chosen)]
