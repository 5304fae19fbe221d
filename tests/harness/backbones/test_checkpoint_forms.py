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
from harness.plan.model import ExternalCheckpoint
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
            assert not found.features_only and classifier.classes == form.classes
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
