"""Cards of datasets: everything that is in the store is said, nothing of this machine is, and outside readers accept them."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.core.errors import DataMissing, UserError
from harness.images.decode import decode
from harness.images.shards import ImageRow, ShardImage, rows_bytes, write_shard
from harness.store.artifacts import Store
from harness.store.cells import Cell
from leaderboard.board import Board
from leaderboard.exchange import card, croissant, datasets
from tests.leaderboard.conftest import flags, make_record, put

SIDE, PER_CLASS = 8, 3
CLASSES = ("k1", "k2")
PROMPT = 'a | b <i> "c" `d`'
DECLARED = {
    "lb": {"summary": "Made *here*.", "base model": "SD", "prompts": "the class name", "licence": "CreativeML OpenRAIL-M (weights)",
           "citation": "A, B, 2025", "differences": "none [yet]", "reading": "", "sampler": "none", "adapter": "none"}
}  # fmt: skip
MADE = {"provenance": {"code": {"harness": "0.1.0", "commit": "abcdef0123456789", "dirty": "no"}, "machine": "host-7"},
        "started": 1_700_000_000.0, "wall_seconds": 90.0, "cpu_seconds": 80.0, "shard_costs": {}}  # fmt: skip


def make_dataset(store: Path, name: str = "lb", seed: int = 0) -> Cell:
    """Write a dataset of two classes in one tar file each, with its fit, and return its cell."""
    place, settings = Store(store), {"base": "/home/me/secret/model.safetensors", "guidance": 2.0}
    params = {"classes": {"name": "mine", "content": "c"}, "dataset": {"images_per_class": PER_CLASS, "chunk": 50, "size_px": SIDE},
              "settings": settings, "sources": {"base": "f" * 64}}  # fmt: skip
    fit = Cell("fit", name, 1, {"settings": {"epochs": 3}, "sources": {}}, seeds={"generator_seed": seed})
    place.folder(fit).mkdir(parents=True)
    (place.folder(fit) / "w").write_text("w")
    place.seal(fit, MADE)
    cell = Cell("synthesise", name, 2, params, {"weights": fit.key}, seeds={"generator_seed": seed})
    rows: list[ImageRow] = []
    for number, wnid in enumerate(CLASSES):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (PER_CLASS, SIDE, SIDE, 3), dtype=np.uint8)
        rows += write_shard(
            place.folder(cell) / "shards" / f"{wnid}_00000_{PER_CLASS:05d}.tar",
            [ShardImage(wnid, number, i, one, PROMPT, seed) for i, one in enumerate(pixels)],
        )
    (place.folder(cell) / "images.jsonl").write_bytes(rows_bytes(rows))
    place.seal(cell, MADE)
    return cell


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store of one dataset, with a bias of a network and a reading of the images, and a dataset that was only listed."""
    place = tmp_path / "store"
    cell = make_dataset(place)
    bias = make_record("texture-bias", "lb", flags(200, 0.25, 1), inputs={"checkpoint/copy/dataset": cell.key})
    put(place, bias, [])
    images = make_record("generated-correlation", "lb", flags(50, 0.5, 2), 1, inputs={"dataset": cell.key})
    put(place, replace(images, subject=replace(images.subject, backbone="-")), [])
    put(
        place, make_record("texture-bias", "other", flags(90, 0.5, 1), inputs={"checkpoint/copy/dataset": "e" * 64}), []
    )
    listed = Cell("synthesise", "real", 1, {"classes": {"name": "mine", "content": "c"}, "dataset": {"size_px": SIDE}})
    folder = Store(place).folder(listed)
    folder.mkdir(parents=True)
    (folder / "images.jsonl").write_text(
        "".join(json.dumps({"path": f"k1/{i}.JPEG", "class_index": 0}) + "\n" for i in range(4))
    )
    (folder / "source.json").write_text('{"data": "train", "fingerprint": "f"}')
    Store(place).seal(listed, MADE)
    return place


@pytest.fixture
def files(store: Path) -> dict[str, bytes]:
    """Return the files of the card of ``lb``."""
    pytest.importorskip("mlcroissant")
    (found,) = Board(lambda kind: DECLARED).dataset_cards(store, ["lb"], decode).values()
    return found


def facts_of(store: Path, name: str) -> card.Facts:
    """Return the facts of a dataset with its own records."""
    from leaderboard.sources import from_store

    (dataset,) = datasets.find(store, [name])
    return card.gather_facts(store, dataset, from_store(store), DECLARED)


