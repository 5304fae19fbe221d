"""Link farms: data sets whose class folders, or files, are links to where the pictures really lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harness.cli.datacheck import data_findings
from harness.core.code import load_attribute
from harness.core.errors import UserError
from harness.images.folder import FolderSource
from harness.images.published import list_images
from harness.plan.model import ExternalCheckpoint, Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.registry import Inspector
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from harness.store.data import DataSettings, DataSource, find_data
from suites.imagefolder import read_validation
from suites.transfer.cards import card_for
from suites.transfer.readers import read
from tests.tiny_roots import BIAS, ade_set, coco_set, imagenet, transfer_set

WNIDS = ("n01558993", "n01692333", "n01729322", "n01735189")


def link_farm(source: Path, target: Path) -> Path:
    """Build a tree in which every folder of files, and every file beside folders, is a link into ``source``."""
    inner = [entry for entry in source.iterdir() if entry.is_dir()]
    if not inner:
        target.symlink_to(source, target_is_directory=True)
        return target
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            link_farm(entry, target / entry.name)
        else:
            (target / entry.name).symlink_to(entry)
    return target


def one_picture(root: Path, suffixes: tuple[str, ...] = (".JPEG", ".jpg", ".png")) -> Path:
    return next(path for path in sorted(root.rglob("*")) if path.suffix in suffixes)


def other_picture(path: Path) -> None:
    """Change one byte and nothing that a listing shows: neither size nor time."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def source_of(name: str, root: Path) -> DataSource:
    found = find_data(name, DataSettings(root=str(root)))
    assert isinstance(found, DataSource), found
    return found


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Write nine data sets; returns root and card of each."""
    root = tmp_path_factory.mktemp("sets")
    found = {
        name: (root / name, transfer_set(root / name, name, 6, 10)) for name in ("dtd", "eurosat", "flowers", "pets")
    }
    found |= {name: (root / name, write(root / name)[1].model_dump(mode="json")) for name, write in BIAS.items()}
    found |= {
        "coco": (root / "coco", coco_set(root / "coco", 4, 3)),
        "ade20k": (root / "ade", ade_set(root / "ade", 4, 3)),
    }
    return found


@pytest.mark.parametrize(
    "name", ["dtd", "eurosat", "flowers", "pets", "cue-conflict", "focus", "in9", "coco", "ade20k"]
)
def test_readers_and_fingerprints_see_what_lies_behind_links(
    sets: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, name: str
) -> None:
    root, card = sets[name]
    farm = link_farm(root, tmp_path / "farm")
    suite = next(suite for suite in registry.suites().available()[0] if name in suite.data_inspectors)
    inspect = cast(Inspector, load_attribute(suite.data_inspectors[name]))
    seen, direct = inspect(name, farm, card), inspect(name, root, card)
    assert (seen.counts, seen.classes, seen.wrong) == (direct.counts, direct.classes, direct.wrong)
    assert len(seen.sample) == len(direct.sample) > 0
    before = source_of(name, farm).data_hash
    assert before == source_of(name, root).data_hash, "where pictures lie is not what they are"
    other_picture(one_picture(root))
    assert source_of(name, farm).data_hash != before


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Path]:
    """Return an ImageNet of links with a loop, hidden files and litter in it; the pictures lie in ``pictures``."""
    imagenet(tmp_path / "pictures" / "train", WNIDS, 2)
    imagenet(tmp_path / "pictures" / "val", WNIDS, 2, validation=True)
    root = tmp_path / "imagenet"
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        for wnid in WNIDS:
            (root / part / wnid).symlink_to(tmp_path / "pictures" / part / wnid)
        (root / part / "again").symlink_to(root / part)
    yield root


def test_readers_of_class_folders_agree_and_ignore_litter(farm: Path) -> None:
    before = source_of("train", farm).data_hash
    behind = farm / "train" / WNIDS[0]
    for name in (".DS_Store", "._n01.JPEG", "Thumbs.db", "__MACOSX/n01.JPEG", ".ipynb_checkpoints/n01.JPEG"):
        (behind / name).parent.mkdir(exist_ok=True)
        (behind / name).write_bytes(b"litter")
    assert source_of("train", farm).data_hash == before
    names = [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(2)]
    assert [entry.path for entry in list_images(farm).entries] == names == FolderSource(farm / "train", WNIDS).names
    assert len(read_validation(farm, WNIDS).paths) == 8


def planned(farm: Path, generator: str = "real") -> Plan:
    registry.generators.cache_clear()
    (farm.parent / "classes.txt").write_text("\n".join(WNIDS) + "\n")
    (farm.parent / "card.json").write_text(f'{{"per_class": 2, "classes": "{farm.parent}/classes.txt"}}')
    sets = (f"classes={farm.parent}/classes.txt", f"data.in-val.card={farm.parent}/card.json")
    data = (f"train={farm / 'train'}", f"in-val={farm / 'val'}")
    return Planner(Selection(load_profile("micro", sets, data).profile, generator, "in-domain", "resnet10")).build()


@pytest.mark.parametrize("generator", ["real", "folder:{}/train"])
def test_other_pictures_behind_the_links_are_another_key(farm: Path, generator: str) -> None:
    def keys(kind: str) -> set[str]:
        plan = planned(farm, generator.format(farm))
        assert not plan.not_run, plan.not_run
        found = {key for key, cell in plan.cells.items() if cell.kind == kind}
        assert found
        return found

    before = {kind: keys(kind) for kind in ("synthesise", "pretrain", "evaluate")}
    assert before == {kind: keys(kind) for kind in before}
    other_picture(one_picture(farm.parent / "pictures" / "val"))
    assert keys("synthesise") == before["synthesise"] and not keys("evaluate") & before["evaluate"]
    other_picture(one_picture(farm.parent / "pictures" / "train"))
    assert not any(keys(kind) & before[kind] for kind in before)


def test_a_link_to_nothing_is_named(farm: Path) -> None:
    lost = farm / "val" / WNIDS[1]
    lost.unlink()
    lost.symlink_to(farm / "gone")
    words = f"the link {lost} leads nowhere: there is no {farm / 'gone'}"
    plan = planned(farm)
    assert [entry.reason for entry in plan.not_run] == [f"data set 'in-val': {words}"] and plan.not_run[0].asked
    (line,) = (line for line in data_findings("in100", [f"in-val={farm / 'val'}"]) if line.check == "data in-val")
    assert line.status == "problem" and words in line.text


def test_a_listed_picture_outside_the_data_set_is_refused(tmp_path: Path) -> None:
    card = transfer_set(tmp_path / "set", "dtd", 6, 10)
    (list_file,) = (tmp_path / "set").rglob("test1.txt")
    lines = list_file.read_text().splitlines()
    list_file.write_text("\n".join([f"{lines[0].split('/')[0]}/../../../elsewhere.jpg", *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="outside the data set"):
        read(tmp_path / "set", card_for("dtd", card))


@pytest.mark.parametrize("when", ["before", "during"])
def test_what_changes_after_the_plan_is_not_measured_under_its_key(
    farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    plan = planned(farm)
    (cell,) = (cell for cell in plan.cells.values() if cell.kind == "synthesise")
    picture = one_picture(farm.parent / "pictures" / "train")
    if when == "before":
        other_picture(picture)
    monkeypatch.setattr("harness.run.tasks.import_images", lambda ctx: when == "during" and other_picture(picture))
    with pytest.raises(UserError, match="data set 'train' has changed since the plan was made"):
        execute(Job(cell, {}, plan.sources, str(tmp_path / "store")))
    assert Store(tmp_path / "store").state(cell) == "partial"


def test_a_checkpoint_that_changes_after_the_plan_is_not_imported(
    farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.pth"
    file.write_bytes(b"epoch 1")
    selection = Selection(
        load_profile("micro").profile, "", "", external=ExternalCheckpoint(file, "resnet10", "imagenet100")
    )
    plan = Planner(selection).build()
    (cell,) = plan.cells.values()
    monkeypatch.setattr("harness.run.tasks.import_checkpoint_file", lambda ctx: file.write_bytes(b"epoch 2"))
    with pytest.raises(UserError, match="'checkpoint' has changed since the plan was made"):
        execute(Job(cell, {}, plan.sources, str(tmp_path / "store")))
    assert Planner(selection).build().cells.keys() != plan.cells.keys()
