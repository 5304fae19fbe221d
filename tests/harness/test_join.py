"""The shards of a dataset: which are missing, which are damaged, and that joining reads each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.cost import FOLDER, Cost
from harness.core.identity import file_sha256
from harness.images.shards import ShardImage, iterate_rows, write_shard
from harness.plugins.context import Context
from harness.plugins.inputs import INDEX
from harness.run.job import Job
from harness.run.join import join, keep_shard, missing_shards, tar_of
from harness.run.queue import Task, TaskQueue
from harness.store.artifacts import SCRATCH, Store
from harness.store.cells import Cell, Resources

NAMES = ("n1_00000_00002", "n1_00002_00004", "n2_00000_00002", "n2_00002_00004")
CELL = Cell("synthesise", "noise", 1, {}, seeds={"generator_seed": 0}, shards=NAMES, code_hash="syntax-2:x")


class Dataset:
    """A dataset whose shards are made here, with a note of which were."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.ctx = Context(CELL, self.store.folder(CELL), {}, {})
        self.made: list[str] = []

    def make(self, shard: str) -> None:
        wnid, start, stop = shard.rsplit("_", 2)
        self.made.append(shard)
        images = [
            ShardImage(wnid, int(wnid[1]), i, np.full((8, 8, 3), 9 * i + int(wnid[1]), np.uint8), f"a {wnid}", i)
            for i in range(int(start), int(stop))
        ]
        rows = write_shard(self.ctx.out / tar_of(shard), images)
        keep_shard(self.ctx, shard, rows, lambda: Cost(1.0, 1.0))

    def finish(self) -> dict[str, str]:
        self.made = []
        hashes = join(self.ctx, self.make)
        self.store.seal(CELL, {"shard_costs": {name: [1.0, 1.0] for name in NAMES}}, hashes)
        return {path.relative_to(self.ctx.out).as_posix(): file_sha256(path) for path in self.ctx.out.rglob("*.*")}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return a dataset with all its shards, not joined."""
    made = Dataset(tmp_path)
    for name in NAMES:
        made.make(name)
    return made


def images(found: dict[str, str]) -> dict[str, str]:
    """Return the hashes of the images and their list."""
    return {name: digest for name, digest in found.items() if name != "manifest.json"}


def test_joining_writes_the_list_in_order_and_hands_over_true_hashes(dataset: Dataset) -> None:
    found = dataset.finish()
    assert dataset.made == [] and set(images(found)) == {INDEX, *map(tar_of, NAMES)}
    rows = list(iterate_rows(dataset.ctx.out / INDEX))
    assert [(row.wnid, row.index) for row in rows] == [(n, i) for n in ("n1", "n2") for i in range(4)]
    sealed = json.loads((dataset.ctx.out / "manifest.json").read_text())["files"]
    assert {name: entry["sha256"] for name, entry in sealed.items()} == images(found)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[min(540, len(content) // 2)] ^= 1  # of a tar file within its first image
    path.write_bytes(bytes(content))


def relabel(path: Path) -> None:
    path.write_text(path.read_text().replace('"class_index": 1', '"class_index": 2'))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit of the images": lambda out: flip(out / tar_of(NAMES[1])),
    "images gone": lambda out: (out / tar_of(NAMES[1])).unlink(),
    "images cut": lambda out: (out / tar_of(NAMES[1])).write_bytes(b""),
    "a bit of the list": lambda out: flip(out / f"shards/{NAMES[1]}.jsonl"),
    "a label of the list": lambda out: relabel(out / f"shards/{NAMES[1]}.jsonl"),
    "list gone": lambda out: (out / f"shards/{NAMES[1]}.jsonl").unlink(),
    "list empty": lambda out: (out / f"shards/{NAMES[1]}.jsonl").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_shard_damaged_before_joining_is_made_again_and_only_it(
    dataset: Dataset, tmp_path: Path, damage: str
) -> None:
    whole = Dataset(tmp_path / "whole")
    for name in NAMES:
        whole.make(name)
    DAMAGE[damage](dataset.ctx.out)
    found = dataset.finish()
    assert dataset.made == [NAMES[1]] and images(found) == images(whole.finish())


def test_shards_of_an_older_version_are_checked_image_by_image(dataset: Dataset) -> None:
    for path in (dataset.ctx.out / SCRATCH / FOLDER).iterdir():
        path.write_text("[1.0, 1.0]")
    flip(dataset.ctx.out / tar_of(NAMES[2]))
    dataset.finish()
    assert dataset.made == [NAMES[2]]


def test_of_a_dataset_that_lost_a_shard_the_others_stay(dataset: Dataset) -> None:
    first = images(dataset.finish())
    (dataset.ctx.out / tar_of(NAMES[0])).unlink()
    assert dataset.store.state(CELL) == "corrupt"
    dataset.store.discard(CELL, salvage=True)
    assert missing_shards(dataset.ctx.out, CELL) == [NAMES[0]]
    assert images(dataset.finish()) == first and dataset.made == [NAMES[0]]


def test_a_kill_while_the_lists_are_removed_loses_nothing(dataset: Dataset) -> None:
    first = images(dataset.finish())
    (dataset.ctx.out / "manifest.json").unlink()
    assert missing_shards(dataset.ctx.out, CELL) == []
    assert images(dataset.finish()) == first and dataset.made == []


def test_missing_shards_are_those_without_images_or_list(dataset: Dataset) -> None:
    out = dataset.ctx.out
    assert missing_shards(out, CELL) == [] and missing_shards(out / "x", CELL) == list(NAMES)
    (out / tar_of(NAMES[3])).unlink()
    (out / f"shards/{NAMES[0]}.jsonl").unlink()
    assert missing_shards(out, CELL) == [NAMES[0], NAMES[3]]


def test_only_the_job_that_joins_names_all_shards() -> None:
    many = replace(CELL, shards=tuple(f"n1_{i:06d}_{i + 1:06d}" for i in range(0, 200_000, 2)))
    jobs = {shard: Job(many, {"dataset": many}, {}, "store", shard) for shard in (many.shards[0], "")}
    sizes = {shard: len(json.dumps(job.to_dict())) for shard, job in jobs.items()}
    assert sizes[many.shards[0]] < 3_000 < 2_000_000 < sizes[""]
    assert Job.from_dict(jobs[""].to_dict()).cell == many
    assert Job.from_dict(jobs[many.shards[0]].to_dict()).cell.key == many.key


def drained(queue: TaskQueue, most: int = 99) -> list[tuple[str, str]]:
    left = [most]

    def fits(cell: Cell) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return [(task.cell.name, task.shard) for task in queue.take(fits)]


def test_tasks_come_by_rank_then_shard_and_what_is_tried_again_comes_first() -> None:
    low, high = (Cell("synthesise", name, 1, {}) for name in ("low", "high"))
    queue = TaskQueue({low.key: 1.0, high.key: 2.0}.__getitem__)
    queue.add(low)
    queue.add(high, ["b", "a"])
    queue.add_first(Task(low, "again"))
    assert drained(queue, 2) == [("low", "again"), ("high", "a")] and queue
    assert drained(queue) == [("high", "b"), ("low", "")] and not queue


def test_a_cell_that_does_not_fit_lets_smaller_ones_pass_and_a_dropped_one_is_gone() -> None:
    large, small, gone = (Cell("pretrain", name, 1, {}, resources=Resources(devices=n)) for name, n in
                          (("large", 4), ("small", 1), ("gone", 1)))  # fmt: skip
    queue = TaskQueue(lambda key: 9.0 if key == large.key else 1.0)
    for cell in (large, small, gone, small):
        queue.add(cell)
    queue.add_first(Task(gone, "x"))
    queue.drop(gone)
    assert [task.cell.name for task in queue.take(lambda cell: cell.resources.devices == 1)] == ["small"]
    assert queue and drained(queue) == [("large", "")]
