"""The command line: ``python -m harness`` and the installed command ``harness``."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from harness.cli import dataset, results, store
from harness.cli.calibrate import calibrate
from harness.cli.fetch import fetch
from harness.cli.options import (
    DEFAULT_STORE,
    DataOption,
    DeviceOption,
    ExecutorOption,
    JsonOption,
    OfflineOption,
    OneStore,
    ProfileOption,
    QuietOption,
    SetOption,
    SlotsOption,
    StaleOption,
    StoreOption,
    examples,
    selects,
)
from harness.core.disk import explain, flush_output, lenient
from harness.core.errors import DataMissing, DiskFailed, UserError
from harness.core.memory import explain_memory
from harness.core.names import plain
from harness.core.offline import explained
from harness.store.artifacts import Store

if TYPE_CHECKING:
    from harness.run.session import Stale

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell reports it: 128 + SIGINT."""

INTERRUPTION = "interrupted: finished work is kept; run the same command again to continue"

SMALL_SUMS = {"leaderboard", "compare", "gate"}
"""Commands that compute with a few numbers: numpy's threads would take a tenth of a second to start and wait for work."""


class Commands(TyperGroup):
    """The commands; Ctrl-C ends each of them with a message and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(INTERRUPTION, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 success, 1 some cells failed, 2 usage, 3 gate failed, 4 data missing, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from harness.core.provenance import version_line

        print(version_line())
        raise typer.Exit()


@app.callback()
def _harness(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print versions and exit.")
    ] = False,
) -> None:
    """A benchmark and evaluation harness for the bias of training data."""


@app.command(
    epilog=examples("run --generator lbgen --suite all", "run --generator real,sd15 --suite '*-bias' --seeds 3")
)
@selects
def run(
    selection: Any,
    store: StoreOption = DEFAULT_STORE,
    stale: StaleOption = "stop",
    slots: SlotsOption = 0,
    device: DeviceOption = "auto",
    executor: ExecutorOption = "",
    offline: OfflineOption = False,
    quiet: QuietOption = False,
) -> None:
    """Generate, train, evaluate and rank.

    After an interruption the same command continues where it stopped. `status` shows progress from another terminal.
    """
    from harness.cli.summary import print_plan_notes, print_summary
    from harness.run import session as running
    from harness.run.facts import found_in

    if stale not in ("stop", "reuse", "redo"):
        raise UserError(f"unknown --stale {stale!r}", "choices: stop, reuse, redo", "correct --stale")
    place = Store(store.resolve())
    if device == "auto" and selection.external is not None and selection.external.arch == "callable":
        device = "cpu"  # it gets its images where its author may expect them
    for last in (False, True):
        found, report = running.run(
            selection, place, stale=cast("Stale", stale), slots=slots, device=device, quiet=quiet, announce=print_plan_notes,
            executor=_launch(executor, selection),
        )  # fmt: skip
        print_summary(found, report, quiet)
        for finding in found_in(place, found.plan):
            print(f"warning: {finding}", file=sys.stderr)
        try:
            _print_board(place, found)
            break
        # The board reads every byte of the measurements; looking at what is done does not.
        except UserError as error:
            if last or isinstance(error, DiskFailed) or not running.set_aside_damaged(found, place):
                raise
    unfinished = report is not None and (report.failures or report.unsaved)
    if unfinished or any(entry.failed for entry in found.plan.not_run):
        raise typer.Exit(1)
    if not found.plan.cells or any(entry.asked for entry in found.plan.not_run):
        raise typer.Exit(DataMissing.code)


def _launch(name: str, selection: Any) -> Any:
    """Return an executor with its settings; None stands for this machine's workers."""
    if not name:
        return None
    from harness.run.executors import launch

    return launch(name, selection.profile)


def _print_board(store: Store, found: Any) -> None:
    from harness.results.leaderboard import board

    asked = frozenset(key for key, cell in found.plan.cells.items() if cell.kind == "evaluate")
    board().show(store.root, asked)


