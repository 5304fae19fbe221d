"""The schema of records is that of the classes, and a submission is held against it and against what ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.store.records import Record
from leaderboard.board import Board
from leaderboard.exchange import record_schema
from leaderboard.exchange.submission import problems
from leaderboard.sources import gather, recorded
from tests.leaderboard.conftest import MakeStore, flags

ROOT = Path(__file__).parents[2]


def test_the_published_schema_is_that_of_the_classes() -> None:
    import pydantic
    from packaging.version import Version

    if Version(pydantic.VERSION) < Version("2.12"):
        pytest.skip("older versions of pydantic leave out what the fields of nested classes mean")
    published = json.loads((ROOT / record_schema.PUBLISHED).read_text("utf-8"))
    assert published == record_schema.schema(), "python -m leaderboard.exchange.record_schema > docs/record.schema.json"


@pytest.fixture
def store(make_store: MakeStore) -> Path:
    """Return a store of two generators."""
    return make_store("s", {"a": {"in-domain": [flags(60, 0.5, 0)], "texture-bias": [flags(60, 0.4, 1)]},
                            "b": {"in-domain": [flags(60, 0.7, 2)]}})  # fmt: skip


def test_real_records_are_valid_by_the_published_schema_and_others_are_not(store: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(json.loads((ROOT / record_schema.PUBLISHED).read_text("utf-8")))
    texts = [path.read_text("utf-8") for path in store.glob("evaluate/*/record.json")]
    texts += [entry.record.to_json() for entry in recorded()]
    assert (
        len(texts) > 100 and [error.message for text in texts for error in checker.iter_errors(json.loads(text))] == []
    )
    for change in ({"schema": 4}, {"surprise": 1}, {"metrics": {}}, {"key": 5}, {"subject": {}}):
        assert list(checker.iter_errors(json.loads(texts[0]) | change)), change
    old = {
        name: value
        for name, value in json.loads(texts[0]).items()
        if name not in ("findings", "code", "setups", "inputs")
    }
    assert list(checker.iter_errors(old | {"schema": 1})) == []


@pytest.fixture
def lines(store: Path) -> list[dict[str, Any]]:
    """Return the records of the store as a submission that can be shipped."""
    text = Board().render([store], "records", True)
    assert isinstance(text, str)
    return [json.loads(line) for line in text.splitlines()]


Verify = Callable[[list[Any]], list[str]]


@pytest.fixture
def found(tmp_path: Path) -> Verify:
    """Return a function that writes lines and returns what is wrong with them, without the place."""

    def check(lines: list[Any]) -> list[str]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return [text.replace(str(path), "FILE") for text in problems(path, ("in-domain", "texture-bias"), recorded())]

    return check


def test_what_a_store_writes_can_be_shipped_and_is_read_as_its_rows(
    lines: list[Any], found: Verify, store: Path, tmp_path: Path
) -> None:
    assert len(lines) == 3 and found(lines) == []
    own, read = (Board().values([place], False) for place in (store, tmp_path / "rows.jsonl"))
    assert [line | {"resolution": None} for line in read] == [line | {"resolution": None} for line in own]


def metric(line: dict[str, Any]) -> dict[str, Any]:
    """Return the first metric of a record."""
    return dict(line["metrics"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line | {"schema": 2}, "schema 2"),
        (lambda line: line | {"schema": 9}, "schema"),
        (lambda line: line | {"key": "abc"}, "hash of a cell"),
        (lambda line: line | {"suite": "other"}, "does not ship"),
        (lambda line: line | {"inputs": {}}, "from which images"),
        (lambda line: line | {"code": {}}, "which version"),
        (lambda line: line | {"code": line["code"] | {"dirty": "yes"}}, "modified code"),
        (lambda line: line | {"probe_seed": "0"}, "probe_seed"),
        (lambda line: line | {"extra": 1}, "extra"),
        (lambda line: line | {"metrics": []}, "no metrics"),
        (lambda line: line | {"metrics": [metric(line), metric(line)]}, "one name"),
        (lambda line: line | {"subject": line["subject"] | {"generator": "world:texture=0.5"}}, "calibration"),
        (lambda line: line | {"checks": [line["checks"][0] | {"value": 0.1}]}, "below 0.5"),
        (lambda line: json.dumps(line)[:-20], "not a record"),
        (lambda line: json.dumps(line).replace('"schema": 3', '"schema": 3, "schema": 3'), "twice"),
    ],
)
def test_a_line_that_cannot_be_shipped_is_named_with_the_reason(
    lines: list[Any], found: Verify, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    wrong = found([lines[0], change(lines[1]), lines[2]])
    assert wrong and all(text.startswith("FILE line 2: ") for text in wrong)
    assert any(words in text for text in wrong), wrong


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"value": 0.99}, "outside its interval"),
        ({"value": 1.2, "low": 1.1, "high": 1.3}, "outside the range"),
        ({"low": None, "high": None}, "no interval"),
        ({"low": None}, "both ends"),
        ({"n": 0}, "0 test items"),
        ({"value": float("nan")}, "finite"),
    ],
)
def test_a_number_that_cannot_be_is_named(lines: list[Any], found: Verify, numbers: dict[str, Any], words: str) -> None:
    first = metric(lines[0])
    wrong = found([lines[0] | {"metrics": [first | {"estimate": first["estimate"] | numbers}]}])
    assert any(words in text for text in wrong), wrong


def test_a_record_twice_and_one_that_contradicts_what_ships_are_named(lines: list[Any], found: Verify) -> None:
    assert any("second record" in text for text in found([lines[0], lines[0]]))
    shipped = json.loads(recorded()[0].record.to_json())
    first = metric(shipped)
    moved = shipped | {"metrics": [first | {"estimate": first["estimate"] | {"value": first["estimate"]["low"]}}]}
    assert any("disagree" in text for text in found([moved]))
    assert found([shipped]) == []


def test_verify_reads_a_submission_and_its_exit_code_says_whether_it_can_be_shipped(
    lines: list[Any], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bad.write_text(json.dumps(lines[0] | {"key": "abc"}) + "\n")
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(good)]).exit_code == 0
    refused = runner.invoke(app, ["verify", str(bad)])
    assert refused.exit_code == 1 and "hash of a cell" in refused.stdout
    (tmp_path / "good.txt").write_text(good.read_text())
    assert "ends with .jsonl" in runner.invoke(app, ["verify", str(tmp_path / "good.txt")]).stdout
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert "no record" in runner.invoke(app, ["verify", str(empty)]).stdout


def test_a_file_of_records_in_the_folder_of_baselines_is_part_of_the_board(
    lines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("leaderboard.sources.shipped", lambda name="": tmp_path / name)
    assert [entry.record for entry in recorded()] == [entry.record for entry in gather([tmp_path / "mine.jsonl"])] and {
        entry.origin for entry in recorded()
    } == {"recorded"}


def test_every_shipped_record_would_be_accepted_but_for_the_old_ones_named_here() -> None:
    """What ships was written before submissions were checked: only what their schema cannot say may be missing."""
    for entry in recorded():
        record_schema.model().validate_json(entry.record.to_json(), strict=True)
        assert Record.from_json(entry.record.to_json()) == entry.record
