"""Which profile measures a checkpoint: implied by its class list, and refused where the two contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backbones.preprocessing import Preprocessing
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.plan.model import ExternalCheckpoint, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plan.profile_choice import choose_profile

DATA = ["cue-conflict=/data/cue-conflict"]


@pytest.mark.parametrize(("classes", "profile"), [("imagenet1k", "in1k"), ("imagenet100", "in100"), ("micro", "micro")])
def test_the_class_list_implies_the_profile_and_says_so(classes: str, profile: str) -> None:
    name, note = choose_profile("", "w.pth", classes, DATA)
    assert name == profile and f"profile {profile} (implied by --classes {classes}" in note


def test_the_order_of_a_head_does_not_change_its_profile(tmp_path: Path) -> None:
    (tmp_path / "head.txt").write_text("\n".join(reversed(load_classes("imagenet100").ids)))
    assert choose_profile("", "w.pth", str(tmp_path / "head.txt"), DATA)[0] == "in100"


@pytest.mark.parametrize(
    ("asked", "classes", "right"),
    [("micro", "imagenet1k", "in1k"), ("micro", "imagenet100", "in100"), ("in1k", "imagenet100", "in100"),
     ("in1k", "micro", "micro"), ("in100", "micro", "micro")],
)  # fmt: skip
def test_a_profile_of_other_classes_is_refused_and_the_right_one_named(asked: str, classes: str, right: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_profile(asked, "w.pth", classes, DATA)
    assert caught.value.code == 2 and f"--profile {right}" in caught.value.fix


def test_documented_combinations_are_measured(tmp_path: Path) -> None:
    assert choose_profile("in100", "w.pth", "imagenet1k", DATA) == ("in100", "")  # restricted to the hundred
    (tmp_path / "own.txt").write_text("a\nb\n")
    for profile in ("micro", "in100", "in1k", "my/profile.toml"):
        assert choose_profile(profile, "w.pth", str(tmp_path / "own.txt"), DATA) == (profile, "")
    assert choose_profile("my/profile.toml", "w.pth", "imagenet1k", DATA) == ("my/profile.toml", "")


def test_a_list_of_its_own_with_data_of_its_own_must_name_the_profile(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="--profile is needed"):
        choose_profile("", "w.pth", str(tmp_path / "own.txt"), DATA)
    name, note = choose_profile("", "w.pth", str(tmp_path / "own.txt"), [])
    assert name == "micro" and "no data given" in note


def test_generators_and_baselines() -> None:
    assert choose_profile("", "", "", DATA) == ("micro", "")
    assert choose_profile("", "baseline:uniform", "", []) == ("micro", "")
    assert choose_profile("", "baseline:humans", "", DATA)[0] == "in1k"
    assert choose_profile("", "baseline:constant:n04285008", "", [])[0] == "in1k"
    assert choose_profile("", "baseline:constant:m00000001", "", [])[0] == "micro"


def test_a_suite_of_another_size_and_own_data_under_micro_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"w")
    (tmp_path / "dtd").mkdir()

    def warnings(profile: str, size: int, *data: str) -> list[str]:
        settings = load_profile(profile, ['suites.linear-probe.datasets=["dtd"]'], data).profile
        outside = ExternalCheckpoint(tmp_path / "w.pth", "resnet10", "micro", Preprocessing(image_size=size))
        return Planner(Selection(settings, "", "linear-probe,in-domain", external=outside)).build().warnings

    own = f"dtd={tmp_path / 'dtd'}"
    assert warnings("micro", 64) == [] == warnings("in1k", 224, own)
    follow = "(--set suites.linear-probe.image_size={0} follows it)"
    assert warnings("micro", 96) == [
        f"linear-probe feeds images of 64 px instead of the 96 that the checkpoint states {follow.format(96)}"
    ]
    assert warnings("in1k", 240, own) == [
        f"linear-probe feeds images of 224 px instead of the 240 that the checkpoint states {follow.format(240)}"
    ]
    (line,) = warnings("micro", 64, own)
    assert line.startswith("dtd: measured under profile micro") and "--profile in100 or in1k" in line
