"""The fine-tune of lbGen as a whole, on tiny models: gradients, updates, the plan of steps, restarts."""

from __future__ import annotations

import dataclasses
import json
import threading
from types import SimpleNamespace

import pytest
import torch

from generators.diffusion.lora_io import load_lora
from generators.diffusion.pipeline import encode_prompts
from generators.lbgen.discriminator import Discriminator
from generators.lbgen.distributed import SingleProcess
from generators.lbgen.encoders import RewardModels, load_open_clip
from generators.lbgen.rewards import Batch, Rewards
from generators.lbgen.sampler import SampleNoise, sample_trajectory
from generators.lbgen.schedule import plan_steps
from generators.lbgen.settings import RecipeSettings
from generators.lbgen.trainer import CHECKPOINT, LOG, Trainer, train
from generators.lbgen.update import apply_gradients
from harness.core.errors import DataMissing, TrainingFailed, UserError
from harness.core.resume import load_state
from tests.generators.recipes import changed

NAMES = ["tench", "hen", "crane", "kite", "tench", "drake"]
SETTINGS = RecipeSettings(
    steps=4, trained_steps=2, rank=2, batch=4, micro_batch=2, epochs=2, checkpoint_every=2, generator_lr=1e-3
)


class BrightQuality:
    """A smooth rating of the mean pixel."""

    def __init__(self, gain=1.0):
        self.gain, self.calls = gain, 0

    def score_and_grad(self, images):
        self.calls += 1
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            scores = 1 + 4 * torch.sigmoid(self.gain * (leaf.mean((1, 2, 3)) - 0.5))
        return scores.detach(), torch.autograd.grad(scores.sum(), leaf)[0]


class Forbidden:
    """A tower that must not be asked."""

    def __getattr__(self, name):
        raise AssertionError(f"a tower of weight zero was asked for {name}")


class Recorder:
    """The tiny CLIP tower, recording the texts and images it is given."""

    def __init__(self, tower):
        self.tower, self.dim, self.texts = tower, tower.dim, []

    def text_features(self, texts):
        self.texts.append(list(texts))
        return self.tower.text_features(texts)

    def image_features(self, images):
        return self.tower.image_features(images)


@pytest.fixture()
def towers(tiny_clip):
    return RewardModels(tiny_clip, BrightQuality())


def make_trainer(parts, towers, settings=SETTINGS, seed=0, comm=None):
    return Trainer(parts, settings, towers, NAMES, seed=seed, comm=comm or SingleProcess())


def first_train_step(trainer):
    return next(index for index, step in enumerate(trainer.plan) if step.phase == "train")


def test_only_the_lora_gets_a_gradient_and_at_first_only_its_up_side(tiny_parts, towers):
    trainer = make_trainer(tiny_parts, towers)
    seen = {}
    apply = trainer.optimizer.step

    def spy():
        seen.update({name: each.grad.clone() for name, each in trainer.lora.items()})
        modules = [
            tiny_parts.vae,
            tiny_parts.text_encoder,
            tiny_parts.unet,
            trainer.fused,
            trainer.discriminator,
        ]
        frozen = [each for module in [*modules, towers.clip.model] for each in module.parameters()]
        frozen += [each for name, each in trainer.unet.named_parameters() if "lora" not in name]
        assert len(frozen) > 200
        assert all(each.grad is None and not each.requires_grad for each in frozen)
        apply()

    trainer.optimizer.step = spy
    trainer.run_step(first_train_step(trainer))
    ups = [each for name, each in seen.items() if name.endswith("up.weight")]
    assert all((each == 0).all() for name, each in seen.items() if name.endswith("down.weight"))
    assert all(each.isfinite().all() for each in ups)
    assert any((each != 0).any() for each in ups)


def test_a_fresh_lora_changes_nothing_and_a_trained_one_does(tiny_parts, towers):
    trainer = make_trainer(tiny_parts, towers)

    def run(unet):
        noise = SampleNoise(0, 0, [0, 1], tiny_parts.latent_shape)
        return sample_trajectory(trainer._predictor(unet, [0, 1]), trainer.steps, noise.draw(), noise.draw).final

    base = run(tiny_parts.unet)
    assert torch.equal(run(trainer.unet), base)
    assert torch.equal(run(trainer.fused), base)
    for name, each in trainer.lora.items():
        if name.endswith("up.weight"):
            each.data += 0.1
    assert not torch.equal(run(trainer.unet), base)


