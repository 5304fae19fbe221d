"""One codec and one size for a real import and a synthesised source: the training pixels are those that PIL makes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.images.copy import TrainingCopy
from harness.images.shards import ShardReader
from harness.microworld.causes import SHAPES
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from tests.generators.test_imports import CLASSES, PROFILE, picture, write_folders

COMMON = ("dataset.common_count=2", "dataset.common_codec=jpeg-20", "dataset.common_px=8")
WORLD = "world:texture=0.5"


def copies(folder: Path, sets: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the training copies of a real import and of a synthesised source, by generator."""
    registry.generators.cache_clear()
    resolved = load_profile(str(folder / "toy.toml"), sets, (f"train={folder / 'real'}",))
    plan = Planner(Selection(resolved.profile, f"real,{WORLD}", "")).build()
    store, found = Store(folder / "store"), {}
    for cell in plan.cells.values():
        if cell.kind == "synthesise" or cell.name == "training-copy":
            for shard in (*cell.shards, ""):
                execute(Job(cell, plan.inputs(cell), plan.sources, str(store.root), shard))
            if cell.name == "training-copy":
                found[plan.inputs(cell)["dataset"].name] = np.array(TrainingCopy.open(store.folder(cell)).images)
    return found


def through_the_codec(content: bytes) -> np.ndarray:
    """Return what a training copy of 16 px holds of an image: short side 8, JPEG 20, short side 16, centre."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    stream = io.BytesIO()
    image.resize((width * 8 // short, height * 8 // short), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=20)
    small = Image.open(stream).convert("RGB")
    large = small.resize((small.width * 2, small.height * 2), Image.Resampling.BICUBIC)
    left, top = (large.width - 16) // 2, (large.height - 16) // 2
    return np.asarray(large.crop((left, top, left + 16, top + 16)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a profile of three classes that the renderer knows, and real images that are wider than high."""
    names = "".join(f"{wnid} {shape}\n" for wnid, shape in zip(CLASSES, SHAPES, strict=False))
    (tmp_path / "classes.txt").write_text(names)
    (tmp_path / "toy.toml").write_text(PROFILE.format(classes=tmp_path / "classes.txt") + "train = {}\n")
    files = {}
    for c, wnid in enumerate(CLASSES):
        for i in range(2):
            pixels = np.asarray(Image.open(io.BytesIO(picture(10 * c + i, size=32))))[: 20 + i]
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            files[f"{wnid}/{i}.png"] = stream.getvalue()
    write_folders(tmp_path / "real", files)
    return tmp_path


def test_real_and_synthesised_images_go_through_one_codec(folder: Path) -> None:
    plain, common = (
        copies(folder, ("dataset.images_per_class=2",)),
        copies(folder, (*COMMON, "dataset.images_per_class=2")),
    )
    shards = sorted((folder / "store").glob("synthesise/world*/shards/*.tar"))
    encoded = {
        "real": [path.read_bytes() for path in sorted((folder / "real").rglob("*.png"))],
        WORLD: [shard.read(name) for shard in map(ShardReader, shards) for name in shard.names],
    }
    assert set(common) == set(encoded)
    for name, contents in encoded.items():
        assert len(contents) == 6 and common[name].shape == plain[name].shape == (6, 16, 16, 3)
        assert (common[name] == np.stack([through_the_codec(content) for content in contents])).all()
        assert np.abs(common[name].astype(int) - plain[name]).mean() > 1, "it is not what the files hold"
