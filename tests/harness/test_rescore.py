"""Metrics anew from stored rows: byte-equal where nothing changed, and damage is named."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.cli.main import app
from harness.core.code import SCHEME
from harness.core.errors import DataMissing
from harness.core.identity import file_sha256
from harness.core.seals import SEAL, with_seal
from harness.results.rescore import rescore, verify
from harness.run.scoring import lineage, score_rows, write_scored
from harness.run.tasks import write_rows_table
from harness.stats.units_file import unpack
from harness.store.artifacts import SCORE_HASH, Store
from harness.store.cells import Cell
from harness.store.records import SCHEMA, Record
from suites.texture_bias import TextureBias
from tests.harness.conftest import Run, toy_run

CATEGORIES = ("a", "b", "c")
CARDS = {"cue-conflict": {"name": "toy", "categories": {name: [f"n{i}"] for i, name in enumerate(CATEGORIES)},
                          "expected_images": 90, "expected_conflict": 60}}  # fmt: skip


def rows(seed: int) -> pd.DataFrame:
    """Return rows of 90 cue-conflict images."""
    rng = np.random.default_rng(seed)
    shape, texture = np.repeat(CATEGORIES, 30), np.tile(np.repeat(CATEGORIES, 10), 3)
    answer = np.where(rng.random(90) < 0.6, shape, texture)
    return pd.DataFrame({"image": [f"{i}.png" for i in range(90)], "shape": shape, "shape_source": np.char.add(shape, "1"),
                         "texture": texture, "texture_source": np.char.add(texture, "2"), "answer": answer, "tied": False,
                         "converted": False, "truncated": False})  # fmt: skip


def cell(seed: int, inputs: dict[str, str]) -> Cell:
    """Return an evaluate cell of the texture suite."""
    subject = {"generator": "lbgen", "backbone": "resnet10", "generator_seed": seed, "train_seed": seed, "information": [],
               "profile": "toy", "recipe": "r", "class_list": "c"}  # fmt: skip
    params = {
        "settings": {},
        "item": "texture-bias",
        "item_params": {},
        "data": {"cue-conflict": "f"},
        "subject": subject,
    }
    return Cell("evaluate", "texture-bias", TextureBias.card.version, params, inputs, {"probe_seed": 0})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of two finished evaluations, one with a known ancestor."""
    made = Store(tmp_path / "store")
    parent = Cell("pretrain", "resnet10", 1, {}, {"copy": "c" * 64})
    made.folder(parent).mkdir(parents=True)
    (made.folder(parent) / "weights").write_bytes(b"w")
    made.seal(parent, {})
    for seed in (0, 1):
        one = cell(seed, {"checkpoint": parent.key})
        folder = made.folder(one)
        folder.mkdir(parents=True)
        write_rows_table(folder / "rows.parquet", rows(seed))
        code = {"harness": "0", "commit": "abc", "dirty": "no"}
        scored = score_rows(one.spec, one.key, rows(seed), CARDS, lineage(made.root, one.inputs), code)
        write_scored(folder, scored, CARDS)
        made.seal(one, {"provenance": {"code": code}})
    return made


def contents(store: Store) -> dict[str, bytes]:
    """Return every file's bytes."""
    return {
        str(path.relative_to(store.root)): path.read_bytes() for path in sorted(store.root.rglob("*")) if path.is_file()
    }


def test_an_unchanged_store_is_byte_equal_after_rescoring(store: Store) -> None:
    before = contents(store)
    assert [one.outcome for one in rescore(store.root)] == ["unchanged", "unchanged"]
    assert contents(store) == before and verify(store.root) == []


def test_records_name_what_they_were_made_from(store: Store) -> None:
    path = next(store.root.glob("evaluate/*/record.json"))
    record = Record.from_json(path.read_text())
    assert set(record.inputs) == {"checkpoint", "checkpoint/copy"} and record.inputs["checkpoint/copy"] == "c" * 64
    assert record.code == {"harness": "0", "commit": "abc", "dirty": "no"} and record.schema == SCHEMA
    units = unpack(path.with_name("units.npz").read_bytes(), "units")["record"]
    values = {m.name: m.estimate.value for m in record.metrics if m.role != "companion"}
    assert {"TI", "shape_accuracy"} <= {one.metric for one in units} <= set(values)
    assert all(one.value() == pytest.approx(values[one.metric]) for one in units)


