"""The fine-tune in half precision against float32 on tiny models, and the loss scale of float16."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.amp import GradScaler

from generators.diffusion.lora_io import apply_lora, fuse_lora
from generators.diffusion.pipeline import load_pipeline
from generators.lbgen.distributed import SingleProcess
from generators.lbgen.encoders import RewardModels, load_open_clip
from generators.lbgen.precision import fit_dtype, in_precision
from generators.lbgen.settings import RecipeSettings
from generators.lbgen.trainer import Trainer, train
from harness.core.errors import TrainingFailed
from tests.generators.recipes import changed

NAMES = ["tench", "hen", "crane", "kite"]
SETTINGS = RecipeSettings(
    steps=4, trained_steps=2, rank=2, batch=4, micro_batch=2, epochs=2, weight_q=0.0, generator_clip=1e9
)
MakeTrainer = Callable[..., Trainer]


@pytest.fixture()
def make(tiny_pipeline_dir: Path, tiny_clip_dir: Path) -> MakeTrainer:
    def trainer(dtype: torch.dtype, scale: float = 0.0, **values: Any) -> Trainer:
        parts = in_precision(load_pipeline(tiny_pipeline_dir), dtype)
        tower = load_open_clip(f"local-dir:{tiny_clip_dir}", dtype=dtype)
        settings = changed(SETTINGS, **values)
        made = Trainer(parts, settings, RewardModels(tower), NAMES, seed=0, comm=SingleProcess())
        generator = torch.Generator().manual_seed(1)
        for name, each in made.lora.items():
            if name.endswith("up.weight"):
                each.data += 0.05 * torch.randn(each.shape, generator=generator)
        made._refresh()
        if scale:
            made.scaler = GradScaler("cpu", init_scale=scale, enabled=scale > 1)
            made.scaler.scale(torch.zeros(()))
        return made

    return trainer


def first_step(trainer: Trainer) -> int:
    return next(index for index, step in enumerate(trainer.plan) if step.phase == "train")


def generator_step(trainer: Trainer) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Return the record of one generator step and the gradient that the optimizer saw, None where it saw none."""
    seen: list[torch.Tensor] = []
    trainer.optimizer.step = lambda *_: seen.append(torch.cat([each.grad.flatten() for each in trainer.lora_list]))  # type: ignore
    at = first_step(trainer)
    record: dict[str, Any] = {"step": at}
    trainer.generator_step(at, trainer.plan[at], record)
    return record, seen[0] if seen else None


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dtype", "losses", "gradients"), [(torch.bfloat16, 0.01, 0.03), (torch.float16, 0.002, 0.005)]
)
def test_losses_and_gradients_agree_with_float32(
    make: MakeTrainer, dtype: torch.dtype, losses: float, gradients: float
) -> None:
    """Measured here: 0.002 and 0.010 in bfloat16, 0.0007 and 0.0015 in float16. Processors compute both."""
    expected, whole = generator_step(make(torch.float32))
    found, half = generator_step(make(dtype))
    assert whole is not None and half is not None
    for term in ("L_en", "L_in", "total"):
        assert found[term] == pytest.approx(expected[term], abs=losses), term
        assert found[term] != expected[term], "half precision is computed in half precision"
    assert distance(half, whole) < gradients
    assert half.dtype == torch.float32, "the LoRA and its gradients stay in float32"
    assert ("loss_scale" in found) == (dtype == torch.float16) and "loss_scale" not in expected


def test_the_loss_scale_keeps_small_gradients(make: MakeTrainer) -> None:
    """A loss of weight 1e-6: without a scale float16 rounds its gradients to zero, with 65536 they are right."""
    small = {"weight_en": 1e-6, "weight_in": 1e-6}
    _, whole = generator_step(make(torch.float32, **small))
    record, scaled = generator_step(make(torch.float16, **small))
    _, bare = generator_step(make(torch.float16, scale=1.0, **small))
    assert whole is not None and scaled is not None and bare is not None
    assert record["loss_scale"] == 65536 and not record["skipped"]
    assert distance(scaled, whole) < 0.005 and distance(bare, whole) > 0.5


def test_an_overflow_skips_the_update_and_halves_the_scale(make: MakeTrainer) -> None:
    trainer = make(torch.float16, scale=2.0**26)
    before = [each.detach().clone() for each in trainer.lora_list]
    at = first_step(trainer)
    record: dict[str, Any] = trainer.run_step(at)
    assert record["skipped"] and record["loss_scale"] == 2.0**26 and record["generator_gradient_norm"] is None
    assert trainer.scaler.get_scale() == 2.0**25 and json.dumps(record, allow_nan=False)
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.lora_list, strict=True))
    assert not trainer.optimizer.state, "AdamW has not moved either"
    assert record["discriminator_gradient_norm"] > 0, "the discriminator has no loss scale and is updated"
    scales = []
    while record["skipped"]:
        record = trainer.run_step(at)
        scales.append(record["loss_scale"])
    assert scales == [2.0 ** (25 - index) for index in range(len(scales))] and 1 <= len(scales) < 24
    assert trainer.scaler.get_scale() == scales[-1], "a step that counts leaves the scale"
    assert not all(torch.equal(old, new) for old, new in zip(before, trainer.lora_list, strict=True))


