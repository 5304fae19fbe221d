"""The plugins `linear-probe`, `few-shot` and `in-domain` from data root to score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import harness.api
import suites.in_domain
from harness.core.errors import UserError
from harness.core.identity import file_sha256
from harness.plugins.context import Context
from harness.store.artifacts import Artifact
from harness.store.cells import Cell
from harness.store.data import DataSource
from suites.few_shot import FewShot, FewShotSettings
from suites.in_domain import InDomain, InDomainSettings
from suites.linear_probe import LinearProbe, LinearProbeSettings
from suites.transfer.stages import extract, load_features

COLOURS = {"Beagle": (200, 60, 60), "boxer": (60, 200, 60), "Siamese": (60, 60, 200)}
CARD = {"classes": 3, "trainval": 36, "test": 18}
SMALL = {"datasets": ("pets",), "image_size": 16, "probe_seeds": 2, "batch_size": 7}


class Colours:
    """A network that sees the mean colour; its three outputs are red, green and blue."""

    classes = ("n1", "n2", "n3")

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        return x.mean((2, 3))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Noisy colour fields in the layout of Pets."""
    root, rng = tmp_path / "pets", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for part, start, count in (("trainval", 1, 12), ("test", 50, 6)):
        lines = []
        for label, (breed, colour) in enumerate(COLOURS.items(), start=1):
            for i in range(start, start + count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 70, 3) + rng.normal(0, 10, (20, 20, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{breed}_{i}.jpg")
                lines.append(f"{breed}_{i} {label} 1 1")
        (root / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return root


def context(out: Path, cell: Cell, source: DataSource, inputs: dict[str, Artifact] | None = None) -> Context:
    out.mkdir(parents=True, exist_ok=True)
    return Context(cell, out, inputs or {}, {source.name: source})


def sealed(folder: Path) -> Artifact:
    files = {p.name: {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in folder.iterdir() if p.is_file()}
    return Artifact(folder, {"key": "k", "files": files})


@pytest.fixture
def features(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """The artifact an extract cell leaves."""
    monkeypatch.setattr(harness.api, "classifier", lambda ctx: Colours())
    (need,) = LinearProbe().items(LinearProbeSettings(**SMALL), "any")[0].derived_inputs
    assert need == FewShot().items(FewShotSettings(**SMALL), "any")[0].derived_inputs[0]  # one cell serves both suites
    cell = Cell("extract", need.name, need.version, dict(need.params), callable_path=need.callable_path)
    out = tmp_path / "features"
    extract(context(out, cell, DataSource("pets", str(pets), "f", CARD)))
    return sealed(out)


def evaluate(suite, settings, item, features: Artifact, out: Path):
    params = {"settings": settings.model_dump(mode="json"), "item_params": json.loads(json.dumps(item.params))}
    cell = Cell("evaluate", suite.card.id, 1, params, seeds={"probe_seed": item.probe_seed})
    ctx = context(out, cell, DataSource("pets", "", "f", CARD), {"features": features})
    rows = suite.rows(ctx)
    return rows, suite.score(rows, item, settings, {"pets": CARD})


def test_transfer_features_artifact(features):
    found = load_features(features)
    assert found.train.x.shape == (36, 3) and found.test_x.shape == (18, 3) and found.train.x.dtype == np.float32
    assert found.train.classes == ("Beagle", "boxer", "Siamese") and found.official_val is None
    assert found.test_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert found.test_names[0] == "images/Beagle_50.jpg" and found.notes == ()


def test_transfer_suite_linear_probe(features, tmp_path):
    settings = LinearProbeSettings(**SMALL)
    (item,) = LinearProbe().items(settings, "any")
    assert not item.checkpoint and item.data == ("pets",)
    rows, score = evaluate(LinearProbe(), settings, item, features, tmp_path / "a")
    assert len(rows) == 36 and rows.groupby("seed").size().tolist() == [18, 18]
    main, second = score.metrics
    assert (main.name, main.group, main.group_size, main.role) == ("pets", "transfer", 1, "primary")
    assert main.estimate.value == pytest.approx((rows["label"] == rows["predicted"]).mean()) and main.estimate.n == 18
    assert main.estimate.value > 0.6 and second.name == "pets.mean_per_class" and second.role == "companion"
    assert any("chosen C" in note for note in score.notes) and any("standard deviation" in note for note in score.notes)
    tried = json.loads((tmp_path / "a" / "search.json").read_text())
    assert len({entry["validation_sha256"] for entry in tried}) == 2 and all(
        len(e["validation_sha256"]) == 64 for e in tried
    )
    assert [entry["seed"] for entry in tried] == [0, 1] and len(tried[0]["tried"]) >= 8
    again, _ = evaluate(LinearProbe(), settings, item, features, tmp_path / "b")
    assert again.equals(rows)
    assert (tmp_path / "a" / "search.json").read_bytes() == (tmp_path / "b" / "search.json").read_bytes()


def test_transfer_suite_states_gap_and_missing_convergence(features, tmp_path):
    """The record says how near the optimum a probe is; one that did not get there is a warning, in both modes."""
    for mode in ("reference", "converged"):
        settings = LinearProbeSettings(**SMALL, solver=mode)
        (item,) = LinearProbe().items(settings, "any")
        rows, score = evaluate(LinearProbe(), settings, item, features, tmp_path / mode)
        assert any("exceeds its optimum by at most" in note for note in score.notes)
        assert not any("warning" in note for note in score.notes) and (rows["gap"] <= 1e-6).all()
        found = json.loads((tmp_path / mode / "search.json").read_text())
        assert all(entry["converged"] and entry["gap"] <= 1e-6 for entry in found)
        stopped = LinearProbeSettings(**SMALL, solver=mode, max_iterations=1)
        rows, score = evaluate(LinearProbe(), stopped, item, features, tmp_path / f"{mode}-stopped")
        assert any("warning: C=" in note and "not converged" in note for note in score.notes)
        assert not all(e["converged"] for e in json.loads((tmp_path / f"{mode}-stopped" / "search.json").read_text()))


@pytest.mark.parametrize(("suite", "settings"), [(LinearProbe(), LinearProbeSettings), (FewShot(), FewShotSettings)])
def test_transfer_suite_another_iteration_limit_is_another_protocol(suite, settings):
    usual = suite.protocol(settings())
    assert "iterations" not in usual and suite.protocol(settings(max_iterations=2000)) == usual
    assert "at most 30 iterations" in suite.protocol(settings(max_iterations=30))


def test_transfer_suite_notes_compare_the_tolerances():
    import pandas as pd

    from suites.transfer.stages import probe_notes

    facts = {"seed": 0, "c": 1.0, "validation": "split", "remark": ""}
    right = np.zeros(1000, dtype=int)
    rows = pd.DataFrame({"item": np.arange(1000), "label": right, "predicted": right, **facts})
    assert not any("warning" in note or "optimum" in note for note in probe_notes(rows))  # records of version 2
    for wrong, warned in ((2, False), (3, True)):
        rows["predicted_reference"], rows["gap"] = (np.arange(1000) < wrong).astype(int), 3e-7
        notes = probe_notes(rows)
        assert "proved: the objective exceeds its optimum by at most 3.0e-07 of its penalty |W|^2 / 2" in notes
        assert any("warning: seed 0: at the chosen C" in note and "+0.30" in note for note in notes) == warned
    # Two seeds that differ in opposite directions: neither hides the other.
    other = rows.assign(seed=1, predicted=rows["predicted_reference"], predicted_reference=rows["predicted"])
    notes = probe_notes(pd.concat([rows, other], ignore_index=True))
    assert [f"seed {seed}: at the chosen C" in note for seed in (0, 1) for note in notes if "warning" in note].count(
        True
    ) == 2


def test_transfer_suite_official_validation_falls_back_and_says_so(features, tmp_path):
    settings = LinearProbeSettings(**SMALL, validation="official")
    (item,) = LinearProbe().items(settings, "any")
    _, score = evaluate(LinearProbe(), settings, item, features, tmp_path / "a")
    assert any("20 % split" in note for note in score.notes)
    assert LinearProbe().protocol(settings) != LinearProbe().protocol(LinearProbeSettings(**SMALL))


def test_transfer_suite_few_shot(features, tmp_path):
    settings = FewShotSettings(**SMALL, fractions=(1.0, 0.5, 0.2), shots=(1,))
    items = FewShot().items(settings, "any")
    assert [item.label for item in items] == ["pets@1", "pets@0.5", "pets@0.2", "pets@1shot"]
    found = {item.label: evaluate(FewShot(), settings, item, features, tmp_path / item.label) for item in items}
    probe, _ = evaluate(
        LinearProbe(),
        LinearProbeSettings(**SMALL),
        LinearProbe().items(LinearProbeSettings(**SMALL), "")[0],
        features,
        tmp_path / "probe",
    )
    whole = found["pets@1"][0]
    assert whole["predicted"].equals(probe["predicted"]) and whole["c"].equals(probe["c"])
    assert {label: int(rows["train_images"].iloc[0]) for label, (rows, _) in found.items()} == {
        "pets@1": 36,
        "pets@0.5": 18,
        "pets@0.2": 6,
        "pets@1shot": 3,
    }
    assert {label: rows["seed"].nunique() for label, (rows, _) in found.items()} == {
        "pets@1": 2,
        "pets@0.5": 2,
        "pets@0.2": 4,
        "pets@1shot": 4,
    }
    one = found["pets@1shot"][0]
    assert one[one["seed"] == 0]["c"].iloc[0] == whole[whole["seed"] == 0]["c"].iloc[0]
    metric = found["pets@0.2"][1].metrics[0]
    assert (metric.name, metric.group, metric.role) == ("pets@0.2", "transfer@0.2", "companion")


def test_transfer_suite_settings_are_strict():
    for bad in ({"datasets": ("cifar",)}, {"datasets": ()}, {"image_size": 2}, {"search": "random"}):
        with pytest.raises(ValueError):
            LinearProbeSettings(**bad)
    for bad in ({"fractions": (0.0,)}, {"shots": (0,)}):
        with pytest.raises(ValueError):
            FewShotSettings(**bad)
    assert len(LinearProbe().items(LinearProbeSettings(), "resnet50")) == 8
    assert len(FewShot().items(FewShotSettings(), "resnet50")) == 32


def val(root: Path, ids: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for wnid, colour in zip(ids, COLOURS.values(), strict=False):
        (root / "val" / wnid).mkdir(parents=True)
        for i in range(2):
            pixels = np.clip(np.array(colour) + rng.normal(0, 5, (20, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "val" / wnid / f"ILSVRC2012_val_{i:08d}.JPEG")


def in_domain(root: Path, tmp_path: Path, model, card: dict, monkeypatch):
    monkeypatch.setattr(suites.in_domain, "classifier", lambda ctx: model)
    settings = InDomainSettings(image_size=16, batch_size=4)
    cell = Cell(
        "evaluate",
        "in-domain",
        1,
        {"settings": settings.model_dump(mode="json"), "item_params": {}},
        seeds={"probe_seed": 0},
    )
    suite = InDomain()
    rows = suite.rows(context(tmp_path / "out", cell, DataSource("in-val", str(root), "f", card)))
    (item,) = suite.items(settings, "any")
    return rows, suite.score(rows, item, settings, {})


def test_transfer_in_domain_suite(tmp_path, monkeypatch):
    val(tmp_path, Colours.classes)
    rows, score = in_domain(tmp_path, tmp_path, Colours(), {"per_class": 2}, monkeypatch)
    assert rows["predicted"].tolist() == [0, 0, 1, 1, 2, 2]
    assert score.metrics[0].name == "top1" and score.metrics[0].estimate.value == 1.0 and score.notes == ()
    assert "eval" not in LinearProbe().protocol(LinearProbeSettings()) and "shorter side 256" in InDomain().protocol(
        InDomainSettings()
    )


def test_transfer_in_domain_permuted_head_changes_nothing(tmp_path, monkeypatch):
    class Permuted(Colours):
        classes = ("n3", "n1", "n2")

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))[:, [2, 0, 1]]

    val(tmp_path, Colours.classes)
    _, score = in_domain(tmp_path, tmp_path, Permuted(), {"per_class": 2}, monkeypatch)
    assert score.metrics[0].estimate.value == 1.0


def test_transfer_in_domain_restricted_head_is_reported(tmp_path, monkeypatch):
    class Wide(Colours):
        classes = ("n0", "n1", "n2", "n3")

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((2, 3))
            return torch.cat([mean.sum(1, keepdim=True), mean], dim=1)  # the class without images always wins

    val(tmp_path, Colours.classes)
    names = tmp_path / "names.txt"
    names.write_text("n1 red\nn2 green\nn3 blue\n")
    card = {"per_class": 2, "classes": str(names)}
    _, score = in_domain(tmp_path, tmp_path, Wide(), card, monkeypatch)
    assert score.metrics[0].name == "top1@3of4" and score.metrics[0].estimate.value == 1.0
    assert any("restricted to the 3 classes" in note for note in score.notes)
    other = tmp_path / "other.txt"
    other.write_text("n7 a\nn8 b\n")
    with pytest.raises(UserError, match="0 of the images' classes"):
        in_domain(tmp_path, tmp_path, Wide(), {"classes": str(other)}, monkeypatch)


def test_transfer_in_domain_images_outside_the_head(tmp_path, monkeypatch):
    class Two(Colours):
        classes = ("n1", "n2")

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))[:, :2]

    val(tmp_path, Colours.classes)
    rows, score = in_domain(tmp_path, tmp_path, Two(), {"per_class": 2}, monkeypatch)
    assert len(rows) == 4
    assert any("2 images of classes the head does not have" in note for note in score.notes)
    (tmp_path / "val" / "n1" / "ILSVRC2012_val_00000000.JPEG").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"n1/ILSVRC2012_val_00000000.JPEG cannot be read as an image"):
        in_domain(tmp_path, tmp_path, Two(), {"per_class": 2}, monkeypatch)


def test_transfer_in_domain_logits_must_be_finite(tmp_path, monkeypatch):
    class Broken(Colours):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 3), float("nan"))

    val(tmp_path, Colours.classes)
    with pytest.raises(UserError, match="not finite"):
        in_domain(tmp_path, tmp_path, Broken(), {"per_class": 2}, monkeypatch)


def test_transfer_in_domain_follows_a_checkpoint_from_outside(tmp_path, monkeypatch):
    from harness.backbones.checkpoint import BackboneInfo

    class Fed(Colours):
        info = BackboneInfo(
            "a", {}, Colours.classes, (0,) * 3, (1,) * 3, 12, "bilinear", "raw", {"entry": ""}, crop=0.6
        )

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            sizes.add(tuple(x.shape[2:]))
            return super().__call__(x)

    val(tmp_path, Colours.classes)
    sizes: set[tuple[int, ...]] = set()
    rows, score = in_domain(tmp_path, tmp_path, Fed(), {"per_class": 2}, monkeypatch)
    assert sizes == {(12, 12)} and set(rows["transform"]) == {"shorter side 20 bilinear, centre crop 12"}
    assert score.notes == ("the checkpoint's own transform: shorter side 20 bilinear, centre crop 12",)
    Fed.info = BackboneInfo("a", {}, Colours.classes, (0,) * 3, (1,) * 3, 12, "bicubic", "ema", {"epochs": 3})
    sizes.clear()
    rows, score = in_domain(tmp_path, tmp_path, Fed(), {"per_class": 2}, monkeypatch)  # trained here: the protocol's
    assert (
        sizes == {(16, 16)}
        and set(rows["transform"]) == {"shorter side 18 bicubic, centre crop 16"}
        and not score.notes
    )