def test_metrics_that_a_new_version_adds_are_no_changed_numbers(store: Store) -> None:
    from harness.run.scoring import _outcome

    record = Record.from_json(next(store.root.glob("evaluate/*/record.json")).read_text())
    older = replace(record, metrics=tuple(m for m in record.metrics if m.role != "secondary"))
    said = _outcome(older, record)
    assert said.startswith("metrics as before, added: ") and "shape_accuracy" in said
    other = replace(older, metrics=tuple(replace(m, better="neither") for m in older.metrics))
    assert _outcome(other, record).startswith("metrics changed: TI, ") and "; added: " in _outcome(other, record)
    assert _outcome(record, older).startswith("metrics as before") is False, "a metric that is gone is a change"


def test_a_hand_edited_record_is_named_and_mended_from_its_rows(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(store)
    path = sorted(store.root.glob("evaluate/*/record.json"))[1]
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.1'))
    (problem,) = verify(store.root)
    assert path.parent.name in problem and "record.json" in problem
    with pytest.raises(SystemExit) as caught:
        app(["verify", str(store.root)])
    assert caught.value.code == 1 and path.parent.name in capsys.readouterr().out
    assert [one.changed for one in rescore(store.root)] == [False, True]
    assert contents(store) == before


def test_a_deleted_record_is_named_and_made_anew_from_its_rows(store: Store) -> None:
    before = contents(store)
    path = sorted(store.root.glob("evaluate/*/record.json"))[0]
    path.unlink()
    assert verify(store.root) == [f"evaluate/{path.parent.name}: record.json is gone"]
    assert [one.changed for one in rescore(store.root)] == [True, False]
    assert contents(store) == before


def test_a_record_edited_with_its_manifest_is_mended_and_edited_rows_are_not_sealed_anew(store: Store) -> None:
    before = contents(store)
    first, second = sorted(path.parent for path in store.root.glob("evaluate/*/record.json"))
    record = first / "record.json"
    record.write_text(record.read_text().replace('"value": 0.', '"value": 0.1'))
    table = pd.read_parquet(second / "rows.parquet")
    table.loc[:, "answer"] = table["shape"]
    write_rows_table(second / "rows.parquet", table)
    for folder, name in ((first, "record.json"), (second, "rows.parquet")):
        facts = json.loads((folder / "manifest.json").read_text())
        facts["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        (folder / "manifest.json").write_text(json.dumps(facts))
    outcomes = {one.folder: one for one in rescore(store.root)}
    assert outcomes[first].changed and outcomes[second].failed and "was edited" in outcomes[second].outcome
    assert {name: data for name, data in contents(store).items() if first.name in name} == {
        name: data for name, data in before.items() if first.name in name
    }
    assert [problem.partition(":")[0] for problem in verify(store.root)] == [f"evaluate/{second.name}"]


def test_nothing_to_verify_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="nothing to verify"):
        verify(tmp_path)


def test_an_edited_spec_or_file_list_is_named(store: Store) -> None:
    first, second = sorted(store.root.glob("evaluate/*/manifest.json"))
    raw = json.loads(first.read_text())
    raw["spec"]["params"]["subject"]["generator"] = "better"
    first.write_text(json.dumps(raw))
    raw = json.loads(second.read_text())
    raw["files"]["extra"] = {"bytes": 1, "sha256": "0"}
    second.write_text(json.dumps(raw))
    problems = verify(store.root)
    assert any(first.parent.name in p and "spec was edited" in p for p in problems)
    assert any(second.parent.name in p and "extra is gone" in p for p in problems)


def test_truncated_rows_are_named_and_only_their_cell_is_to_be_redone(store: Store) -> None:
    cells = [cell(seed, {"checkpoint": Cell("pretrain", "resnet10", 1, {}, {"copy": "c" * 64}).key}) for seed in (0, 1)]
    path = store.folder(cells[1]) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert [store.state(one) for one in cells] == ["done", "corrupt"]
    outcomes = {one.folder: one.outcome for one in rescore(store.root)}
    assert outcomes[store.folder(cells[0])] == "unchanged"
    assert re.match("not rescored: .*rows.parquet has [0-9]+ bytes", outcomes[store.folder(cells[1])])
    store.discard(cells[1])
    assert [store.state(one) for one in cells] == ["done", "missing"] and len(rescore(store.root)) == 1


def test_results_of_schema_1_are_brought_up_to_date_with_the_same_numbers(store: Store) -> None:
    after = contents(store)
    for path in store.root.glob("evaluate/*/record.json"):
        raw = json.loads(path.read_text()) | {"schema": 1}
        del raw["inputs"], raw["code"]
        path.write_text(json.dumps(raw))
        manifest = json.loads(path.with_name("manifest.json").read_text())
        for name in ("units.npz",):
            path.with_name(name).unlink()
            del manifest["files"][name]
        path.with_name("manifest.json").write_text(json.dumps(manifest))
    assert {one.outcome for one in rescore(store.root)} == {"metrics as before, record brought up to date"}
    assert contents(store) == after


def test_an_empty_folder_has_nothing_to_rescore(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no results"):
        rescore(tmp_path)


def test_a_changed_score_is_applied_to_stored_rows_and_a_changed_measurement_stops_the_run(
    harness: Run, plugins: Path, tmp_path: Path
) -> None:
    """A comment changes nothing, an edited interval is re-scored without measuring, edited rows are stale."""
    own, store = shutil.copytree(plugins, tmp_path / "own"), tmp_path / "s"
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(own), os.environ.get("PYTHONPATH"))))}
    command = ("run", "--generator", "noise", "--suite", "brightness", "--profile", str(own / "toy.toml"))

    def run(old: str = "", new: str = "", *more: str) -> tuple[int, str]:
        module = own / "fakeplug.py"
        module.write_text(module.read_text().replace(old, new))
        done = harness(*command, "--store", str(store), *more, **environment)
        return done.returncode, done.stderr

    assert run()[0] == 0
    (folder,) = (store / "evaluate").iterdir()
    before = Record.from_json((folder / "record.json").read_text())
    measured = (folder / "rows.parquet").stat()
    assert "nothing to do" in run("def rows", "# a comment\n    def rows")[1]
    code, said = run("value - 0.01", "value - 0.02", "--stale", "reuse")
    assert code == 0 and "re-scored" not in said, "the user asked for the old record"
    code, said = run()
    assert code == 0 and "metrics changed: brightness" in said and "nothing to do" in said, said
    after = Record.from_json((folder / "record.json").read_text())
    (old,), (new,) = before.metrics, after.metrics
    assert old.estimate.low - new.estimate.low == pytest.approx(0.01) and old.estimate.value == new.estimate.value
    now = (folder / "rows.parquet").stat()
    assert (now.st_ino, now.st_mtime_ns) == (measured.st_ino, measured.st_mtime_ns) and verify(store) == []
    assert "re-scored" not in run()[1]
    (folder / "rows.parquet").write_bytes(b"x" * measured.st_size)
    code, said = run("value - 0.02", "value - 0.03")
    assert code == 0 and "moved aside and rebuilt" in said and "1 cells in" in said, said
    code, said = run(".mean()) / 255", ".max()) / 255")
    assert code == 2 and "1 artifacts are stale (1 evaluate)" in said and "code has changed" in said


