"""The identity of code: a comment changes no cell's, an edited constant changes that of exactly the cells that run it."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import harness
from harness.core import closure, code, hashcache
from harness.core.closure import Closure
from harness.core.syntax import read_table
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile

ROOT = Path(harness.__file__).parents[1]
GENERATORS = (
    "real",
    "sd15",
    "lbgen",
    "lbgen-released",
    "lbgen-no-q",
    "genrobust-base",
    "genrobust-ft",
    "realfake-reimpl",
    "world",
)
SUITES = ("images", "generated-correlation", "in-domain", "linear-probe", "few-shot", "coco", "ade20k", "texture-bias", "context-bias",
          "background-bias")  # fmt: skip
TEXTS = (".txt", ".csv", ".json")
SETS = ("aircraft", "cars196", "dtd", "eurosat", "flowers", "food101", "pets", "sun397")
FEATURES = {f"extract features-{name}" for name in SETS}
Hashes = dict[str, str]
"""``kind name`` of a cell, of an evaluation ``rows name`` and ``score name`` -> hash of its code."""


@pytest.fixture
def identities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Hashes]]:
    """Return a function that plans everything with sources changed by a function, and gives the hashes of all kinds of cells."""
    states = itertools.count()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(closure, "read_table", parsed)
    read = closure.read_source

    def plan(change: Callable[[str, str], str] = lambda path, text: text) -> Hashes:
        now = f"state {next(states)}"
        monkeypatch.setattr(code, "_state", lambda tops: now)
        monkeypatch.setattr(closure, "read_source", lambda path: change(_name(path), read(path)))
        monkeypatch.setattr(
            closure, "file_hash", lambda path: change(_name(path), read(path)) if path.suffix in TEXTS else path.name
        )
        closure._table.cache_clear()
        profile = load_profile("micro").profile
        found: Hashes = {}
        for cell in Planner(Selection(profile, ",".join(GENERATORS), ",".join(SUITES)), {}).build().cells.values():
            found.setdefault(f"{'rows' if cell.score_hash else cell.kind} {cell.name}", cell.code_hash)
            if cell.score_hash:
                found.setdefault(f"score {cell.name}", cell.score_hash)
        return found

    yield plan
    closure._table.cache_clear()


parsed = cache(read_table)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def rewritten(path: str, text: str) -> str:
    """Return a source without comments and formatting, with other docstrings and without annotations of results."""
    if not path.endswith(".py"):
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Other words."))
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.unparse(ast.fix_missing_locations(tree))


def edited(file: str, old: str, new: str) -> Callable[[str, str], str]:
    """Return a change of one file, in which ``old`` stands once."""

    def change(path: str, text: str) -> str:
        if path != file:
            return text
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        return text.replace(old, new)

    return change


def changed(before: Hashes, after: Hashes) -> set[str]:
    """Return the cells whose code has changed."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def rows(*names: str) -> set[str]:
    """Return the measuring parts of some evaluations."""
    return {f"rows {name}" for name in names}


EVERY_SCORE = {f"score {name}" for name in SUITES}
CLASSIFIED = FEATURES | rows("in-domain", "texture-bias", "context-bias", "background-bias")
EDITS: dict[str, tuple[str, str, str, set[str]]] = {
    "the Wilson interval": (
        "harness/stats/estimate.py",
        "z = normal_quantile(level)",
        "z = 1.01 * normal_quantile(level)",
        EVERY_SCORE - {"score coco", "score ade20k"},  # theirs are jackknives
    ),
    "a loss of lbGen": (
        "generators/lbgen/losses.py",
        "scores.mean() / 5",
        "scores.mean() / 4",
        {"fit lbgen", "fit lbgen-released", "fit lbgen-no-q"},
    ),
    "a loss of Real-Fake": (
        "generators/realfake/losses.py",
        "MATCHING = 0.003",
        "MATCHING = 0.004",
        {"fit realfake-reimpl"},
    ),
    # Both networks run in the operator module that holds RoIAlign.
    "RoIAlign": (
        "suites/perception/bridge.py",
        "    output.copy_(pooled)",
        "    output.copy_(2 * pooled)",
        rows("coco", "ade20k"),
    ),
    "the classifier's normalisation": (
        "harness/backbones/classifier.py",
        "(x - self._mean) / self._std",
        "(x - self._mean) / self._std / 2",
        CLASSIFIED,
    ),
    "the moving average of the backbones": (
        "harness/backbones/state.py",
        "(1 + self.step) / (10 + self.step)",
        "(1 + self.step) / (9 + self.step)",
        {"pretrain resnet10", "pretrain vit_pico"},
    ),
    "the score of texture-bias": (
        "suites/bias/texture.py",
        "coverage = proportion(",
        "coverage = 1 * proportion(",
        {"score texture-bias"},
    ),
    "how numbers are written into a record": (
        "harness/store/records.py",
        "allow_nan=False",
        "allow_nan=True",
        EVERY_SCORE,
    ),
    "which outputs of a head stand for the wanted classes": (
        "harness/core/classes.py",
        "tuple(position[class_id] for",
        "tuple(position[class_id] - 0 for",
        rows("in-domain", "texture-bias", "context-bias", "background-bias"),
    ),
    "a template of GenRobust": (
        "generators/genrobust/templates.txt",
        "a bad photo of a {name}.",
        "a poor photo of a {name}.",
        {"synthesise genrobust-base", "synthesise genrobust-ft"},
    ),
    "what people answered": (
        "suites/bias/data/people_cue_conflict.csv",
        "image,",
        "image ,",
        rows("texture-bias") | {"score texture-bias"},
    ),
    "the published numbers of a data set": (
        "suites/bias/data/focus.json",
        '"image_size": 224',
        '"image_size": 225',
        rows("context-bias") | {"score context-bias"},
    ),
    "how seeds are derived": (
        "harness/core/identity.py",
        '["seed", KEY_SCHEMA, *facts]',
        '["seed", 7, *facts]',
        {f"synthesise {name}" for name in GENERATORS if name != "real"}
        | {f"fit {name}" for name in ("lbgen", "lbgen-released", "lbgen-no-q", "genrobust-ft", "realfake-reimpl")}
        | {"pretrain resnet10", "pretrain vit_pico", "extract training-copy", "rows images"},
    ),
}
UNSEEN = ("harness/cli/main.py", "harness/cli/plan.py", "harness/run/local.py", "harness/run/progress.py", "harness/run/session.py",
          "harness/plan/builder.py", "harness/core/errors.py", "harness/results/rescore.py", "leaderboard/board.py")  # fmt: skip


