"""The board: which rows, which columns, in which bytes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import DataMissing, UserError
from harness.core.files import write_text
from harness.core.identity import content_key, file_sha256
from harness.stats.estimate import Estimate, wilson
from harness.store.records import SCHEMA, Check, Comparability, Metric, Record, Subject
from leaderboard.board import Board
from leaderboard.exports import to_csv, to_markdown
from leaderboard.rows import give_way
from leaderboard.sources import Entry, from_store
from leaderboard.tables import build_tables
from leaderboard.terminal import to_terminal
from tests.leaderboard.conftest import MakeStore, flags


def record(
    generator: str = "real",
    suite: str = "in-domain",
    order: int = 100,
    metric: str = "top1",
    k: int = 60,
    n: int = 100,
    item: str = "x",
    backbone: str = "resnet10",
    **changes: object,
) -> Record:
    """Return a record of one proportion."""
    made = Record(
        suite,
        order,
        item,
        Subject(generator, backbone, 0, 0, ("class_names",)),
        0,
        (Metric(metric, wilson(k, n)),),
        (Check("ok", True, 1.0, 0.5, "m"),),
        Comparability("toy", 1, {"d": "f"}, "c", "p", "r"),
        content_key([generator, suite, metric, item, k, backbone]),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def entries(*records: Record, origin: str = "run") -> list[Entry]:
    """Return records as entries."""
    return [Entry(one, origin) for one in records]  # type: ignore[arg-type]


def put(store: Path, one: Record) -> Path:
    """Write a record as a finished evaluation."""
    folder = store / "evaluate" / f"{one.suite}-{one.key[:16]}"
    folder.mkdir(parents=True)
    write_text(folder / "record.json", one.to_json())
    marks = {"record.json": file_sha256(folder / "record.json")}
    files = {name: {"sha256": mark} for name, mark in marks.items()}
    (folder / "manifest.json").write_text(json.dumps({"files": files, "key": one.key, "content": content_key(marks)}))
    return folder


def test_record_round_trip() -> None:
    one = record()
    assert Record.from_json(one.to_json()) == one
    with pytest.raises(UserError, match="schema 99"):
        Record.from_json(one.to_json().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    with pytest.raises(UserError, match="not a valid record"):
        Record.from_json(one.to_json()[:100])


def test_rows_and_columns_have_one_order_whatever_the_order_of_records() -> None:
    many = [
        record(g, s, o, m, k)
        for g in ("sd15", "real")
        for s, o, m in (("b", 2, "y"), ("a", 1, "z"), ("b", 2, "x"))
        for k in (50,)
    ]
    shuffled = list(many)
    random.Random(0).shuffle(shuffled)
    assert to_csv(build_tables(entries(*many))) == to_csv(build_tables(entries(*shuffled)))
    head = to_csv(build_tables(entries(*many))).splitlines()[0].split(",")
    assert [name for name in head if name in ("a/z", "b/x", "b/y")] == ["a/z", "b/x", "b/y"]


def test_export_bytes_do_not_depend_on_hash_seed_locale_or_file_order(tmp_path: Path) -> None:
    ones = [record(g, "s", 1, m, 40 + i) for g in ("real", "sd15") for i, m in enumerate("abc")]
    for place, order in (("one", ones), ("two", ones[::-1])):
        for one in order:
            put(tmp_path / place, one)
    outputs = set()
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    settings = (("one", {"PYTHONHASHSEED": "0", "LC_ALL": "C"}), ("two", {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"}),
                ("one", {"PYTHONIOENCODING": "latin-1"}), ("one", ascii_only))  # fmt: skip
    for place, setting in settings:
        for style in ("csv", "md", "latex", "html"):
            done = subprocess.run(
                [sys.executable, "-m", "harness", "leaderboard", str(tmp_path / place), "--format", style],
                env=os.environ | setting,
                capture_output=True,
                check=True,
                cwd=tmp_path,
            )
            outputs.add((style, done.stdout))
    assert len(outputs) == 4
    assert "–".encode() in next(content for style, content in outputs if style == "md")
    for _, content in outputs:
        assert str(tmp_path).encode() not in content


def test_group_mean_appears_when_all_members_are_there() -> None:
    def member(name: str, k: int) -> Record:
        one = record(suite="probe", metric=name, k=k, item=name)
        return replace(one, metrics=(replace(one.metrics[0], group="mean", group_size=2),))

    (table,) = build_tables(entries(member("a", 60), member("b", 80)))
    values = {column.name: value.estimate.value for column, value in next(iter(table.rows.values())).items()}
    assert values == {"a": 0.6, "b": 0.8, "mean": pytest.approx(0.7)}
    (table,) = build_tables(entries(member("a", 60)))
    assert [column.name for column in table.columns] == ["a"]


def test_companions_have_no_column_but_their_group_mean_has() -> None:
    def member(name: str) -> Record:
        one = record(suite="few", metric=name, item=name)
        return replace(one, metrics=(replace(one.metrics[0], role="companion", group="mean", group_size=2),))

    (table,) = build_tables(entries(member("a"), member("b")))
    assert [column.name for column in table.columns] == ["mean"]


def test_repeats_are_averaged() -> None:
    first, second = record(k=60), replace(record(k=70), probe_seed=1)
    (table,) = build_tables(entries(first, second))
    (value,) = next(iter(table.rows.values())).values()
    assert value.estimate.value == pytest.approx(0.65) and value.estimate.method.startswith("mean of repeats")


def test_invalid_scores_are_shown_flagged_and_never_lead() -> None:
    broken = replace(record("broken", k=99), checks=(Check("gate", False, 0.0, 0.5, "m"),))
    (table,) = build_tables(entries(record("real", k=60), record("sd15", k=40), broken))
    (column,) = table.columns
    assert {key.generator for key, group in table.ties(column, "resnet10").items() if group == 1} == {"real"}
    assert re.search(r"99\.0±[\d.]+!", to_terminal([table])) and "99.0! [" in to_markdown([table])


def test_rows_that_cannot_be_separated_lead_together() -> None:
    (table,) = build_tables(entries(record("real", k=60), record("sd15", k=57), record("old", k=20)))
    assert {key.generator for key, group in table.ties(table.columns[0], "resnet10").items() if group == 1} == {"real", "sd15"}


def columns_of(*records: Record) -> dict[str, set[str]]:
    """Return each column's title with the generators that have a value in it."""
    (table,) = build_tables(entries(*records))
    return {
        column.title: {key.generator for key, cells in table.rows.items() if column in cells}
        for column in table.columns
    }


