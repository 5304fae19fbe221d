"""Features of known images, and what batch size, workers and world size may not change."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import harness.api
import harness.backbones.ranks
from harness.backbones.checkpoint import import_checkpoint
from harness.backbones.classifier import load_classifier
from harness.backbones.models import create
from harness.backbones.ranks import Ranks
from harness.core.errors import UserError
from harness.plugins.context import Context
from harness.store.cells import Cell
from harness.store.data import DataSource
from suites.transfer.features import extract_features, rank_slice
from suites.transfer.metrics import mean_per_class, top1
from suites.transfer.search import ProbeSettings, fit_probe, normalised
from suites.transfer.splits import membership, nested_subset, toolbox_split
from suites.transfer.stages import classify, extract
from suites.transfer.transforms import eval_transform, probe_transform

IDS = tuple(f"n{i:08d}" for i in range(10))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(folder: Path, count: int = 7) -> list[str]:
    """Write pictures of several shapes and modes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = rng.integers(0, 255, (40 + 9 * i, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if i == 2 else "RGB").save(folder / f"{i}.png")
    return [f"{i}.png" for i in range(count)]


def backbone(tmp_path: Path, arch: str, change=None):
    """Import random weights as a checkpoint from outside and load the classifier."""
    torch.manual_seed(0)
    state = create(arch, len(IDS)).state_dict()
    if change is not None:
        change(state)
    torch.save(state, tmp_path / "w.pth")
    import_checkpoint(tmp_path / "w.pth", arch, IDS, MEAN, STD, tmp_path / "backbone", image_size=224)
    return load_classifier(tmp_path / "backbone")


@pytest.mark.parametrize(("arch", "d"), [("resnet50", 2048), ("vit_small_patch16_224", 384)])
def test_transfer_features_of_the_papers_backbones(tmp_path, arch, d):
    """2048 non-negative numbers, or 384; eval mode, so bit-equal; whatever the batch size and the workers."""
    model, paths = backbone(tmp_path, arch), pictures(tmp_path / "images", 4)
    runs = [
        extract_features(model, tmp_path / "images", paths, np.arange(4), probe_transform(), batch_size=b, workers=w).x
        for b, w in ((4, 1), (4, 1), (1, 2), (3, 3))
    ]
    assert runs[0].shape == (4, d) and runs[0].dtype == np.float32
    assert (runs[0].min() >= 0) == (arch == "resnet50")
    assert np.array_equal(runs[0], runs[1])
    for run in runs[2:]:
        assert np.abs(run - runs[0]).max() <= 1e-4
    if arch != "resnet50":
        gap = extract_features(model, tmp_path / "images", paths, np.arange(4), probe_transform(), kind="gap").x
        cls = extract_features(model, tmp_path / "images", paths, np.arange(4), probe_transform(), kind="cls").x
        assert np.abs(cls - runs[0]).max() <= 1e-4 and np.abs(gap - cls).max() > 1e-2  # the head sees the class token


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("missing", lambda state: state.pop("layer1.0.conv1.weight")),
        ("unexpected", lambda state: state.update({"layer1.0.ls1.gamma": torch.ones(3)})),
    ],
)
def test_transfer_features_keys_are_strict(tmp_path, name, change):
    """A key too many or too few of the trunk is an error; the head's keys are no reason to refuse."""
    with pytest.raises(UserError) as caught:
        backbone(tmp_path, "resnet18", change)
    assert ("conv1" if name == "missing" else "ls1.gamma") in str(caught.value)


def test_transfer_features_without_a_head(tmp_path):
    model = backbone(tmp_path, "resnet18", lambda state: [state.pop(key) for key in ("fc.weight", "fc.bias")])
    paths = pictures(tmp_path / "images", 2)
    assert extract_features(model, tmp_path / "images", paths, np.arange(2), probe_transform(64)).x.shape == (2, 512)