# --- README -------------------------------------------------------------------------------------------------------------


def test_a_card_says_counts_prompts_settings_licence_and_the_measured_biases_with_n_and_interval(store: Path) -> None:
    text = card.readme(facts_of(store, "lb"), True)
    for line in ("| images | 6 |", "| classes | 2 |", "| images of a class | 3 |", "| size | 8 x 8 pixels, PNG |",
                 r'| a \| b \<i\> "c" \`d\` | – | 6 |', "| setting guidance | 2.0 |", "| fit setting epochs | 3 |",
                 "| completed | 2023-11-14T22:13:20Z |", "| time, summed over workers | 1 min 30 s |", "Made \\*here\\*.",
                 "The generator declares: CreativeML OpenRAIL-M (weights).", "![The first 2 images of 2 classes"):  # fmt: skip
        assert line in text, line
    bias = next(line for line in text.splitlines() if line.startswith("| texture-bias | TI |"))
    assert "| resnet10 | 25.00 | 19.51 to 31.43 | 200 | 0/0 | lower | passed |" in bias
    assert "| generated-correlation | generated-correlation | the images | 50.00 |" in text
    assert text.count("| texture-bias |") == 1, "the other dataset's result is not this one's"
    assert "* texture-bias (version 1, profile toy): p; data d=f" in text


def test_a_card_names_no_place_of_this_machine(store: Path) -> None:
    text = card.readme(facts_of(store, "lb"), True)
    assert "model.safetensors (ffffffffffffffff)" in text
    for private in ("secret", "/home", "host-7", str(store)):
        assert private not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [("package:a/b", "package:a/b"), ("hub:o/n@c", "hub:o/n@c"), ("open-clip:package:a/b", "open-clip:package:a/b"),
     ("q-align:/data/x/", "q-align:x (0123)"), (r"C:\models\x.ckpt", "x.ckpt (0123)"), ("relative/x", "x (0123)")],
)  # fmt: skip
def test_a_model_is_named_so_that_others_can_find_it_and_no_folder_is_told(value: str, shown: str) -> None:
    assert datasets.public_settings({"settings": {"m": value}, "sources": {"m": "0123"}}) == {"m": shown}


def test_the_hub_reads_the_front_matter(store: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    path = tmp_path / "README.md"
    path.write_text(card.readme(facts_of(store, "lb"), False))
    data = hub.DatasetCard.load(path).data
    assert data.license == "other" and data.license_name == "creativeml-openrail-m-weights"
    assert data.size_categories == "n<1K" and data.task_categories == ["image-classification"]
    assert data.pretty_name == "lb: 6 images of 2 classes, seed 0"


def test_a_dataset_that_was_only_listed_claims_no_making(store: Path) -> None:
    text = card.readme(facts_of(store, "real"), False)
    assert "The images were listed" in text and "| images | 4 |" in text
    for words in ("synthetic", "machine-generated", "tar files", card.UNCHECKED, "samples.png"):
        assert words not in text


def test_a_card_without_results_says_so(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    assert "Nothing was measured on these images" in card.readme(facts_of(tmp_path, "lb"), False)


# --- Croissant ----------------------------------------------------------------------------------------------------------

RESPONSIBLE = ("data_biases", "data_collection", "data_collection_type", "data_collection_raw_data", "data_limitations",
               "data_use_cases", "data_annotation_protocol", "data_preprocessing_protocol", "personal_sensitive_information",
               "annotations_per_item")  # fmt: skip


def test_mlcroissant_validates_the_description_and_reads_every_responsible_field(files: dict[str, bytes]) -> None:
    mlc: Any = pytest.importorskip("mlcroissant")
    described = json.loads(files["croissant.json"])
    assert described["conformsTo"] == ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
    assert described["dateCreated"].startswith("2023-11-14") and described["citeAs"] == "A, B, 2025"
    assert "@base" not in described["@context"]
    metadata = mlc.Dataset(jsonld=described).metadata
    assert not metadata.ctx.issues.errors
    assert [name for name in RESPONSIBLE if not getattr(metadata, name)] == []
    assert metadata.data_biases[0].startswith(
        "texture-bias TI of resnet10 pre-trained on these images: 25.00 % (95 % interval"
    )
    assert "n=200" in metadata.data_biases[0] and "lower is better" in metadata.data_biases[0]
    assert "secret" not in files["croissant.json"].decode()


def test_mlcroissant_reads_images_labels_and_prompts_back(
    files: dict[str, bytes], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlc: Any = pytest.importorskip("mlcroissant")
    extract = pytest.importorskip("mlcroissant._src.operation_graph.operations.extract")
    from etils import epath

    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "extracted"))
    logging.getLogger("absl").setLevel(logging.ERROR)
    (dataset,) = datasets.find(store, ["lb"])
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "croissant.json").write_bytes(files["croissant.json"])
    (tmp_path / "card" / dataset.folder.name).symlink_to(dataset.folder)
    read = mlc.Dataset(tmp_path / "card" / "croissant.json")
    images = list(read.records("images"))
    assert sorted(one["images/class"].decode() for one in images) == ["k1"] * 3 + ["k2"] * 3
    first = next(one for one in images if one["images/path"] == b"k1/k1_00000.png")
    expected = np.random.default_rng([0, 0]).integers(0, 256, (PER_CLASS, SIDE, SIDE, 3), dtype=np.uint8)[0]
    assert np.array_equal(np.asarray(first["images/image"]), expected)
    listed = list(read.records("list"))
    assert len(listed) == 6 and listed[0]["list/prompt"].decode() == PROMPT
    assert [one["classes/id"] for one in read.records("classes")] == list(CLASSES)


