"""Words of the project's own texts: no class name where a sentence wants a word, and the field's terms."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("harness", "generators", "suites", "leaderboard")
AVOIDED = re.compile(
    r"\btowers\b|\b(?:CLIP|text|image|quality) tower\b|\bspeaks? for\b|\btold apart\b|\bcan(?:not)? be told\b"
)
"""Say model, encoder or scorer; generalises to; distinguished; is unknown."""


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of comments and docstrings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def compound_names() -> set[str]:
    """Return the names of the project's classes that are two words in one."""
    found = {name for path in sources() for name in re.findall(r"^class (\w+)", path.read_text("utf-8"), re.MULTILINE)}
    return {name for name in found - {"RealFake"} if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", name)}  # a method's own name


def displaced(text: str, names: set[str]) -> list[str]:
    """Return the class names that begin a sentence as if they were words of it: not quoted, and followed by one."""
    found = re.findall(r"(?:\A|[.:;]\s+)([A-Z]\w+) (?=[a-z])", text)
    return [name for name in found if name in names]


def test_no_class_name_stands_where_a_sentence_wants_a_word() -> None:
    names = compound_names()
    assert len(names) > 50
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, text in texts(path.read_text("utf-8"))
        for name in displaced(text, names)
    ]
    assert not bad, bad


def test_texts_of_the_engine_use_the_terms_of_the_field() -> None:
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {found.group()}"
        for path in sources()
        for line, text in texts(path.read_text("utf-8"))
        if (found := AVOIDED.search(re.sub(r"`[^`]*`", "", text)))
        and path.name not in ("landmarks.py", "perception.py")
    ]
    assert not bad, bad


@pytest.mark.parametrize(
    "text", ["PlannedSubject from cosines alone", "Loads whole. PlannedSubject only warns", "x: PlannedSubject a"]
)
def test_a_displaced_name_is_found(text: str) -> None:
    assert displaced(text, {"PlannedSubject"}) == ["PlannedSubject"]
    assert not displaced("Return a PlannedSubject or ``PlannedSubject`` of it.", {"PlannedSubject"})
    assert AVOIDED.search("the quality tower") and not AVOIDED.search("a tower of the city")
