"""The board in the formats of others: valid by their own schemas and classes, every number whole, nothing ranked that is not."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UserError
from harness.stats.difference import flag_units
from harness.stats.estimate import Estimate, proportion
from harness.store.records import Metric
from leaderboard.board import Board
from leaderboard.exchange import eval_results, every_eval_ever
from leaderboard.exchange.results import rows, slug
from leaderboard.long import long_table
from leaderboard.sources import gather, recorded
from tests.leaderboard.conftest import MakeStore, flags, make_record, put

ODD = 'a/b: "c" #d {e} é\u202e'
WHEEL = "every_eval_ever-0.3.0-py3-none-any.whl"


@pytest.fixture
def place(make_store: MakeStore) -> Path:
    """Return a store: one generator of two seeds, one whose name has a bit of every markup, undefined and unranked metrics."""
    store = make_store("s", {"plain": {"in-domain": [flags(200, 0.8, seed) for seed in range(2)]}})
    made = make_record("texture-bias", ODD, flags(100, 0.3, 1))
    extra = (
        Metric("cue_coverage", proportion(flags(100, 0.9, 2)), role="companion"),
        Metric("rate", proportion(flags(100, 0.5, 3)), better="neither"),
        Metric("kappa", Estimate(-0.25, -0.4, -0.1, 100, "bootstrap", "new images"), role="secondary"),
        Metric("gap", Estimate(12.5, 3.0, 20.0, 90, "bootstrap", "new images"), unit="points", better="lower"),
        Metric("lost", Estimate(None, None, None, 0, "wilson", "new images", "no answers")),
    )
    made = replace(
        made, metrics=(replace(made.metrics[0], beside=("cue_coverage",)), *extra), findings=("2 files differ",)
    )
    put(store, made, [flag_units("TI", [f"item {i}" for i in range(100)], flags(100, 0.3, 1))])
    return store


def schema() -> dict[str, Any]:
    """Return the schema from the wheel that `make env` fetched, for which this Python and hub library are too new or too old."""
    wheel = Path(sys.prefix) / "share" / WHEEL
    if not wheel.is_file():
        pytest.skip(f"{wheel.name} is not there: make env fetches it")
    found = json.loads(zipfile.ZipFile(wheel).read("every_eval_ever/schemas/eval.schema.json"))
    assert found["version"] == every_eval_ever.SCHEMA_VERSION
    return dict(found)


def findings(document: dict[str, Any]) -> list[str]:
    """Return what the schema of Every Eval Ever finds wrong."""
    jsonschema = pytest.importorskip("jsonschema")
    return [f"{each.json_path}: {each.message}" for each in jsonschema.Draft7Validator(schema()).iter_errors(document)]


def test_every_eval_ever_accepts_the_recorded_rows_and_a_store_of_odd_names(place: Path) -> None:
    files = every_eval_ever.documents(recorded()) | every_eval_ever.documents(gather([place]))
    assert len(files) == 8
    assert [found for text in files.values() for found in findings(json.loads(text))] == []


def test_every_eval_ever_refuses_a_document_without_what_it_asks_for(place: Path) -> None:
    whole = json.loads(next(iter(every_eval_ever.documents(gather([place])).values())))
    for name in ("retrieved_timestamp", "model_info", "eval_library"):
        assert findings({key: value for key, value in whole.items() if key != name})
    whole["evaluation_results"][0]["score_details"]["score"] = "0.8"
    assert findings(whole)


def test_a_log_has_every_number_of_the_board_in_full(place: Path) -> None:
    entries = recorded()
    board = {(one["system"], one["backbone"], one["suite"], one["column"]): one for one in long_table(entries)}
    seen = 0
    for text in every_eval_ever.documents(entries).values():
        log = json.loads(text)
        about = log["model_info"]["additional_details"]
        for result in log["evaluation_results"]:
            suite = result["evaluation_name"].removeprefix("databias-harness.")
            line = board[about["generator"], about["backbone"], suite, result["metric_config"]["metric_name"]]
            score, interval = (
                result["score_details"],
                result["score_details"]["uncertainty"].get("confidence_interval", {}),
            )
            assert score["score"] == line["value"] and score["uncertainty"]["num_samples"] == line["n"]
            assert (interval.get("lower"), interval.get("upper")) == (line["low"], line["high"])
            assert score["details"]["seeds"] == line["seeds"]
            assert result["metric_config"]["additional_details"]["protocol"] == line["protocol"]
            seen += 1
    assert seen == sum(one["role"] != "companion" for one in board.values()) > 80


def test_a_log_says_scale_direction_and_what_is_undefined_and_ranks_nothing_that_has_no_direction(place: Path) -> None:
    logs = [json.loads(text) for text in every_eval_ever.documents(gather([place])).values()]
    (log,) = [log for log in logs if log["model_info"]["additional_details"]["generator"].startswith("a/b")]
    found = {result["metric_config"]["metric_name"]: result for result in log["evaluation_results"]}
    assert list(found) == ["TI", "gap", "kappa"]
    scales = {name: (r["metric_config"]["min_score"], r["metric_config"]["max_score"]) for name, r in found.items()}
    assert scales == {"TI": (0.0, 1.0), "gap": (-100.0, 100.0), "kappa": ("-Infinity", "Infinity")}
    assert found["TI"]["metric_config"]["lower_is_better"] and found["gap"]["metric_config"]["metric_unit"] == "points"
    assert float(found["TI"]["score_details"]["details"]["read with cue_coverage"]) == 0.9
    assert found["TI"]["score_details"]["details"]["findings"] == "2 files differ"
    assert "lost" in log["source_metadata"]["additional_details"]["undefined_results"]
    assert "\u202e" not in json.dumps(log, ensure_ascii=False)


def test_logs_of_the_same_records_differ_in_no_byte_if_the_time_is_fixed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (Board().render([place], "every-eval-ever", False) for _ in range(2))
    assert first == second and isinstance(first, dict)
    assert all(
        json.loads(text)["retrieved_timestamp"] == "1700000000" and text.count("\n") == 1 for text in first.values()
    )
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    later = every_eval_ever.documents(gather([place]))
    assert list(later) == list(first)


def test_eval_results_come_back_from_the_hub_librarys_own_parser(place: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    yaml = pytest.importorskip("yaml")
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub is older than the format")
    by_name = {row.name: row for row in rows(gather([place]))}
    files = eval_results.documents(gather([place]))
    assert list(files) == [f"{name}/.eval_results/databias-harness.yaml" for name in by_name]
    for (name, row), text in zip(by_name.items(), files.values(), strict=True):
        entries = hub.parse_eval_result_entries(yaml.safe_load(text))
        assert [entry.value for entry in entries] == [one.score for one in row.results], name
        assert [entry.task_id for entry in entries] == [one.facts["column"] for one in row.results]
        for entry, one in zip(entries, row.results, strict=True):
            assert f"n {one.facts['n']};" in entry.notes and repr(one.facts["low"]) in entry.notes
            assert "\n" not in entry.notes and "protocol p" in entry.notes
        assert hub.eval_result_entries_to_yaml(entries) == yaml.safe_load(text)


def test_a_missing_hub_library_is_said_with_the_command_that_installs_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'databias-harness\[export\]'"):
        Board().render([place], "eval-results", False)


def test_rows_get_names_that_every_file_system_takes_and_no_two_share(place: Path) -> None:
    assert (
        slug(ODD) == "a-b-c-d-e" and slug("../..") == "unnamed" and slug("a..b") == "a.b" and len(slug("x" * 300)) == 80
    )
    entries = gather([place])
    twin = [replace(e, record=replace(e.record, key=e.record.key[::-1], subject=replace(e.record.subject, generator="a/b:c d e")))
            for e in entries if e.record.suite == "texture-bias"]  # fmt: skip
    names = [row.name for row in rows([*entries, *twin])]
    assert len(set(names)) == len(names) == 3 and names[0].startswith("toy-a-b-c-d-e-resnet10")


def test_the_formats_of_others_hold_every_metric_so_a_view_is_refused(place: Path) -> None:
    for style in ("every-eval-ever", "eval-results", "records"):
        with pytest.raises(UserError, match="--columns"):
            Board().render([place], style, False, columns="bias")


def test_what_was_measured_on_images_is_no_result_of_a_network(make_store: MakeStore) -> None:
    store = make_store("s", {"g": {"in-domain": [flags(50, 0.5, 0)]}})
    of_images = make_record("generated-correlation", "g", flags(50, 0.5, 0))
    put(store, replace(of_images, subject=replace(of_images.subject, backbone="-")), [])
    (row,) = rows(gather([store]))
    assert [one.facts["suite"] for one in row.results] == ["in-domain"]
    assert asdict(row.key)["backbone"] == "resnet10"


def test_the_command_writes_a_file_per_row_into_a_folder_and_one_stream_to_standard_output(
    place: Path, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from harness.cli.main import app

    runner, wanted = CliRunner(), ["leaderboard", str(place), "--no-recorded", "--format"]
    shown = runner.invoke(app, [*wanted, "every-eval-ever"], env={"SOURCE_DATE_EPOCH": "1"})
    assert [json.loads(line)["schema_version"] for line in shown.stdout.splitlines()] == ["0.3.0", "0.3.0"]
    done = runner.invoke(
        app, [*wanted, "every-eval-ever", "--output", str(tmp_path / "out")], env={"SOURCE_DATE_EPOCH": "1"}
    )
    written = sorted((tmp_path / "out").glob("data/databias-harness/databias-harness/*/*.json"))
    assert done.exit_code == 0 and len(written) == 2
    assert sorted(path.read_text("utf-8") for path in written) == sorted(shown.stdout.splitlines(keepends=True))
    assert runner.invoke(app, [*wanted, "eval-results"]).stdout.count("---\n") == 2
