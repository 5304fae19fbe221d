"""The shipped towers hold their floors, through the loaders that real weights go through."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.microworld import towers
from harness.microworld.captions import LEVELS, vocabulary
from harness.microworld.causes import BALANCED, SHAPES, TEXTURES, WEB, Causes, Doses, draw_causes
from harness.microworld.degrade import KINDS, degrade
from harness.microworld.renderer import render, to_uint8
from tests.harness.microworld import measures

SAMPLES = 192
NEGATIVE_PROMPT = "distorted, unrealistic, blurry, out of frame, cropped, deformed"


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _world(count: int, doses: Doses, first_seed: int = 1 << 50) -> tuple[Causes, np.ndarray]:
    seeds = np.arange(count, dtype=np.uint64) + np.uint64(first_seed)
    causes = draw_causes(np.arange(count) % len(SHAPES), seeds, doses)
    return causes, to_uint8(render(causes, seeds).images)


@lru_cache(maxsize=1)
def _samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % len(SHAPES)
    return labels, measures.sample_pictures(labels, seed=0)


def test_all_towers_together_are_small() -> None:
    files = [path for path in towers.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert sum(path.stat().st_size for path in towers.attributes_folder().rglob("*")) < 1_000_000


def test_every_word_is_one_token_in_every_tower() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(towers.sd_folder() / "tokenizer")
    assert all(len(tokenizer(word).input_ids) == 3 for word in vocabulary())
    assert len(tokenizer(NEGATIVE_PROMPT).input_ids) <= tokenizer.model_max_length
    open_clip = pytest.importorskip("open_clip")
    for template in open_clip.OPENAI_IMAGENET_TEMPLATES:
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(template("disc")).input_ids)
        assert all(piece.endswith(("</w>", "|>")) for piece in pieces), template("disc")
    expected = tokenizer("photo of star", padding="max_length").input_ids
    for folder in (towers.clip_folder("base"), towers.clip_folder("large"), towers.quality_folder()):
        assert measures.load_clip(folder)[1](["photo of star"])[0].tolist() == expected


def test_image_and_text_features_of_the_clips_are_equally_long() -> None:
    _, images = _world(96, BALANCED)
    for size in ("base", "large"):
        model, tokenize = measures.load_clip(towers.clip_folder(size))
        with torch.no_grad():
            pictures = model.encode_image((torch.from_numpy(images) / 255 - 0.5) / 0.25)
            texts = model.encode_text(tokenize([f"photo of {name}" for name in SHAPES]))
        assert pictures.norm(dim=-1).mean() == pytest.approx(3, rel=0.05), size
        assert texts.norm(dim=-1).mean() == pytest.approx(3, rel=0.01), size


def test_joint_width_equals_the_text_width_of_the_diffusion_model() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(towers.sd_folder())
    width = pipeline.text_encoder.config.hidden_size
    assert width == pipeline.unet.config.cross_attention_dim
    for size in ("base", "large"):
        model, tokenize = measures.load_clip(towers.clip_folder(size))
        assert model.encode_text(tokenize(["disc"])).shape == (1, width)
    scheduler = pipeline.scheduler.config
    assert (scheduler.beta_start, scheduler.beta_end) == (0.00085, 0.012)
    assert scheduler.beta_schedule == "scaled_linear" and scheduler.steps_offset == 1
    assert scheduler.skip_prk_steps and not scheduler.set_alpha_to_one
    assert pipeline.safety_checker is None


def test_larger_clip_names_shapes() -> None:
    causes, images = _world(480, BALANCED)
    assert measures.zero_shot_accuracy(towers.clip_folder("large"), images, causes.shape) >= 0.90


def test_quality_tower_orders_degradations() -> None:
    _, images = _world(60, BALANCED)
    assert measures.quality_order_rate(images) >= 0.95


def test_quality_is_differentiable_and_its_gradient_improves_a_picture() -> None:
    _, images = _world(12, BALANCED)
    blurred = degrade(torch.from_numpy(images).float() / 255, "blur", 0.3, torch.Generator())
    blurred.requires_grad_(True)
    score = measures.quality_scores(blurred)
    assert ((score >= 1) & (score <= 5)).all()
    (gradient,) = torch.autograd.grad(score.sum(), blurred)
    assert torch.isfinite(gradient).all() and float(gradient.abs().max()) > 0
    step = 1e-3 * gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    with torch.no_grad():
        assert float(measures.quality_scores(blurred + step).mean()) > float(score.mean())


def test_degradations_grow_with_strength() -> None:
    _, images = _world(24, BALANCED)
    clean = torch.from_numpy(images).float() / 255
    for kind in KINDS:
        mild, strong = (degrade(clean, kind, s, torch.Generator().manual_seed(1)) for s in (0.2, 0.9))
        assert 0.001 < (mild - clean).abs().mean() < (strong - clean).abs().mean(), kind
    assert len(measures.LEVEL_SCORES) == len(LEVELS)


def test_generated_correlation_finds_planted_doses_in_renders() -> None:
    for doses in (BALANCED, WEB, Doses(0.9, 0.2, 0.0, 0.5)):
        causes, images = _world(960, doses, first_seed=1 << 51)
        found = towers.generated_correlation(images, causes.shape)
        for cause in ("texture", "scene", "light", "weather"):
            assert abs(found[cause] - getattr(doses, cause)) < 0.1, (doses, cause, found)


def test_generated_correlation_is_not_fooled_by_a_favoured_texture() -> None:
    causes, _ = _world(480, BALANCED)
    favoured = Causes(causes.shape, np.where(np.arange(480) % 3 > 0, 4, causes.texture), causes.scene,
                      causes.light, causes.weather)  # fmt: skip
    images = to_uint8(render(favoured, np.arange(480, dtype=np.uint64)).images)
    assert abs(towers.generated_correlation(images, causes.shape)["texture"]) < 0.1
    with pytest.raises(ValueError, match="two classes"):
        towers.generated_correlation(images[:3], np.zeros(3, dtype=np.int64))
    assert len(TEXTURES) == 12


def test_classifier_names_the_samples_of_the_diffusion_model() -> None:
    labels, images = _samples(SAMPLES)
    assert measures.naming_accuracy(images, labels) >= 0.80


def test_samples_carry_the_correlation_of_the_web_world() -> None:
    labels, images = _samples(SAMPLES)
    found = towers.generated_correlation(images, labels)
    assert abs(found["texture"] - WEB.texture) <= 0.15, found
    assert abs(found["scene"] - WEB.scene) <= 0.15, found


@pytest.mark.slow
def test_floors_on_many_pictures() -> None:
    causes, images = _world(3000, BALANCED, first_seed=1 << 52)
    assert measures.zero_shot_accuracy(towers.clip_folder("large"), images, causes.shape) >= 0.90
    assert measures.quality_order_rate(images[:500], seed=1) >= 0.95
    labels = np.arange(1200) % len(SHAPES)
    samples = measures.sample_pictures(labels, seed=10_000)
    assert measures.naming_accuracy(samples, labels) >= 0.80
    found = towers.generated_correlation(samples, labels)
    assert max(abs(found["texture"] - WEB.texture), abs(found["scene"] - WEB.scene)) <= 0.15, found


@pytest.mark.slow
def test_one_command_rebuilds_every_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.microworld import train_attributes, train_autoencoder, train_clip, train_diffusion, train_towers
    from harness.microworld.training import Schedule

    short = Schedule(steps=2, batch=8, lr=1e-4)
    monkeypatch.setattr(train_autoencoder, "COARSE", short)
    monkeypatch.setattr(train_autoencoder, "DETAIL", short)
    monkeypatch.setattr(train_clip, "SCHEDULES", dict.fromkeys(("base", "large", "quality"), short))
    monkeypatch.setattr(train_attributes, "SCHEDULE", Schedule(steps=2, batch=40, lr=1e-4))
    monkeypatch.setattr(train_diffusion, "SCHEDULE", short)
    monkeypatch.setattr(train_diffusion, "N_LATENTS", 200)
    train_towers.main(["--out", str(tmp_path)])
    written = {p.relative_to(tmp_path) for p in tmp_path.rglob("*.safetensors") if "checkpoints" not in p.parts}
    shipped = {p.relative_to(towers.WEIGHTS) for p in towers.WEIGHTS.rglob("*.safetensors")}
    assert written == shipped
    for path in written:
        assert (tmp_path / path).stat().st_size == pytest.approx((towers.WEIGHTS / path).stat().st_size, rel=0.01)
    assert measures.sample_pictures(np.arange(2), 0, steps=2, folder=tmp_path / "sd").shape == (2, 3, 64, 64)
    measures.load_clip(tmp_path / "clip_large")


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    from harness.microworld.training import Averaged, Schedule, train

    def run(folder: Path, stops: tuple[int, ...]) -> torch.Tensor:
        for stop in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 1)
            average = Averaged({"m": model}, 0.9)

            def loss(step: int, model: torch.nn.Module = model) -> torch.Tensor:
                return (model(torch.randn(8, 4)) - 1).square().mean()

            def halt(done: int, stop: int = stop) -> None:
                if done == stop:
                    raise InterruptedError

            schedule = Schedule(steps=20, batch=8, lr=0.01, warmup=3)
            try:
                train("toy", {"m": model}, schedule, loss, folder, average=average, every=5, on_checkpoint=halt)
            except InterruptedError:
                continue
        return torch.cat([model.weight.flatten(), average.values["m"][0].flatten()])

    assert torch.equal(run(tmp_path / "a", (0,)), run(tmp_path / "b", (5, 15, 0)))