def test_comments_docstrings_formatting_and_code_that_makes_no_result_change_nothing(
    identities: Callable[..., Hashes],
) -> None:
    before = identities()
    assert before.keys() >= {"fit lbgen", "synthesise real", "extract training-copy", "extract captions", "score coco"}
    assert all(value.startswith(f"{code.SCHEME}:") for value in before.values())
    assert changed(before, identities(rewritten)) == set()
    assert (
        changed(before, identities(lambda path, text: text + ("\nprint('new')\n" if path in UNSEEN else ""))) == set()
    )


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_changes_the_code_of_exactly_the_cells_that_run_it(
    identities: Callable[..., Hashes], what: str
) -> None:
    file, old, new, expected = EDITS[what]
    assert changed(identities(), identities(edited(file, old, new))) == expected


PLUGIN = {
    "__init__": "",
    "base": """
        from PACKAGE.numbers import RATE, unused
        class Base:
            factor = 2
            def work(self, ctx): return self.step() * self.factor
            def step(self): return RATE
        """,
    "plugin": """
        from typing import TYPE_CHECKING
        from PACKAGE import numbers
        from PACKAGE.base import Base
        from PACKAGE.lazy import helper
        if TYPE_CHECKING:
            from PACKAGE.typed import Box
        class Plugin(Base):
            factor = 3
            chosen = "PACKAGE.named:called"
            def step(self):
                from PACKAGE.within import inner
                return super().step() + inner()
            def typed(self, box: Box | None): return box.open()
            def hidden(self, only_local): return [only_local for only_local in (lambda RATE: RATE)(1)]
            def shadowed(self, numbers): return numbers.RATE
            def text(self, name): return load(f"PACKAGE.family.{name}")
            def other(self): return helper(numbers.OTHER)
            def fails(self): raise ValueError(numbers.unused())
            def imports(self):
                import PACKAGE.effects
        """,
    "numbers": "RATE = 1\nOTHER = 2\ndef unused(): return RATE",
    "lazy": "TABLE = {'helper': 'PACKAGE.within'}\ndef __getattr__(name): import importlib; "
    "return getattr(importlib.import_module(TABLE[name]), name)",
    "within": "def inner(): return 5\ndef helper(x): return inner()",
    "named": "def called(): return 7",
    "typed": """
        class Box:
            _lid = 1
            def open(self): return self._lid
            def shut(self): return 9
        """,
    "effects": "TABLE = {}\ndef register(f): TABLE[f.__name__] = f\n@register\ndef entered(): return 3",
    "family/__init__": "",
    "family/member": "def read(): return 4",
}
REACHED = {
    "work": {"Base.work", "Base.step", "Plugin.step", "Plugin.factor", "RATE", "inner"},
    "chosen": {"Plugin.chosen", "called"},
    "typed": {"Plugin.typed", "Box.open", "Box._lid"},
    "hidden": {"Plugin.hidden"},
    "shadowed": {"Plugin.shadowed"},
    "text": {"Plugin.text", "read"},
    "other": {"Plugin.other", "helper", "inner", "OTHER"},
    "fails": {"Plugin.fails"},
    "imports": {"Plugin.imports", "TABLE", "register", "entered"},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return the name of an importable package outside the project, and its folder."""
    root, name = tmp_path_factory.mktemp("outside"), "a_package_of_another"
    for module, text in PLUGIN.items():
        path = root / name / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inspect.cleandoc(text).replace("PACKAGE", name))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        yield name, root / name


@pytest.mark.parametrize("member", REACHED)
def test_what_a_method_of_a_plugin_reaches(package: tuple[str, Path], member: str) -> None:
    found = Closure([f"{package[0]}.plugin:Plugin.{member}"], [package[0]]).found
    assert {line.partition(" ")[0] for line in found if not line.startswith(("external ", " "))} == REACHED[member]


SETTING = "from pydantic import BaseModel, Field\nfrom dataclasses import dataclass\n"
FIELDS = {
    "the type of a setting": ("class S(BaseModel):\n x: int = 2", "class S(BaseModel):\n x: float = 2", True),
    "the type in quotes": ("class S(BaseModel):\n x: int = 2", "class S(BaseModel):\n x: 'int' = 2", False),
    "the type of a dataclass": ("@dataclass\nclass S:\n x: int = 2", "@dataclass\nclass S:\n x: float = 2", False),
    "the words of a setting": (
        "class S(BaseModel):\n x: int = Field(2, description='a')",
        "class S(BaseModel):\n x: int = Field(2, description='b')",
        False,
    ),
    "words that a function is given": ("class S:\n x = f(description='a')", "class S:\n x = f(description='b')", True),
}


@pytest.mark.parametrize("what", FIELDS)
def test_what_of_a_field_counts(what: str) -> None:
    one, other, counts = FIELDS[what]
    found = [read_table(SETTING + text, "m", False).definitions["S.x"].digest for text in (one, other)]
    assert (found[0] != found[1]) == counts


def test_what_converts_a_setting_is_followed() -> None:
    text = "from typing import Annotated\nfrom m2 import check\nclass S(Base):\n x: Annotated[int, check] = 2"
    assert "m2:check" in read_table(text, "m", False).definitions["S.x"].references


def test_data_files_of_a_package_are_found_by_what_a_module_says(package: tuple[str, Path]) -> None:
    name, folder = package
    (folder / "cards").mkdir()
    for file in ("cards/one.json", "cards/two.json", "words.txt"):
        (folder / file).write_text(file)
    texts = {
        "joined": "'one.json'",
        "path": "'cards/two.json'",
        "located": f"'package:{name}/words.txt'",
        "none": "'three.txt'",
    }
    found = {}
    for module, text in texts.items():
        (folder / f"{module}.py").write_text(f"def f(): return {text}")
        lines = Closure([f"{name}.{module}:f"], [name]).found
        found[module] = [line.split()[1] for line in lines if line.startswith("file ")]
    assert found == {"joined": ["one.json"], "path": ["two.json"], "located": ["words.txt"], "none": []}


def test_every_module_that_is_not_followed_exists_and_says_why() -> None:
    for entry, why in closure.NO_PART.items():
        module, _, name = entry.partition(":")
        definitions = closure._table(f"harness.{module}").definitions
        assert definitions and why and (not name or name in definitions), entry


def test_a_name_of_another_library_counts_and_its_code_does_not(package: tuple[str, Path]) -> None:
    hashes = [
        Closure([f"{package[0]}.{module}:f"], [package[0]]).found
        for module, text in (("floor", "from math import floor as r"), ("ceil", "from math import ceil as r"))
        if (package[1] / f"{module}.py").write_text(text + "\ndef f(x): return r(x)")
    ]
    assert len(hashes[0]) > 1 and hashes[0] ^ hashes[1] == {"external math:floor", "external math:ceil"}


def test_a_hash_is_kept_until_a_source_file_changes(
    package: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "new"))
    root, file = f"{package[0]}.numbers:RATE", package[1] / "numbers.py"

    def hashed() -> str:
        for kept in (code._state, code._kept_hash, code._table):
            kept.cache_clear()
        hashcache._PROCESS.clear()  # as in the next command
        return code.code_hash(root)

    first = hashed()
    monkeypatch.setattr(closure, "Closure", None)
    assert hashed() == first, "it was worked out again"
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "new"))
    closure._table.cache_clear()
    file.write_text(file.read_text().replace("RATE = 1", "RATE = 10"))
    assert hashed() != first
    file.write_text(file.read_text().replace("RATE = 10", "RATE = 1  # again"))
    closure._table.cache_clear()
    assert hashed() == first


def test_moving_a_definition_changes_nothing(package: tuple[str, Path]) -> None:
    for module, text in (
        ("here", "LIMIT = 4\ndef f(): return LIMIT"),
        ("there", "from PACKAGE.here import LIMIT\ndef f(): return LIMIT"),
    ):
        (package[1] / f"{module}.py").write_text(text.replace("PACKAGE", package[0]))
    here, there = (Closure([f"{package[0]}.{module}:f"], [package[0]]).found for module in ("here", "there"))
    assert here == there
