"""What containers state of a class: a class id decides over a number, and what contradicts it is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from generators.published.inspect import inspect_published
from generators.published.mapping import class_map
from harness.core.classes import ClassList
from harness.core.errors import UserError
from harness.images.published import Listing, list_images
from tests.generators.test_import_layouts import hub_parquet, some
from tests.generators.test_import_parts import table
from tests.generators.test_imports import CLASSES, picture, write_tar

OWN = (CLASSES[2], CLASSES[0], CLASSES[1])
"""A publisher's order."""


def samples(path: Path, side: Sequence[Mapping[str, str]], keys: Sequence[str] = ("a", "b", "c", "d")) -> None:
    """Write a tar of samples with side files, by suffix."""
    members = {}
    for i, (key, files) in enumerate(zip(keys, side, strict=False)):
        members |= {f"{key}.jpg": picture(i), **{f"{key}.{suffix}": text.encode() for suffix, text in files.items()}}
    write_tar(path, members)


def meaning(listing: Listing, spec: str = "wnid", classes: ClassList | None = None) -> list[str]:
    found = classes or some(*CLASSES)
    labels = class_map(spec, found, {e.folder for e in listing.entries}, listing.label_names, listing.beside).labels
    return [found.ids[labels[entry.folder]] if entry.folder in labels else "" for entry in listing.entries]


@pytest.mark.parametrize(
    "form", ["column wnid", "column class_name", "labels", "json", "json synset", "cls and txt", "folder of the key"]
)
def test_a_class_id_beside_a_number_decides_and_an_index_that_contradicts_it_is_refused(
    tmp_path: Path, form: str
) -> None:
    columns: dict[str, dict[str, Sequence[Any]]] = {
        "column wnid": {"label": [0, 1, 2], "wnid": OWN},
        "column class_name": {"label": [0, 1, 2], "class_name": OWN},
        "labels": {"label": [0, 1, 2], "labels": OWN},
    }
    side = {
        "json": [{"json": json.dumps({"label": i, "wnid": w})} for i, w in enumerate(OWN)],
        "json synset": [{"cls": str(i), "json": json.dumps({"synset": w})} for i, w in enumerate(OWN)],
        "cls and txt": [{"cls": str(i), "txt": w} for i, w in enumerate(OWN)],
        "folder of the key": [{"cls": str(i)} for i in range(3)],
    }
    if form in columns:
        table(tmp_path / "all.parquet", columns[form])
    else:
        keys = [f"{w}/{i}" for i, w in enumerate(OWN)] if form.startswith("folder") else [*"abc"]
        samples(tmp_path / "0.tar", side[form], keys)
    listing = list_images(tmp_path)
    assert meaning(listing) == [*OWN] and listing.beside == dict(zip("012", OWN, strict=True))
    file = tmp_path / "map"
    for spec, lines in (("index", ""), (str(file), f"0 {OWN[1]}\n")):
        file.write_text(lines)
        with pytest.raises(UserError, match="contradicts the class ids of the data set") as caught:
            meaning(listing, spec)
        assert "label 0 would be" in caught.value.why and OWN[0] in caught.value.why
    assert meaning(listing, "index", ClassList("own", OWN, OWN)) == [*OWN], "an index that agrees is no contradiction"


def test_rows_without_a_class_id_have_that_of_their_number(tmp_path: Path) -> None:
    table(tmp_path / "all.parquet", {"label": [0, 1, 0], "wnid": [OWN[0], OWN[1], None]})
    assert meaning(list_images(tmp_path)) == [OWN[0], OWN[1], OWN[0]]


def test_class_ids_that_contradict_are_refused(tmp_path: Path) -> None:
    for place, label in enumerate((0, 0)):
        table(tmp_path / "files" / f"{place}.parquet", {"label": [label], "wnid": [OWN[place]]})
    with pytest.raises(UserError, match="label 0 stands beside two class ids"):
        list_images(tmp_path / "files")
    samples(tmp_path / "tar" / "0.tar", [{"cls": OWN[0]}], [f"{OWN[1]}/a"])
    with pytest.raises(UserError, match=r"a\.jpg has two labels"):
        list_images(tmp_path / "tar")
    samples(tmp_path / "json" / "0.tar", [{"json": json.dumps({"wnid": OWN[0], "synset": OWN[1]})}])
    with pytest.raises(UserError, match="sample a has two labels"):
        list_images(tmp_path / "json")
    import pyarrow.parquet as pq

    hub_parquet(tmp_path / "names" / "all.parquet", CLASSES, [0, 1, 2])
    file = tmp_path / "names" / "all.parquet"
    held = pq.read_table(file)
    pq.write_table(held.append_column("synset", [[*OWN]]), file)
    with pytest.raises(UserError, match="contradict the label names") as caught:
        list_images(tmp_path / "names")
    assert f"label 0 stands beside {OWN[0]}" in caught.value.why


CARD = "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n{}---\ntext\n"


def test_the_names_of_a_hub_card_are_read_where_the_files_state_none(tmp_path: Path) -> None:
    hub_parquet(tmp_path / "data" / "train-0.parquet", None, [0, 1, 2])
    (tmp_path / "README.md").write_text(CARD.format("".join(f"          '{i}': {w}\n" for i, w in enumerate(OWN))))
    listing = list_images(tmp_path)
    assert meaning(listing) == [*OWN]
    with pytest.raises(UserError, match="contradicts the data set's own label names"):
        meaning(listing, "index")


@pytest.mark.parametrize("suffix", ["cls", "label", "class", "cls.txt"])
def test_labels_are_read_from_files_that_are_called_so(tmp_path: Path, suffix: str) -> None:
    samples(tmp_path / "00000.tar", [{suffix: "1"}, {suffix: "0"}])
    assert [entry.folder for entry in list_images(tmp_path).entries] == ["1", "0"]
    samples(tmp_path / "00000.tar", [{"txt": OWN[0]}, {"txt": OWN[1]}])
    assert [entry.folder for entry in list_images(tmp_path).entries] == [*OWN[:2]], "a class id is one anywhere"


@pytest.mark.parametrize("side", [{}, {"txt": "1"}, {"txt": "a caption"}, {"index": "7"}])
def test_a_number_as_the_name_of_a_shard_is_no_class(tmp_path: Path, side: dict[str, str]) -> None:
    for shard in ("00000", "00001"):
        samples(tmp_path / f"{shard}.tar", [side, side])
    with pytest.raises(UserError, match=r"the samples of 00000\.tar have no labels") as caught:
        list_images(tmp_path)
    assert ("a.txt" in caught.value.why) == ("txt" in side) and ".cls" in caught.value.why


def test_samples_without_a_label_beside_others_are_asked_about(tmp_path: Path) -> None:
    samples(tmp_path / "00000.tar", [{"cls": "0"}, {}, {"cls": "1"}])
    assert [entry.folder for entry in list_images(tmp_path).entries] == ["0", "-1", "1"]
    found = inspect_published(tmp_path, "index", some(*CLASSES[:2]))
    assert "1 folders name no class, such as -1" in found.classes


def test_a_label_column_without_labels_leaves_the_next_one(tmp_path: Path) -> None:
    table(tmp_path / "all.parquet", {"label": [None, None], "labels": [1, 0]})
    assert [entry.folder for entry in list_images(tmp_path).entries] == ["1", "0"]
