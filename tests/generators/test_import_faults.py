"""Imports of data sets with faults: rows instead of crashes, the same words in every process, and what cannot be checked."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.published import scan as scanning
from generators.published.mapping import class_map
from generators.published.scan import identity, inspect_image
from harness.cli.datacheck import Finding, data_findings
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.images.decode import decode
from harness.images.published import EntryReader, Listing, list_images
from tests.generators.test_imports import (
    CLASSES,
    Make,
    as_parquet,
    as_shards,
    contents,
    encoded,
    make,
    manifest,
    picture,
    write_folders,
    write_tar,
)

__all__ = ["make"]


def looked(root: Path) -> tuple[Listing, list[dict[str, Any]]]:
    listing = list_images(root)
    reader = EntryReader(listing.base)
    return listing, [inspect_image(reader, entry) for entry in listing.entries]


def report_of(tmp_path: Path) -> list[dict[str, Any]]:
    found = json.loads(next((tmp_path / "store").rglob("report.json")).read_text())["findings"]
    assert isinstance(found, list)
    return found


def test_error_texts_are_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format="PNG")
    write_folders(tmp_path / "a", {"x/0.jpg": b"no image", "x/1.jpg": picture(1)[:300], "x/2.png": stream.getvalue()})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    _, rows = looked(tmp_path / "a")
    assert [row["error"] for row in rows] == [
        "it is no image of a known format", "it is truncated or damaged", "it has more pixels than are decoded safely"
    ]  # fmt: skip
    assert rows == looked(tmp_path / "a")[1]
    with pytest.raises(UserError, match="more pixels than are decoded safely"):
        decode(stream.getvalue(), "2.png")


def test_a_tar_cut_in_its_last_image(make: Make, tmp_path: Path) -> None:
    as_shards(tmp_path / "a", contents())
    shard = tmp_path / "a" / "part-1.tar"
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: last.offset_data + last.size - 10])
    with pytest.raises(UserError, match="part-1.tar is not a whole tar file"):
        make(f"folder:{tmp_path / 'a'}")
    shard.write_bytes(whole)
    listing = list_images(tmp_path / "a")
    shard.write_bytes(whole[: last.offset_data + last.size - 10])  # it shrinks after it was listed
    row = inspect_image(EntryReader(listing.base), listing.entries[-1])
    assert row["error"] == f"its archive ends before {listing.entries[-1].path} does" and row["sha1"] == ""


def test_a_damaged_image_in_a_tar_is_a_row(make: Make, tmp_path: Path) -> None:
    files = contents()
    files[f"{CLASSES[0]}/{CLASSES[0]}_1.jpg"] = picture(1)[:200]
    as_shards(tmp_path / "a", files)
    with pytest.raises(UserError, match="1 files cannot be decoded, such as part-0.tar::n01440764/n01440764_1.jpg"):
        make(f"folder:{tmp_path / 'a'}")
    cell, store = make(f"folder:{tmp_path / 'a'}", ["generators.folder.decisions.undecodable=drop"])
    assert len(manifest(cell, store)) == 11


def test_parquet_rows_without_bytes_and_with_damage(make: Make, tmp_path: Path) -> None:
    files: dict[str, Any] = contents()
    first, second = list(files)[:2]
    files[first], files[second] = None, picture(1)[:200]
    as_parquet(tmp_path / "a", files)
    sets = ["generators.folder.class_map=index"]
    with pytest.raises(UserError, match="2 files cannot be decoded.*it holds no bytes"):
        make(f"folder:{tmp_path / 'a'}", sets)
    cell, store = make(f"folder:{tmp_path / 'a'}", [*sets, "generators.folder.decisions.undecodable=drop"])
    assert len(manifest(cell, store)) == 10


def test_a_damaged_parquet_page_is_said(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a", contents())
    path = tmp_path / "a" / "data" / "train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996  # the pages of the first row group's images
    path.write_bytes(content)
    _, rows = looked(tmp_path / "a")
    assert {row["error"] for row in rows[:5]} == {"row group 0 cannot be read"} and not any(
        r["error"] for r in rows[5:]
    )


def test_parents_are_found_by_the_names_in_a_parquet_file(make: Make, tmp_path: Path) -> None:
    real = {name.replace(".jpg", ".JPEG"): picture(100 + i) for i, name in enumerate(contents())}
    write_folders(tmp_path / "real", real)
    as_parquet(tmp_path / "a", contents())
    sets = ["generators.folder.class_map=index", "generators.folder.paired=true"]
    make(f"folder:{tmp_path / 'a'}", sets, [f"train={tmp_path / 'real'}"])
    texts = [each["text"] for each in report_of(tmp_path) if each["check"] == 7]
    assert texts == ["12 of 12 real images have a child of their name; 0 images have no parent"]


def test_parents_are_found_in_tars_of_one_class(make: Make, tmp_path: Path) -> None:
    write_folders(tmp_path / "real", {name: picture(100 + i) for i, name in enumerate(contents())})
    for wnid in CLASSES:
        write_tar(tmp_path / "a" / f"{wnid}.tar", {n.split("/")[1]: b for n, b in contents().items() if wnid in n})
    make(f"folder:{tmp_path / 'a'}", ["generators.folder.paired=true"], [f"train={tmp_path / 'real'}"])
    assert "12 of 12 real images" in next(each["text"] for each in report_of(tmp_path) if each["check"] == 7)


def test_what_cannot_be_checked_is_said(make: Make, tmp_path: Path) -> None:
    write_folders(tmp_path / "a", contents() | {f"{CLASSES[0]}/x.gif": b"x", f"{CLASSES[1]}/y.AVIF": b"y"})
    cell, store = make(f"folder:{tmp_path / 'a'}")
    found = report_of(tmp_path)
    assert [each["check"] for each in found if each["text"].startswith("not done: ")] == [5, 7, 8]
    assert "2 files are left out, their formats are not read: .avif 1, .gif 1" in str(found)
    assert "8 identity: not done: no CLIP is named" in store.folder(cell).joinpath("report.txt").read_text()
    as_shards(tmp_path / "b", contents() | {f"{CLASSES[0]}/x.gif": b"x"})
    assert dict(list_images(tmp_path / "b").skipped) == {".gif": 1}


def test_the_documented_count_is_that_of_its_own_list(make: Make, tmp_path: Path) -> None:
    write_folders(tmp_path / "fake", contents())
    make("realfake", ["generators.realfake.documented_px=16"], [f"realfake={tmp_path / 'fake'}"])
    counts = [each["text"] for each in report_of(tmp_path) if each["check"] == 2]
    assert counts == ["12 images, 4 to 4 of a class"], "1,281,167 images are documented for 1000 classes, not for three"


def test_one_colour_is_near_constant(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    ramp = red.copy()
    ramp[..., 2] = np.arange(16) * 16
    write_folders(tmp_path / "a", {"x/red.jpg": encoded(red), "x/ramp.jpg": encoded(ramp)})
    _, (ramp_row, red_row) = looked(tmp_path / "a")
    assert red_row["spread"] < 2 < 50 < ramp_row["spread"]


def test_folders_called_by_padded_indices(make: Make, tmp_path: Path) -> None:
    padded = {f"{CLASSES.index(n.split('/')[0]):04d}/{n.split('/')[1]}": b for n, b in contents().items()}
    write_folders(tmp_path / "a", padded)
    with pytest.raises(
        UserError, match=r"3 folders name no class.*only their publisher knows the order.*3 of 3 classes have"
    ):
        make(f"folder:{tmp_path / 'a'}")
    cell, store = make(f"folder:{tmp_path / 'a'}", ["generators.folder.class_map=index"])
    assert [row["wnid"] for row in manifest(cell, store)] == [wnid for wnid in CLASSES for _ in range(4)]


def test_a_class_map_names_classes_or_is_refused(tmp_path: Path) -> None:
    file, classes = tmp_path / "map.txt", load_classes("imagenet100")
    inside, outside = classes.ids[0], next(i for i in load_classes("imagenet1k").ids if i not in classes.ids)
    file.write_text(f"a b {inside}\n\nother {outside}\n")
    found = class_map(str(file), classes, ())
    assert found.labels == {"a b": 0} and found.elsewhere == {"other"}
    for wrong, words in (("a n99999999\n", "names 1 classes that do not exist"), ("lonely\n", "is not a class map")):
        file.write_text(wrong)
        with pytest.raises(UserError, match=words):
            class_map(str(file), classes, ())
    assert class_map("index", classes, ("007", "99", "x")).labels == {"007": 7, "99": 99}
    with pytest.raises(UserError, match="several folders claim class 7"):
        class_map("index", classes, ("007", "7"))
    with pytest.raises(UserError, match="they count another list"):
        class_map("index", classes, ("7", "100"))
    file.write_text(f"a {inside}\na {outside}\n")
    with pytest.raises(UserError, match="gives 'a' two classes"):
        class_map(str(file), classes, ())


class Colours:
    """A CLIP that knows red, green and blue: an image is its mean colour, a text the colour it names."""

    size, mean, std = 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, device: str) -> None:
        self.device, self.model = device, SimpleNamespace(encode_image=self.encode_image)

    def text_features(self, texts: list[str]) -> torch.Tensor:
        names = ("red", "green", "blue")
        rows = [[float(name in text) for name in names] for text in texts]
        return torch.tensor(rows, device=self.device)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        assert images.device.type == self.device, "pixels must be where the tower is"
        return images.mean((2, 3))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_identity_finds_two_swapped_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Green and blue lie in each other's folders, and one red file is damaged; on ``meta`` only the placement is tested."""
    colours = np.eye(3, dtype=np.uint8) * 250
    order = (0, 2, 1)
    files = {
        f"{wnid}/{i:02d}.jpg": encoded(np.broadcast_to(colours[order[c]], (16, 16, 3)).astype(np.uint8))
        for c, wnid in enumerate(CLASSES)
        for i in range(12)
    }
    files[f"{CLASSES[0]}/00.jpg"] = b"damaged"
    write_folders(tmp_path / "a", files)
    names = ("red", "green", "blue")
    (tmp_path / "classes.txt").write_text(
        "".join(f"{wnid} {name}\n" for wnid, name in zip(CLASSES, names, strict=True))
    )
    monkeypatch.setattr("generators.lbgen.encoders.load_named_encoder", lambda source, device: Colours(device))
    reads: list[str] = []
    monkeypatch.setattr(
        scanning.EntryReader, "read", lambda self, entry: reads.append(entry.path) or files[entry.path], raising=True
    )
    ctx: Any = SimpleNamespace(
        cell=SimpleNamespace(data=("a",)),
        params={"settings": {"clip": "x", "class_map": "wnid"}},
        classes=load_classes(str(tmp_path / "classes.txt")),
        data=lambda name: tmp_path / "a",
        source=lambda name: "x",
        device=device,
        out=tmp_path,
    )
    if device == "meta":
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            identity(ctx)  # the placement holds; a meta tensor has no value to compare
        return
    identity(ctx)
    shares = json.loads((tmp_path / "identity.json").read_text())
    assert shares == dict(zip(CLASSES, (1.0, 0.0, 0.0), strict=True))
    assert len(reads) == 31, "ten of each class, and the damaged one that was passed over"


