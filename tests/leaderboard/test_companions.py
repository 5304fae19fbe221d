"""What a number must be read with stands with it in every format: companions, findings about the data, notes about the head."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.stats.estimate import Estimate, wilson
from harness.store.records import Metric, Record
from leaderboard.baseline import write_baseline
from leaderboard.board import Board
from leaderboard.compare import compare, systems, to_markdown
from leaderboard.exports import to_csv
from leaderboard.sources import Entry, from_baseline
from leaderboard.tables import build_tables
from leaderboard.terminal import to_terminal
from tests.leaderboard.conftest import MakeStore, flags, make_record, put

FINDING = "1280 of 1280 files differ from the published hashes"
NOTE = "covers 7 of 16 categories (classes of the head: bear 1, bird 3)"


def biased(generator: str, seed: int = 0, coverage: float = 0.97, **changes: object) -> Record:
    """Return a texture-bias record with the companions that TI is read with."""
    made = make_record("texture-bias", generator, flags(200, 0.3, seed), seed, **changes)
    companions = (Metric("cue_coverage", wilson(round(coverage * 100), 100), role="companion"),
                  Metric("same_category_accuracy", wilson(88, 100), role="companion"),
                  Metric("texture_rate", wilson(11, 100), role="companion"))  # fmt: skip
    first = replace(made.metrics[0], beside=("cue_coverage", "same_category_accuracy"))
    return replace(made, metrics=(first, *companions))


@pytest.fixture
def store(make_store: MakeStore) -> Path:
    """Return a store of two generators; of the second the data are doubted and the head is noted."""
    place = make_store("s", {name: {"in-domain": [flags(200, 0.6, 1)] * 2} for name in ("lbgen", "sd15")})
    for seed, coverage in enumerate((0.97, 0.93)):
        put(place, biased("lbgen", seed, coverage), [])
        put(place, biased("sd15", seed, 0.5, findings=(FINDING,), notes=("s = 60, t = 140", NOTE)), [])
    return place


def test_companions_stand_beside_the_value_in_every_format(store: Path) -> None:
    """Each as the mean over seeds, under its own name; companions that no value is read with stay in the record."""
    pages = {style: Board().render([store], style, False) for style in ("csv", "md", "latex", "html")}
    pages["terminal"] = to_terminal(build_tables(_entries(store)), 80)
    names = {"csv": "texture-bias/TI.cue_coverage", "latex": r"cue\_coverage", "html": "(cue_<wbr>coverage, "}
    for style, page in pages.items():
        assert names.get(style, "cue_coverage") in page and "texture_rate" not in page, style
        assert ("0.95" if style == "csv" else "95.0") in page and ("0.88" if style == "csv" else "88.0") in page, style
    row = next(line for line in pages["md"].partition("### texture-bias")[2].splitlines() if line.startswith("| lbgen"))
    assert row.endswith("| 95.0 | 88.0 |")
    assert "(95.0, 88.0)" in pages["md"].partition("bias against in-domain accuracy")[2]
    assert max(map(len, pages["terminal"].splitlines())) <= 80
    assert re.search(
        r"texture-bias TI ↓ .*\n  cue_coverage +95.0 +50.0\n  same_category_accuracy +88.0 +88.0", pages["terminal"]
    )


def _entries(store: Path) -> list[Entry]:
    from leaderboard.sources import from_store

    return from_store(store)


def test_doubted_data_mark_their_values_and_are_said_below(store: Path) -> None:
    """With a question mark, in all formats; still ranked, because all rows of a column share the data."""
    pages = {style: Board().render([store], style, False) for style in ("csv", "md", "latex", "html")}
    pages["terminal"] = to_terminal(build_tables(_entries(store)), 80)
    for style, page in pages.items():
        assert FINDING in " ".join(page.split()), style
        assert style == "csv" or "the data on disk differ from the published set" in " ".join(page.split()), style
    (mine, doubted) = csv.DictReader(pages["csv"].splitlines())
    assert (mine["texture-bias/TI.findings"], doubted["texture-bias/TI.findings"]) == ("", FINDING)
    assert doubted["texture-bias/TI.tie_group"] == "1" and "in-domain/top1.findings" not in doubted
    assert "30.0?* [" in pages["md"] and "30.0* [" in pages["md"] and r"\textbf{30.0}?" in pages["latex"]
    assert "<b>30.0?*</b>" in pages["html"] and re.search(r"30.0±[\d.]+\?\*", pages["terminal"])
    assert f"* ? texture-bias, sd15 resnet10: {FINDING}" in pages["md"]


def test_a_finding_of_all_rows_is_said_once(make_store: MakeStore) -> None:
    """Who looks at one data set for three rows reads one line."""
    table = build_tables([Entry(biased(name, findings=(FINDING,)), "run") for name in ("real", "sd15", "lbgen")])
    assert to_terminal(table).count(FINDING) == 1 and "texture-bias, all rows:" in to_terminal(table)


def test_notes_about_the_head_are_footnotes_and_counts_stay_in_the_record(store: Path) -> None:
    """A number of another head than the thousand classes says so where it is read."""
    for style in ("md", "latex", "html"):
        page = Board().render([store], style, False)
        visible = page.partition('<script type="application/json"')[0]
        assert NOTE in visible and "s = 60" not in visible, style


def test_a_baseline_keeps_what_its_values_are_read_with(store: Path, tmp_path: Path) -> None:
    """Shipped rows have their companions, findings and notes beside them; other companions are left out."""
    write_baseline(tmp_path / "b", _entries(store), "r", (), {})
    kept = {m.name for e in from_baseline(tmp_path / "b") if e.record.suite == "texture-bias" for m in e.record.metrics}
    assert kept == {"TI", "cue_coverage", "same_category_accuracy"}
    assert to_csv(build_tables(from_baseline(tmp_path / "b"))) == Board().render([store], "csv", False)
    assert NOTE in Board().render([tmp_path / "b"], "md", False)
    merged = Board().render([store, tmp_path / "b"], "csv", False)
    assert merged == Board().render([store], "csv", False), "a baseline of a store says nothing that contradicts it"


def test_a_comparison_shows_companions_and_doubts(store: Path) -> None:
    """Two numbers of TI are read with what each backbone recognised at all."""
    text = to_markdown(compare(*systems(("lbgen", "sd15"), [store])), ("lbgen", "sd15"))
    assert "| texture-bias TI (cue_coverage, same_category_accuracy) | 30.0 (95.0, 88.0) | 30.0? (50.0, 88.0) |" in text


def test_an_unknown_companion_is_a_dash_and_points_are_percent() -> None:
    """Of an older record, and of one whose companion is undefined; a companion in points is not multiplied again."""
    older = replace(biased("sd15"), metrics=(make_record("texture-bias", "sd15", [True]).metrics[0],))
    none = Metric("cue_coverage", Estimate(None, None, None, 0, "none", "p", "no image"), role="companion")
    undefined = biased("real")
    undefined = replace(undefined, metrics=(undefined.metrics[0], none))
    points = biased("lbgen")
    points = replace(
        points,
        metrics=(points.metrics[0], Metric("cue_coverage", wilson(1, 2).scaled(100), "points", role="companion")),
    )
    (table,) = build_tables([Entry(one, "run") for one in (older, undefined, points)])
    (column,) = table.columns
    found = {key.generator: cells[column].beside for key, cells in table.rows.items()}
    assert found == {"sd15": {}, "real": {"cue_coverage": None}, "lbgen": {"cue_coverage": 0.5}}
    assert to_terminal([table]).count("–") >= 2


def test_the_bias_suites_name_their_companions(tmp_path: Path) -> None:
    """TI with cue coverage and same-category accuracy, CB with Acc_0, BG_Gap with Mixed-Same accuracy."""
    from suites.bias import background, context, texture
    from suites.bias.cards import CueConflictCard, FocusCard, In9Card

    def plain(n: int) -> dict[str, np.ndarray]:
        return {name: np.zeros(n, dtype=bool) for name in ("converted", "truncated")}

    rows = {
        "image": np.array(list("abcd")), "shape": np.array(["cat", "dog"] * 2), "texture": np.array(["dog", "cat", "cat", "dog"]),
        "shape_source": np.array(list("abcd")), "texture_source": np.array(list("efgh")), "answer": np.array(["cat", "cat", "cat", "dog"]),
        "tied": np.zeros(4, dtype=bool), **plain(4),
    }  # fmt: skip
    found = {m.name: m for m in texture.score(rows, CueConflictCard.load({})).metrics}
    assert found["TI"].beside == ("cue_coverage", "same_category_accuracy") and {*found["TI"].beside} <= {*found}
    focus = {"uncommon_time": np.array([0, 1, 1, 1]), "uncommon_weather": np.array([0, 0, 1, 1]),
             "uncommon_location": np.array([0, 0, 0, 1]), "category": np.array(["cat"] * 4), "correct": np.ones(4, dtype=bool),
             "chance": np.full(4, 0.1), **plain(4)}  # fmt: skip
    found = {m.name: m for m in context.score(focus, FocusCard.load({})).metrics}
    assert found["CB_avg"].beside == ("Acc_0",) and found["CB_2"].beside == ("Acc_0",) and "Acc_0" in found
    in9 = {"variation": np.array(["original", "mixed_same", "mixed_rand"]), "foreground": np.array(["k"] * 3), "label": np.zeros(3, int),
           "correct": np.ones(3, dtype=bool), **plain(3)}  # fmt: skip
    found = {m.name: m for m in background.score(in9, In9Card.load({})).metrics}
    assert found["BG_Gap"].beside == ("mixed_same",) and "mixed_same" in found
