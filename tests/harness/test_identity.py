"""Identities: canonical JSON, keys pinned for ever, seeds derived from facts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.identity import canonical_json, content_key, derive_seed, key_of_parsed
from harness.store.cells import Cell, Resources

CELL = Cell(
    "evaluate", "linear-probe", 1, {"item": "dtd", "settings": {"c": 0.5}}, {"features": "ab" * 32}, {"probe_seed": 0}
)


def test_canonical_json_ignores_order_and_spelling_of_whole_numbers() -> None:
    assert canonical_json({"b": 1.0, "a": [1, 2.5, None, True]}) == '{"a":[1,2.5,null,true],"b":1}'
    assert canonical_json({"a": (1, 2)}) == canonical_json({"a": [1, 2]})


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: "x"}, {"a": {1, 2}}, Path("x")])
def test_canonical_json_refuses_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)


def test_golden_keys() -> None:
    """A change here makes every artifact of every user stale: bump KEY_SCHEMA and say so in the change log."""
    assert (
        content_key({"a": 1, "b": [True, None, "é"]})
        == "b71874349daac02154f7f15128affc99836ec0d2d885791b4b63bd20b9b214d8"
    )
    assert CELL.key == "1abbd518314d7f115b5e0298015f408a4a1638b87ec2fdcd4054396b7834aee1"
    assert derive_seed("image", 0, "n01440764", 7) == 5102810907493948219


def test_resources_but_threads_are_no_part_of_the_identity() -> None:
    same = replace(CELL, resources=Resources(minutes=99, disk_mb=64), label="x", code_hash="y")
    other = replace(CELL, resources=Resources(threads=2))
    assert same.key == CELL.key != other.key


def test_every_fact_changes_the_key() -> None:
    changed = [
        {"kind": "extract"},
        {"name": "x"},
        {"version": 2},
        {"params": {}},
        {"inputs": {}},
        {"seeds": {"probe_seed": 1}},
    ]
    keys = {replace(CELL, **change).key for change in changed}
    assert len(keys | {CELL.key}) == len(changed) + 1


def test_cell_round_trip() -> None:
    assert Cell.from_dict(CELL.to_dict()) == CELL and Cell.from_dict(CELL.to_dict()).key == CELL.key


def test_seeds_do_not_depend_on_the_hash_seed() -> None:
    code = "from harness.core.identity import derive_seed; print(derive_seed('image', 3, 'n01', 5))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("0", "1")
    }
    assert found == {f"{derive_seed('image', 3, 'n01', 5)}\n"}
    assert len({derive_seed("image", 0, "n01", i) for i in range(1000)}) == 1000


@pytest.mark.parametrize(
    "value",
    [1.0, [1.0], {"a": 2.0, "b": [0.5, 1e300, -0.0]}, {"a": {"b": 3.0}}, "1.0", ["x.0"], {"v": "0.1.0"}, 1e22, 0.1, None,
     {"b": 1, "a": "ü\n"}, [], {}],
)  # fmt: skip
def test_the_key_of_parsed_json_is_the_content_key(value: object) -> None:
    assert key_of_parsed(json.loads(json.dumps(value))) == content_key(value)
