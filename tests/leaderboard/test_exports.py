"""The exports: escaped names, n and signs in every format, tidy tables for pandas."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.stats.difference import flag_units
from harness.stats.estimate import Estimate, wilson
from harness.store.records import Check, Metric
from leaderboard.board import Board
from leaderboard.compare import compare, systems, to_markdown
from leaderboard.exports import to_csv
from leaderboard.latex import to_latex
from leaderboard.long import COLUMNS, long_table
from leaderboard.markup import md, tex
from leaderboard.sources import Entry, from_store
from leaderboard.tables import build_tables
from leaderboard.terminal import to_terminal
from tests.leaderboard.conftest import MakeStore, flags, make_record, put

ODD = r"a|b <i> *c* _d_ $e$ \f [g](h) `i` ~j~ &lt;"
"""A name with a bit of every markup."""


@pytest.fixture
def store(make_store: MakeStore) -> Path:
    """Return a store of three generators; TI of the last has other numbers of items, and the last fails a check."""
    place = make_store("s", {name: {"in-domain": [flags(200, rate, seed) for seed in range(2)]}
                             for name, rate in (("best", 0.9), ("good", 0.6))})  # fmt: skip
    for name, n in (("best", 100), ("good", 100), ("broken", 80)):
        made = make_record("texture-bias", name, flags(n, 0.3, 1))
        companion = Metric("cue_coverage", wilson(60, 80), role="companion")
        made = replace(made, metrics=(replace(made.metrics[0], beside=("cue_coverage",)), companion))
        if name == "broken":
            made = replace(made, checks=(Check("floor", False, 0.1, 0.5, "m"),), findings=("2 of 80 files differ",))
        put(place, made, [flag_units("TI", [f"item {i}" for i in range(n)], flags(n, 0.3, 1))])
    return place


# --- names from outside -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ODD, "__init__", "*", "|", "\\", "<b>", "a\nb", "#1"])
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    """Unescaped again by the rules of CommonMark it is the name; nothing in it is left to be read as markup."""
    text = md(name)
    assert html.unescape(re.sub(r"\\([^A-Za-z0-9\s])", r"\1", text)) == " ".join(name.split())
    assert "\n" not in text and not re.search(r"(?<!\\)[|<>*`$~\[\]]", text)
    assert md("vit_pico") == "vit_pico" and md("transfer@0.1 (IN − 5 %)") == "transfer@0.1 (IN − 5 %)"


def test_latex_shows_a_name_as_it_is() -> None:
    text = tex(ODD + " 5% #1 {x} ^")
    plain = re.sub(
        r"\\(textasciitilde|textasciicircum|textbackslash|textless|textgreater|textbar)\{\}|\\[&%$#_{}]|\{[*\[\]]\}",
        "",
        text,
    )
    assert not re.search(r"[\\{}$&#^_%~|<>*\[\]]", plain)
    assert tex("[x") == "{[}x", "a bracket after the end of a row would be its optional argument"


def test_no_export_reads_a_name_as_markup(make_store: MakeStore) -> None:
    """Neither generator, backbone, suite, metric, companion, finding nor reason changes a table."""
    store = make_store("s", {name: {"in-domain": [flags(50, 0.5, 0)]} for name in (ODD, "plain")})
    for name in (ODD, "plain"):
        made = make_record(f"suite {ODD}", name, flags(50, 0.5, 0), findings=(f"found {ODD}",))
        undefined = Metric(f"none {ODD}", Estimate(None, None, None, 0, "none", "p", f"no item {ODD}"))
        companion = Metric(f"beside {ODD}", wilson(1, 2), role="companion")
        first = replace(made.metrics[0], name=f"metric {ODD}", beside=(companion.name,))
        put(store, replace(made, metrics=(first, undefined, companion)), [])
    board = Board().render([store], "md", False)
    assert isinstance(board, str)
    for block in re.findall(r"(?:^\|.*\n)+", board, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, "every line of a table has the same number of cells"
    for text in (board, to_markdown(compare(*systems((ODD, "plain"), [store])), (ODD, "plain"))):
        assert md(ODD) in text and ODD not in text and "<i>" not in text.replace(r"\<i\>", "")
    latex = to_latex(build_tables(from_store(store)))
    assert tex(ODD) in latex and ODD not in latex and "|b" not in latex


@pytest.mark.parametrize("text", ["# a", "## a", "- a", "+ a", "1. a", "12) a"])
def test_a_line_of_its_own_is_no_heading_and_no_list(text: str) -> None:
    assert md(text).replace("\\", "") == text and re.match(r"\d*\\", md(text))
    assert md("-") == "-" and md("-5 %") == "-5 %" and md("3.5 %") == "3.5 %" and md("#1") == "#1"


def test_no_output_passes_on_characters_that_a_terminal_obeys(make_store: MakeStore) -> None:
    from xml.etree import ElementTree

    from leaderboard.gate import Finding, Report, to_junit

    bad = "a\x1b[31m\x07b\u202ec"
    store = make_store("s", {bad: {"in-domain": [flags(50, 0.5, 0)]}, "plain": {"in-domain": [flags(50, 0.5, 0)]}})
    tables = build_tables(from_store(store))
    texts = [Board().render([store], "md", False), to_latex(tables), to_terminal(tables, 80)]
    texts.append(to_junit(Report((Finding(bad, "higher", "fail", bad),), {"reason": bad}), False))
    ElementTree.fromstring(texts[-1])
    for text in texts:
        assert isinstance(text, str) and not re.search("[\x07\x1b\u202e]", text) and "\ufffd" in text


# --- n and signs --------------------------------------------------------------------------------------------------------


def test_every_format_carries_n(store: Path) -> None:
    """At the head of a column if all rows have the same, else at each value."""
    tables = build_tables(from_store(store))
    texts = {style: Board().render([store], style, False) for style in ("md", "html")}
    texts |= {"latex": to_latex(tables), "terminal": to_terminal(tables, 80)}
    for style, same, apart in (
        ("md", "n=200", "n=80"),
        ("html", "n=200", "<small>n=80</small>"),
        ("latex", "$n=200$", "$n=80$"),
    ):
        text = texts[style]
        assert isinstance(text, str) and same in text and apart in text, style
    assert "in-domain top1 ↑ n=200" in texts["terminal"] and re.search(
        r"^  n +100 +80 +100$", texts["terminal"], re.MULTILINE
    )


def test_the_first_tie_group_is_the_same_in_every_format(store: Path) -> None:
    tables = build_tables(from_store(store))
    board, page = (Board().render([store], style, False) for style in ("md", "html"))
    terminal = to_terminal(tables, 80)
    assert re.search(r"in-domain top1 ↑ n=200 +90\.0±[\d.]+\* +– +60\.0±[\d.]+$", terminal, re.MULTILINE)
    assert "| 90.0* [" in board and "| 60.0(2) [" in board and r"\textbf{90.0}" in to_latex(tables)
    assert "<b>90.0*</b>" in page and ">60.0 (2)<" in page
    assert "later groups are numbered" in board and "later groups are numbered" not in " ".join(terminal.split())


def test_colours_change_no_letter_of_the_terminal_table(store: Path) -> None:
    tables = build_tables(from_store(store))
    plain, coloured = to_terminal(tables, 80), to_terminal(tables, 80, colour=True)
    assert "\x1b" not in plain and re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == plain.split()
    assert "\x1b[1;32m90.0±" in coloured and re.search(r"\x1b\[31m30\.0±[\d.]+\?!", coloured)


def test_the_terminal_table_holds_its_width_whatever_the_names(make_store: MakeStore) -> None:
    long_name = "checkpoint:" + "a-long-name-of-a-file-" * 4
    store = make_store("s", {name: {"in-domain": [flags(100, 0.5, i)], "a-suite-with-a-long-name" * 3: [flags(100, 0.5, i)]}
                             for i, name in enumerate((long_name, "b", "c", "d", "e"))})  # fmt: skip
    for width in (60, 80, 120):
        assert max(map(len, to_terminal(build_tables(from_store(store)), width).splitlines())) <= width


# --- tidy tables --------------------------------------------------------------------------------------------------------


def test_the_long_table_has_every_value_of_the_wide_one_and_the_companions(store: Path) -> None:
    entries = from_store(store)
    lines = long_table(entries)
    assert all(tuple(line) == COLUMNS for line in lines)
    by_place = {(line["system"], line["suite"], line["column"]): line for line in lines}
    assert len(by_place) == len(lines)
    wide = list(csv.DictReader(io.StringIO(to_csv(build_tables(entries)))))
    for row in wide:
        for name in ("in-domain/top1", "texture-bias/TI"):
            if row[name]:
                line = by_place[row["generator"], *name.split("/")]
                assert (repr(line["value"]), repr(line["low"]), str(line["n"])) == (
                    row[name],
                    row[f"{name}.low"],
                    row[f"{name}.n"],
                )
                assert ("" if line["tie_group"] is None else str(line["tie_group"])) == row[f"{name}.tie_group"]
                assert line["checks"] == ("passed" if row[f"{name}.valid"] == "yes" else "failed")
    companion = by_place["broken", "texture-bias", "cue_coverage"]
    assert companion["role"] == "companion" and companion["value"] == 0.75 and companion["tie_group"] is None
    assert (companion["failed_checks"], companion["findings"]) == ("floor", "2 of 80 files differ")
    assert (
        by_place["best", "in-domain", "top1"]["seeds"] == "0/0 1/1"
        and by_place["best", "in-domain", "top1"]["n_seeds"] == 2
    )


def test_a_mean_of_a_group_and_an_undefined_value_are_lines_too() -> None:
    members = []
    for name, k in (("dtd", 60), ("pets", 80)):
        made = make_record("linear-probe", "real", [True], item=name, key=name * 16)
        members.append(replace(made, metrics=(Metric(name, wilson(k, 100), group="transfer", group_size=2),)))
    none = make_record("texture-bias", "real", [True])
    none = replace(
        none, metrics=(Metric("TI", Estimate(None, None, None, 0, "none", "p", "no decision"), better="lower"),)
    )
    found = {line["metric"]: line for line in long_table([Entry(one, "run") for one in (*members, none)])}
    assert found["transfer"]["role"] == "mean" and found["transfer"]["item"] == "dtd pets"
    assert found["transfer"]["value"] == pytest.approx(0.7) and found["dtd"]["item"] == "dtd"
    assert (
        found["TI"]["value"] is None and found["TI"]["remark"] == "no decision" and found["TI"]["direction"] == "lower"
    )


def test_long_json_and_parquet_say_the_same(store: Path) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    long, text, parquet = (Board().render([store], style, False) for style in ("long", "json", "parquet"))
    assert isinstance(long, str) and isinstance(text, str) and isinstance(parquet, bytes)
    lines = Board().values([store], False)
    assert json.loads(text) == lines == pq.read_table(io.BytesIO(parquet)).to_pylist()
    frame = pd.read_csv(io.StringIO(long), keep_default_na=False, na_values={"value": "", "low": "", "seed_sd": "", "tie_group": ""},
                        float_precision="round_trip")  # fmt: skip
    assert list(frame.columns) == list(COLUMNS) and frame["value"].tolist() == [line["value"] for line in lines]
    assert frame["low"].dtype == np.float64 and frame["findings"].tolist() == [line["findings"] for line in lines]
    assert Board().render([store], "parquet", False) == parquet, "equal results give equal bytes"


def test_every_column_of_the_long_table_is_explained() -> None:
    from leaderboard import long

    text = (long.__doc__ or "").partition("in this order")[2]
    told = [
        name for line in re.findall(r"^([a-z_]+(?:, [a-z_]+)*) {2,}\S", text, re.MULTILINE) for name in line.split(", ")
    ]
    assert tuple(told) == COLUMNS


def test_parquet_on_a_terminal_is_refused_with_a_fix(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capfdbinary: pytest.CaptureFixture[bytes]) -> None:  # fmt: skip
    from harness.cli.main import main

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["harness", "leaderboard", str(store), "--no-recorded", *arguments])
        with pytest.raises(SystemExit) as stopped:
            raise SystemExit(main())
        return int(stopped.value.code or 0)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("--format", "parquet") == 2
    assert b"--output FILE" in capfdbinary.readouterr().err
    assert run("--format", "parquet", "--output", str(tmp_path / "b.parquet")) == 0
    assert run("--format", "long", "--output", str(tmp_path / "b.csv")) == 0
    assert (tmp_path / "b.parquet").read_bytes() == Board().render([store], "parquet", False)
    assert (tmp_path / "b.csv").read_text("utf-8") == Board().render([store], "long", False)


def test_markdown_has_two_names(store: Path) -> None:
    from typer.testing import CliRunner

    from harness.cli.main import app

    shown = [
        CliRunner().invoke(app, ["leaderboard", str(store), "--no-recorded", "--format", name])
        for name in ("md", "markdown")
    ]
    assert shown[0].exit_code == 0 and shown[0].stdout == shown[1].stdout and shown[0].stdout.startswith("#")


def test_the_summary_of_a_gate_shows_names_as_they_are() -> None:
    from leaderboard.gate import Finding, Report
    from leaderboard.gate import to_markdown as summary

    text = summary(Report((Finding(ODD, "higher", "fail", f"why {ODD}"),), {"reason": ODD}))
    assert text.count(md(ODD)) == 3 and ODD not in text


def test_a_csv_board_starts_without_what_other_formats_need(store: Path) -> None:
    """Each of these costs a tenth of a second or more."""
    heavy = ("jinja2", "rich", "pandas", "pyarrow", "matplotlib", "numpy.ma", "torch", "scipy")
    code = (
        "import sys; from pathlib import Path; from leaderboard.board import Board\n"
        "for style in ('csv', 'md', 'latex', 'long', 'json'): Board().render([Path(sys.argv[1])], style, True)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