def test_each_optimizer_clips_the_norm_of_its_own_gradients_alone(tiny_parts, towers):
    trainer = make_trainer(tiny_parts, towers)
    for optimizer, parameters, clip, other in (
        (trainer.optimizer, trainer.lora_list, 0.1, trainer.discriminator_list),
        (trainer.discriminator_optimizer, trainer.discriminator_list, 1.0, trainer.lora_list),
    ):
        total = sum(each.numel() for each in parameters)
        applied = {}

        def spy(parameters=parameters, applied=applied):
            applied["norm"] = torch.stack([each.grad.norm() for each in parameters]).norm().item()

        optimizer.step = spy
        for each in other:
            each.grad = torch.ones_like(each)
        gradients = [torch.full_like(each, 1000 / total**0.5) for each in parameters]
        norm = apply_gradients(optimizer, parameters, gradients, clip, {"step": 0})
        assert norm == pytest.approx(1000, rel=1e-4)
        assert applied["norm"] == pytest.approx(clip, rel=1e-4)
        assert all((each.grad == 1).all() for each in other)
        for each in other:
            each.grad = None
    settings = RecipeSettings()
    assert (settings.generator_clip, settings.discriminator_clip) == (0.1, 1.0)


def test_generator_and_discriminator_take_turns_after_a_warm_up_of_the_latter(tiny_parts, towers):
    trainer = make_trainer(tiny_parts, towers)
    order = []
    for label, optimizer in (("G", trainer.optimizer), ("D", trainer.discriminator_optimizer)):
        optimizer.step = lambda label=label, apply=optimizer.step: (order.append(label), apply())
    lora = [each.detach().clone() for each in trainer.lora_list]
    start = first_train_step(trainer)
    assert start >= 1
    before = [each.clone() for each in trainer.discriminator_list]
    for position in range(start):
        trainer.run_step(position)
    assert order == ["D"] * start
    assert all(torch.equal(old, new) for old, new in zip(lora, trainer.lora_list, strict=True))
    assert not all(torch.equal(old, new) for old, new in zip(before, trainer.discriminator_list, strict=True))
    order.clear()
    step = trainer.discriminator_step

    def spy(batches, record):
        assert all(not batch.features.requires_grad and batch.features.grad_fn is None for batch in batches)
        assert all(each.grad is None for each in trainer.lora_list)
        after_generator = [each.detach().clone() for each in trainer.lora_list]
        step(batches, record)
        assert all(torch.equal(old, new) for old, new in zip(after_generator, trainer.lora_list, strict=True))
        assert all(each.grad is None for each in trainer.lora_list)

    trainer.discriminator_step = spy
    for position in range(start, len(trainer.plan)):
        trainer.run_step(position)
    assert order == ["G", "D"] * (len(trainer.plan) - start)