def test_an_artifact_of_older_rules_is_said_to_be_of_unknown_code(harness: Run, plugins: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    command = toy_run(plugins, store)
    assert harness(*command).returncode == 0
    for path in (store / "evaluate").glob("*/manifest.json"):
        manifest = {k: v for k, v in json.loads(path.read_text()).items() if k not in (SCORE_HASH, SEAL)}
        path.write_text(json.dumps(manifest | {"fingerprint": "0123456789abcdef"}))
    stopped = harness(*command)
    assert stopped.returncode == 2 and "an older version made them" in stopped.stderr
    assert "the code has changed" not in stopped.stderr and harness(*command, "--stale", "reuse").returncode == 0


def test_commands_that_show_results_name_scores_of_older_code(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from harness.plugins import registry
    from harness.plugins.code import score_code

    def shown(*command: str) -> str:
        return CliRunner().invoke(app, [*command]).stderr

    now = score_code(registry.suites().get("texture-bias"))
    folders = sorted((store.root / "evaluate").iterdir())

    def sealed(*hashes: str) -> None:
        for folder, made_by in zip(folders, hashes, strict=True):
            manifest = json.loads((folder / "manifest.json").read_text()) | {
                "fingerprint": f"{SCHEME}:f",
                SCORE_HASH: made_by,
            }
            (folder / "manifest.json").write_text(json.dumps(with_seal(manifest)))

    place, line = str(store.root), "1 of 2 evaluations were scored by older code; python -m harness rescore"
    commands = [
        ["leaderboard", place, "--no-recorded"],
        ["verify", place],
        ["compare", "lbgen", "real", "--store", place],
    ]
    assert not any("older code" in shown(*command) for command in commands), "an older version did not keep the hash"
    sealed(now, now)
    assert not any("older code" in shown(*command) for command in commands)
    sealed(now, f"{SCHEME}:other")
    for command in commands[:2]:
        assert shown(*command).count(line) == 1, command
    shutil.copytree(folders[1], folders[1].with_name(f"{folders[1].name}.set-aside-1"))
    assert line in shown("verify", place)
    monkeypatch.setattr(registry, "suites", lambda: registry.Registry("suite", "harness.suites", TextureBias, []))
    assert "older code" not in shown("verify", place), "a suite that is not installed"