def test_archives_of_two_datasets_never_have_one_address(tmp_path: Path) -> None:
    """mlcroissant unpacks archives of equal relative addresses once, whatever they hold."""
    pytest.importorskip("mlcroissant")
    make_dataset(tmp_path, seed=0)
    make_dataset(tmp_path, seed=1)
    cards = Board(lambda kind: {}).dataset_cards(tmp_path, [], decode)
    addresses = [one["contentUrl"] for found in cards.values() for one in json.loads(found["croissant.json"])["distribution"]
                 if "contentUrl" in one]  # fmt: skip
    assert len(cards) == 2 and len(addresses) == len(set(addresses)) == 6


def test_a_missing_mlcroissant_is_said_with_the_command_that_installs_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    with pytest.raises(UserError, match=r"pip install 'databias-harness\[export\]'"):
        croissant.to_json(facts_of(store, "lb"))


# --- finding and reading ------------------------------------------------------------------------------------------------


def test_datasets_are_found_by_generator_key_and_folder(tmp_path: Path) -> None:
    first, second = (make_dataset(tmp_path, seed=seed) for seed in (0, 1))
    keys = {
        name: [one.key for one in datasets.find(tmp_path, [name])]
        for name in ("lb", f"lb:{first.key[:8]}", Path(second.folder).name)
    }
    assert sorted(keys["lb"]) == sorted([first.key, second.key])
    assert [*keys.values()][1:] == [[first.key], [second.key]]
    with pytest.raises(UserError, match="did you mean 'lb'"):
        datasets.find(tmp_path, ["lbb"])
    with pytest.raises(DataMissing, match="no datasets"):
        datasets.find(tmp_path / "nowhere", [])


def test_a_damaged_tar_file_list_or_manifest_is_refused(store: Path) -> None:
    (dataset,) = datasets.find(store, ["lb"])
    for name, read in ((dataset.shards[0], lambda d: card.sheet(d, decode)), ("images.jsonl", lambda d: d.count)):
        whole = (dataset.folder / name).read_bytes()
        (dataset.folder / name).write_bytes(whole.replace(b"k1", b"k9", 1))
        with pytest.raises(UserError, match="missing or damaged"):
            read(datasets.find(store, ["lb"])[0])
        (dataset.folder / name).write_bytes(whole)
    manifest = dataset.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"chunk": 50', '"chunk": 51'))
    with pytest.raises(UserError, match="cannot be used"):
        datasets.find(store, ["lb"])


def test_the_command_writes_a_folder_for_each_dataset(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant")
    runner, out = CliRunner(), tmp_path / "cards"
    done = runner.invoke(app, ["dataset", "card", "--store", str(store), "--output", str(out)])
    assert done.exit_code == 0, done.output
    found = {
        path.parent.name.rpartition("-")[0]: sorted(one.name for one in path.parent.iterdir())
        for path in out.glob("*/README.md")
    }
    assert found == {"lb": ["README.md", "croissant.json", "samples.png"], "real": ["README.md", "croissant.json"]}
    assert isinstance(runner.invoke(app, ["dataset", "card", "--store", str(tmp_path / "none")]).exception, DataMissing)