def test_values_that_may_not_be_compared_stand_in_columns_that_say_why() -> None:
    other = record("sd15", k=50)
    other = replace(other, comparability=replace(other.comparability, protocol="p; another crop"))
    found = columns_of(record("real"), record("lbgen"), other)
    assert found == {"in-domain top1": {"real", "lbgen"}, "in-domain top1 (another crop)": {"sd15"}}


def test_columns_hold_one_protocol_across_backbones_but_each_backbone_its_recipe() -> None:
    one, other = record("real"), record("sd15")
    other = replace(other, subject=replace(other.subject, backbone="vit_pico"))
    recipe = replace(other, comparability=replace(other.comparability, recipe="of a ViT"))
    assert columns_of(one, recipe) == {"in-domain top1": {"real", "sd15"}}
    searched = replace(other, comparability=replace(other.comparability, protocol="another search"))
    (table,) = build_tables(entries(one, searched))
    assert table.notes == [
        "in-domain top1 (another search): not comparable with in-domain top1, differs in protocol: another search"
    ]


def test_a_mean_over_fewer_sets_has_a_column_of_its_own_whatever_the_order() -> None:
    def probe(generator: str, name: str, size: int) -> Record:
        metric = Metric(name, wilson(40, 100), group="transfer", group_size=size)
        key = content_key([generator, name])
        return replace(record(generator), suite="linear-probe", item=name, metrics=(metric,), key=key)

    made = [probe("x", name, 3) for name in ("dtd", "pets", "sun397")] + [
        probe("y", name, 2) for name in ("dtd", "pets")
    ]
    for order in (made, made[::-1]):
        (table,) = build_tables(entries(*order))
        found = {c.name: {key.generator for key, cells in table.rows.items() if c in cells} for c in table.columns}
        assert found["transfer"] == {"x"} and found["transfer of dtd+pets"] == {"y"}


