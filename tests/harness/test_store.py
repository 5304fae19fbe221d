"""The store: whole or absent, states told apart, damage named."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.cost import read_cost, save_shard_cost, stopwatch
from harness.core.errors import CorruptArtifact, UserError
from harness.core.files import atomic_path, write_text
from harness.core.locks import lock
from harness.run.job import Job, execute
from harness.store.artifacts import MANIFEST, Store
from harness.store.cells import Cell

CELL = Cell("extract", "thing", 1, {"x": 1}, callable_path="tests.harness.test_store:make", code_hash="f")


def make(ctx: object) -> None:
    """Write two files, one of them scratch."""
    write_text(ctx.out / "a.txt", "hello")  # type: ignore[attr-defined]
    write_text(ctx.scratch / "half.txt", "work")  # type: ignore[attr-defined]


def no_space(ctx: object) -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def order(store: Store, cell: Cell = CELL) -> Job:
    """Return an order without inputs."""
    return Job(cell, {}, {}, str(store.root))


def test_states_from_missing_to_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.state(CELL) == "missing"
    store.folder(CELL).mkdir(parents=True)
    assert store.state(CELL) == "partial"
    execute(order(store))
    assert store.state(CELL) == "done"
    artifact = store.open(CELL)
    assert artifact.path("a.txt").read_text() == "hello" and artifact.files() == ("a.txt",)
    assert artifact.manifest["spec"]["params"] == {"x": 1} and artifact.manifest["provenance"]["packages"]["numpy"]


def test_stale_is_another_code_under_the_same_version(tmp_path: Path) -> None:
    store = Store(tmp_path)
    execute(order(store))
    assert store.state(replace(CELL, code_hash="g")) == "stale"


def test_other_scoring_code_asks_for_a_rescore_and_other_measuring_code_for_more(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), replace(CELL, score_hash="s")
    execute(order(store, cell))
    assert store.state(cell) == "done" and store.state(replace(cell, score_hash="t")) == "rescore"
    assert store.state(replace(cell, score_hash="t", code_hash="g")) == "stale"


@pytest.mark.parametrize("code_hash", ["f", "g"])
def test_only_what_this_code_made_is_salvaged(tmp_path: Path, code_hash: str) -> None:
    store, cell = Store(tmp_path), replace(CELL, shards=("one",))
    execute(order(store, cell))
    store.discard(replace(cell, code_hash=code_hash), salvage=True)
    assert (store.folder(cell) / "a.txt").is_file() == (code_hash == "f")


@pytest.mark.parametrize("damage", ["longer", "other", "gone", "manifest", "stranger"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    execute(order(store))
    folder = store.folder(CELL)
    if damage == "longer":
        (folder / "a.txt").write_text("hello!")
    elif damage == "other":
        (folder / "a.txt").write_text("jello")
    elif damage == "gone":
        (folder / "a.txt").unlink()
    elif damage == "manifest":
        (folder / MANIFEST).write_text('{"key":')
    else:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(manifest | {"key": "0" * 64}))
    assert store.state(CELL) == (
        "done" if damage == "other" else "corrupt"
    )  # sizes are looked at first, bytes when read
    with pytest.raises(CorruptArtifact) as caught:
        store.open(CELL).verify()
    assert "thing" in caught.value.what and caught.value.fix
    store.discard(CELL)
    execute(order(store))
    assert store.state(CELL) == "done" and list(folder.parent.glob("*.set-aside-1"))


def in_shards(ctx: object, shard: str = "") -> None:
    """Make a shard as a generator's cell does, or join them; one shard fails at first."""
    out, scratch = ctx.out, ctx.scratch  # type: ignore[attr-defined]
    if not shard:
        write_text(out / "joined", "".join(sorted(path.read_text() for path in out.glob("shards/*.tar"))))
    elif not (out / "shards" / f"{shard}.tar").is_file():
        watch = stopwatch()
        save_shard_cost(scratch, shard, replace(watch(), wall_seconds=100.0 * int(shard), cpu_seconds=10.0))
        write_text(out / "shards" / f"{shard}.tar", shard)


def test_the_cost_of_shards_is_summed_outlives_damage_and_changes_no_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = Cell("synthesise", "s", 1, {}, callable_path="tests.harness.test_store:in_shards", shards=("1", "2", "3"))

    def make_all() -> Mapping[str, Any]:
        for shard in (*cell.shards, ""):
            execute(replace(order(store, cell), shard=shard))
        return store.open(cell).manifest

    first = make_all()
    assert first["shard_costs"] == {"1": [100.0, 10.0], "2": [200.0, 10.0], "3": [300.0, 10.0]}
    assert 600 <= first["wall_seconds"] < 660 and 30 <= first["cpu_seconds"] < 60
    assert set(first["files"]) == {"joined", "shards/1.tar", "shards/2.tar", "shards/3.tar"}
    (store.folder(cell) / "shards" / "2.tar").write_text("?!")
    store.discard(cell, salvage=True)
    again = make_all()
    assert again["shard_costs"] == first["shard_costs"] and again["content"] == first["content"]
    shutil.rmtree(store.folder(cell))
    execute(replace(order(store, cell), shard="1"))
    shutil.rmtree(store.folder(cell) / "scratch")  # as an older version leaves it
    unknown = make_all()
    assert unknown["wall_seconds"] is None and read_cost(unknown) is None and read_cost(first) is not None
    assert unknown["content"] == first["content"]


def test_a_full_disk_is_a_user_error_and_harms_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    execute(order(store))
    full = Cell("extract", "full", 1, {}, callable_path="tests.harness.test_store:no_space")
    with pytest.raises(UserError, match="disk is full") as caught:
        execute(order(store, full))
    assert caught.value.fix and store.state(full) == "partial"
    store.open(CELL).verify()


def test_atomic_path_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("ha")
        raise RuntimeError("killed")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def interrupted(ctx: object) -> None:
    """Find what a killed attempt left half written, and finish."""
    out = ctx.out  # type: ignore[attr-defined]
    write_text(out / "parts" / "b.txt", "hello")
    for place in (out / ".a.txt.123.tmp", out / "parts" / ".b.txt.123.tmp"):
        place.write_text("half")


def test_what_a_killed_attempt_left_half_written_is_in_no_manifest(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), replace(CELL, callable_path="tests.harness.test_store:interrupted")
    execute(order(store, cell))
    assert set(store.open(cell).manifest["files"]) == {"parts/b.txt"}
    assert {path.name for path in store.folder(cell).rglob("*") if path.is_file()} == {"b.txt", MANIFEST}


def test_second_order_finds_the_work_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    execute(order(store))
    before = (store.folder(CELL) / MANIFEST).read_bytes()
    execute(order(store))
    assert (store.folder(CELL) / MANIFEST).read_bytes() == before
    with lock(tmp_path / "l"):
        pass


def test_scratch_half_removed_by_a_kill_is_never_taken_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is renamed before it is emptied, so a kill in between leaves no torn checkpoint under its own name."""
    import shutil

    from harness.core import files

    scratch = tmp_path / "scratch"
    (scratch / "step-7").mkdir(parents=True)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *args, **kwargs: None)
    files.remove_tree(scratch)
    assert not scratch.exists() and (tmp_path / ".scratch.gone").is_dir()
    monkeypatch.undo()
    scratch.mkdir()
    files.remove_tree(scratch)
    assert list(tmp_path.iterdir()) == [] and shutil.rmtree