def test_the_discriminator_learns_the_side_of_each_feature(tiny_clip):
    """Repeated discriminator updates on fixed features raise the image logits and lower the text logits."""
    rewards = Rewards(SETTINGS, RewardModels(tiny_clip, BrightQuality()), NAMES, torch.device("cpu"))
    net = Discriminator(tiny_clip.dim, seed=5, activation="leaky_relu")
    batch = Batch([0, 1], [2, 3], torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    rewards.encode(batch)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    first = rewards.discriminator_terms(batch, net)[1]
    for _ in range(50):
        loss, last = rewards.discriminator_terms(batch, net)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last["L_D"] < first["L_D"]
    assert last["logit_image"] - last["logit_text"] > first["logit_image"] - first["logit_text"]


def test_the_diffusion_model_is_given_names_and_clip_photos_of_them(tiny_parts, tiny_clip):
    asked = []
    tokenizer = tiny_parts.tokenizer

    class Spy(SimpleNamespace):
        def __call__(self, texts, **kwargs):
            asked.extend(texts)
            return tokenizer(texts, **kwargs)

    parts = dataclasses.replace(tiny_parts, tokenizer=Spy(model_max_length=tokenizer.model_max_length), _prompts={})
    recorder = Recorder(tiny_clip)
    Trainer(
        parts,
        SETTINGS,
        RewardModels(recorder, BrightQuality()),
        ["tench", "kite (bird)"],
        seed=0,
        comm=SingleProcess(),
    )
    assert asked == ["tench", "kite (bird)", ""]
    assert recorder.texts == [["tench", "kite (bird)"], ["photo of tench", "photo of kite (bird)"]]


def test_terms_add_up_and_a_term_of_weight_zero_is_never_computed(tiny_clip):
    net = Discriminator(tiny_clip.dim, seed=1, activation="leaky_relu")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4))

    def score(en, individual, quality):
        settings = changed(SETTINGS, weight_en=en, weight_in=individual, weight_q=quality)
        clip = tiny_clip if en or individual else Forbidden()
        tower = BrightQuality() if quality else Forbidden()
        rewards = Rewards(settings, RewardModels(clip, tower), NAMES, torch.device("cpu"))
        values, gradient = rewards.score(Batch([0, 1, 2], [1, 2, 3], images), net if en else None)
        return values, rewards.total(values), gradient

    values, total, gradient = score(1.0, 1.0, 0.1)
    assert total == pytest.approx(values["L_en"] + values["L_in"] + 0.1 * values["L_q"])
    alone = {"L_en": score(1.0, 0, 0), "L_in": score(0, 1.0, 0), "L_q": score(0, 0, 0.1)}
    for name, (single, _, single_gradient) in alone.items():
        assert set(single) == {name}
        assert single[name] == pytest.approx(values[name])
        assert single_gradient.abs().max() > 1e-6
    torch.testing.assert_close(gradient, sum(each[2] for each in alone.values()), rtol=1e-4, atol=1e-8)
    for name, weights in (("L_en", (0, 1.0, 0.1)), ("L_in", (1.0, 0, 0.1)), ("L_q", (1.0, 1.0, 0))):
        torch.testing.assert_close(score(*weights)[2], gradient - alone[name][2], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.1), (1.0, 0.5, 20.0)])
def test_reward_gradient_is_the_derivative_of_the_total(tiny_clip, weights):
    """Along the gradient itself, where the slope is the gradient's length and nothing cancels: each term, and all of them."""
    settings = SETTINGS.model_copy(update=dict(zip(("weight_en", "weight_in", "weight_q"), weights, strict=True)))
    net = Discriminator(tiny_clip.dim, seed=1, activation="leaky_relu")
    rewards = Rewards(settings, RewardModels(tiny_clip, BrightQuality()), NAMES, torch.device("cpu"))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    gradient = rewards.score(Batch([0, 1], [1, 2], images), net)[1]
    length = gradient.norm().item()

    def total(shift):
        batch = Batch([0, 1], [1, 2], images + shift * gradient / length)
        return rewards.total(rewards.score(batch, net)[0])

    assert (total(0.1) - total(-0.1)) / 0.2 == pytest.approx(length, rel=0.01)


def test_quality_gradient_lowers_l_q_by_the_slope_of_the_rating(tiny_clip):
    """L_q = 1 - mean(score) / 5 with score 1 + 4 sigmoid(m - 1/2): at the mean pixel m = 1/2 a rating rises by 1 per unit of m."""
    settings = SETTINGS.model_copy(update={"weight_en": 0.0, "weight_in": 0.0, "weight_q": 0.1})
    rewards = Rewards(settings, RewardModels(Forbidden(), BrightQuality()), NAMES, torch.device("cpu"))
    values, gradient = rewards.score(Batch([0, 1], [1, 2], torch.full((2, 3, 16, 16), 0.5)), None)
    assert values["L_q"] == pytest.approx(0.4)
    assert gradient.flatten().tolist() == pytest.approx([-0.1 / 5 / 2 / (3 * 16 * 16)] * gradient.numel(), rel=1e-5)


def test_a_plan_shows_every_class_once_before_any_repeats():
    settings = RecipeSettings()
    plan = plan_steps(settings, 1000, seed=42)
    warmup = [step for step in plan if step.phase == "warmup"]
    steps = [step for step in plan if step.phase == "train"]
    assert (len(warmup), len(steps)) == (16, 96)
    assert {len(step.classes) for step in warmup} == {64}
    assert {len(step.classes) for step in steps} == {32}
    for epoch in range(3):
        shown = [each for step in steps if step.epoch == epoch for each in step.classes]
        assert len(shown) == 1024
        assert set(shown) == set(range(1000))
        assert len(set(shown[:1000])) == 1000, "no repeats before the pass is complete"
    assert steps[0].classes != steps[32].classes
    assert plan == plan_steps(settings, 1000, seed=42)
    assert plan != plan_steps(settings, 1000, seed=43)


