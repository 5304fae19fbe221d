"""Imports of published data sets: every layout, the eight checks, decisions, one count and one codec for all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.published.scan import jpeg_quality
from harness.core.errors import DataMissing, UserError
from harness.images.copy import TrainingCopy
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from harness.store.cells import Cell

CLASSES = ("n01440764", "n01443537", "n01484850")
PROFILE = """name = "toy"
classes = "{classes}"
[dataset]
images_per_class = 4
size_px = 16
copy_px = 16
[backbones.resnet10]
epochs = 1
warmup_epochs = 0
[data]
realfake = {{}}
genrobust-base = {{}}
"""


def picture(seed: int, size: int = 16, kind: str = "JPEG", quality: int = 75) -> bytes:
    """Return a noisy encoded image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **({"quality": quality} if kind == "JPEG" else {}))
    return stream.getvalue()


def contents(per_class: int = 4) -> dict[str, bytes]:
    """Return path to bytes of a small whole data set."""
    return {f"{wnid}/{wnid}_{i}.jpg": picture(10 * c + i) for c, wnid in enumerate(CLASSES) for i in range(per_class)}


def write_folders(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def as_train_folders(root: Path, files: dict[str, bytes]) -> None:
    write_folders(root / "train", files)
    write_folders(root / "val", {f"{CLASSES[0]}/v.jpg": picture(99)})  # a generated val is never read


def as_class_tars(root: Path, files: dict[str, bytes]) -> None:
    for wnid in CLASSES:
        write_tar(root / f"{wnid}.tar", {n.split("/")[1]: b for n, b in files.items() if n.startswith(wnid)})


def as_shards(root: Path, files: dict[str, bytes]) -> None:
    items = list(files.items())
    write_tar(root / "part-0.tar", {f"./{n}": b for n, b in items[:5]})
    write_tar(root / "part-1.tar", dict(items[5:]))


def as_webdataset(root: Path, files: dict[str, bytes]) -> None:
    members: dict[str, bytes] = {}
    for i, (name, content) in enumerate(files.items()):
        wnid = name.split("/")[0]
        members[f"{i:06d}.jpg"] = content
        if i % 2:
            members[f"{i:06d}.cls"] = wnid.encode()
        else:
            members[f"{i:06d}.json"] = json.dumps({"label": wnid, "prompt": "x"}).encode()
    write_tar(root / "00000.tar", members)


def as_parquet(root: Path, files: dict[str, bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": [{"bytes": content, "path": name} for name, content in files.items()],
            "label": [CLASSES.index(name.split("/")[0]) for name in files],
        }
    )
    (root / "data").mkdir(parents=True)
    pq.write_table(table, root / "data" / "train-00000-of-00001.parquet", row_group_size=5)
    pq.write_table(table.slice(0, 1), root / "data" / "validation-00000.parquet")


Make = Callable[..., tuple[Cell, Store]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that plans an import and does its scan and import cells in this process."""
    (tmp_path / "classes.txt").write_text("".join(f"{wnid} thing {i}\n" for i, wnid in enumerate(CLASSES)))
    (tmp_path / "toy.toml").write_text(PROFILE.format(classes=tmp_path / "classes.txt"))

    def run(generator: str, sets: Sequence[str] = (), data: Sequence[str] = (), kinds: str = "") -> tuple[Cell, Store]:
        registry.generators.cache_clear()  # each call is a run of its own
        resolved = load_profile(str(tmp_path / "toy.toml"), sets, data)
        plan = Planner(Selection(resolved.profile, generator, "")).build()
        assert not plan.not_run, plan.not_run
        store = Store(tmp_path / "store")
        last = None
        for cell in plan.cells.values():
            if cell.kind == "synthesise" or cell.name.startswith("dataset-") or cell.name == kinds:
                execute(Job(cell, plan.inputs(cell), plan.sources, str(store.root)))
                last = cell
        assert last is not None
        return last, store

    return run


def manifest(cell: Cell, store: Store) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.open(cell).path("images.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("write", "settings", "layout"),
    [
        (write_folders, [], "class folders"),
        (as_train_folders, [], "class folders"),
        (as_class_tars, [], "tar shards"),
        (as_shards, [], "tar shards"),
        (as_webdataset, [], "tar shards"),
        (as_parquet, ["generators.folder.class_map=index"], "parquet"),
    ],
)
def test_every_published_layout_gives_the_same_images(
    make: Make, tmp_path: Path, write: Callable[[Path, dict[str, bytes]], None], settings: list[str], layout: str
) -> None:
    root, files = tmp_path / "published", contents()
    write(root, files)
    before = sorted(p.stat().st_mtime_ns for p in root.rglob("*"))
    cell, store = make(f"folder:{root}", settings, kinds="training-copy")
    copy = TrainingCopy.open(store.folder(cell))
    expected = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in files.values()]
    assert copy.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all((a == b).all() for a, b in zip(copy.images, expected, strict=True))
    imported, store = make(f"folder:{root}", settings)
    rows = manifest(imported, store)
    assert [row["wnid"] for row in rows] == [wnid for wnid in CLASSES for _ in range(4)]
    assert store.open(imported).json("source.json")["layout"] == layout
    copied = [p for p in store.folder(imported).rglob("*") if p.suffix in (".jpg", ".png", ".tar", ".parquet")]
    assert not copied and sorted(p.stat().st_mtime_ns for p in root.rglob("*")) == before


def broken(root: Path) -> None:
    """Write a data set with every fault that the checks know."""
    files = contents()
    files[f"{CLASSES[0]}/black.jpg"] = encoded(np.zeros((16, 16, 3), np.uint8))
    files[f"{CLASSES[0]}/grey.jpg"] = encoded(np.full((16, 16, 3), 128, np.uint8))
    files[f"{CLASSES[1]}/cut.jpg"] = picture(500)[:200]
    files[f"{CLASSES[1]}/large.jpg"] = picture(501, size=24)
    files[f"{CLASSES[1]}/called.png"] = picture(502)
    files[f"{CLASSES[2]}/again.jpg"] = files[f"{CLASSES[2]}/{CLASSES[2]}_0.jpg"]
    files[f"{CLASSES[2]}/other.jpg"] = files[f"{CLASSES[0]}/{CLASSES[0]}_0.jpg"]
    del files[f"{CLASSES[2]}/{CLASSES[2]}_1.jpg"], files[f"{CLASSES[2]}/{CLASSES[2]}_2.jpg"]
    del files[f"{CLASSES[2]}/{CLASSES[2]}_3.jpg"]
    files["tench/a.jpg"] = picture(503)
    write_folders(root, files)


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG")
    return stream.getvalue()


DECISIONS = ("unknown-folders", "undecodable", "near-constant", "wrong-suffix", "across-classes")


def test_the_importer_finds_every_fault_and_asks(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    broken(root)
    settings = ["generators.folder.documented_px=16", "generators.folder.documented_total=12"]
    with pytest.raises(UserError) as caught:
        make(f"folder:{root}", settings)
    error = caught.value
    for words in (
        "1 folders name no class",
        "tench (1)",
        "1 files cannot be decoded",
        "cut.jpg",
        "2 images (11.76%) in 1 classes are near-constant",
        "JPEG called .png 1",
        "same file under different classes",
    ):
        assert words in error.why, (words, error.why)
    for question in DECISIONS:
        assert f"--set generators.folder.decisions.{question}=" in error.fix
    report = json.loads(next((tmp_path / "store").rglob("report.json")).read_text())
    texts = {(each["check"], each["name"]): each["text"] for each in report["findings"]}
    assert "1 images are not 16x16: 24x24 (1)" in texts[(3, "sizes")]
    assert f"1 classes have fewer than 4 images: {CLASSES[2]} (3)" in texts[(2, "short classes")]
    assert "documented: 12 (+4)" in texts[(2, "counts")]
    assert any("1 images repeat another of their own class" in each["text"] for each in report["findings"])
    assert "JPEG quality about 75" in texts[(6, "codec")] or "JPEG quality about 75" in str(report["findings"])


def test_decisions_are_honoured_and_recorded(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    broken(root)
    answers = {"unknown-folders": "drop", "undecodable": "drop", "near-constant": "drop", "wrong-suffix": "keep"}
    sets = [
        f"generators.folder.decisions.{key}={value}" for key, value in (answers | {"across-classes": "drop"}).items()
    ]
    cell, store = make(f"folder:{root}", [*sets, "dataset.images_per_class=9"], kinds="training-copy")
    assert len(TrainingCopy.open(store.folder(cell))) == 3 + 6 + 2
    imported, store = make(f"folder:{root}", [*sets, "dataset.images_per_class=9"])
    paths = {row["path"] for row in manifest(imported, store)}
    assert f"{CLASSES[1]}/called.png" in paths and f"{CLASSES[1]}/large.jpg" in paths
    assert not paths & {f"{CLASSES[0]}/black.jpg", f"{CLASSES[1]}/cut.jpg", f"{CLASSES[2]}/other.jpg", "tench/a.jpg"}
    assert "decision near-constant: drop" in store.folder(imported).joinpath("report.txt").read_text()
    with pytest.raises(UserError, match="undecodable=keep"):
        make(f"folder:{root}", [*sets, "generators.folder.decisions.undecodable=keep"])


def test_the_question_says_which_answer_reproduces_the_release(make: Make, tmp_path: Path) -> None:
    write_folders(tmp_path / "data", contents() | {f"{CLASSES[0]}/black.jpg": encoded(np.zeros((16, 16, 3), np.uint8))})
    for name, data in (("genrobust-ft-released", "genrobust-ft"), ("genrobust-base-released", "genrobust-base")):
        with pytest.raises(UserError) as caught:
            make(name, [f"generators.{name}.documented_px=0"], [f"{data}={tmp_path / 'data'}"])
        assert "near-constant=keep|drop; near-constant: keep reproduces the release" in caught.value.fix
    with pytest.raises(UserError) as caught:
        make(f"folder:{tmp_path / 'data'}", [])
    assert "near-constant=keep|drop; whole report" in caught.value.fix


def test_a_missing_class_cannot_be_decided_away(make: Make, tmp_path: Path) -> None:
    files = {name: content for name, content in contents().items() if not name.startswith(CLASSES[1])}
    write_folders(tmp_path / "short", files)
    with pytest.raises(UserError, match="1 of 3 classes have no folder: n01443537"):
        make(f"folder:{tmp_path / 'short'}")


def test_class_maps(make: Make, tmp_path: Path) -> None:
    named = {f"thing {CLASSES.index(n.split('/')[0])}/{n.split('/')[1]}": b for n, b in contents().items()}
    write_folders(tmp_path / "named", named)
    with pytest.raises(UserError, match="3 of 3 classes have no folder"):
        make(f"folder:{tmp_path / 'named'}")
    cell, store = make(f"folder:{tmp_path / 'named'}", ["generators.folder.class_map=names"])
    assert {row["wnid"] for row in manifest(cell, store)} == set(CLASSES)
    (tmp_path / "map.txt").write_text("thing 0 n01484850\nthing 1 n01443537\nthing 2 n01440764\n")
    cell, store = make(f"folder:{tmp_path / 'named'}", [f"generators.folder.class_map={tmp_path / 'map.txt'}"])
    assert manifest(cell, store)[0]["path"].startswith("thing 2/")


def test_realfake_import_pairs_children_with_real_parents(make: Make, tmp_path: Path) -> None:
    real = {name.replace(".jpg", ".JPEG"): content for name, content in contents(5).items()}
    write_folders(tmp_path / "real" / "train", real)
    fakes = {name: picture(700 + i) for i, name in enumerate(contents(4))}
    stolen = f"{CLASSES[0]}/{CLASSES[0]}_0.jpg"
    fakes[stolen] = real[stolen.replace(".jpg", ".JPEG")]
    write_folders(tmp_path / "fake" / "train", fakes)
    data = [f"realfake={tmp_path / 'fake'}", f"train={tmp_path / 'real'}"]
    sets = ["generators.realfake.documented_px=16", "generators.realfake.decisions.real-duplicates=keep"]
    cell, store = make("realfake", sets, data)
    text = store.folder(cell).joinpath("report.txt").read_text()
    assert "12 of 15 real images have a child of their name; 0 images have no parent" in text
    assert "1 images are files of the real training set" in text and "decision real-duplicates: keep" in text
    assert cell.name == "realfake" and len(manifest(cell, store)) == 12


def test_prompts_of_a_release_stay_in_the_manifest(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "genrobust"
    write_folders(root / "train", contents())
    first = next(iter(contents()))
    (root / "train_captions.csv").write_text(f"path,class,caption\n/x/train/{first},0,a sketch of a thing 0.\n")
    sets = ["generators.genrobust-base-released.documented_px=0"]
    cell, store = make("genrobust-base-released", sets, [f"genrobust-base={root}"])
    assert manifest(cell, store)[0]["prompt"] == "a sketch of a thing 0."


def test_one_count_and_one_codec_for_all_sources(make: Make, tmp_path: Path) -> None:
    files = contents(4)
    files[f"{CLASSES[0]}/wide.jpg"] = picture(800, size=32)
    write_folders(tmp_path / "a", files)
    sets = ["dataset.common_count=3", "dataset.common_codec=jpeg-10", "dataset.common_px=16"]
    cell, store = make(f"folder:{tmp_path / 'a'}", sets, kinds="training-copy")
    copy = TrainingCopy.open(store.folder(cell))
    assert np.bincount(copy.labels).tolist() == [3, 3, 3]
    again, _ = make(f"folder:{tmp_path / 'a'}", sets, kinds="training-copy")
    assert again.key == cell.key
    plain, store = make(f"folder:{tmp_path / 'a'}", ["dataset.images_per_class=4"], kinds="training-copy")
    assert plain.key != cell.key and "common" not in plain.params
    with pytest.raises(UserError, match="fewer than 5 images"):
        make(f"folder:{tmp_path / 'a'}", ["dataset.common_count=5"], kinds="training-copy")
    with pytest.raises(UserError, match="unknown codec"):
        make(f"folder:{tmp_path / 'a'}", ["dataset.common_codec=gif"], kinds="training-copy")


def test_names_of_folders(make: Make, tmp_path: Path) -> None:
    for place in ("a/set", "b/set"):
        write_folders(tmp_path / place, contents())
    cell, _ = make(f"folder:mine={tmp_path / 'a/set'}")
    assert cell.name == "folder:mine"
    with pytest.raises(UserError, match="two generators are called 'folder:set'"):
        make(f"folder:{tmp_path / 'a/set'},folder:{tmp_path / 'b/set'}")


def test_unreadable_layouts_say_what_to_do(make: Make, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train.tar.gz").write_bytes(b"x")
    with pytest.raises(DataMissing, match="compressed"):
        make(f"folder:{tmp_path / 'packed'}")
    write_folders(tmp_path / "both", contents())
    write_tar(tmp_path / "both" / "x.tar", {"a.jpg": picture(1)})
    with pytest.raises(UserError, match="class folders and tar shards"):
        make(f"folder:{tmp_path / 'both'}")


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 95])
def test_jpeg_quality_is_estimated(quality: int) -> None:
    image = Image.open(io.BytesIO(picture(3, quality=quality)))
    assert jpeg_quality(image.quantization) == quality  # type: ignore[attr-defined]
