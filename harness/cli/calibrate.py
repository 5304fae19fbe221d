"""The command ``calibrate``: plant known bias, train, measure, and ask whether the metrics notice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.core.errors import UserError

CAUSES = ("texture", "scene", "light", "weather", "all")
DOSES = "0,0.16,0.32,0.48,0.64,0.8"


def calibrate(
    causes: Annotated[
        str, typer.Option("--causes", help="Causes, each planted alone; all: every one together.")
    ] = ",".join(CAUSES),
    doses: Annotated[
        str, typer.Option("--doses", help="Planted correlations from 0 to 1; 0 is always among them.")
    ] = DOSES,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Dataset and training seeds of each world.")] = 3,
    backbone: Annotated[str, typer.Option("--backbone", help="Backbone of the profile; default: its first.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="A profile of the embedded world.")] = "micro",
    store: Annotated[Path, typer.Option("--store", envvar="HARNESS_STORE", help="Folder of the artifacts.")] = Path(
        "store"
    ),
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE as for run; may be repeated.")] = None,
    slots: Annotated[int, typer.Option(help="Workers; default: one per GPU or processor.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Do TI, CB_avg and BG_Gap rise with the bias that was planted, and only with their own? Hours; may be interrupted."""
    from harness.plan.model import Selection
    from harness.plan.profile import load_profile
    from harness.results.leaderboard import board
    from harness.run import session as running
    from harness.store.artifacts import Store

    resolved = load_profile(profile, set_ or [], []).profile
    _embedded(profile, resolved.classes)
    chosen = backbone or next(iter(resolved.backbones))
    names = worlds(causes.split(","), doses.split(","))
    place = Store(store.resolve())
    selection = Selection(resolved, ",".join(names), "texture-bias,context-bias,background-bias", chosen, seeds, "all")
    found, report = running.run(selection, place, slots=slots, quiet=quiet)
    if report is not None and not quiet:
        costs = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in report.cpu_seconds.items())
        print(f"{report.done} cells in {report.wall_seconds:.0f} s; CPU-seconds: {costs}", file=sys.stderr)
    for failure in report.failures if report is not None else ():
        print(f"failed: {failure.cell.kind} {failure.cell.label}: {failure.what}; log: {failure.log}", file=sys.stderr)
    keys = frozenset(key for key, cell in found.plan.cells.items() if cell.kind == "evaluate")
    board().calibrate(place.root, keys)
    if report is not None and report.failures:
        raise typer.Exit(1)


def _embedded(profile: str, classes: str) -> None:
    """Raise where a profile's classes are not those of the embedded world."""
    from harness.core.classes import load_classes
    from harness.microworld.causes import SHAPES

    strangers = [name for name in load_classes(classes).names if name not in SHAPES]
    if strangers:
        raise UserError(
            f"profile {profile} cannot be calibrated",
            f"bias is planted in renders of the embedded world, which show no {strangers[0]!r}",
            "leave out --profile, or give a profile with the embedded world's classes",
        )


def worlds(causes: list[str], doses: list[str]) -> list[str]:
    """Return the generators of all worlds, the balanced one first.

    Raises:
        UserError: an unknown cause, or a dose that is none.
    """
    chosen = [cause.strip() for cause in causes if cause.strip()]
    try:
        steps = sorted({float(dose) for dose in doses} - {0.0})
    except ValueError as error:
        raise UserError(
            f"--doses {','.join(doses)}", str(error), f"give numbers from 0 to 1, such as {DOSES}"
        ) from error
    unknown = [cause for cause in chosen if cause not in CAUSES]
    if unknown or not chosen or not steps or not 0 < steps[0] <= steps[-1] <= 1:
        raise UserError(
            f"cannot calibrate causes {','.join(causes)} at doses {','.join(doses)}",
            f"causes are {', '.join(CAUSES)}; doses lie from 0 to 1, one of them above 0",
            f"e.g. --causes texture,scene --doses {DOSES}",
        )
    return ["world:all=0", *(f"world:{cause}={dose:g}" for dose in steps for cause in chosen)]