class Mixed:
    """A network whose features mix all pixels; logits are ten of them."""

    classes = IDS

    def __init__(self) -> None:
        self.weights = torch.randn(3 * 16 * 16, 24, generator=torch.Generator().manual_seed(0)) / 16

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        return x.flatten(1) @ self.weights

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x, "pooled")[:, :10]


def test_transfer_decisions_do_not_depend_on_batch_or_workers(tmp_path):
    paths = pictures(tmp_path, 24)
    labels = np.arange(24) % 10
    runs = [
        classify(
            Mixed(),
            tmp_path,
            paths,
            labels,
            eval_transform(16),
            range(10),
            batch_size=b,
            workers=w,
            progress=lambda *_: None,
            name="in-val",
        )
        for b, w in ((24, 1), (1, 1), (5, 3))
    ]
    for run in runs[1:]:
        assert (run["predicted"] != runs[0]["predicted"]).sum() <= 2 and run["item"].equals(runs[0]["item"])


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Write a small data set in the layout of Pets."""
    root = tmp_path / "pets"
    (root / "annotations").mkdir(parents=True)
    for part, start in (("trainval", 0), ("test", 50)):
        lines = []
        for k, breed in enumerate(("Abyssinian", "boxer", "Siamese"), start=1):
            for name in pictures(root / f"{breed}{part}", 5):
                (root / "images").mkdir(exist_ok=True)
                number = start + int(name[0])
                Image.open(root / f"{breed}{part}" / name).convert("RGB").rotate(90 * k).save(
                    root / "images" / f"{breed}_{number}.jpg"
                )
                lines.append(f"{breed}_{number} {k} 1 1")
        (root / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    cut = root / "images" / "Abyssinian_53.jpg"
    cut.write_bytes(cut.read_bytes()[:-60])
    return root


def run_extract(root: Path, out: Path, monkeypatch, world: int) -> None:
    """Run an extract cell as every rank of a world in turn, rank 0 last."""
    monkeypatch.setattr(harness.api, "classifier", lambda ctx: Mixed())
    monkeypatch.setattr(Ranks, "wait", lambda self: None)
    params = {"dataset": "pets", "image_size": 16, "features": "pooled", "batch_size": 4}
    source = DataSource("pets", str(root), "f", {"classes": 3, "trainval": 15, "test": 15})
    out.mkdir(parents=True)
    for rank in reversed(range(world)):

        @contextmanager
        def place(device: str, rank: int = rank):
            yield Ranks(rank, world, torch.device("cpu"))

        monkeypatch.setattr(harness.backbones.ranks, "join", place)
        extract(Context(Cell("extract", "features-pets", 1, params), out, {}, {"pets": source}, "cpu", rank, world))


def test_transfer_features_do_not_depend_on_the_world_size(pets, tmp_path, monkeypatch):
    for world in (1, 2, 3):
        run_extract(pets, tmp_path / str(world), monkeypatch, world)
    listing = (tmp_path / "1" / "items.json").read_bytes()
    assert "1 file(s) truncated" in json.loads(listing)["notes"][0]
    for world in (2, 3):
        assert (tmp_path / str(world) / "items.json").read_bytes() == listing
        for part in ("trainval", "test"):
            one, many = (np.load(tmp_path / str(w) / f"{part}.npy") for w in (1, world))
            assert many.shape == one.shape and np.abs(many - one).max() <= 1e-4


def test_transfer_shares_cover_everything_in_order():
    for count in (0, 1, 2, 7, 100):
        for world in (1, 2, 3):
            runs = [list(range(count))[rank_slice(count, rank, world)] for rank in range(world)]
            assert list(itertools.chain(*runs)) == list(range(count))
            assert max(map(len, runs)) - min(map(len, runs)) <= 1


@pytest.mark.slow
def test_transfer_features_under_torchrun(pets, tmp_path):
    """Three real processes: the same features and the same list as one."""
    script = tmp_path / "job.py"
    shutil.copy(Path(__file__), tmp_path / "invariance.py")
    script.write_text(
        "import sys, os; sys.path.insert(0, os.path.dirname(__file__))\n"
        "from pathlib import Path\nimport harness.api\nfrom invariance import Mixed, Cell, Context, DataSource, extract\n"
        "harness.api.classifier = lambda ctx: Mixed()\n"
        "params = {'dataset': 'pets', 'image_size': 16, 'features': 'pooled', 'batch_size': 4}\n"
        f"source = DataSource('pets', {str(pets)!r}, 'f', {{'classes': 3, 'trainval': 15, 'test': 15}})\n"
        "out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)\n"
        "extract(Context(Cell('extract', 'features-pets', 1, params), out, {}, {'pets': source}, 'cpu',\n"
        "    int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])))\n"
    )
    for world in (1, 3):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(world),
                str(script),
                str(tmp_path / f"w{world}"),
            ],
            check=True,
            timeout=280,
            cwd=Path(__file__).parents[3],
        )
    assert (tmp_path / "w1" / "items.json").read_bytes() == (tmp_path / "w3" / "items.json").read_bytes()
    for part in ("trainval", "test"):
        one, three = (np.load(tmp_path / f"w{w}" / f"{part}.npy") for w in (1, 3))
        assert np.abs(one - three).max() <= 1e-4


def test_transfer_split_and_subset_membership_is_identical():
    """Membership follows names alone: shuffled items, another fraction computed before, another class missing."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 12)
    names = [f"{label}/{i:03d}.jpg" for i, label in enumerate(labels)]
    classes = list("abcd")
    order = rng.permutation(48)
    shuffled = [names[i] for i in order]
    for seed in (0, 1):
        fold, again = (
            toolbox_split("x", names, labels, classes, seed),
            toolbox_split("x", shuffled, labels[order], classes, seed),
        )
        assert membership(names, fold.val) == membership(shuffled, again.val)
        for amount in ({"fraction": 0.5}, {"shots": 4}):
            first = nested_subset("x", names, labels, classes, seed, **amount)
            second = nested_subset("x", shuffled, labels[order], classes, seed, **amount)
            assert membership(names, first) == membership(shuffled, second)


