"""The training loop: learning, resuming, pausing, failing, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.backbones.classifier import load_classifier
from harness.backbones.ranks import Ranks
from harness.backbones.recipe import PretrainSettings
from harness.backbones.state import TrainingState
from harness.backbones.train import Hooks, Progress, train
from harness.core.errors import TrainingFailed, UserError
from harness.images.copy import TrainingCopy

SETTINGS = PretrainSettings(
    arch="resnet10", epochs=3, warmup_epochs=1, batch_size=16, lr=2e-3, image_size=32, crop_area=(0.6, 1.0),
    ema_decay=0.9, ema_warmup=True, mix_probability=0.5,
)  # fmt: skip


def stripes(n: int = 56, size: int = 32) -> TrainingCopy:
    """Return noisy stripes: class 0 horizontal, class 1 vertical."""
    g = np.random.default_rng(0)
    wave = (np.arange(size) // 4 % 2 * 120 + 60)[None, :, None]
    images = np.stack([np.broadcast_to(wave if i % 2 else wave.transpose(1, 0, 2), (size, size, 3)) for i in range(n)])
    images = np.clip(images + g.integers(-40, 40, images.shape), 0, 255).astype(np.uint8)
    return TrainingCopy(images, np.arange(n) % 2, ("horizontal", "vertical"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def stop_at(step: int) -> Callable[[], bool]:
    calls = iter(range(1, 10_000))
    return lambda: next(calls) == step


def run(folder: Path, settings: PretrainSettings = SETTINGS, hooks: Hooks | None = None, seed: int = 7) -> bool:
    return train(settings, stripes(), folder, seed=seed, state_file=folder / "state.pt", hooks=hooks)


def test_it_learns_and_writes_a_whole_folder(tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = replace(SETTINGS, epochs=8, randaugment_ops=0, erasing=0.0, mix_probability=0.0)
    assert run(tmp_path, settings, Hooks(progress=seen.append))
    assert {p.name for p in tmp_path.iterdir()} == {
        "raw.safetensors",
        "ema.safetensors",
        "log.jsonl",
        "backbone.json",
    }
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(8)) and log[-1]["loss"] < log[0]["loss"]
    assert seen[-1].step == seen[-1].steps == 24
    data = stripes()
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    for weights in ("raw", "ema"):
        classifier = load_classifier(tmp_path, weights)
        assert classifier.classes == ("horizontal", "vertical")
        assert (classifier(x).argmax(1).numpy() == data.labels).mean() > 0.9, weights
    info = json.loads((tmp_path / "backbone.json").read_text())
    assert info["weights"] == "ema" and info["recipe"]["seed"] == 7 and info["image_size"] == 32


@pytest.mark.parametrize("arch", ["resnet10", "vit_pico"])
def test_resumed_training_equals_an_uninterrupted_one_bitwise(arch: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, arch=arch, drop_path=0.2)
    assert run(tmp_path / "whole", settings)
    assert not run(tmp_path / "parts", settings, Hooks(should_stop=stop_at(2)))  # within the first epoch
    assert (tmp_path / "parts/state.pt").is_file() and not (tmp_path / "parts/backbone.json").exists()
    assert not run(tmp_path / "parts", settings, Hooks(should_stop=stop_at(4)))  # at the end of the second
    assert run(tmp_path / "parts", settings)
    for name in ("raw.safetensors", "ema.safetensors", "log.jsonl", "backbone.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_periodic_checkpoints_change_nothing_and_seeds_do(tmp_path: Path) -> None:
    short = replace(SETTINGS, epochs=1)
    run(tmp_path / "a", short)
    run(tmp_path / "b", short, Hooks(checkpoint_seconds=0.0))
    run(tmp_path / "c", short, seed=8)
    a, b, c = ((tmp_path / name / "raw.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_a_loss_that_is_not_finite_is_an_error_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    assert not run(tmp_path, hooks=Hooks(should_stop=stop_at(1)))
    before = (tmp_path / "state.pt").read_bytes()
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    content["content"]["model"]["conv1.0.weight"][0] = float("nan")
    torch.save(content, tmp_path / "state.pt")
    poisoned = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(TrainingFailed, match="not finite") as caught:
        run(tmp_path, hooks=Hooks(checkpoint_seconds=0.0))
    assert caught.value.fix and before != poisoned
    assert (tmp_path / "state.pt").read_bytes() == poisoned and not (tmp_path / "backbone.json").exists()


def test_checkpoints_of_other_trainings_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    run(tmp_path, hooks=Hooks(should_stop=stop_at(1)))
    with pytest.raises(UserError, match="another run"):
        run(tmp_path, replace(SETTINGS, lr=1e-4))
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:1000])
    steps: list[Progress] = []
    assert run(tmp_path, hooks=Hooks(progress=steps.append)), "it starts from the beginning"


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than one batch of 128"):
        run(tmp_path, replace(SETTINGS, batch_size=128))


def test_ema_follows_its_definition(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=1, ema_decay=0.75, ema_warmup=False)
    states: list[dict[str, torch.Tensor]] = []
    for step in (1, 2):
        run(tmp_path / str(step), settings, Hooks(should_stop=stop_at(step)))
        states.append(torch.load(tmp_path / str(step) / "state.pt", weights_only=True)["content"])
    for key in ("conv1.0.weight", "bn1.running_mean"):
        expected = 0.75 * states[0]["ema"][key] + 0.25 * states[1]["model"][key]
        torch.testing.assert_close(states[1]["ema"][key], expected)


def test_ema_decay_rises_as_one_plus_step_over_ten_plus_step_up_to_its_end() -> None:
    """Steps 1, 2, 3 have decays 2/11, 3/12 and, cut at ``ema_decay``, 0.3 in place of 4/13."""
    model = torch.nn.Linear(1, 1, bias=False)
    state = TrainingState(replace(SETTINGS, ema_decay=0.3, ema_warmup=True), model, ("a", "b"), 16, seed=0)
    expected = model.weight.item()
    for decay in (2 / 11, 3 / 12, 0.3):
        state.update(model(torch.ones(1, 1)).square().sum(), 0.1)
        expected = decay * expected + (1 - decay) * model.weight.item()
        assert state.ema["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_shares_partition_the_batch_and_keep_mixing_partners_together() -> None:
    device = torch.device("cpu")
    for world in (1, 2, 4):
        shares = [Ranks(rank, world, device).share(16) for rank in range(world)]
        assert sorted(np.concatenate(shares)) == list(range(16))
        for share in shares:
            assert (share + share[::-1] == 15).all()
    with pytest.raises(UserError, match="multiple of 4"):
        Ranks(0, 2, device).share(10)


TWIN = replace(SETTINGS, arch="vit_tiny_patch16_224", drop_path=0.0, epochs=2, batch_size=12)  # no batch statistics
_DISTRIBUTED = """
import sys; sys.path[:0] = {path!r}
import test_train as t
from pathlib import Path
t.torch.set_num_threads(1)
t.run(Path({folder!r}), t.TWIN)
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_train_the_same_network_as_one(tmp_path: Path, world: int) -> None:
    one, more = tmp_path / "one", tmp_path / "more"
    run(one, TWIN)
    script = tmp_path / "run.py"
    script.write_text(_DISTRIBUTED.format(path=[str(Path(__file__).parent), os.getcwd()], folder=str(more)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", str(script)]
    subprocess.run(command, check=True, timeout=800, env={**os.environ, "OMP_NUM_THREADS": "1"})
    a, b = load_file(one / "raw.safetensors"), load_file(more / "raw.safetensors")
    # Only the order of additions differs: samples, augmentation and mixing are equal.
    for key, value in a.items():
        torch.testing.assert_close(b[key], value, rtol=0, atol=3e-3)
    print(f"{world} processes: weights differ by {max(float((b[key] - a[key]).abs().max()) for key in a):.1e} at most")
    assert len((more / "log.jsonl").read_text().splitlines()) == 2
    assert json.loads((more / "backbone.json").read_text())["recipe"]["world_size"] == world
