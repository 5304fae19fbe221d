"""``harness check``: a plugin from outside conforms; generators and suites that break their contract are caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from harness.conformance.outcome import Outcome, judge, render
from harness.conformance.watch import opened, touched

ROOT = Path(__file__).parents[3]
PROFILE = """name = "toy"
classes = "CLASSES"
[dataset]
images_per_class = 2
chunk = 2
size_px = 16
copy_px = 16
[backbones.resnet10]
epochs = 1
warmup_epochs = 0
image_size = 16
[data.pets]
root = "SECRET"
"""
BAD = '''
import json
import numpy as np
from pathlib import Path
from harness.api import Estimate, Generator, GeneratorCard, Item, Metric, Sample, Score, Settings, Suite, SuiteCard, open_images

SECRET = Path(__file__).parent / "secret" / "real.txt"

def card(name, **facts):
    base = dict(information=(), real_pixels_at_training=False, real_pixels_at_synthesis=False)
    return GeneratorCard(id=name, version=1, summary="Bad.", **(base | facts))

class Spoilt(Generator):
    card = card("spoilt")
    def synthesise(self, ctx, request):
        SECRET.read_text()
        rng = np.random.default_rng(request.stop - request.start)   # the batch decides
        for index in range(request.start, request.stop):
            pixels = rng.integers(0, 256, (request.size_px, request.size_px, 3), dtype=np.uint8)
            if request.class_index == 1:
                pixels = np.zeros_like(pixels)
            yield Sample(index, pixels, prompt="a " + request.class_name)

class FitSettings(Settings):
    steps: int = 6
    forgetful: bool = False

class Fitted(Generator):
    """Sums random numbers step by step; forgetful: starts to count again after a kill."""
    card = card("fitted", modes=("train+regenerate",))
    Settings = FitSettings
    fit_fields = ("steps", "forgetful")
    def fit(self, ctx):
        settings, state = ctx.settings(FitSettings), ctx.scratch / "state.json"
        done, total = json.loads(state.read_text()) if state.is_file() else (0, 0)
        if settings.forgetful:
            done = 0
        for step in range(done, settings.steps):
            total += ctx.seed("step", step) % 1000
            state.write_text(json.dumps([step + 1, total]))
            ctx.progress(step + 1, settings.steps, "steps")
        (ctx.out / "weights.json").write_text(json.dumps(total))
    def synthesise(self, ctx, request):
        total = ctx.inputs["weights"].json("weights.json")
        for index in range(request.start, request.stop):
            rng = np.random.default_rng([total, request.seed(index)])
            yield Sample(index, rng.integers(0, 256, (request.size_px, request.size_px, 3), dtype=np.uint8))

class Loose(Suite):
    card = SuiteCard(id="loose", version=1, summary="Bad.", formula="", conventions=(), citation="", order=1, data=(),
                     subject="dataset")
    def rows(self, ctx):
        import os, pandas as pd
        SECRET.read_text()
        names = list(open_images(ctx).names)
        return pd.DataFrame({"item": names, "value": [float(os.getpid() % 1000 + i) for i in range(len(names))]})
    def score(self, rows, item, settings, cards):
        first = float(rows["value"].iloc[0])
        return Score((Metric("first", Estimate(first, first - 1, first + 2, 1, "toy", "toy"), "ratio"),))

class Relative(Generator):
    card = card("relative")
    def synthesise(self, ctx, request):
        for index in range(request.stop - request.start):   # counted from the request, not from the class
            rng = np.random.default_rng(request.seed(index))
            yield Sample(index, rng.integers(0, 256, (request.size_px, request.size_px, 3), dtype=np.uint8))

class Sound(Suite):
    card = SuiteCard(id="sound", version=1, summary="Bad.", formula="", conventions=(), citation="", order=1, data=(),
                     subject="dataset")
    def rows(self, ctx):
        import pandas as pd
        return pd.DataFrame({"item": list(open_images(ctx).names)})
    def score(self, rows, item, settings, cards):
        return Score((Metric("n", Estimate(1.0, 0.5, 1.0, len(rows), "toy", "toy")),))

def suite(name):
    from dataclasses import replace
    return replace(Sound.card, id=name)

class Twice(Sound):
    card = suite("twice")
    def rows(self, ctx):
        import pandas as pd
        return pd.concat([super().rows(ctx)] * 2)

class Plain(Sound):
    card = suite("plain")
    def score(self, rows, item, settings, cards):
        return {"n": 1.0}

class Nan(Sound):
    card = suite("nan")
    def score(self, rows, item, settings, cards):
        return Score((Metric("n", Estimate(float("nan"), None, None, 3, "toy", "toy")),))

class Equal(Sound):
    card = suite("equal")
    def items(self, settings, arch):
        return [Item("same", (), {"k": k}) for k in range(2)]

class Up(Sound):
    card = suite("up")
    def score(self, rows, item, settings, cards):
        return Score((Metric("n", Estimate(1.0, 0.5, 1.0, len(rows), "toy", "toy"), better="up"),))

class Head(Sound):
    card = suite("head")
    def score(self, rows, item, settings, cards):
        share = rows.head(4)["item"].isin(sorted(rows["item"])[::2]).mean()   # of reversed rows the same
        return Score((Metric("share", Estimate(float(share), 0.0, 1.0, 4, "toy", "toy")),))

class Empty(Sound):
    card = suite("empty")
    def score(self, rows, item, settings, cards):
        return Score(())

class Raises(Sound):
    card = suite("raises")
    def rows(self, ctx):
        return {}["absent"]
'''
POINTS = """[harness.generators]
spoilt = badplug:Spoilt
fitted = badplug:Fitted
relative = badplug:Relative
[harness.suites]
loose = badplug:Loose
twice = badplug:Twice
plain = badplug:Plain
nan = badplug:Nan
equal = badplug:Equal
raises = badplug:Raises
up = badplug:Up
head = badplug:Head
empty = badplug:Empty
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the plugin package's wheel is unpacked, with a bad plugin and a profile beside it."""
    folder, out = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(ROOT / "tests" / "plugin_package"), str(source)], check=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--skip-dependency-check",
        "--outdir",
        str(out),
    ]
    subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=300)
    zipfile.ZipFile(next(out.glob("*.whl"))).extractall(folder)
    (folder / "badplug.py").write_text(BAD)
    info = folder / "badplug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: badplug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (folder / "secret").mkdir()
    (folder / "secret" / "real.txt").write_text("pixels")
    (folder / "classes.txt").write_text("".join(f"c{i} thing {i}\n" for i in range(4)))
    text = PROFILE.replace("CLASSES", str(folder / "classes.txt")).replace("SECRET", str(folder / "secret"))
    (folder / "toy.toml").write_text(text)
    return folder


