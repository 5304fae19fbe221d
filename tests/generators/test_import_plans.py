"""What a plan makes of imports: stand-ins, mistyped paths, settings of one folder, files that settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry

CAPTIONER = "generators.realfake-reimpl.captioner=none"


@pytest.fixture
def real(tmp_path: Path) -> str:
    """Return where a folder of real images is."""
    (tmp_path / "real" / "n01440764").mkdir(parents=True)
    return f"train={tmp_path / 'real'}"


def planned(generators: str, sets: tuple[str, ...] = (), data: tuple[str, ...] = (), profile: str = "in100") -> Plan:
    registry.generators.cache_clear()  # each plan is a run of its own
    return Planner(Selection(load_profile(profile, sets, data).profile, generators, "")).build()


def made(plan: Plan) -> list[str]:
    return [cell.name for cell in plan.cells.values() if cell.kind == "synthesise"]


def test_a_mistyped_path_never_becomes_another_generator(real: str) -> None:
    plan = planned("realfake", (CAPTIONER,), (real, "realfake=/nope"))
    assert made(plan) == [] and not plan.notes
    (entry,) = plan.not_run
    assert entry.asked and entry.what == "generator realfake" and "/nope is not a folder" in entry.reason
    assert not planned("all", (CAPTIONER,), (real, "realfake=/nope")).notes


def test_a_stand_in_is_announced(real: str) -> None:
    for selection in ("realfake", "all"):
        plan = planned(selection, (CAPTIONER,), (real,))
        assert "realfake-reimpl" in made(plan) and "realfake" not in made(plan)
        assert [note.partition(" (")[0] for note in plan.notes] == ["realfake -> realfake-reimpl: no folder given"]


def test_a_group_of_imports_makes_nothing(real: str) -> None:
    plan = planned("published", (CAPTIONER,), (real,))
    assert made(plan) == [] and not plan.notes
    assert "generator realfake" in {entry.what for entry in plan.not_run}


def test_each_folder_may_have_settings_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b", "v1.0"):
        (tmp_path / name / "n01440764").mkdir(parents=True)
    sets = (
        "generators.folder.class_map=names",
        "generators.folder.decisions.near-constant=drop",
        "generators.folder:b.class_map=index",
        'generators."folder:v1.0".decisions.undecodable=drop',
    )
    plan = planned(",".join(f"folder:{tmp_path / name}" for name in ("a", "b", "v1.0")), sets)
    found = {cell.name: cell.params["settings"] for cell in plan.cells.values() if cell.kind == "synthesise"}
    assert [found[f"folder:{name}"]["class_map"] for name in ("a", "b", "v1.0")] == ["names", "index", "names"]
    assert found["folder:v1.0"]["decisions"] == {"near-constant": "drop", "undecodable": "drop"}
    assert found["folder:b"]["decisions"] == {"near-constant": "drop"}
    with pytest.raises(UserError, match="unknown entry 'generators.lbgen:a'"):
        planned("real", ("generators.lbgen:a.rank=2",))


def test_the_content_of_a_class_map_is_in_the_keys(tmp_path: Path, tiny_clip_dir: Path) -> None:
    (tmp_path / "set" / "tench").mkdir(parents=True)
    file = tmp_path / "map.txt"
    sets = (f"generators.folder.class_map={file}", f"generators.folder.clip={tiny_clip_dir}")

    def keys() -> dict[str, str]:
        return {cell.name: cell.key for cell in planned(f"folder:{tmp_path / 'set'}", sets).cells.values()}

    file.write_text("tench n01440764\n")
    before = keys()
    assert keys() == before
    file.write_text("tench n01443537\n")
    after = keys()
    assert {name for name in before if before[name] != after[name]} >= {"dataset-identity", "folder:set"}
    assert before["dataset-scan"] == after["dataset-scan"], "what lies there does not depend on what it is called"


def test_the_content_of_a_weights_file_is_in_the_keys(tmp_path: Path) -> None:
    (tmp_path / "set" / "n01440764").mkdir(parents=True)
    weights = tmp_path / "weights.pt"

    def key() -> str:
        plan = planned(f"folder:{tmp_path / 'set'}", (f"generators.folder.clip=open_clip:ViT-B-32@{weights}",))
        return next(key for key, cell in plan.cells.items() if cell.name == "dataset-identity")

    keys = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        keys += [key(), key()]
    assert keys[0] == keys[1] != keys[2] == keys[3]


@pytest.mark.parametrize("revision", ["", "@main", "@v1.5", "@"])
def test_a_hub_model_is_named_by_its_commit(revision: str) -> None:
    pinned = ("generators.sd15.base=hub:owner/name@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",)
    assert "sd15" in made(planned("sd15", pinned))
    with pytest.raises(UserError, match="hub:owner/name.* is not pinned"):
        planned("sd15", (f"generators.sd15.base=hub:owner/name{revision}",))


@pytest.mark.parametrize(
    ("generator", "setting"),
    [
        ("folder:{root}", "folder.class_map=/no/such.txt"),
        ("realfake-reimpl", "realfake-reimpl.captioner=file:/no/such.txt"),
    ],
)
def test_a_file_that_is_not_there_is_said_so(tmp_path: Path, real: str, generator: str, setting: str) -> None:
    (tmp_path / "set" / "n01440764").mkdir(parents=True)
    plan = planned(generator.format(root=tmp_path / "set"), (f"generators.{setting}",), (real,))
    (entry,) = plan.not_run
    assert "does not exist" in entry.reason and "/no/such.txt" in entry.reason and entry.asked
