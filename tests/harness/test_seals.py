"""An edited manifest is refused by run, rescore and the leaderboard; those of older versions stay readable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import CorruptArtifact, UserError
from harness.core.seals import SEAL, edited, with_seal
from harness.results.rescore import rescore, verify
from harness.store.artifacts import MANIFEST, Store, read_manifest
from harness.store.cells import Cell
from leaderboard.sources import from_store
from tests.harness.conftest import Run, toy_run

CELL = Cell("pretrain", "resnet10", 1, {"generator": "sd15"}, seeds={"train_seed": 0}, label="sd15 resnet10")


def rename(manifest: dict[str, Any]) -> None:
    """Give the result to another generator."""
    manifest["spec"]["params"]["subject"]["generator"] = "better"


def relabel(manifest: dict[str, Any]) -> None:
    """Change what stands beside the result."""
    manifest["label"] = "better"


def reword(manifest: dict[str, Any]) -> None:
    """Change which code made it."""
    manifest["provenance"]["code"]["commit"] = "0" * 40


EDITS = [rename, relabel, reword]


def test_a_seal_covers_all_but_the_list_of_files_which_has_its_own_hash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder(CELL).mkdir(parents=True)
    (store.folder(CELL) / "a").write_text("a")
    store.seal(CELL, {"started": 1.0, "provenance": {"x": [1, 2.5, None]}})
    manifest = read_manifest(store.folder(CELL))
    assert manifest is not None and edited(manifest) == "" and store.state(CELL) == "done"
    for name in set(manifest) - {"files", SEAL}:
        assert edited(manifest | {name: "x"}), name
    assert edited(manifest | {"files": {}}) == ""
    older = {name: value for name, value in manifest.items() if name != SEAL}
    assert edited(older) == "" and edited(older | {"spec": {**older["spec"], "version": 2}})
    (store.folder(CELL) / MANIFEST).write_text(json.dumps(older))
    assert store.state(CELL) == "done"
    (store.folder(CELL) / MANIFEST).write_text(json.dumps(with_seal(older | {"label": "y"})))
    assert store.state(CELL) == "done", "a seal made anew is whole; no hash can tell it"


@pytest.fixture
def measured(harness: Run, plugins: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs a small measurement into the store ``s``."""
    command = toy_run(plugins)
    return lambda: harness(*command)


def test_one_edited_word_of_a_manifest_moves_no_row(measured: Callable[..., Any], tmp_path: Path) -> None:
    first = measured()
    assert first.returncode == 0, first.stderr
    store = tmp_path / "s"
    path = next((store / "evaluate").glob(f"*/{MANIFEST}"))
    whole, board = path.read_text(), (store / "leaderboard.csv").read_bytes()
    for edit in EDITS:
        for old in (False, True) if edit is rename else (False,):
            manifest = json.loads(whole)
            edit(manifest)
            if old:  # as an older version wrote it
                del manifest[SEAL]
            path.write_text(json.dumps(manifest))
            (outcome,) = rescore(store)
            assert outcome.failed and "edited" in outcome.outcome
            with pytest.raises(UserError, match="was changed after it was written"):
                from_store(store)
            assert any("edited" in problem for problem in verify(store))
            with pytest.raises(CorruptArtifact, match="damaged"):
                read_manifest(path.parent)
    again = measured()
    assert again.returncode == 0 and "is corrupt: moved aside and rebuilt" in again.stderr
    assert (store / "leaderboard.csv").read_bytes() == board
