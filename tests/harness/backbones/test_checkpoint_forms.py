"""Every form of checkpoint in the table of docs/checkpoints.md: what is read gives the logits of its source, the rest its reason."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbones.checkpoint import import_checkpoint, read_info
from harness.backbones.classifier import load_classifier
from harness.backbones.models import size_arguments
from harness.core.classes import load_classes
from harness.core.errors import DataMissing, UserError
from harness.plan.external import external_checkpoint
from harness.plan.model import ExternalCheckpoint, Selection
from harness.plan.planner import Planner
from harness.plan.profile import Profile, load_profile
from tests.harness.backbones.forms import READ, REFUSED, Form, network


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("in1k").profile


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with an empty cache of the hub."""
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def planned(profile: Profile, form: Form, location: object) -> ExternalCheckpoint:
    """Return the checkpoint as it is planned."""
    Path("classes.txt").write_text("".join(f"{name}\n" for name in form.classes))
    return external_checkpoint(
        profile, str(location), form.arch, "classes.txt", form.chosen, form.weights, head=form.head
    )


def imported(found: ExternalCheckpoint, out: Path) -> Any:
    """Import it as its cell does, and return the classifier."""
    kwargs = {**found.arguments, **size_arguments(found.arch, found.feed.image_size)}
    feed = asdict(found.feed)
    mean, std = feed.pop("mean"), feed.pop("std")
    ids = load_classes(found.classes).ids
    import_checkpoint(
        found.path, found.arch, ids, mean, std, out, found.weights, **feed, kwargs=kwargs, head_file=found.head
    )
    return load_classifier(out)


@pytest.mark.parametrize("name", READ)
def test_is_read(name: str, profile: Profile, tmp_path: Path) -> None:
    form = READ[name]
    net = network(form.source or form.arch, form.outputs, **form.kwargs)
    found = planned(profile, form, form.write(tmp_path, net))
    for part, value in form.expected.items():
        assert (
            getattr(found.feed, part) == pytest.approx(value)
            if part in ("mean", "std")
            else getattr(found.feed, part) == value
        )
    classifier = imported(found, tmp_path / "out")
    assert read_info(tmp_path / "out").weights == form.kind
    side = found.feed.image_size
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.feed.mean, found.feed.std))
    with torch.no_grad():
        if form.features:
            expected = net.forward_head(net.forward_features((pixels - mean) / std), pre_logits=True)
            assert found.features_only and classifier.classes == ()
            torch.testing.assert_close(classifier.features(pixels), expected, rtol=1e-5, atol=1e-5)
        else:
            assert not found.features_only and classifier.classes == tuple(line.split()[0] for line in form.classes)
            torch.testing.assert_close(classifier(pixels), net((pixels - mean) / std), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str, profile: Profile, tmp_path: Path) -> None:
    wanted = REFUSED[name]
    form = wanted.form
    location = form.write(tmp_path, network(form.source or form.arch or "resnet10", form.outputs, **form.kwargs))
    with pytest.raises(UserError) as caught:
        planned(profile, form, location)
    error = caught.value
    for part, pattern in ((error.what, wanted.what), (error.why, wanted.why), (error.fix, wanted.fix)):
        assert re.search(pattern, part), f"{pattern!r} not in {part!r}"
    assert isinstance(error, DataMissing) == (
        name in ("hub-not-in-the-cache", "missing-file", "folder-without-weights")
    )


def test_every_line_of_the_table_names_a_test_and_every_form_has_a_line() -> None:
    page = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text("utf-8")
    lines = [
        line for line in page.partition("## Forms")[2].splitlines() if line.startswith("| ") and "| form |" not in line
    ]
    named = [line.rpartition("`test_")[2].removesuffix("` |") for line in lines]
    assert sorted(named) == sorted([f"is_read[{name}]" for name in READ] + [f"is_refused[{name}]" for name in REFUSED])
    assert all(("| read |" in line) == ("is_read" in line) and len(line.split("|")) == 5 for line in lines)


def test_a_file_without_a_head_is_planned_for_features_and_refused_for_logits(tmp_path: Path) -> None:
    micro = load_profile("micro").profile
    form = READ["without-head"]
    found = planned(micro, form, form.write(tmp_path, network("resnet10")))
    plan = Planner(Selection(micro, suites="texture-bias,in-domain,linear-probe", external=found)).build()
    assert {cell.name for cell in plan.cells.values() if cell.kind == "evaluate"} == {"linear-probe"}
    refused = [entry for entry in plan.not_run if "no classifier head" in entry.reason]
    assert len(refused) == 2 and all(entry.asked for entry in refused)
    assert any("features only" in note for note in plan.notes)


def test_what_is_left_out_is_said_and_recorded(profile: Profile, tmp_path: Path) -> None:
    for name, words in (("torchvision-ema", "the weights under model"), ("dino", "module.head.mlp.0.weight")):
        form, folder = READ[name], tmp_path / name
        folder.mkdir()
        found = planned(profile, form, form.write(folder, network("resnet10")))
        assert any(words in note for note in found.notes)
        assert any(f"from {'model_ema' if name == 'torchvision-ema' else 'teacher'}" in note for note in found.notes)
        imported(found, folder / "out")
        recipe = read_info(folder / "out").recipe
        assert words in recipe["left_out"] and recipe["entry"] in ("model_ema", "teacher")


def test_a_normaliser_inside_is_said_and_an_option_against_it_is_a_warning(profile: Profile, tmp_path: Path) -> None:
    form = READ["robustness"]
    location = form.write(tmp_path, network("resnet10"))
    assert "mean 0.1,0.2,0.3, std 0.4,0.5,0.6 (the file itself)" in planned(profile, form, location).notes[0]
    other = external_checkpoint(
        profile, str(location), "resnet10", "classes.txt", {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    )
    assert other.feed.mean == (0.5,) * 3
    assert "mean 0.5 (--normalisation) instead of mean 0.1,0.2,0.3 (the file itself)" in other.warnings


def test_a_head_of_its_own_is_part_of_the_key_and_other_keys_are_as_before(tmp_path: Path) -> None:
    micro, form = load_profile("micro").profile, READ["dino-linear-head"]
    location = form.write(tmp_path, network("resnet10"))
    cells = []
    for head in ("", form.head):
        found = external_checkpoint(micro, _listed(form, location), "resnet10", "classes.txt", form.chosen, head=head)
        plan = Planner(Selection(micro, suites="", external=found)).build()
        cells.append(next(iter(plan.cells.values())))
    plain, headed = cells
    assert set(plain.params) == {
        "sha256",
        "arch",
        "classes",
        "weights",
        "mean",
        "std",
        "image_size",
        "interpolation",
        "crop",
        "precision",
    }
    assert set(headed.params) - set(plain.params) == {"head_sha256"} and headed.data == ("checkpoint", "head")
    assert plain.folder.startswith("pretrain/outside-") and plain.shown_kind == "import"


def _listed(form: Form, location: object) -> str:
    Path("classes.txt").write_text("".join(f"{name}\n" for name in form.classes))
    return str(location)