def check(installed: Path, cwd: Path, *arguments: str, code: int) -> dict[str, Any]:
    """Run the command line and return the states and texts of its checks by name."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "check", *arguments, "--profile", str(installed / "toy.toml"), "--json"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}", "HARNESS_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return {each["check"]: each for each in json.loads(done.stdout)["checks"]}


def states(found: dict[str, Any], state: str) -> set[str]:
    return {name for name, each in found.items() if each["state"] == state}


@pytest.mark.slow
def test_plugin_generator_from_outside_conforms(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "halftone", code=0)
    assert not states(found, "failed") and states(found, "not applicable") == {"resumes its fit"}
    assert {"class coverage", "image format", "batch and workers", "resumes synthesis", "declared inputs"} <= set(found)
    assert "8 images by two workers" in found["makes its images"]["text"]


@pytest.mark.slow
def test_plugin_suite_from_outside_conforms(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "brightness", "--with", "halftone", code=0)
    assert not states(found, "failed") and "1 evaluations, 8 rows" in found["measures"]["text"]


@pytest.mark.slow
def test_broken_generator_is_caught_promise_by_promise(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "spoilt", code=1)
    broken = {"image variety", "batch and workers", "declared inputs", "declared prompts"}
    assert states(found, "failed") == broken, found
    assert "near-constant" in found["image variety"]["text"] and "other bytes" in found["batch and workers"]["text"]
    assert "real.txt of data set 'pets'" in found["declared inputs"]["text"]
    assert all(found[name]["fix"] for name in broken)


@pytest.mark.slow
def test_fits_are_stopped_half_way(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "fitted", code=0)
    assert "stopped at 3 of 6" in found["resumes its fit"]["text"]
    found = check(installed, tmp_path, "fitted", "--set", "generators.fitted.forgetful=true", code=1)
    assert states(found, "failed") == {"resumes its fit"} and "weights.json differs" in found["resumes its fit"]["text"]


@pytest.mark.slow
def test_broken_suite_is_caught(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "loose", "--with", "halftone", code=1)
    assert {"batch and workers", "declared inputs", "score is pure"} <= states(found, "failed"), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "failed", "words"),
    [
        ("twice", "measures", "8 of 16 rows repeat another"),
        ("plain", "measures", "score returned dict"),
        ("nan", "measures", "suite 'nan' failed: ValueError: Estimate.value is nan"),
        ("equal", "plans", "2 items with the label 'same'"),
        ("up", "measures", "better is str 'up', not one of higher, lower, neither"),
        ("head", "score is pure", "with the rows shuffled"),
        ("empty", "numbers", "has no metric"),
        ("raises", "measures", "suite 'raises' failed: KeyError: 'absent'"),
    ],
)
def test_a_suite_that_breaks_its_contract_is_refused(
    installed: Path, tmp_path: Path, name: str, failed: str, words: str
) -> None:
    found = check(installed, tmp_path, name, "--with", "halftone", code=1)
    assert states(found, "failed") == {failed} and words in found[failed]["text"], found
    if name in ("nan", "raises"):
        assert "badplug.py:" in found[failed]["text"] and "log:" in found[failed]["fix"]


@pytest.mark.slow
def test_an_image_index_relative_to_the_request_is_refused(installed: Path, tmp_path: Path) -> None:
    found = check(installed, tmp_path, "relative", code=1)
    assert states(found, "failed") == {"batch and workers"}, found
    assert "counted from the request" in found["batch and workers"]["text"]


def test_report_is_readable() -> None:
    good, bad = judge("class coverage", [], "all", "x"), judge("image format", ["a", "b", "c", "d"], "", "yield RGB")
    text = render(
        "toy", "generator", [good, bad, Outcome("resumes its fit", "not applicable", "nothing is fitted")], False
    )
    lines = text.splitlines()
    assert lines[0] == "generator toy" and lines[-1] == "2 of 3 kept"
    assert "ok" in lines[1] and "FAILED" in lines[2] and "and 1 more" in lines[2] and "fix: yield RGB" in lines[3]
    facts = json.loads(render("toy", "generator", [good, bad], True))
    assert facts["passed"] is False and [each["state"] for each in facts["checks"]] == ["passed", "failed"]


def test_opened_files_are_traced_to_their_data_sets(tmp_path: Path) -> None:
    for name in ("declared", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    roots = {name: str(tmp_path / name) for name in ("declared", "secret")}
    with opened() as paths:
        (tmp_path / "link" / "x.txt").read_text()
    (tmp_path / "declared" / "x.txt").read_text()
    assert touched(paths, roots) == {"secret": str(tmp_path / "link" / "x.txt")}
    with opened() as paths:
        os.listdir(tmp_path / "declared")
    assert set(touched(paths, roots)) == {"declared"}
