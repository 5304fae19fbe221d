"""A mix holds the stated share of each part, without repeats, at the size of one data set; its images keep their origin."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generators.mix import Mix, allot, choose
from harness.core.errors import UserError
from harness.images.copy import TrainingCopy
from harness.images.shards import ShardReader
from harness.microworld.causes import SHAPES
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.context import Context
from harness.plugins.inputs import open_images
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from harness.store.cells import Cell
from harness.store.housekeeping import entries
from tests.generators.test_imports import CLASSES, PROFILE, picture, write_folders

WORLD = "world:texture=0.5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a profile of three classes that the renderer knows, and four real JPEGs of each."""
    names = "".join(f"{wnid} {shape}\n" for wnid, shape in zip(CLASSES, SHAPES, strict=False))
    (tmp_path / "classes.txt").write_text(names)
    (tmp_path / "toy.toml").write_text(PROFILE.format(classes=tmp_path / "classes.txt") + "train = {}\n")
    files = {f"{wnid}/{wnid}_{i}.JPEG": picture(7 * c + i) for c, wnid in enumerate(CLASSES) for i in range(4)}
    write_folders(tmp_path / "real", files)
    return tmp_path


def plan_of(folder: Path, generators: str, seeds: int = 1) -> Plan:
    registry.generators.cache_clear()
    resolved = load_profile(str(folder / "toy.toml"), (), (f"train={folder / 'real'}",))
    return Planner(Selection(resolved.profile, generators, "", seeds=seeds, vary="all")).build()


def do(plan: Plan, store: Store) -> dict[str, Cell]:
    """Make the datasets and copies of a plan in this process; return the cells by label."""
    found = {}
    for cell in plan.cells.values():
        if cell.kind in ("synthesise", "extract"):
            for shard in (*cell.shards, ""):
                execute(Job(cell, plan.inputs(cell), plan.sources_of(cell), str(store.root), shard))
            found[f"{cell.kind} {cell.label}"] = cell
    return found


def rows(store: Store, cell: Cell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.open(cell).path("images.jsonl").read_text().splitlines()]


def test_a_mix_holds_half_of_each_part_in_every_class_and_keeps_every_byte(folder: Path) -> None:
    plan = plan_of(folder, f"mix:real=0.5+{WORLD}=0.5")
    store = Store(folder / "store")
    made = do(plan, store)
    cell = made[f"synthesise mix:real=0.5+{WORLD}=0.5 seed 0"]
    found = rows(store, cell)
    assert Counter((row["class_index"], row["part"]) for row in found) == {
        (label, part): 2 for label in range(3) for part in ("real", WORLD)
    }
    assert len({(row["part"], row["path"]) for row in found}) == 12
    assert store.open(cell).json("source.json")["images"] == {"real": 6, WORLD: 6}
    assert not store.open(cell).files(".tar"), "nothing is copied"

    parts = {
        row["part"]: {r["path"]: r for r in rows(store, made[f"synthesise {row['part']} seed 0"])} for row in found
    }
    assert all({k: v for k, v in row.items() if k != "part"} == parts[row["part"]][row["path"]] for row in found)

    inputs = {"dataset": cell} | {f"dataset/{role}": each for role, each in plan.inputs(cell).items()}
    ctx = Context(cell, folder, {role: store.open(each) for role, each in inputs.items()}, plan.sources)
    images = open_images(ctx)
    shards = {
        name: ShardReader(path)
        for path in (store.folder(made[f"synthesise {WORLD} seed 0"]) / "shards").glob("*.tar")
        for name in ShardReader(path).names
    }
    for index, row in enumerate(found):
        wanted = (
            (folder / "real" / row["path"]).read_bytes()
            if row["part"] == "real"
            else shards[row["path"]].read(row["path"])
        )
        assert images.read(index) == wanted
        assert images.names[index] == f"{row['part']}/{row['path']}"

    copy = TrainingCopy.open(store.folder(made[f"extract mix:real=0.5+{WORLD}=0.5 seed 0"]))
    assert copy.labels.tolist() == [row["class_index"] for row in found]
    pixels = [np.asarray(Image.open(io.BytesIO(images.read(i))).convert("RGB")) for i in range(12)]
    same_size = [i for i in range(12) if pixels[i].shape == copy.images[i].shape]
    assert same_size and all((pixels[i] == copy.images[i]).all() for i in same_size)


def test_the_datasets_of_the_parts_are_those_of_their_own_runs(folder: Path) -> None:
    mix = plan_of(folder, f"mix:real=0.25+{WORLD}=0.75", seeds=2)
    alone = plan_of(folder, f"real,{WORLD}", seeds=2)
    kinds = {key: cell.name for key, cell in mix.cells.items() if cell.kind == "synthesise"}
    shared = {key: name for key, name in kinds.items() if key in alone.cells}
    assert Counter(kinds.values()) == {"real": 1, WORLD: 2, f"mix:real=0.25+{WORLD}=0.75": 2}
    assert sorted(set(kinds.values()) - set(shared.values())) == [f"mix:real=0.25+{WORLD}=0.75"]
    assert {key for key, cell in alone.cells.items() if cell.kind == "synthesise"} == set(shared)


def test_another_seed_draws_other_images_and_the_same_seed_the_same(folder: Path) -> None:
    found = []
    for place in ("a", "b"):
        plan, store = plan_of(folder, f"mix:real=0.5+{WORLD}=0.5", seeds=2), Store(folder / place)
        made = do(plan, store)
        found.append([rows(store, made[f"synthesise mix:real=0.5+{WORLD}=0.5 seed {seed}"]) for seed in (0, 1)])
    assert found[0] == found[1]
    real = [{row["path"] for row in each if row["part"] == "real"} for each in found[0]]
    assert real[0] != real[1]


