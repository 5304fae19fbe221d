"""Synthesis: files, bytes, restarts, through the same work functions as a run."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from harness.core.classes import load_classes
from harness.images.request import shards
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.context import Context
from harness.run import tasks
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from harness.store.cells import Cell

WEIGHTS = "package:harness.microworld/weights/sd"


def cell(generator: str, images: int, chunk: int, **settings: object) -> Cell:
    """Return the synthesis of two classes at the small model's own size."""
    classes = load_classes("micro")
    two = replace(classes, ids=classes.ids[:2], names=classes.names[:2])
    plugin = registry.generators().get(generator)
    values = plugin.Settings(base=WEIGHTS, sampling_steps=2, **settings).model_dump(mode="json")  # type: ignore[call-arg]
    made = {key: value for key, value in values.items() if key not in plugin.fit_fields}
    return Cell(
        "synthesise",
        generator,
        1,
        {
            "settings": made,
            "classes": {"name": "micro", "content": classes.content},
            "dataset": {"images_per_class": images, "chunk": chunk, "size_px": 64},
        },
        {},
        {"generator_seed": 0},
        "harness.run.tasks:synthesise",
        shards=shards(two, images, chunk),
    )


def make(store: Store, one: Cell) -> dict[str, str]:
    """Run all shards and the joining; return path to SHA-1."""
    for shard in (*one.shards, ""):
        execute(Job(one, {}, {}, str(store.root), shard))
    return {
        row["path"]: row["sha1"]
        for row in map(json.loads, store.open(one).path("images.jsonl").read_text().splitlines())
    }


def test_files_sizes_and_bytes_do_not_depend_on_chunks_or_their_order(tmp_path: Path) -> None:
    """File names, size and mode; the same bytes whatever the chunks and the order of shards."""
    one, other = cell("sd15", 5, 5), cell("sd15", 5, 2)
    first = make(Store(tmp_path / "a"), one)
    reverse = replace(other, shards=other.shards[::-1])
    assert make(Store(tmp_path / "b"), reverse) == first
    classes = load_classes("micro")
    assert sorted(first) == [f"{wnid}/{wnid}_{index:05d}.png" for wnid in classes.ids[:2] for index in range(5)]
    shard = next((tmp_path / "a").rglob("*.tar"))
    with tarfile.open(shard) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member).read()  # type: ignore[union-attr]
            image = Image.open(io.BytesIO(content))
            assert image.size == (64, 64) and image.mode == "RGB"
            assert hashlib.sha1(content).hexdigest() == first[member.name]
    assert len(set(first.values())) == len(first), "two images are equal"


def test_a_full_data_set_is_twenty_shards_of_65_images_per_class() -> None:
    """1300 images of 1000 classes at full scale: 20 shards of 65 each, none left over."""
    profile = load_profile("in1k").profile
    names = shards(load_classes("imagenet1k"), profile.dataset.images_per_class, profile.dataset.chunk)
    assert len(names) == 20_000 and names[0] == "n01440764_00000_00065" and names[19] == "n01440764_01235_01300"


def test_class_lists_have_their_published_hashes_and_two_duplicate_names() -> None:
    """Class lists by their published hashes; the two duplicate names are reported."""
    full, hundred = load_classes("imagenet1k"), load_classes("imagenet100")
    text = "".join(f"{i} {n}\n" for i, n in zip(full.ids, full.names, strict=True))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "89e0b642c6697a3a43a06a2bb65f9fefb3ca295ccc5f4ba9ce385f1a3a58c629"
    )
    assert (
        hashlib.sha256("\n".join(full.names).encode()).hexdigest()
        == "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
    )
    assert full.ids_hash == "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert hundred.ids_hash == "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"
    assert len(hundred) == 100 and set(hundred.ids) <= set(full.ids)
    assert full.duplicate_names() == {"missile": ("n03773504", "n04008634"), "sunglasses": ("n04355933", "n04356056")}
    assert hundred.duplicate_names() == {}


def test_a_worker_that_dies_leaves_no_half_shard_and_the_restart_makes_what_is_missing(tmp_path: Path) -> None:
    """A worker that dies in the middle of a shard leaves no file under a final name; the restart makes just what is missing."""
    one, store = cell("sd15", 4, 2), Store(tmp_path)
    execute(Job(one, {}, {}, str(tmp_path), one.shards[0]))
    done = {path: path.read_bytes() for path in tmp_path.rglob("*.tar")}

    class Dies(Exception):
        pass

    def progress(count: int, total: int, note: str) -> None:
        raise Dies

    with pytest.raises(Dies):
        execute(Job(one, {}, {}, str(tmp_path), one.shards[1]), progress)
    assert set(tmp_path.rglob("*.tar")) == set(done)
    before = {path: path.stat().st_mtime_ns for path in done}
    rows = make(store, one)
    assert len(rows) == 8 and {path: path.stat().st_mtime_ns for path in done} == before
    assert make(Store(tmp_path / "calm"), one) == rows


def test_a_lora_of_zeros_makes_the_images_of_sd15_byte_for_byte(tmp_path: Path) -> None:
    """lbGen with a LoRA of zeros makes the images of sd15."""
    import torch

    from generators.diffusion.lora_io import add_lora, save_lora
    from generators.diffusion.pipeline import load_pipeline
    from generators.lbgen.plugin import LORA
    from harness.core.resources import resolve_path

    parts = load_pipeline(resolve_path(WEIGHTS))
    fit = Cell("fit", "lbgen", 1, {"x": 1}, callable_path="tests.none")
    store = Store(tmp_path)
    store.folder(fit).mkdir(parents=True)
    torch.manual_seed(0)
    save_lora(store.folder(fit) / LORA, add_lora(parts.unet, 4, seed=0))
    weights = store.seal(fit, {})
    plain, tuned = cell("sd15", 2, 2), cell("lbgen", 2, 2)
    request = tasks.parse_shard(plain.shards[0], load_classes("micro"), 64, 0)
    images = {}
    for one, inputs in ((plain, {}), (tuned, {"weights": weights})):
        ctx = Context(one, tmp_path / one.name, inputs, {})
        images[one.name] = [s.image.tobytes() for s in registry.generators().get(one.name).synthesise(ctx, request)]
    assert images["sd15"] == images["lbgen"] and len(images["sd15"]) == 2