class ThreadGroup:
    """Two ranks as two threads that add up their tensors."""

    def __init__(self, size):
        self.barrier, self.shared = threading.Barrier(size, timeout=120), [None] * size

    def member(self, rank):
        def sum_(tensors):
            self.shared[rank] = [each.clone() for each in tensors]
            self.barrier.wait()
            for index, tensor in enumerate(tensors):
                tensor.copy_(sum(kept[index] for kept in self.shared))
            self.barrier.wait()

        return SimpleNamespace(rank=rank, world_size=len(self.shared), sum_=sum_)


def test_two_processes_make_the_updates_of_one(tiny_parts, towers):
    """Two processes and one process with accumulation make the same updates to rounding."""
    alone = make_trainer(tiny_parts, towers)
    group = ThreadGroup(2)
    ranks = [make_trainer(tiny_parts, towers, comm=group.member(rank)) for rank in range(2)]
    position = first_train_step(alone)
    records: list = [None, None]

    def work(rank):
        try:
            records[rank] = [ranks[rank].run_step(at) for at in (0, position)]
        except BaseException:
            group.barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    expected = [alone.run_step(at) for at in (0, position)]
    for thread in threads:
        thread.join()
    assert records[0] == records[1]
    for ours, theirs in zip(expected, records[0], strict=True):
        for name, value in ours.items():
            assert theirs[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4))
    for rank in ranks:
        for ours, theirs in zip(alone.lora_list, rank.lora_list, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(ranks[0].lora_list, ranks[1].lora_list, strict=True)), (
        "the processes stay equal bit for bit"
    )


class Stop(Exception):
    pass


def fit(tmp_path, parts, towers, stop_after=None, **kwargs):
    def progress(done, total, message):
        if done == stop_after:
            raise Stop

    options = {"seed": 3, "out_dir": tmp_path / "out", "checkpoint_dir": tmp_path / "work"} | kwargs
    settings = options.pop("settings", SETTINGS)
    return train(parts, settings, towers, NAMES, progress=progress, **options)


def test_an_interrupted_fit_ends_with_the_bytes_of_a_whole_one(tiny_parts, towers, tmp_path):
    whole = fit(tmp_path / "whole", tiny_parts, towers)
    cut = tmp_path / "cut"
    for stop_after, saved in ((1, 0), (3, 2), (4, 4), (5, 5)):
        with pytest.raises(Stop):
            fit(cut, tiny_parts, towers, stop_after)
        assert load_state(cut / "work" / CHECKPOINT, make_trainer(tiny_parts, towers, seed=3).config)[0] == saved
    resumed = fit(cut, tiny_parts, towers)
    assert resumed.generator_steps == whole.generator_steps == 4
    for ours, theirs in (
        (whole.lora, resumed.lora),
        (whole.discriminator, resumed.discriminator),
        (whole.log, resumed.log),
    ):
        assert ours.read_bytes() == theirs.read_bytes()
    assert not (cut / "work").exists()
    weights = load_lora(whole.lora)
    assert any((each != 0).any() for name, each in weights.items() if name.endswith("up.weight"))
    records = [json.loads(line) for line in whole.log.read_text().splitlines()]
    assert [record["phase"] for record in records] == ["warmup"] + ["train"] * 4
    needed = {
        "L_en",
        "L_in",
        "L_q",
        "total",
        "L_D",
        "accuracy_image",
        "accuracy_text",
        "logit_image",
        "logit_text",
    }
    needed |= {"generator_gradient_norm", "discriminator_gradient_norm", "image_std", "start"}
    assert all(needed <= set(record) and record["generator_gradient_norm"] > 0 for record in records[1:])


