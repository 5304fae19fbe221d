"""The layout of the project holds, and each of its rules can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness.api
from tests.house import FLOORS, ROOT, drawing, modules, problems


def test_suites_and_readers_do_not_know_the_embedded_profile() -> None:
    files = [*(ROOT / "suites").rglob("*.py"), *(ROOT / "harness" / "images").rglob("*.py")]
    assert len(files) > 40
    knowing = [
        str(path.relative_to(ROOT)) for path in files if re.search(r"\bmicro\b|microworld", path.read_text("utf-8"))
    ]
    assert not knowing, "what differs between small and public data is a dataset card's matter"


def test_no_import_breaks_the_layout() -> None:
    assert len(modules(ROOT)) > 250
    assert problems(ROOT) == []


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"harness/core/a": "from harness.cli import b", "harness/cli/b": ""}, "lower floors only, cli is on floor 8"),
        ({"harness/core/a": "def f():\n    import harness.run.b", "harness/run/b": ""}, "run is on floor 6"),
        ({"harness/core/a": "from ..store import b", "harness/store/b": ""}, "store is on floor 3"),
        ({"harness/store/a": "import harness.backbones.b", "harness/backbones/b": ""}, "floor 3 may import lower"),
        ({"harness/attic/a": ""}, "harness.attic.a: the room 'attic' is on no floor"),
        (
            {
                "harness/core/a": "from harness.core import b",
                "harness/core/b": "from harness.core.c import x",
                "harness/core/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.core.a import y",
            },
            "circle: harness.core.a <-> harness.core.b <-> harness.core.c",
        ),
        ({"suites/a": "from harness.core import b", "harness/core/b": ""}, "plugins import harness.api only"),
        ({"generators/a": "import harness.core.b", "harness/core/b": ""}, "plugins import harness.api only"),
        (
            {"tests/plugin_package/dotted/a": "from harness.core.b import x", "harness/core/b": ""},
            "plugins import harness.api only",
        ),
        ({"suites/a": "import generators.b", "generators/b": ""}, "do not import those of another"),
        ({"suites/a": "import harness.microworld.b", "harness/microworld/b": ""}, "import the embedded world"),
        (
            {"harness/plugins/a": "from harness.microworld import b", "harness/microworld/b": ""},
            "import the embedded world",
        ),
        ({"harness/plugins/a": "import suites.b", "suites/b": ""}, "through the registry"),
        ({"leaderboard/a": "import harness.store.artifacts", "harness/store/artifacts": ""}, "harness.core.* only"),
        ({"leaderboard/a": "import harness.plan.b", "harness/plan/b": ""}, "harness.core.* only"),
    ],
)
def test_each_rule_of_the_layout_can_be_broken(tmp_path: Path, files: dict[str, str], wanted: str) -> None:
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (line,) = problems(tmp_path)
    assert wanted in line


def test_what_the_layout_allows_is_no_breach(tmp_path: Path) -> None:
    files = {
        "harness/cli/calibrate": "import harness.microworld.b",
        "harness/microworld/b": "from harness.core import c",
        "harness/core/c": "from harness import __version__",
        "harness/__init__": "__version__ = '1'\ndef evaluate():\n    from harness.core import c",
        "harness/api": "import harness.core.c",
        "harness/store/records": "",
        "leaderboard/a": "import harness.store.records\nimport harness.core.c",
        "generators/world": "from harness.api import x\nimport harness.microworld.b",
        "suites/a": "from harness.api import x\nfrom suites import b",
        "suites/b": "",
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert problems(tmp_path) == []


def test_the_drawing_has_every_room_and_no_arrow_upward() -> None:
    lines = drawing().splitlines()
    assert {line.split()[1] for line in lines[:-1]} >= {room for rooms in FLOORS for room in rooms}
    assert re.search(r"\d+ arrows, 0 upward, 0 circles", lines[-1])


def test_every_name_of_the_api_resolves() -> None:
    assert sorted(dir(harness.api)) == sorted(harness.api.__all__) == sorted(harness.api._PLACES)
    assert all(getattr(harness.api, name) is not None for name in harness.api.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Generatr'"):
        getattr(harness.api, "Generatr")  # noqa: B009


def test_type_checkers_see_the_names_where_they_are_loaded_from() -> None:
    import ast

    tree = ast.parse(Path(harness.api.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == harness.api._PLACES


def test_importing_the_api_loads_no_heavy_library() -> None:
    code = (
        "import sys, harness.api\n"
        "from harness.api import Generator, GeneratorCard, Request, Sample, Settings, UserError\n"
        "print([name for name in ('torch', 'pandas', 'PIL', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
