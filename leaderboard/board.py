"""The leaderboard as the engine sees it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import DataMissing, ReadOnly, UserError
from harness.core.names import did_you_mean, names_in
from leaderboard import declared
from leaderboard.exports import to_csv, to_markdown
from leaderboard.rows import RowKey, give_way
from leaderboard.sources import BASELINE, WORLD, Entry, from_store, gather, recorded, shipped
from leaderboard.styles import EVERY_METRIC, RECORDS, every_metric, view_of
from leaderboard.tables import Table, build_tables

if TYPE_CHECKING:
    from leaderboard.exchange.card import Decode

CSV_NAME, MARKDOWN_NAME, CURVES_NAME = "leaderboard.csv", "leaderboard.md", "few-shot"
PUBLISHED_PROFILES = ("in1k", "in100")
"""Profiles whose numbers may be read beside the paper's."""

Run = tuple[Path, frozenset[str]]
"""A store, and the keys of some of its evaluations."""


class Board:
    """Prints and writes boards."""

    def __init__(self, declared: declared.Source = declared.none_declared) -> None:
        """Create the board.

        Args:
            declared: What the installed generators and suites declare.
        """
        self._declared = declared

    def show(self, store: Path, asked: frozenset[str]) -> None:
        """Write the store's board files, then print the rows of a run, and those of the generators that ship with recorded ones.

        The signs at their values are those of the whole board.
        """
        from harness.core.files import write_text

        own, shipped_rows = _exclude_calibration_worlds(from_store(store)), recorded()
        mine = [entry for entry in own if entry.record.key in asked]
        if not mine:
            return
        suites, beside = {entry.record.suite for entry in mine}, _recorded_rows_for(own, shipped_rows)
        whole = build_tables(own + beside)
        known = {entry.record.subject.generator for entry in shipped_rows}
        _print([table.part(keys, suites) for table in whole if (keys := _rows_to_print(table, asked, known))])
        try:
            write_text(store / CSV_NAME, to_csv(whole))
            write_text(store / MARKDOWN_NAME, self._markdown(whole, _with_published(own)))
            _write_curves(store, own, mine, beside)
        except ReadOnly as error:
            print(f"note: the leaderboard's files stay as they were: {error.what}: {error.why}", file=sys.stderr)
            return
        print(f"full leaderboard: {store / MARKDOWN_NAME} and {CSV_NAME}", file=sys.stderr)

    def render(
        self, places: Sequence[Path], style: str, with_recorded: bool, published: bool = False, columns: str = "main"
    ) -> str | bytes | dict[str, str]:
        """Return the board of stores and baseline folders, merged: bytes for ``parquet``, path to text for the formats of
        others, text for every other style.

        ``columns`` names a view (``leaderboard.views``); tidy styles and the formats of others hold every metric.

        Raises:
            UserError: an unknown style or view, a damaged record, or duplicates that disagree.
            DataMissing: there is nothing to show.
        """
        view = view_of(style, published, columns)
        mine, beside = self._entries(places, with_recorded and style != RECORDS)
        if style in EVERY_METRIC:
            return every_metric(style, mine + beside)
        tables = build_tables(mine + beside, view)
        published = published or _with_published(mine)
        if style == "html":
            return self._page(tables, places, published)
        if style == "latex":
            from leaderboard.latex import to_latex

            return to_latex(tables)
        return to_csv(tables) if style == "csv" else self._markdown(tables, published)

    def values(self, places: Sequence[Path], with_recorded: bool) -> list[dict[str, Any]]:
        """Return one line per value of the board, for a data frame: see ``leaderboard.long``.

        Raises:
            UserError: a damaged record, or duplicates that disagree.
            DataMissing: there is nothing to show.
        """
        from leaderboard.long import long_table

        mine, beside = self._entries(places, with_recorded)
        return long_table(mine + beside)

    def values_of(self, run: Run) -> list[dict[str, Any]]:
        """Return one line per value of some evaluations of a store, as ``values`` does of all."""
        from leaderboard.long import long_table

        return long_table(_evaluations(run))

    def compare_runs(self, first: Run, second: Run, names: tuple[str, str]) -> str:
        """Return the paired comparison of two groups of evaluations, each of one system in one profile, as CSV."""
        from leaderboard import compare

        (one,), (other,) = (build_tables(_evaluations(run), "all") for run in (first, second))
        return compare.to_csv(compare.compare(one, other, names))

    def _entries(self, places: Sequence[Path], with_recorded: bool) -> tuple[list[Entry], list[Entry]]:
        """Return the entries of some places, and the recorded ones beside them."""
        every = gather([place for place in places if place.exists() or len(places) > 1])
        mine = _exclude_calibration_worlds(every)
        if len(mine) < len(every):
            print(
                "calibration worlds are excluded from the leaderboard: see python -m harness calibrate", file=sys.stderr
            )
        beside = _recorded_rows_for(mine, recorded()) if with_recorded else []
        if not mine and not beside:
            raise DataMissing(
                f"no results in {', '.join(map(str, places))}",
                "no finished evaluation was found",
                "python -m harness run --generator lbgen, or give the folder of a store",
            )
        return mine, beside

    def _markdown(self, tables: list[Table], published: bool) -> str:
        sections = [declared.generators(tables, self._declared("generators"))]
        if published:
            from leaderboard.published import sections as published_sections

            sections += published_sections()
        return "\n".join([to_markdown(tables), *(section.markdown() for section in sections if section)])

    def _page(self, tables: list[Table], places: Sequence[Path], published: bool) -> str:
        """Return the HTML report, and name on standard error what damage leaves out of it."""
        from leaderboard.gallery import Gallery
        from leaderboard.report import to_html

        shown = Gallery(places)
        page = to_html(tables, shown, published, self._declared)
        for name in shown.left_out:
            print(f"left out of the page: {name}", file=sys.stderr)
        return page

    def compare(self, first: str, second: str, places: Sequence[Path], style: str) -> str:
        """Return the paired comparison of two systems.

        Raises:
            UserError: an unknown system or format.
        """
        from leaderboard import compare

        if style not in ("md", "csv"):
            raise UserError(f"unknown format {style!r}", "formats: csv, md", "use --format csv or --format md")
        if any("@" not in text for text in (first, second)) and all(_is_bare(place) for place in places):
            beside = shipped("micro")
            raise DataMissing(
                "; ".join(
                    f"no results in {place}" if place.exists() else f"{place} does not exist" for place in places
                ),
                "recorded rows can replace one of the two systems, not both, unless their folder is named",
                f"run the suites first, or name the folder of a store or baseline: compare {first}@{beside} {second}@{beside}",
            )
        found = compare.compare(*compare.systems((first, second), places), (first, second))
        return compare.to_markdown(found, (first, second)) if style == "md" else compare.to_csv(found)

    def gate(self, places: Sequence[Path], baseline: Path, strict: bool, only: str = "") -> tuple[int, str, str]:
        """Return exit code, Markdown summary and JUnit XML of a candidate against a baseline.

        ``only`` is one name as the board prints it, or several with commas between them; empty for all generators.

        Raises:
            UserError: a damaged baseline or store, or a generator the baseline does not hold.
            DataMissing: the candidate has no results.
        """
        from leaderboard import gate
        from leaderboard.baseline import gated
        from leaderboard.sources import from_baseline, read_head

        head = read_head(baseline)
        old = gated(from_baseline(baseline), head["gated"])
        known = sorted({name for one in old for name in (one.key.generator, one.key.label)})
        generators = [only] if only in known else names_in(only)
        unknown = sorted(set(generators) - set(known))
        if unknown:
            raise UserError(f"the baseline has no {', '.join(unknown)}", f"it holds {', '.join(known)}",
                            f"{did_you_mean(unknown[0], known)}correct --generator")  # fmt: skip
        old = [one for one in old if not generators or {one.key.generator, one.key.label} & {*generators}]
        report = gate.decide(old, gated(_candidate(places), ()), head)
        return report.exit_code(strict), gate.to_markdown(report), gate.to_junit(report, strict)

    def find_baseline(self, name: str) -> Path | None:
        """Return the baseline in a folder, or None; a bare name that is no folder here may be one shipped with the project."""
        folder = Path(name)
        place = folder if folder.exists() or {os.sep, os.altsep} & {*name} else shipped(name)
        return place if (place / BASELINE).is_file() else None

    def verify(self, folder: Path) -> list[str] | None:
        """Return what is damaged in a baseline folder or wrong in a file of records, or None where the folder is no baseline."""
        from leaderboard.baseline import gated
        from leaderboard.sources import from_baseline, read_head

        if folder.is_file():
            from leaderboard.exchange.submission import problems

            return problems(folder, self._declared("suites"), recorded())
        if not (folder / BASELINE).is_file():
            return None
        try:
            gated(from_baseline(folder), read_head(folder)["gated"])
        except UserError as error:
            return [f"{error.what}: {error.why}"]
        return []

    def write_baseline(
        self, folder: Path, places: Sequence[Path], reason: str, metrics: Sequence[str], code: dict[str, str]
    ) -> None:
        """Write a baseline from the results in ``places``.

        Raises:
            UserError: no reason, or an unknown metric.
            DataMissing: there are no results.
        """
        from leaderboard.baseline import write_baseline

        write_baseline(folder, _candidate(places), reason, metrics, code)

    def dataset_cards(self, store: Path, names: Sequence[str], decode: Decode) -> dict[str, dict[str, bytes]]:
        """Return the cards of the datasets of a store, all or those named: a folder's name to the files in it.

        Raises:
            UserError: an unknown name, a damaged artifact, or a missing package.
            DataMissing: the store has no datasets.
        """
        from leaderboard.exchange import card, croissant, datasets

        found, entries, known = datasets.find(store, names), from_store(store), self._declared("generators")
        cards = {}
        for dataset in found:
            facts, picture = card.gather_facts(store, dataset, entries, known), card.sheet(dataset, decode)
            cards[facts.name] = {
                card.README: card.readme(facts, bool(picture)).encode(),
                **({card.SAMPLES: picture} if picture else {}),
                croissant.FILE: croissant.to_json(facts).encode(),
            }
        return cards

    def calibrate(self, store: Path, asked: frozenset[str]) -> None:
        """Write table, data and figure of a calibration into the store, and print the table.

        Raises:
            DataMissing: no world has been measured.
        """
        from harness.core.files import atomic_path, write_text
        from leaderboard import calibration

        found = calibration.responses([entry for entry in from_store(store) if entry.record.key in asked])
        folder = store / "calibration"
        folder.mkdir(exist_ok=True)
        write_text(folder / "calibration.csv", calibration.to_csv(found))
        write_text(folder / "calibration.md", calibration.to_markdown(found))
        with atomic_path(folder / "calibration.png") as temporary:
            calibration.draw(found, temporary)
        sys.stdout.write(calibration.to_markdown(found))
        print(f"written to {folder}: calibration.md, .csv and .png", file=sys.stderr)