def test_another_seed_gives_other_weights(tiny_parts, towers, tmp_path):
    one, other = fit(tmp_path / "a", tiny_parts, towers), fit(tmp_path / "b", tiny_parts, towers, seed=4)
    assert one.lora.read_bytes() != other.lora.read_bytes()


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tiny_parts, towers, tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, tiny_parts, towers, 3)
    with pytest.raises(UserError, match="another run"):
        fit(tmp_path, tiny_parts, towers, settings=changed(SETTINGS, weight_q=0.2))
    damaged = tmp_path / "work" / CHECKPOINT
    damaged.write_bytes(damaged.read_bytes()[:1000])
    fit(tmp_path, tiny_parts, towers)  # from the beginning


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tiny_parts, tiny_clip, tmp_path):
    class Broken(BrightQuality):
        def score_and_grad(self, images):
            scores, gradient = super().score_and_grad(images)
            return (scores * float("nan") if self.calls > 4 else scores), gradient

    with pytest.raises(TrainingFailed, match=r"L_q that is not finite in step 3") as caught:
        fit(tmp_path, tiny_parts, RewardModels(tiny_clip, Broken()))
    assert caught.value.fix
    trainer = make_trainer(tiny_parts, RewardModels(tiny_clip, Broken()), seed=3)
    assert load_state(tmp_path / "work" / CHECKPOINT, trainer.config)[0] > 0
    assert len((tmp_path / "work" / LOG).read_text().splitlines()) == 3


def test_terms_of_weight_zero_need_no_tower(tiny_parts, tiny_clip, tmp_path):
    quality_only = changed(SETTINGS, weight_en=0.0, weight_in=0.0, epochs=1)
    result = fit(tmp_path / "q", tiny_parts, RewardModels(None, BrightQuality()), settings=quality_only)
    record = json.loads(result.log.read_text().splitlines()[0])
    assert record["phase"] == "train" and "L_en" not in record and "L_D" not in record
    assert not result.discriminator.exists()
    no_quality = changed(SETTINGS, weight_q=0.0, epochs=1)
    result = fit(tmp_path / "c", tiny_parts, RewardModels(tiny_clip, None), settings=no_quality)
    assert "L_q" not in json.loads(result.log.read_text().splitlines()[-1])
    with pytest.raises(UserError, match="reward model is missing"):
        make_trainer(tiny_parts, RewardModels(tiny_clip, None))
    with pytest.raises(UserError, match="reward model is missing"):
        make_trainer(tiny_parts, RewardModels(None, BrightQuality()))


def test_only_the_reward_decides_the_direction(tiny_parts, tmp_path):
    """With the quality term alone, the images' rating on replayed noise rises."""
    changes = {
        "weight_en": 0.0,
        "weight_in": 0.0,
        "weight_q": 1.0,
        "epochs": 4,
        "generator_lr": 5e-3,
        "trained_steps": 4,
    }
    settings = SETTINGS.model_copy(update=changes)
    quality = BrightQuality(gain=20.0)
    trainer = Trainer(tiny_parts, settings, RewardModels(None, quality), NAMES, seed=1, comm=SingleProcess())

    def rating():
        noise = SampleNoise(9, 0, range(4), tiny_parts.latent_shape)
        final = sample_trajectory(
            trainer._predictor(trainer.fused, [0, 1, 2, 3]), trainer.steps, noise.draw(), noise.draw
        ).final
        with torch.no_grad():
            images = tiny_parts.vae.decode(final / tiny_parts.scaling_factor).sample / 2 + 0.5
        return quality.score_and_grad(images)[0].mean().item()

    before = rating()
    for position in range(len(trainer.plan)):
        trainer.run_step(position)
    assert rating() > before + 0.02


def test_prompts_of_the_training_are_the_bare_names(tiny_parts, towers):
    trainer = make_trainer(tiny_parts, towers)
    assert torch.equal(trainer.prompts, encode_prompts(tiny_parts, NAMES))
    assert torch.equal(trainer.uncond, encode_prompts(tiny_parts, [""])[0])


def test_a_missing_encoder_is_reported(tmp_path):
    with pytest.raises(DataMissing, match="no CLIP encoder"):
        load_open_clip(f"local-dir:{tmp_path}")
    with pytest.raises(DataMissing, match="no weights"):
        load_open_clip("ViT-L-14")


def test_tower_size_and_pullback(tiny_clip):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features, pullback = tiny_clip.image_features(images)
    assert features.shape == (2, tiny_clip.dim) and not features.requires_grad
    gradient = pullback(torch.ones_like(features))
    assert gradient.shape == images.shape and gradient.abs().max() > 0
    alone = tiny_clip.text_features(["hen"])
    assert torch.equal(tiny_clip.text_features(["tench", "hen"])[1:], alone)
    assert alone.norm().item() != pytest.approx(1.0, abs=1e-3)