def test_profiles_never_share_a_table() -> None:
    other = record("sd15")
    other = replace(other, comparability=replace(other.comparability, profile="in1k"))
    assert [table.title for table in build_tables(entries(record("real"), other))] == ["profile in1k", "profile toy"]


def test_recorded_rows_stand_beside_new_ones_and_give_way_to_own_ones() -> None:
    mixed = entries(record("lbgen")) + entries(record("real", k=33), record("sd15"), origin="recorded")
    (table,) = build_tables(mixed)
    assert [(key.generator, key.origin) for key in table.rows] == [
        ("lbgen", "run"),
        ("real", "recorded"),
        ("sd15", "recorded"),
    ]
    assert "real *recorded*" in to_markdown([table])
    own = entries(record("lbgen"), record("real", k=44))
    (table,) = build_tables(own + give_way(mixed[1:], own))
    assert [(key.generator, key.origin) for key in table.rows] == [
        ("lbgen", "run"),
        ("real", "run"),
        ("sd15", "recorded"),
    ]


def test_measures_of_the_images_stand_in_every_row_of_their_generator() -> None:
    images = record("real", "images", 1, "rho", backbone="-")
    (table,) = build_tables(entries(record("real"), record("real", backbone="vit"), record("sd15"), images))
    have = {
        (key.generator, key.backbone) for key, cells in table.rows.items() if any(c.suite == "images" for c in cells)
    }
    assert have == {("real", "resnet10"), ("real", "vit")}


def test_undefined_is_a_reason_and_never_a_number() -> None:
    one = record()
    one = replace(
        one, metrics=(Metric("TI", Estimate(None, None, None, 0, "none", "p", "no decisions"), "fraction", "lower"),)
    )
    tables = build_tables(entries(one))
    assert "undefined: no decisions" in to_markdown(tables) and ",,,," in to_csv(tables)


def test_a_hand_edited_record_is_named(tmp_path: Path) -> None:
    folder = put(tmp_path, record())
    path = folder / "record.json"
    path.write_text(path.read_text().replace("0.6", "0.7"))
    with pytest.raises(UserError, match="was changed after it was written") as caught:
        from_store(tmp_path)
    assert str(path) in caught.value.what


def test_a_record_edited_together_with_its_manifest_is_named(tmp_path: Path) -> None:
    folder = put(tmp_path, record())
    path, manifest = folder / "record.json", folder / "manifest.json"
    path.write_text(path.read_text().replace("0.6", "0.7"))
    facts = json.loads(manifest.read_text())
    facts["files"]["record.json"]["sha256"] = file_sha256(path)
    manifest.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="its content hash does not match its list of files") as caught:
        from_store(tmp_path)
    assert str(manifest) in caught.value.what


def test_a_deleted_record_is_damage_and_never_a_missing_row(tmp_path: Path) -> None:
    put(tmp_path, record("sd15"))
    path = put(tmp_path, record()) / "record.json"
    path.unlink()
    with pytest.raises(UserError, match="cannot be read") as caught:
        Board().render([tmp_path], "md", True)
    assert str(path) in caught.value.what and "rescore" in caught.value.fix


def test_a_folder_that_is_no_store_is_refused_and_not_shown_as_the_recorded_board(tmp_path: Path) -> None:
    put(tmp_path / "s", record())
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "s" / "evaluate", tmp_path / "file", tmp_path / "empty"):
        with pytest.raises(DataMissing, match="no results in") as caught:
            Board().render([wrong], "md", True)
        assert caught.value.why == "it is neither a store nor a baseline" and caught.value.fix