def test_undecodable_files_that_are_dropped_do_not_stop_the_identity_check(
    make: Make, tmp_path: Path, tiny_clip_dir: Path
) -> None:
    write_folders(tmp_path / "a", contents() | {f"{CLASSES[0]}/0.jpg": b"damaged"})
    sets = [f"generators.folder.clip={tiny_clip_dir}", "generators.folder.decisions.undecodable=drop"]
    cell, store = make(f"folder:{tmp_path / 'a'}", sets)
    assert "over 3 classes" in store.folder(cell).joinpath("report.txt").read_text()


IMPORTS = ("realfake", "genrobust-base", "genrobust-ft", "imagenet-gen-sd15")


def doctored(profile: Path, name: str, root: Path) -> Finding:
    found = {each.check: each for each in data_findings(str(profile), [f"{name}={root}"])}
    return found[f"data {name}"]


@pytest.mark.parametrize("name", IMPORTS)
def test_doctor_looks_into_the_folders_of_imports(make: Make, tmp_path: Path, name: str) -> None:
    toy = tmp_path / "toy.toml"
    as_shards(tmp_path / "good", contents() | {"tench/a.jpg": picture(1), f"{CLASSES[0]}/x.gif": b"x"})
    line = doctored(toy, name, tmp_path / "good")
    assert (line.status, line.fix) == ("warning", "answer what is asked"), line
    for words in ("tar shards", "12 images, 4 to 4 per class, 1 .gif files not read", "12 of 12 sampled images decode",
                  "3 of 3 classes", "1 folders name no class, such as tench",
                  "decisions.unknown-folders"):  # fmt: skip
        assert words in line.text, (words, line.text)
    write_folders(tmp_path / "bad" / "train", contents() | {f"{CLASSES[0]}/0.jpg": b"damaged"})
    line = doctored(toy, name, tmp_path / "bad")
    assert line.status == "warning" and "class folders in train/" in line.text
    assert f"{CLASSES[0]}/0.jpg: it is no image of a known format" in line.text
    write_folders(tmp_path / "short", {f"{CLASSES[0]}/0.jpg": picture(1), "001/a.jpg": picture(2)})
    line = doctored(toy, name, tmp_path / "short")
    assert line.status == "problem" and line.fix and "2 of 3 classes" in line.text and "such as 001" in line.text