@app.command(epilog=examples("plan --generator lbgen", "plan --generator real --profile in100 --json"))
@selects
def plan(
    selection: Any,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    executor: ExecutorOption = "",
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do, its time and disk use.

    Counts the cells of a run, those already done, and lists what is missing. With `--executor`, shows what it would ask for.
    """
    from harness.cli.plan import show_plan

    if not show_plan(selection, Store(store.resolve()), as_json, _launch(executor, selection), device):
        raise typer.Exit(1)


@app.command(epilog=examples("status", "status my-store --json"))
def status(folder: OneStore = None, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show what a run in a store is doing now.

    Reads STORE/status.json, which a run updates every few seconds; works from another terminal, and from another machine
    that shares the folder. Exit codes: 0 running or finished, 1 finished with failures, interrupted or dead, 4 no run is
    recorded in this store.
    """
    from harness.cli.status import show_status

    code = show_status(folder or store, as_json)
    if code:
        raise typer.Exit(code)


@app.command("list", epilog=examples("list", "list suites --json"))
def list_(
    what: Annotated[
        str, typer.Argument(metavar="KIND", help="generators, suites, profiles or classes; default: everything.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List generators, suites, profiles and class lists.

    Plugins that cannot be loaded are listed with the reason.
    """
    from harness.cli.describe import show_list

    show_list(what, as_json)


@app.command(epilog=examples("describe lbgen", "describe TI"))
def describe(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A generator, suite, metric, group or profile, such as lbgen or TI.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Explain a generator, suite, metric or profile.

    Prints what it is, formula, conventions, settings and citation.
    """
    from harness.cli.describe import show_card

    show_card(name, as_json)


@app.command(epilog=examples("check sd15 --images 1", "check texture-bias --json"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A generator or suite, built-in or plugin.")],
    profile: ProfileOption = "micro",
    data: DataOption = [],
    set_: SetOption = [],
    images: Annotated[int, typer.Option("--images", metavar="N", min=1, help="Images per class.")] = 2,
    items: Annotated[int, typer.Option("--items", metavar="N", min=1, help="Evaluations of a suite to check.")] = 2,
    generator: Annotated[
        str, typer.Option("--with", metavar="NAME", help="Generator whose images are used to check a suite.")
    ] = "real",
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the artifacts in this folder.")
    ] = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that a generator or suite meets its contract."""
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


@app.command(epilog=examples("doctor", "doctor --profile in100 --data train=/data/imagenet100"))
def doctor(
    profile: ProfileOption = "micro",
    store: StoreOption = DEFAULT_STORE,
    data: DataOption = [],
    set_: SetOption = [],
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check the machine, the installation and the data sets.

    Each finding comes with what to do about it.
    """
    from harness.cli.doctor import show_checks

    if not show_checks(profile, store.resolve(), data, set_, as_json=as_json):
        raise typer.Exit(1)


app.command(
    epilog=examples(
        "fetch --profile in100 --generator lbgen",
        "fetch --profile in100 --generator lbgen --download --to /scratch/models",
    )
)(fetch)
results.add_commands(app)
app.add_typer(store.app, name="store")
app.add_typer(dataset.app, name="dataset")
app.command(epilog=examples("calibrate", "calibrate --causes texture --doses 0,0.4,0.8 --seeds 1"))(calibrate)


def main() -> None:
    """Run the command line; a user error is three lines and an exit code, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the same bytes whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = lenient(sys.stderr.fileno(), sys.stderr.encoding)
    if set(sys.argv[1:2]) & SMALL_SUMS:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        try:
            app()
        finally:
            flush_output()
    except KeyboardInterrupt:
        print(INTERRUPTION, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        explains = explained(error) or explain_memory(error)
        found = explains or (explain("standard output", error) if isinstance(error, OSError) else error)
        if debug or not isinstance(found, UserError):
            raise
        print(plain(str(found)), file=sys.stderr)
        sys.exit(found.code)
