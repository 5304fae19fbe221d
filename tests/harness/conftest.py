"""A small plugin distribution, made in a temporary folder: no pip needed, found through entry points like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def toy_run(plugins: Path, store: str | Path = "s") -> tuple[str, ...]:
    """Return the command that makes images of noise and measures their brightness."""
    profile = str(plugins / "toy.toml")
    return ("run", "--generator", "noise", "--suite", "brightness", "--profile", profile, "--store", str(store))


PLUGIN = """
import os, signal, time
from pathlib import Path
import numpy as np
from harness.api import Generator, GeneratorCard, Sample, Settings
from harness.api import Check, Estimate, Item, Metric, Score, Suite, SuiteCard, open_images

class NoiseSettings(Settings):
    grain: float = 1.0
    fail: str = ""
    pause: float = 0.0

class Noise(Generator):
    card = GeneratorCard(id="noise", version=1, summary="Noise.", information=("class_names",), real_pixels_at_training=False,
                         real_pixels_at_synthesis=False)
    Settings = NoiseSettings

    def synthesise(self, ctx, request):
        settings = ctx.settings(NoiseSettings)
        once = Path(os.environ.get("FAKE_ONCE", "/nonexistent"))
        if once.exists():
            once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.fail and request.class_index == 3:
            raise RuntimeError(settings.fail)
        for index in range(request.start, request.stop):
            time.sleep(settings.pause)
            rng = np.random.default_rng(request.seed(index))
            yield Sample(index, rng.integers(0, 256, (request.size_px, request.size_px, 3), dtype=np.uint8), seed=request.seed(index))

class Dots(Noise):
    card = GeneratorCard(id="dots", version=1, summary="Dots.", information=("class_names",), real_pixels_at_training=False,
                         real_pixels_at_synthesis=False, groups=("toys",), default=False)

class Brightness(Suite):
    card = SuiteCard(id="brightness", version=1, summary="Mean of all pixels.", formula="mean", conventions=(), citation="",
                     order=1, data=(), subject="dataset")

    def rows(self, ctx):
        import io
        import pandas as pd
        from PIL import Image
        images = open_images(ctx)
        values = [float(np.asarray(Image.open(io.BytesIO(images.read(i)))).mean()) / 255 for i in range(len(images.names))]
        return pd.DataFrame({"item": list(images.names), "brightness": values})

    def score(self, rows, item, settings, cards):
        value = float(rows["brightness"].mean())
        return Score((Metric("brightness", Estimate(value, value - 0.01, value + 0.01, len(rows), "toy", "these images")),),
                     (Check("bright", value > 0.1, value, 0.1, "not black"),))
"""
ENTRY_POINTS = """[harness.generators]
noise = fakeplug:Noise
dots = fakeplug:Dots
rotten = fakeplug_rotten:Thing
[harness.suites]
brightness = fakeplug:Brightness
"""
PROFILE = """name = "toy"
classes = "CLASSES"
[dataset]
images_per_class = 4
chunk = 2
size_px = 16
copy_px = 16
[backbones.resnet10]
epochs = 1
warmup_epochs = 0
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the plugin distribution and a profile of four classes."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "fakeplug.py").write_text(PLUGIN)
    (folder / "fakeplug_rotten.py").write_text("import a_package_that_does_not_exist\n")
    info = folder / "fakeplug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakeplug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "classes.txt").write_text("".join(f"c{i} thing {i}\n" for i in range(4)))
    (folder / "toy.toml").write_text(PROFILE.replace("CLASSES", str(folder / "classes.txt")))
    return folder


@pytest.fixture
def harness(plugins: Path, tmp_path: Path) -> Run:
    """Return a function that runs the command line with the plugins installed, from an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))
        env = os.environ | {"PYTHONPATH": path, "HARNESS_CACHE": str(tmp_path / "cache")} | environment
        return subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