def test_a_class_of_a_mix_is_no_larger_than_its_smallest_part(folder: Path) -> None:
    (folder / "real" / CLASSES[1] / f"{CLASSES[1]}_0.JPEG").unlink()
    plan, store = plan_of(folder, f"mix:real=0.5+{WORLD}=0.5"), Store(folder / "store")
    cell = do(plan, store)[f"synthesise mix:real=0.5+{WORLD}=0.5 seed 0"]
    assert Counter(row["class_index"] for row in rows(store, cell)) == {0: 4, 1: 3, 2: 4}


def test_housekeeping_keeps_the_parts_of_a_mix_that_was_measured(folder: Path) -> None:
    store = Store(folder / "store")
    made = do(plan_of(folder, f"mix:real=0.5+{WORLD}=0.5"), store)
    copy = next(cell for label, cell in made.items() if label.startswith("extract"))
    measured = Cell("evaluate", "toy", 1, {}, {"dataset": copy.key})
    store.folder(measured).mkdir(parents=True)
    store.seal(measured, {})
    assert {entry.name: entry.used_by for entry in entries(store.root) if entry.kind == "synthesise"} == {
        "real": 1, WORLD: 1, f"mix:real=0.5+{WORLD}=0.5": 1,
    }  # fmt: skip


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
)
def test_every_class_and_the_whole_hold_the_shares_to_less_than_one_image(weights: list[int], sizes: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = allot(shares, sizes)
    for quota, size in zip(found, sizes, strict=True):
        assert sum(quota) == size
        assert all(abs(count - share * size) < 1 + 1e-6 for count, share in zip(quota, shares, strict=True))
    for place, share in enumerate(shares):
        whole = sum(quota[place] for quota in found)
        assert abs(whole - share * sum(sizes)) < len(shares) - 1 + 1e-6


def test_the_place_left_over_goes_to_the_part_that_is_behind() -> None:
    assert allot([0.5, 0.5], [3, 3, 3, 3]) == [[2, 1], [1, 2], [2, 1], [1, 2]]
    assert allot([1 / 3, 2 / 3], [2, 2, 2]) == [[1, 1], [0, 2], [1, 1]]
    assert allot([0.25, 0.75], [100]) == [[25, 75]]


def test_a_larger_share_holds_the_images_of_a_smaller_one() -> None:
    names = [f"{i}.png" for i in range(40)]
    chosen = [choose(names, count, 3, "real") for count in (0, 5, 20, 40)]
    assert [len(each) for each in chosen] == [0, 5, 20, 40]
    assert all(small < large for small, large in itertools.pairwise(chosen))
    assert chosen[1] == choose(names[::-1], 5, 3, "real") != choose(names, 5, 3, "sd15")


def test_supervision_of_a_mix_is_that_of_all_parts(folder: Path) -> None:
    card = Mix().bind(f"sd15=0.5+folder:own={folder / 'real'}=0.25+real=0.25").card
    assert card.id == "mix:folder:own=0.25+real=0.25+sd15=0.5"
    assert set(card.information) == {"class_names", "real_images"}
    assert card.real_pixels_at_training and card.real_pixels_at_synthesis
    assert not Mix().bind("sd15=0.5+genrobust-base=0.5").card.real_pixels_at_training
    assert "nothing is known about how these images were made" in card.reading


def test_names_with_an_argument_are_read_whole(folder: Path) -> None:
    bound = Mix().bind(f"world:texture=0.4+scene=0.2=0.5+folder:{folder / 'real'}=0.5")
    assert dict(bound.parts) == {"folder:real": 0.5, "world:texture=0.4+scene=0.2": 0.5}
    assert bound.bound_data == {"folder:real": str(folder / "real")}
    thirds = Mix().bind("real=1/3+sd15=2/3")
    assert thirds.card.id == "mix:real=1/3+sd15=2/3"


@pytest.mark.parametrize(
    ("argument", "what", "why"),
    [
        ("real=0.5+sd15=0.4", "add up to 0.9", "real 0.5 + sd15 0.4"),
        ("real=0.5+real=0.5", "names real twice", "one share"),
        ("real=0.5+reall=0.5", "unknown generator 'reall'", "no built-in"),
        ("world:texture=0.4=0.5+reall=0.5", "no world is called 'texture=0.4=0.5+reall'", "is not CAUSE=DOSE"),
        ("real=half+sd15=0.5", "cannot be read", "'half' in 'real=half' is not a share"),
        ("real=-1+sd15=2", "cannot be read", "'-1'"),
        ("real=1/0", "cannot be read", "'1/0'"),
        ("real", "cannot be read", "not GENERATOR=SHARE"),
        ("folder=1", "cannot be read", "takes an argument"),
        ("mix:real=1=1", "holds another mix", "is one"),
    ],
)  # fmt: skip
def test_what_is_no_mix_is_refused_with_the_reason(argument: str, what: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        Mix().bind(argument)
    assert what in caught.value.what and why in caught.value.why


def test_a_mix_is_not_run_for_what_a_part_lacks(folder: Path) -> None:
    plan = plan_of(folder, "mix:real=0.5+folder:gone=/nowhere=0.5")
    assert not plan.cells
    assert plan.not_run[0].what == "generator mix:folder:gone=0.5+real=0.5"
    assert plan.not_run[0].reason.startswith("folder:gone: ") and "/nowhere" in plan.not_run[0].reason