def test_what_no_scale_can_help_stops_the_run(make: MakeTrainer) -> None:
    trainer = make(torch.float16, scale=2.0)
    trainer._samples = _with_infinite_images(trainer._samples)  # type: ignore[method-assign]
    at = first_step(trainer)
    with pytest.raises(TrainingFailed, match="not finite"):
        for _ in range(3):
            trainer.run_step(at)


def _with_infinite_images(samples: Any) -> Any:
    def broken(*arguments: Any) -> Any:
        for batch, trajectory in samples(*arguments):
            yield batch, SimpleNamespace(final=trajectory.final * float("inf"), kept=trajectory.kept)

    return broken


class Stop(Exception):
    """Stands for a kill."""


def test_the_loss_scale_goes_on_after_a_kill(tiny_pipeline_dir: Path, tiny_clip_dir: Path, tmp_path: Path) -> None:
    parts = in_precision(load_pipeline(tiny_pipeline_dir), torch.float16)
    tower = load_open_clip(f"local-dir:{tiny_clip_dir}", dtype=torch.float16)
    settings = changed(SETTINGS, epochs=3, weight_in=3e6, checkpoint_every=1, warmup_passes=0)  # overflows

    def run(folder: Path, stop: int = 0) -> Path:
        def progress(done: int, total: int, note: str) -> None:
            if done == stop:
                raise Stop

        work = folder / "work"
        return train(
            parts, settings, RewardModels(tower), NAMES, out_dir=folder, checkpoint_dir=work, seed=0, progress=progress
        ).log

    with pytest.raises(Stop):
        run(tmp_path / "cut", 2)
    whole, resumed = run(tmp_path / "whole"), run(tmp_path / "cut")
    assert whole.read_bytes() == resumed.read_bytes()
    records = [json.loads(line) for line in whole.read_text().splitlines()]
    assert records[0]["skipped"] and records[-1]["loss_scale"] < 65536 / 2


def test_the_setting_decides_what_the_models_are_loaded_in(
    tiny_pipeline_dir: Path, tiny_clip_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipeline and CLIP in bfloat16 where it is set, in float32 by default; a processor computes fp16 as float32."""
    from harness.plugins import registry

    found = {}

    def fake(parts: Any, recipe: Any, towers: Any, names: Any, **_: Any) -> None:
        found[setting] = (parts.dtype, next(parts.vae.parameters()).dtype, towers.clip._dtype, names)

    monkeypatch.setattr("generators.lbgen.trainer.train", fake)
    generator: Any = registry.generators().get("lbgen")
    where = {"base": str(tiny_pipeline_dir), "clip": str(tiny_clip_dir)}
    for setting in ("fp32", "bf16", "fp16"):
        values = generator.Settings(weight_q=0.0, fit_precision=setting, **where).model_dump()
        ctx = SimpleNamespace(
            params={"settings": values}, device="cpu", source=where.__getitem__, classes=SimpleNamespace(names=NAMES),
            out=Path(), scratch=Path(), seed=lambda *_: 0, progress=None,
        )  # fmt: skip
        generator.fit(ctx)
    assert found["fp32"] == found["fp16"] == (torch.float32, torch.float32, torch.float32, NAMES)
    assert found["bf16"] == (torch.bfloat16, torch.bfloat16, torch.bfloat16, NAMES)
    assert fit_dtype("fp16", "cuda") == torch.float16
    assert generator.Settings().fit_precision == "fp32" and "fit_precision" in generator.fit_fields


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_small_lora_is_not_rounded_away_in_half_precision(
    make: MakeTrainer, tiny_pipeline_dir: Path, scale: float
) -> None:
    """Synthesis: beside bfloat16 weights a LoRA of small updates keeps its effect, fused into them it loses most of it."""
    weights = {name: each.detach().clone() for name, each in make(torch.float32).lora.items()}
    for name, each in weights.items():
        each *= 0.01 if name.endswith("up.weight") else 0.1
    wide = load_pipeline(tiny_pipeline_dir)
    half = in_precision(load_pipeline(tiny_pipeline_dir), torch.bfloat16)
    name = next(iter(weights)).removeprefix("unet.").partition(".lora.")[0]
    x = torch.randn(64, wide.unet.get_submodule(name).in_features, generator=torch.Generator().manual_seed(2))

    def effect(parts: Any, base: Any) -> torch.Tensor:
        with torch.no_grad():
            layers = parts.unet.get_submodule(name), base.unet.get_submodule(name)
            after, before = (layer(x.to(base.dtype)).float() for layer in layers)
        return after - before

    fused = fuse_lora(half, weights, scale)
    expected = effect(fuse_lora(wide, weights, scale), wide)
    moved = fused.unet.get_submodule(name).weight.float() - half.unet.get_submodule(name).weight.float()
    delta = scale * weights[f"unet.{name}.lora.up.weight"] @ weights[f"unet.{name}.lora.down.weight"]
    assert distance(moved, delta) > 0.5
    applied = apply_lora(half, weights, scale).unet.get_submodule(name)
    with torch.no_grad():
        kept = applied.lora_B["default"](applied.lora_A["default"](x.bfloat16())).float() * applied.scaling["default"]
    assert distance(kept, x @ delta.T) < 0.02
    assert torch.equal(effect(apply_lora(wide, weights, scale), wide), expected), "float32 is fused as before"
    assert not any(each.requires_grad for each in applied.parameters())
