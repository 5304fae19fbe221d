"""What lies in a store, and what may go: never a result, nor what it was made from, nor anything while a run is active."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli.main import app
from harness.core.errors import UserError
from harness.core.locks import lock
from harness.run.progress import ProgressReporter
from harness.store.artifacts import MANIFEST, Store
from harness.store.cells import Cell
from harness.store.housekeeping import entries, garbage, in_use_path, remove

WEIGHTS = Cell("fit", "lbgen", 1, {}, label="lbgen seed 0")
IMAGES = Cell("synthesise", "lbgen", 1, {}, {"weights": WEIGHTS.key})
NETWORK = Cell("pretrain", "resnet10", 1, {}, {"dataset": IMAGES.key})
ROWS = Cell("evaluate", "in-domain", 1, {}, {"checkpoint": NETWORK.key})
ORPHAN = Cell("synthesise", "sd15", 1, {})
HALF = Cell("pretrain", "vit", 1, {})


def filled(store: Store, cell: Cell, *, sealed: bool = True) -> Path:
    """Make a cell's artifact, with one file of 100 bytes."""
    folder = store.folder(cell)
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(b"x" * 100)
    if sealed:
        store.seal(cell, {})
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with an evaluation and its lineage, an unused dataset, a half-made backbone, and rubbish."""
    made = Store(tmp_path / "s")
    for cell in (WEIGHTS, IMAGES, NETWORK, ROWS, ORPHAN):
        filled(made, cell)
    filled(made, HALF, sealed=False)
    aside = made.folder(IMAGES).with_name(f"{made.folder(IMAGES).name}.set-aside-1")
    aside.mkdir()
    (aside / "old.bin").write_bytes(b"y" * 50)
    (made.folder(ROWS) / ".record.json.123.tmp").write_bytes(b"z" * 7)
    gone = made.root / "fit" / ".lbgen-0.gone"
    gone.mkdir()
    (gone / ".x.1.tmp").write_bytes(b"w" * 9)
    return made


def gc(store: Store, *arguments: str) -> Result:
    """Run ``store gc``."""
    return CliRunner().invoke(app, ["store", "gc", "--store", str(store.root), *arguments])


def everything(store: Store) -> list[str]:
    """Return all paths of a store but its locks."""
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if "locks" not in p.parts)


def test_ls_shows_what_each_artifact_is_and_how_many_evaluations_use_it(store: Store) -> None:
    found = {entry.path: entry for entry in entries(store.root)}
    states = {path: (entry.state, entry.used_by) for path, entry in found.items()}
    assert states[WEIGHTS.folder] == states[IMAGES.folder] == states[NETWORK.folder] == ("done", 1)
    assert states[ROWS.folder] == states[ORPHAN.folder] == ("done", 0) and states[HALF.folder] == ("partial", 0)
    assert states[f"{IMAGES.folder}.set-aside-1"] == ("moved aside", 0)
    assert found[WEIGHTS.folder].label == "lbgen seed 0" and found[HALF.folder].bytes == 100
    done = CliRunner().invoke(app, ["store", "ls", "--store", str(store.root)])
    assert done.exit_code == 0 and f"{WEIGHTS.folder}\n" in done.output and "used by 1    lbgen seed 0" in done.output
    rows = json.loads(CliRunner().invoke(app, ["store", "ls", "--store", str(store.root), "--json"]).output)
    assert {row["path"] for row in rows} == set(found)


def test_an_age_survives_a_clock_that_was_set_back(store: Store) -> None:
    os.utime(store.folder(WEIGHTS) / "data.bin", (time.time() + 9999, time.time() + 9999))
    assert " 0 s old" in CliRunner().invoke(app, ["store", "ls", "--store", str(store.root)]).output


def test_a_file_of_another_size_or_an_unreadable_manifest_is_damage(store: Store) -> None:
    (store.folder(NETWORK) / "data.bin").write_bytes(b"")
    (store.folder(ORPHAN) / MANIFEST).write_text("{")
    states = {entry.path: entry.state for entry in entries(store.root)}
    assert states[NETWORK.folder] == states[ORPHAN.folder] == "damaged"
    (store.folder(ROWS) / "data.bin").write_bytes(b"")
    assert store.folder(ROWS) not in {each.path for each in garbage(store.root)}, "a damaged result may be rescored"


def test_gc_lists_and_changes_nothing_until_it_is_told_to_delete(store: Store) -> None:
    before = everything(store)
    done = gc(store)
    assert done.exit_code == 0 and everything(store) == before
    for words in (f"{ORPHAN.folder}  (not used", f"{HALF.folder}  (unfinished)", ".set-aside-1  (moved aside", "123.tmp  (write",
                  ".gone  (removal", "5 items", "--delete"):  # fmt: skip
        assert words in done.output, done.output
    assert WEIGHTS.folder not in done.output and NETWORK.folder not in done.output
    deleted = gc(store, "--delete")
    assert deleted.exit_code == 0 and "deleted 5 items" in deleted.output
    left = [entry.path for entry in entries(store.root)]
    assert left == [WEIGHTS.folder, IMAGES.folder, NETWORK.folder, ROWS.folder]
    assert all(store.state(cell) == "done" for cell in (WEIGHTS, IMAGES, NETWORK, ROWS))
    assert "nothing to delete" in gc(store).output and not list(store.root.rglob(".*"))


def test_what_a_killed_evaluation_from_python_left_goes_after_a_day(store: Store) -> None:
    folder = store.root / ".model-abc"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x" * 10)
    assert folder not in {each.path for each in garbage(store.root)}, "it may be at work"
    os.utime(folder, (time.time() - 2 * 86400,) * 2)
    (found,) = (each for each in garbage(store.root) if each.path == folder)
    assert found.bytes == 10 and "interrupted" in found.reason
    remove(store.root, [found])
    assert not folder.exists()


def test_what_the_last_run_needs_is_kept_even_without_a_result(store: Store) -> None:
    run = ProgressReporter(store, 1, quiet=True)
    run.begin([HALF], [ORPHAN], 1)
    run.interrupt()
    assert gc(store, "--delete").exit_code == 0
    assert store.folder(HALF).is_dir() and store.folder(ORPHAN).is_dir()


def test_nothing_is_deleted_while_a_run_is_active(store: Store) -> None:
    before = everything(store)
    with lock(in_use_path(store.root), shared=True), pytest.raises(UserError, match="a run is active"):
        remove(store.root, garbage(store.root))
    assert everything(store) == before
    run = ProgressReporter(store, 1, quiet=True)
    run.begin([ROWS], [], 1)
    assert isinstance(gc(store, "--delete").exception, UserError) and store.folder(ORPHAN).is_dir()


def test_an_artifact_that_a_process_still_works_on_is_kept(store: Store) -> None:
    with lock(store.root / "locks" / f"{HALF.key[:16]}.lock"):
        done = gc(store, "--delete")
    assert store.folder(HALF).is_dir() and not store.folder(ORPHAN).exists()
    assert "a process is working on it" in done.output and "deleted 4 items" in done.output


def test_what_an_active_run_writes_is_not_called_interrupted_nor_free(store: Store) -> None:
    with lock(
        in_use_path(store.root), shared=True
    ):  # the run of a Python caller, or one whose status is not written yet
        done, listed = gc(store), CliRunner().invoke(app, ["store", "ls", "--store", str(store.root)])
        facts = json.loads(CliRunner().invoke(app, ["store", "gc", str(store.root), "--json"]).stdout)
    assert "a run is active: what it is writing is not listed" in done.stderr
    assert "interrupted" not in done.output and HALF.folder not in done.output
    assert f"{ORPHAN.folder}  (not used" in done.stdout and "2 items" in done.stderr
    assert "a run is active: it is writing to some of the partial artifacts" in listed.stderr
    assert facts["run_is_active"] is True and len(facts["garbage"]) == 2
    assert "a run is active" not in gc(store).output + CliRunner().invoke(app, ["store", "ls", str(store.root)]).output
    run = ProgressReporter(store, 1, quiet=True)
    run.begin([ROWS], [], 1)
    assert f"a run is active (process {os.getpid()} on " in gc(store).stderr


def test_commands_about_a_store_take_it_as_an_argument_or_an_option(store: Store) -> None:
    ProgressReporter(store, 1, quiet=True).begin([ROWS], [], 1)
    for command in (["status"], ["store", "ls"], ["store", "gc"], ["verify"]):
        ways = [CliRunner().invoke(app, [*command, *way, str(store.root)]) for way in ([], ["--store"])]
        shown = [re.sub(r"[\d.]+ \w+", "", way.stdout) for way in ways]  # ages and sizes
        assert shown[0] == shown[1] and ways[0].exit_code == ways[1].exit_code, command
        assert str(store.root) not in ways[0].stdout or command == ["status"]
        assert "no such folder" not in ways[0].stderr and not isinstance(ways[0].exception, UserError)