def _evaluations(run: Run) -> list[Entry]:
    store, keys = run
    return [entry for entry in from_store(store) if entry.record.key in keys]


def _candidate(places: Sequence[Path]) -> list[Entry]:
    entries = _exclude_calibration_worlds(gather(places))
    if not entries:
        raise DataMissing(f"no results in {', '.join(map(str, places))}", "no finished evaluation was found",
                          "run the suites first, or give the folder of a store")  # fmt: skip
    if all(place.is_file() for place in places):
        raise UserError("a file of records has no per-item data for paired tests", "a gate pairs test items",
                        "name the store, or a baseline folder")  # fmt: skip
    lacking = sum(not entry.units and entry.origin == "run" for entry in entries)
    if lacking == len(entries):
        raise UserError("the results have no per-item data for paired tests", "the store was written by an older version",
                        f"python -m harness rescore {places[0]}")  # fmt: skip
    return entries


def _exclude_calibration_worlds(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of generators under test: worlds of planted bias would change columns, ties and Holm."""
    return [entry for entry in entries if not entry.record.subject.generator.startswith(WORLD)]


def _is_bare(place: Path) -> bool:
    """Return whether a place has no results."""
    return not place.is_file() and not (place / BASELINE).is_file() and not from_store(place)


def _recorded_rows_for(mine: Sequence[Entry], shipped_rows: Sequence[Entry]) -> list[Entry]:
    """Return the recorded entries of the profiles of a run, without those that the run has itself; all of them for no run."""
    profiles = {entry.record.comparability.profile for entry in mine}
    return give_way([e for e in shipped_rows if not mine or e.record.comparability.profile in profiles], mine)


def _rows_to_print(table: Table, asked: frozenset[str], known: set[str]) -> list[RowKey]:
    """Return the rows that hold a result of a run, with those of some generators on the same backbones; none without a result."""
    mine = {key for key, cells in table.rows.items() for value in cells.values()
            if any(entry.record.key in asked for entry in value.sources)}  # fmt: skip
    backbones = {key.backbone for key in mine}
    return [key for key in table.rows if key in mine or (key.generator in known and key.backbone in backbones)]


def _with_published(mine: Sequence[Entry]) -> bool:
    return any(entry.record.comparability.profile in PUBLISHED_PROFILES for entry in mine)


def _write_curves(store: Path, own: list[Entry], mine: Sequence[Entry], beside: Sequence[Entry]) -> None:
    """Write accuracy against training images as data and picture, if few-shot probes have run; recorded rows as in the run."""
    from harness.core.files import atomic_path, write_text
    from leaderboard.curves import curves_csv, dots, draw_curves

    places = {(e.record.suite, e.record.comparability.profile) for e in mine}
    backbones = {e.record.subject.backbone for e in mine} | {"-"}
    chosen = [
        e for e in beside
        if (e.record.suite, e.record.comparability.profile) in places and e.record.subject.backbone in backbones
    ]  # fmt: skip
    found = dots(build_tables(own + chosen))
    if found:
        write_text(store / f"{CURVES_NAME}.csv", curves_csv(found))
        with atomic_path(store / f"{CURVES_NAME}.png") as temporary:
            draw_curves(found, temporary)


def _print(tables: list[Table]) -> None:
    """Print tables for this terminal, then the supervision behind their rows."""
    from rich.console import Console

    from leaderboard.terminal import to_terminal

    width = max(60, shutil.get_terminal_size((80, 24)).columns)
    screen = Console(file=sys.stdout)  # which knows NO_COLOR and terminals without colours
    colour = screen.color_system is not None and not screen.no_color
    sys.stdout.write(to_terminal(tables, width, colour) + declared.to_terminal(tables, width))
