"""The commands about results: ``leaderboard | compare | gate | rescore | verify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DEFAULT_STORE, OneStore, StoreOption, examples
from harness.core.errors import DataMissing, UserError
from harness.core.names import names_in

GATE_FAILED = 3
SPELLED = {"markdown": "md"}
"""Formats that have another name."""

Places = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PLACES", help="Stores, baseline folders or files of records, any number; default: ./store."
    ),
]
OnePlace = Annotated[
    Path | None,
    typer.Argument(metavar="PLACE", help="Store, baseline folder or file of records; default: ./store."),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    add = app.command
    add(epilog=examples("leaderboard --format csv", "leaderboard one-store another --format html > board.html"))(
        leaderboard
    )
    add(epilog=examples("compare lbgen sd15", "compare lbgen@new-store lbgen@old-store --format csv"))(compare)
    add(epilog=examples("gate --baseline micro", 'gate --baseline ci/base --update --reason "new recipe"'))(gate)
    add(epilog=examples("rescore", "rescore my-store"))(rescore)
    add(epilog=examples("verify my-store", "verify my-rows.jsonl"))(verify)


def leaderboard(
    folders: Places = None,
    style: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="csv, md (or markdown), latex or html; one line per value: long, json or parquet; one file per row: "
            "every-eval-ever or eval-results (Hugging Face); one record per line, to submit them: records.",
        ),
    ] = "md",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help="Write to this file, or this folder where a format has one file per row; default: standard output.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    recorded: Annotated[
        bool, typer.Option("--recorded/--no-recorded", help="Include the rows shipped with the project.")
    ] = True,
    published: Annotated[
        bool,
        typer.Option("--published/--no-published", help="Add the paper's tables (always added for in100 and in1k)."),
    ] = False,
    columns: Annotated[
        str,
        typer.Option(
            "--columns", metavar="NAME", help="main, bias or images (secondary metrics in groups of their own), or all."
        ),
    ] = "main",
) -> None:
    """Write the leaderboard in one of several formats.

    Writes to standard output, a file or a folder; identical inputs give identical bytes. (every-eval-ever asks for the time at
    which it was written: SOURCE_DATE_EPOCH fixes it.)
    """
    from harness.results.leaderboard import board

    for folder in folders or ():
        if not folder.exists():
            raise DataMissing(f"{folder} does not exist", "no such folder", "correct the path")
    if style == "parquet" and output is None and sys.stdout.isatty():
        raise UserError(
            "parquet is not text", "standard output is a terminal", "add --output FILE, or redirect standard output"
        )
    content = board().render(folders or [store], SPELLED.get(style, style), recorded, published, columns)
    _name_older_scores(folders or [store])
    _write(content, output)


def _write(content: str | bytes | dict[str, str], output: Path | None) -> None:
    """Write a board to standard output, a file or a folder."""
    from harness.core.files import write_bytes

    if isinstance(content, dict) and output is not None:
        for name, text in content.items():
            write_bytes(output / name, text.encode())
        print(f"{len(content)} files written to {output}", file=sys.stderr)
        return
    if isinstance(content, dict):
        content = "".join(content.values())
    if output is not None:
        write_bytes(output, content if isinstance(content, bytes) else content.encode())
    elif isinstance(content, bytes):
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content)


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="FIRST",
            help="A name as printed on the leaderboard, such as lbgen or 'lbgen (epochs 40)'; or NAME@STORE.",
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The name to compare it with.")],
    store: StoreOption = DEFAULT_STORE,
    style: Annotated[str, typer.Option("--format", metavar="NAME", help="csv or md (or markdown).")] = "md",
) -> None:
    """Compare two systems on their common test items.

    Prints each difference with its interval, and whether it is significant: better, worse or not significantly different.
    """
    from harness.results.leaderboard import board

    content = board().compare(first, second, [store], SPELLED.get(style, style))
    _name_older_scores([store])
    sys.stdout.write(content)


def gate(
    folders: Places = None,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="FOLDER", help="Folder of the baseline, or the name of a shipped one.")
    ] = "micro",
    store: StoreOption = DEFAULT_STORE,
    generator: Annotated[
        str,
        typer.Option(
            "--generator", metavar="NAMES", help="Generators of the baseline to compare, comma separated; default: all."
        ),
    ] = "",
    strict: Annotated[bool, typer.Option("--strict/--no-strict", help="Inconclusive results fail, too.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Replace the baseline by these results.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="With --update: why the baseline may change.")
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="NAMES",
            help="With --update: columns to compare from now on, comma separated; default: all.",
        ),
    ] = "",
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Also write the summary to this file.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML to this file.")] = None,
) -> None:
    """Fail if results are worse than a baseline; for CI.

    Exit codes: 0 nothing is significantly worse, 3 something is, 4 there is no baseline (a candidate is written).
    """
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
            "--reason and --metrics need --update",
            "without it, a gate only compares",
            "add --update, or leave them out",
        )
    found = door.find_baseline(baseline)
    if found is None:
        name = Path(baseline).name
        candidate = Path(baseline).with_name(f"{name}.candidate")
        door.write_baseline(candidate, places, "candidate, not reviewed", wanted, dict(code_version()))
        raise DataMissing(f"there is no baseline in {baseline}", f"a candidate was written to {candidate}",
                          f"review it and rename it to {name}, or name another --baseline")  # fmt: skip
    exit_code, summary, cases = door.gate(places, found, strict, generator)
    _name_older_scores(places)
    sys.stdout.write(summary)
    for path, text in ((markdown, summary), (junit, cases)):
        if path is not None:
            write_text(path, text)
    if exit_code:
        raise typer.Exit(GATE_FAILED)


def rescore(
    folder: OneStore = None,
    store: StoreOption = DEFAULT_STORE,
    profile: Annotated[
        str, typer.Option("--profile", metavar="PROFILE", help="Profile with the dataset cards of old results.")
    ] = "",
) -> None:
    """Recompute every metric from the stored rows.

    Needs no model and no data.
    """
    from harness.results.rescore import rescore as run

    found = run(folder or store, profile)
    for one in found:
        if one.outcome != "unchanged":
            print(f"{one.folder.name} ({one.label}): {one.outcome}")
    changed, failed = sum(one.changed for one in found), sum(one.failed for one in found)
    print(f"{len(found) - failed} evaluations rescored, {changed} with changed numbers", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def verify(folder: OnePlace = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Check every byte of a store or a baseline, or a submission.

    Names what was damaged or edited; in a file of records (leaderboard --format records), what keeps it from the shipped board.
    """
    from harness.results.leaderboard import board
    from harness.results.rescore import verify as check

    place = folder or store
    if not place.exists():
        raise DataMissing(f"{place} does not exist", "no such folder", "name the folder of a store")
    problems = board().verify(place)
    if problems is None:
        problems = check(place)
    for problem in problems:
        print(problem)
    _name_older_scores([place])
    if problems:
        raise typer.Exit(1)
    fine = "every record can be shipped" if place.is_file() else "all files match their manifests"
    print(fine, file=sys.stderr)


def _name_older_scores(places: Sequence[Path]) -> None:
    """Print which stores hold scores of older code: `run` would score their rows again."""
    from harness.results.older import older_scores

    for line in older_scores(places):
        print(f"note: {line}", file=sys.stderr)
