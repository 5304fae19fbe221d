"""The page of data sets: every line of its tables is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "datasets.md").read_text("utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| form |")]


def known_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


KNOWN = known_tests()


@pytest.mark.parametrize("line", LINES, ids=[line.split("|")[1].strip()[:40] for line in LINES])
def test_each_line_names_tests_that_exist(line: str) -> None:
    cells = [cell.strip() for cell in line.strip("|").split(" |")]
    assert len(cells) == 4 and (cells[1] or cells[2])
    named = re.findall(r"`(\w+)`", cells[3])
    assert named and not set(named) - KNOWN


def test_the_page_has_a_section_for_every_kind_of_data_set() -> None:
    assert len(LINES) > 60 and len(set(LINES)) == len(LINES)
    for words in (
        "train on",
        "Validation images",
        "eight transfer sets",
        "Cue-conflict",
        "COCO and ADE20K",
        "Pictures",
    ):
        assert re.search(f"^## .*{words}", PAGE, re.MULTILINE), words
