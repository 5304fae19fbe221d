"""One toy run of both toolboxes for all tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from suites.perception.bridge import missing_packages

ROOT = Path(__file__).resolve().parents[3]


def _start(folder: Path, **environment: str) -> Mapping[str, Any]:
    """Run ``toy_runs.py`` and return the exit codes of its children."""
    missing = missing_packages()
    if missing:
        pytest.skip(f"perception packages are not installed: {', '.join(missing)}")
    program = Path(__file__).with_name("toy_runs.py")
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | environment
    done = subprocess.run([sys.executable, str(program), str(folder)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "codes.json").read_text())


@pytest.fixture(scope="session")
def start() -> Callable[..., Mapping[str, Any]]:
    """Return the function that runs ``toy_runs.py`` in a folder with extra environment variables."""
    return _start


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the toy runs, all of which ended as they should."""
    folder = tmp_path_factory.mktemp("toy")
    codes = dict(_start(folder))
    codes.pop("ops")
    for name, code in codes.items():
        log = folder / f"{name}.log"
        expected = -9 if name.endswith("_killed") else 0
        assert code == expected, f"{name}: exit {code}\n{log.read_text() if log.exists() else ''}"
    return folder
