"""Bytes that are no UTF-8 in files that should be text: the file is named, or made again where it can be; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generators.published.mapping import class_map
from harness.backbones.checkpoint import read_info
from harness.core.classes import load_classes
from harness.core.closure import read_source
from harness.core.cost import FOLDER, Cost, manifest_fields, save_shard_cost
from harness.core.errors import CorruptArtifact, UserError
from harness.core.files import read_text
from harness.images.shards import read_rows
from harness.plan.profile import load_profile
from harness.run.facts import network_facts
from harness.run.scoring import read_record
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.data import load_card
from tests.faults import faults
from tests.harness.conftest import Run, toy_run

BAD = b'{"a": "\xff\xfe"}\n'


def test_a_text_that_is_no_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(BAD)
    with pytest.raises(UserError, match=r"x.txt is not text in UTF-8"):
        read_text(path)
    with pytest.raises(UserError, match="position 7"):
        read_rows(path)
    with pytest.raises(UserError, match="x.txt"):
        load_card(str(path))
    with pytest.raises(UserError, match=r"x.txt is not text in UTF-8"):
        class_map(str(path), load_classes("micro"), ())
    (tmp_path / "p.toml").write_bytes(b'name = "\xff"\n')
    with pytest.raises(UserError, match=r"p.toml is not text in UTF-8"):
        load_profile(str(tmp_path / "p.toml"))
    assert read_record(path) is None


@pytest.mark.parametrize("content", [BAD, b"[1]", b"[1, 2, 3]", b"null", b'["a", 2]', b""])
def test_a_cost_that_cannot_be_read_is_not_known_and_harms_nothing(tmp_path: Path, content: bytes) -> None:
    for shard in ("a", "b"):
        save_shard_cost(tmp_path, shard, Cost(1.0, 2.0))
    (tmp_path / FOLDER / "b.json").write_bytes(content)
    found = manifest_fields(tmp_path, ("a", "b"), Cost(0.0, 0.0))
    assert found["wall_seconds"] is None and found["shard_costs"] == {"a": [1.0, 2.0]}


def test_a_damaged_backbone_description_is_damage_of_its_artifact(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell("pretrain", "resnet10", 1, {})
    store.folder(cell).mkdir(parents=True)
    (store.folder(cell) / "backbone.json").write_text("{}")
    store.seal(cell, {})
    assert network_facts(tmp_path, {"checkpoint": cell.key}) == {}
    (store.folder(cell) / "backbone.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptArtifact, match="damaged"):
        network_facts(tmp_path, {"checkpoint": cell.key})
    with pytest.raises(UserError, match=r"backbone.json cannot be read"):
        read_info(store.folder(cell))


def test_a_source_file_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "plug.py"
    path.write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    assert "'é'" in read_source(path)


def test_damaged_text_in_a_store_is_made_again(harness: Run, plugins: Path, tmp_path: Path) -> None:
    command = toy_run(plugins)
    failed = harness(*command, **faults(tmp_path / "hook", plugins, "EIO:rename:*/synthesise/*.manifest.json.*"))
    assert failed.returncode == 1
    rows, costs = (sorted((tmp_path / "s").rglob(pattern)) for pattern in ("shards/*.jsonl", "costs/*.json"))
    for path in (rows or sorted((tmp_path / "s").rglob("*.jsonl")))[:1] + costs[:1]:
        path.write_bytes(BAD)
    done = harness(*command)
    assert done.returncode == 0, done.stderr
    board = (tmp_path / "s" / "leaderboard.csv").read_bytes()
    for name in ("measured.json", "cards.json", "record.json"):
        path = next((tmp_path / "s" / "evaluate").glob(f"*/{name}"))
        size = path.stat().st_size
        path.write_bytes((b"\xff" * size)[:size])
    shown = harness("leaderboard", "s")
    assert shown.returncode == 2 and "was changed after it was written" in shown.stderr
    done = harness(*command)
    assert done.returncode == 0 and "moved aside and rebuilt" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "s" / "leaderboard.csv").read_bytes() == board
    assert json.loads((tmp_path / "s" / "status.json").read_text())["failed"] == 0