def test_transfer_metrics_of_equal_rows_are_bit_equal():
    rng = np.random.default_rng(1)
    labels, items = np.tile(rng.integers(0, 5, 60), 2), np.tile([f"i{i}" for i in range(60)], 2)
    predicted = np.where(rng.random(120) < 0.6, labels, (labels + 1) % 5)
    order = rng.permutation(120)
    for metric in (top1, mean_per_class):
        assert metric(labels, predicted, items) == metric(labels[order], predicted[order], items[order])


def test_transfer_normalisation_is_fitted_on_the_fitting_set_only():
    rng = np.random.default_rng(2)
    a, b = rng.normal(3, 2, (40, 6)), rng.normal(0, 1, (9, 6))
    a[:, 5], b[:, 5] = 7.0, 7.0
    scaled, other = normalised("standardise", a, b)
    assert np.allclose(scaled[:, :5].mean(0), 0) and np.allclose(scaled[:, :5].std(0, ddof=1), 1)
    assert np.allclose(other[:, :5], (b[:, :5] - a[:, :5].mean(0)) / a[:, :5].std(0, ddof=1)) and np.all(
        other[:, 5] == 0
    )
    assert np.allclose(np.linalg.norm(normalised("l2", a, b)[1], axis=1), 1)
    assert normalised("none", a, b)[0] is a
    y = (a[:, 0] > 3).astype(int)
    fold = toolbox_split("x", [str(i) for i in range(40)], y, ["a", "b"], 0)
    plain, scaled_fit = (
        fit_probe(
            a * [1e-3, 1, 1, 1, 1, 1],
            y,
            a * [1e-3, 1, 1, 1, 1, 1],
            (fold,),
            ProbeSettings(search="fixed", fixed_c=1e-2, normalise=how),
        )
        for how in ("none", "standardise")
    )
    assert (scaled_fit.predictions == y).mean() > (plain.predictions == y).mean()