@pytest.mark.parametrize("style", ["csv", "latex"])
def test_published_tables_are_refused_where_they_cannot_be_written(tmp_path: Path, style: str) -> None:
    put(tmp_path, record())
    with pytest.raises(UserError, match=f"--published has no {style}"):
        Board().render([tmp_path], style, False, published=True)


def test_terminal_table_fits_eighty_columns() -> None:
    many = [
        record(g, "linear-probe", 1, m, 50) for g in ("real", "sd15", "lbgen", "genrobust") for m in ("aircraft", "dtd")
    ]
    text = to_terminal(build_tables(entries(*many)), 80)
    assert max(len(line) for line in text.splitlines()) <= 80 and text.count("aircraft") >= 1


def test_an_empty_store_without_recorded_rows_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results"):
        Board().render([tmp_path], "csv", False)


def test_measures_of_the_images_add_no_seeds_to_a_row() -> None:
    subjects = [Subject("sd15", "resnet10", seed, seed) for seed in range(3)]
    trained = [record(k=60 + s.train_seed, subject=s, key=content_key(["t", s.train_seed])) for s in subjects]
    images = [
        record(
            suite="generated-correlation",
            metric="named",
            subject=Subject("sd15", "-", seed, 0),
            key=content_key(["i", seed]),
        )
        for seed in range(3)
    ]
    (table,) = build_tables(entries(*trained, *images))
    (key,) = [key for key in table.rows if key.backbone == "resnet10"]
    assert table.seeds(key) == ((0, 0), (1, 1), (2, 2))


def test_board_shows_what_every_generator_declares(make_store: MakeStore) -> None:
    """Information from the records; prompts, sampler, cost and licence from the generators that are installed."""
    from harness.results.leaderboard import board
    from leaderboard.declared import supervision

    results = {name: {"in-domain": [flags(100, rate, 0)]} for name, rate in (("sd15", 0.5), ("gone", 0.4))}
    store = make_store("s", results)
    text = board().render([store], "md", False)
    (line,) = [line for line in text.splitlines() if line.startswith("| sd15 | class names |")]
    assert all(word in line for word in ("PNDM, 50 steps", "class name itself", "416 A100-hours", "OpenRAIL"))
    assert "| gone | class names | – | – | – | – | – |" in text
    assert 'id="generators"' in board().render([store], "html", False)
    assert supervision([]) == {}


def test_a_run_prints_its_rows_and_those_of_recorded_generators_with_the_signs_of_the_whole_board(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that an older run of the store has replaced stay beside the new ones, a stranger's rows and suites do not."""
    rates = {"lbgen": 0.6, "sd15": 0.9, "other": 0.95}
    store = make_store("s", {name: {"in-domain": [flags(200, rate, seed) for seed in range(2)], "coco": [flags(50, 0.5, 0)]}
                             for name, rate in rates.items()})  # fmt: skip
    shipped = entries(
        record("real", k=95, n=100), record("sd15", k=50), record("real", backbone="vit"), origin="recorded"
    )
    monkeypatch.setattr("leaderboard.board.recorded", lambda: shipped)
    asked = [
        e.record.key
        for e in from_store(store)
        if e.record.subject.generator == "lbgen" and e.record.suite == "in-domain"
    ]
    Board().show(store, frozenset(asked[:1]))
    printed, board = capsys.readouterr().out, (store / "leaderboard.md").read_text("utf-8")
    assert re.search(r"^ +lbgen +real +sd15$", printed, re.MULTILINE) and "coco" not in printed and "vit" not in printed
    values = re.search(r"^in-domain top1 ↑ +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert values is not None and [text[-1] == "*" for text in values.groups()] == [False, True, False]
    assert "| real *recorded* | resnet10 | 1 seed | 95.0* [" in board and "| lbgen | resnet10 | 2 seeds" in board
    assert "| other | resnet10" in board and "60.0(3) [" in board, "numbered among all rows of the board"
