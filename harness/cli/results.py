"""The commands about results: ``leaderboard | compare | gate | rescore | verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.core.errors import DataMissing, UserError
from harness.core.names import names_in

DEFAULT_STORE = Path("store")
GATE_FAILED = 3
_EXAMPLES = "Examples:\n\n  python -m harness {0}\n\n  python -m harness {1}"

Places = Annotated[list[Path] | None, typer.Argument(help="Stores or baseline folders, any number; default: ./store.")]
StoreOption = Annotated[Path, typer.Option("--store", envvar="HARNESS_STORE", help="Folder of the artifacts.")]
OneStore = Annotated[Path | None, typer.Argument(help="Store; default: ./store.")]
OnePlace = Annotated[Path | None, typer.Argument(help="Store or baseline folder; default: ./store.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    add = app.command
    add(
        epilog=_EXAMPLES.format("leaderboard --format long", "leaderboard one-store another --format html > board.html")
    )(leaderboard)
    add(epilog=_EXAMPLES.format("compare lbgen sd15", "compare lbgen@new-store lbgen@old-store --format csv"))(compare)
    add(epilog=_EXAMPLES.format("gate --baseline micro", 'gate --baseline ci/baseline --update --reason "new recipe"'))(
        gate
    )
    add(epilog=_EXAMPLES.format("rescore", "rescore my-store"))(rescore)
    add(epilog=_EXAMPLES.format("verify", "verify my-store"))(verify)


def leaderboard(
    folders: Places = None,
    style: Annotated[
        str, typer.Option("--format", help="csv, md, latex, html; one line per value: long, json, parquet.")
    ] = "md",
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file, not to standard output.")] = None,
    store: StoreOption = DEFAULT_STORE,
    recorded: Annotated[
        bool, typer.Option("--recorded/--no-recorded", help="Include the rows shipped with the project.")
    ] = True,
    published: Annotated[
        bool,
        typer.Option("--published/--no-published", help="Add the paper's tables (always there beside in100 and in1k)."),
    ] = False,
) -> None:
    """Write the leaderboard to standard output or to a file; identical inputs give identical bytes."""
    from harness.core.files import write_bytes
    from harness.results.leaderboard import board

    for folder in folders or ():
        if not folder.exists():
            raise DataMissing(f"{folder} does not exist", "no store or baseline is there", "correct the path")
    if style == "parquet" and output is None and sys.stdout.isatty():
        raise UserError(
            "parquet is not text", "standard output is a terminal", "add --output FILE, or redirect standard output"
        )
    content = board().render(folders or [store], style, recorded, published)
    if output is not None:
        write_bytes(output, content if isinstance(content, bytes) else content.encode())
    elif isinstance(content, bytes):
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content)


def compare(
    first: Annotated[
        str, typer.Argument(help="A name as the board prints it, e.g. lbgen or 'lbgen (epochs 40)'; NAME@STORE.")
    ],
    second: Annotated[str, typer.Argument(help="What it is compared with.")],
    store: StoreOption = DEFAULT_STORE,
    style: Annotated[str, typer.Option("--format", help="csv or md.")] = "md",
) -> None:
    """Compare two systems on their common test items: difference, interval, better / worse / not significantly different."""
    from harness.results.leaderboard import board

    sys.stdout.write(board().compare(first, second, [store], style))


def gate(
    folders: Places = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="Folder of the baseline, or the bare name of a shipped one.")
    ] = "micro",
    store: StoreOption = DEFAULT_STORE,
    generator: Annotated[
        str, typer.Option("--generator", help="Only these generators of the baseline, comma separated; default: all.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict/--no-strict", help="Inconclusive fails, too.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline anew from these results.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="With --update: why the baseline may change.")] = "",
    metrics: Annotated[
        str, typer.Option("--metrics", help="With --update: gated columns, comma separated; default: all.")
    ] = "",
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Also write the summary to this file.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
) -> None:
    """Has a change made a number worse? Exit 0: no, 3: yes, 4: there is no baseline (a candidate is written)."""
    from harness.core.files import write_text
    from harness.core.provenance import code_version
    from harness.results.leaderboard import board

    places, door = folders or [store], board()
    wanted = names_in(metrics)
    if update:
        door.write_baseline(Path(baseline), places, reason, wanted, dict(code_version()))
        print(f"baseline written to {baseline}: review baseline.json and commit the folder", file=sys.stderr)
        return
    if reason or wanted:
        raise UserError(
            "--reason and --metrics go with --update", "a gate only compares", "add --update, or leave them out"
        )
    found = door.find_baseline(baseline)
    if found is None:
        name = Path(baseline).name
        candidate = Path(baseline).with_name(f"{name}.candidate")
        door.write_baseline(candidate, places, "candidate, not reviewed", wanted, dict(code_version()))
        raise DataMissing(f"there is no baseline in {baseline}", f"a candidate was written to {candidate}",
                          f"review it and rename it to {name}, or give another --baseline")  # fmt: skip
    exit_code, summary, cases = door.gate(places, found, strict, generator)
    for path, text in ((markdown, summary), (junit, cases)):
        if path is not None:
            write_text(path, text)
    sys.stdout.write(summary)
    if exit_code:
        raise typer.Exit(GATE_FAILED)


def rescore(
    folder: OneStore = None,
    store: StoreOption = DEFAULT_STORE,
    profile: Annotated[str, typer.Option("--profile", help="Profile with the dataset cards of old results.")] = "",
) -> None:
    """Recompute every metric from the stored rows; no model, no data."""
    from harness.results.rescore import rescore as run

    found = run(folder or store, profile)
    for one in found:
        if one.outcome != "unchanged":
            print(f"{one.folder.name} ({one.label}): {one.outcome}")
    changed, failed = sum(one.changed for one in found), sum(one.failed for one in found)
    print(f"{len(found) - failed} evaluations rescored, {changed} with other numbers than before", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def verify(folder: OnePlace = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Check every byte of a store's artifacts, or of a baseline, and name what was damaged or edited."""
    from harness.results.leaderboard import board
    from harness.results.rescore import verify as check

    place = folder or store
    if not place.is_dir():
        raise DataMissing(f"{place} does not exist", "no such folder", "give the folder of a store")
    problems = board().verify(place)
    if problems is None:
        problems = check(place)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("every byte is as it was written", file=sys.stderr)
