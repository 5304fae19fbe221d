"""The wheel: four packages with their data, no tests; it answers from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = (
    "harness/profiles/micro.toml",
    "harness/class_lists/imagenet1k.txt",
    "harness/microworld/classes.txt",
    "harness/microworld/cards/focus.json",
    "harness/microworld/weights/sd/model_index.json",
    "harness/microworld/weights/sd/unet/diffusion_pytorch_model.safetensors",
    "harness/microworld/weights/clip_large/open_clip_config.json",
    "suites/bias/data/focus.json",
    "suites/transfer/cards.py",
    "generators/lbgen/quality/levels.py",
    "generators/genrobust/templates.txt",
    "harness/py.typed",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a freshly built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(
        command, check=True, capture_output=True, timeout=300, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    )
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_packages_with_their_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "harness",
        "generators",
        "suites",
        "leaderboard",
    }
    missing = [name for name in DATA if name not in names]
    assert not missing
    sources = {
        p.relative_to(ROOT).as_posix()
        for top in ("harness", "generators", "suites", "leaderboard")
        for p in (ROOT / top).rglob("*.py")
    }
    assert sources <= set(names), sorted(sources - set(names))[:5]
    assert wheel.stat().st_size < 30e6
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"lbgen" in zipfile.ZipFile(wheel).read(entry_points)


@pytest.mark.slow
def test_wheel_answers_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    target, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    env = os.environ | {"PYTHONPATH": str(target)}
    where = subprocess.run(
        [sys.executable, "-c", "import harness; print(harness.__file__)"],
        cwd=empty,
        env=env,
        text=True,
        capture_output=True,
        check=True,
    )
    assert where.stdout.startswith(str(target))
    for arguments in (
        ["list"],
        ["plan", "--generator", "lbgen"],
        ["describe", "lbgen"],
        ["leaderboard", "--format", "csv"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=empty,
            env=env,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
    assert not list(empty.iterdir()), "an answer must write nothing"
