"""The command line: ``python -m harness run | plan | list | describe | doctor``, and those about results."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from harness.cli.calibrate import calibrate
from harness.cli.options import (
    DEFAULT_STORE,
    DataOption,
    JsonOption,
    ProfileOption,
    SetOption,
    StaleOption,
    StoreOption,
    selects,
)
from harness.cli.results import add_commands
from harness.core.errors import DataMissing, UserError
from harness.run.session import Stale
from harness.store.artifacts import Store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A benchmark and evaluation harness for the bias of training data.",
)

_EXAMPLES = "Examples:\n\n  python -m harness {0}\n\n  python -m harness {1}"


@app.command(
    epilog=_EXAMPLES.format("run --generator lbgen --suite all", "run --generator real,sd15 --suite bias --seeds 3")
)
@selects
def run(
    selection: Any,
    store: StoreOption = DEFAULT_STORE,
    stale: StaleOption = "stop",
    slots: Annotated[int, typer.Option(help="Workers; default: one per GPU or processor.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Make, train, measure and rank. Run it again to go on after an interruption."""
    from harness.run import session as running
    from harness.run.facts import found_in

    if stale not in ("stop", "reuse", "redo"):
        raise UserError(f"unknown --stale {stale!r}", "it is one of stop, reuse, redo", "correct it")
    place = Store(store.resolve())
    found, report = running.run(
        selection, place, stale=cast(Stale, stale), slots=slots, device=device, quiet=quiet, announce=_announce
    )
    _tell(found, report, quiet)
    for finding in found_in(place, found.plan):
        print(f"warning: {finding}", file=sys.stderr)
    _board(place, found)
    if report is not None and report.failures:
        raise typer.Exit(1)
    if any(entry.asked for entry in found.plan.not_run):
        raise typer.Exit(DataMissing.code)


def _announce(plan: Any) -> None:
    """Print what is run otherwise and what looks wrong, before hours are spent on it."""
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _tell(found: Any, report: Any, quiet: bool) -> None:
    out = sys.stderr
    for entry in found.plan.not_run:
        print(f"not run: {entry.what}: {entry.reason}", file=out)
    if report is None:
        done = f"nothing to do: all {len(found.plan.cells)} cells are done"
        print(
            done if found.plan.cells else "nothing was run: no cell could be planned, see the reasons above", file=out
        )
        return
    if report.failures:
        print(f"\n{len(report.failures)} cells did not finish:", file=out)
        for failure in report.failures:
            print(
                f"  {failure.cell.kind} {failure.cell.label}\n    what: {failure.what}\n     why: {failure.why}\n"
                f"     fix: {failure.fix}\n     log: {failure.log}",
                file=out,
            )
    if not quiet:
        costs = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in report.cpu_seconds.items())
        print(f"{report.done} cells in {report.wall_seconds:.0f} s; CPU-seconds: {costs}", file=out)


def _board(store: Store, found: Any) -> None:
    from harness.results.leaderboard import board

    asked = frozenset(key for key, cell in found.plan.cells.items() if cell.kind == "evaluate")
    board().show(store.root, asked)


@app.command(epilog=_EXAMPLES.format("plan --generator lbgen", "plan --generator real --profile in100 --json"))
@selects
def plan(selection: Any, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show the cells of a run, what is done, the time and disk it takes, and what is missing."""
    from harness.cli.plan import show_plan

    show_plan(selection, Store(store.resolve()), as_json)


@app.command("list", epilog=_EXAMPLES.format("list", "list suites --json"))
def list_(
    what: Annotated[str, typer.Argument(help="generators, suites, profiles or classes; default: everything.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List generators, suites, profiles and class lists, and plugins that are broken."""
    from harness.cli.describe import show_list

    show_list(what, as_json)


@app.command(epilog=_EXAMPLES.format("describe lbgen", "describe texture-bias"))
def describe(
    name: Annotated[str, typer.Argument(help="A generator, suite or profile.")], as_json: JsonOption = False
) -> None:
    """Explain a generator, suite or profile: what it is, formula, conventions, settings, citation."""
    from harness.cli.describe import show_card

    show_card(name, as_json)


@app.command(epilog=_EXAMPLES.format("check sd15 --images 1", "check texture-bias --json"))
def check(
    name: Annotated[str, typer.Argument(help="A generator or suite, a plugin's too.")],
    profile: ProfileOption = "micro",
    data: DataOption = [],
    set_: SetOption = [],
    images: Annotated[int, typer.Option("--images", min=1, help="Images of each class.")] = 2,
    items: Annotated[int, typer.Option("--items", min=1, help="Evaluations of a suite that are checked.")] = 2,
    generator: Annotated[
        str, typer.Option("--with", help="Generator whose images a suite of images is checked on.")
    ] = "real",
    keep: Annotated[Path | None, typer.Option("--keep", help="Keep the artifacts in this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on a generator or suite: does it keep its contract?"""
    from harness.conformance.run import check as run_check

    if not run_check(
        name,
        profile=profile,
        overrides=set_,
        data=data,
        images=images,
        items=items,
        generator=generator,
        as_json=as_json,
        keep=keep.resolve() if keep else None,
    ):
        raise typer.Exit(1)


@app.command(epilog=_EXAMPLES.format("doctor", "doctor --profile in100 --data train=/data/imagenet100"))
def doctor(
    profile: ProfileOption = "micro",
    store: StoreOption = DEFAULT_STORE,
    data: DataOption = [],
    set_: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Check this machine, the installation and the data sets; says what to do about each finding."""
    from harness.cli.doctor import show_checks

    if not show_checks(profile, store.resolve(), data, set_, as_json=as_json):
        raise typer.Exit(1)


add_commands(app)
app.command(epilog=_EXAMPLES.format("calibrate", "calibrate --causes texture,scene --doses 0,0.4,0.8 --seeds 1"))(
    calibrate
)


def main() -> None:
    """Run the command line; a user error is three lines and an exit code, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the same bytes whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except UserError as error:
        if debug:
            raise
        print(error, file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def as_text(value: Any) -> str:
    """Return sorted JSON for a person or a program."""
    return json.dumps(value, indent=1, sort_keys=True)
