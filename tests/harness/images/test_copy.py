"""The uint8 training copy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.core.errors import DataMissing, UserError
from harness.images import copy as copy_module
from harness.images.copy import ShardSource, TrainingCopy, build_copy, square
from harness.images.folder import FolderSource
from harness.images.shards import ShardImage, write_shard

CLASSES = ("n02", "n01")  # class order is the list's, not the alphabet's


@pytest.fixture
def shard_paths(tmp_path: Path) -> list[Path]:
    g = np.random.default_rng(0)
    paths = []
    for wnid, part in (("n01", 0), ("n02", 0), ("n01", 1)):
        images = [
            ShardImage(wnid, 0, i, g.integers(0, 256, (20, 20, 3), dtype=np.uint8), "", i)
            for i in range(part * 4, part * 4 + 4)
        ]
        paths.append(tmp_path / f"{wnid}-{part}.tar")
        write_shard(paths[-1], images)
    return paths


def test_copy_of_shards_and_of_the_extracted_folder_are_equal(shard_paths: list[Path], tmp_path: Path) -> None:
    import tarfile

    for path in shard_paths:
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "folder", filter="data")
    a = build_copy(ShardSource(shard_paths, CLASSES), tmp_path / "a", CLASSES, 16)
    b = build_copy(FolderSource(tmp_path / "folder", CLASSES), tmp_path / "b", CLASSES, 16, workers=3)
    assert a.images.shape == (12, 16, 16, 3) and a.images.dtype == np.uint8
    assert a.labels.tolist() == [0] * 4 + [1] * 8 and a.classes == CLASSES
    for name in ("images.npy", "labels.npy", "classes.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    np.testing.assert_array_equal(a.images, b.images)


def test_square_resizes_the_short_side_and_crops_the_centre() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    wide = image.resize((373, 224), Image.Resampling.BICUBIC)  # floor(224 * 500 / 300) = 373
    left = (373 - 224) // 2
    assert square(image, 224).tobytes() == wide.crop((left, 0, left + 224, 224)).tobytes()


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_every_colour_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    (tmp_path / "src" / "n01").mkdir(parents=True)
    grey = Image.new("RGB", (9, 9), (128, 128, 128)).convert(mode, palette=Image.Palette.ADAPTIVE)
    grey.save(tmp_path / "src" / "n01" / f"x.{suffix}")
    copy = build_copy(FolderSource(tmp_path / "src", ("n01",)), tmp_path / "copy", ("n01",), 8)
    assert np.abs(copy.images.astype(int) - 128).max() <= 2


def test_a_killed_copy_is_continued_and_equals_a_whole_one(
    shard_paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "_CHUNK", 5)
    source = ShardSource(shard_paths, CLASSES)
    build_copy(source, tmp_path / "whole", CLASSES, 16)

    class Killed(Exception):
        pass

    class Dying:
        """Fail at the eighth image: within the second chunk."""

        names, labels = source.names, source.labels

        def read(self, index: int) -> bytes:
            if index == 7:
                raise Killed
            return source.read(index)

    with pytest.raises(Killed):
        build_copy(Dying(), tmp_path / "part", CLASSES, 16)
    with pytest.raises(DataMissing):
        TrainingCopy.open(tmp_path / "part")
    seen: list[int] = []

    class Counting:
        names, labels = source.names, source.labels

        def read(self, index: int) -> bytes:
            seen.append(index)
            return source.read(index)

    build_copy(Counting(), tmp_path / "part", CLASSES, 16)
    assert seen == list(range(5, 12))  # the first chunk was kept
    assert (tmp_path / "part/images.npy").read_bytes() == (tmp_path / "whole/images.npy").read_bytes()


def test_length_is_verified(shard_paths: list[Path], tmp_path: Path) -> None:
    build_copy(ShardSource(shard_paths, CLASSES), tmp_path / "c", CLASSES, 16)
    path = tmp_path / "c" / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        TrainingCopy.open(tmp_path / "c")


def test_class_lists_that_do_not_fit(shard_paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="n02"):
        ShardSource(shard_paths, ("n01",))
    with pytest.raises(DataMissing, match="n03"):
        ShardSource(shard_paths, (*CLASSES, "n03"))
    with pytest.raises(DataMissing):
        FolderSource(tmp_path / "nowhere", CLASSES)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "src" / "n01").mkdir(parents=True)
    (tmp_path / "src" / "n01" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(UserError, match=r"n01/x\.png"):
        build_copy(FolderSource(tmp_path / "src", ("n01",)), tmp_path / "c", ("n01",), 8)


@pytest.mark.parametrize("size", [(37, 20), (38, 20), (39, 20), (20, 41), (53, 31)])
def test_centre_crop_is_torchvisions(size: tuple[int, int]) -> None:
    """Odd differences are rounded half to even, not down."""
    from torchvision.transforms import functional as F

    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = F.center_crop(F.resize(image, 16, F.InterpolationMode.BICUBIC), [16, 16])
    assert (np.asarray(square(image, 16)) == np.asarray(theirs)).all()


@pytest.mark.parametrize("damage", ["pixels", "header", "progress", "cut progress"])
def test_a_begun_copy_that_is_damaged_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("harness.images.copy._CHUNK", 2)
    images = [np.full((8, 8, 3), value, np.uint8) for value in range(5)]

    class Source:
        names = tuple("abcde")
        labels = (0,) * 5

        def read(self, index: int) -> bytes:
            stream = io.BytesIO()
            Image.fromarray(images[index]).save(stream, format="PNG")
            return stream.getvalue()

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    build_copy(Source(), tmp_path / "whole", ("x",), 8)
    with pytest.raises(KeyboardInterrupt):
        build_copy(Source(), tmp_path / "begun", ("x",), 8, progress=stop)
    path = tmp_path / "begun" / ("progress.json" if "progress" in damage else "images.npy")
    content = bytearray(path.read_bytes())
    content[{"pixels": -100, "header": 20}.get(damage, len(content) // 2)] ^= 4
    path.write_bytes(content[:9] if damage == "cut progress" else content)
    build_copy(Source(), tmp_path / "begun", ("x",), 8)
    for name in ("images.npy", "labels.npy", "copy.json"):
        assert (tmp_path / "begun" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
