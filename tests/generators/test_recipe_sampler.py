"""The training sampler of lbGen's recipe, and which of its steps carry gradient."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from generators.diffusion.lora_io import add_lora
from generators.diffusion.pipeline import encode_prompts, load_pipeline
from generators.diffusion.sampling import guided_noise, make_scheduler
from generators.diffusion.scheduler import SD15_SCHEDULER
from generators.lbgen.adjoint import autograd_trajectory, image_pullback, staged_adjoint
from generators.lbgen.encoders import OpenClipEncoder, load_open_clip
from generators.lbgen.sampler import (
    SampleNoise,
    Step,
    alpha_bars,
    ancestral_steps,
    draw_start,
    sample_trajectory,
    start_choices,
    trained_steps,
)
from harness.core.errors import UserError
from harness.core.identity import derive_seed

STEPS = ancestral_steps(50, SD15_SCHEDULER)


class CountingUNet:
    """A scalar times the latents plus a bias, recording each call."""

    def __init__(self) -> None:
        self.weight = torch.tensor(0.05, requires_grad=True)
        self.calls: list[tuple[int, int, bool, bool, bool]] = []

    def __call__(self, latents, timestep, encoder_hidden_states):
        out = self.weight * latents + encoder_hidden_states.mean()
        self.calls.append(
            (int(timestep), len(latents), torch.is_grad_enabled(), out.requires_grad, latents.requires_grad)
        )
        return SimpleNamespace(sample=out)

    def predict(self, latents, timestep):
        cond = torch.zeros(len(latents), 2, 3)
        return guided_noise(self, latents, timestep, cond, torch.ones(2, 3), 2.0)


def test_training_steps_are_fifty_even_timesteps_from_981():
    assert [step.timestep for step in STEPS] == list(range(981, 0, -20))


def test_synthesis_takes_51_pndm_calls_for_fifty_steps(tiny_parts):
    timesteps = make_scheduler(tiny_parts, "pndm", 50).timesteps.tolist()
    assert timesteps == [981, 961, 961, *range(941, 0, -20)]
    assert len(timesteps) == 51


def test_alpha_bars_have_the_known_values_of_stable_diffusion():
    expected = {
        1: 0.998296028,
        21: 0.980380748,
        201: 0.752143402,
        401: 0.422881524,
        601: 0.159816437,
        801: 0.036546525,
        981: 0.005775500,
    }
    bars = alpha_bars(SD15_SCHEDULER)
    for timestep, value in expected.items():
        assert bars[timestep].item() == pytest.approx(value, rel=1e-6)


def test_coefficients_of_steps_have_their_known_values():
    expected = {
        981: (1.122851701, -0.232935777),
        961: (1.118964106, -0.226105112),
        781: (1.087186853, -0.171141630),
        481: (1.046156724, -0.108079024),
        181: (1.018642517, -0.079244071),
        21: (1.009095535, -0.129287136),
        1: (1.000853076, -0.041314412),
    }
    found = {step.timestep: (step.a, step.b) for step in STEPS}
    for timestep, pair in expected.items():
        assert found[timestep] == pytest.approx(pair, rel=1e-6)
    product = torch.tensor([step.a for step in STEPS], dtype=torch.float64).prod().item()
    assert product == pytest.approx(13.158464122, rel=1e-6)


@pytest.mark.parametrize("count", [50, 20, 10])
def test_steps_equal_the_ddpm_scheduler_of_diffusers(tiny_parts, count, monkeypatch):
    scheduler = make_scheduler(tiny_parts, "ddpm", count)
    module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    latents, noise, fresh = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = ancestral_steps(count, tiny_parts.scheduler_config)
    assert [step.timestep for step in steps] == scheduler.timesteps.tolist()
    for z in (torch.zeros_like(fresh), fresh):
        monkeypatch.setattr(module, lambda *args, z=z, **kwargs: z)
        for step in steps:
            theirs = scheduler.step(noise, step.timestep, latents).prev_sample
            ours = step.a * latents + step.b * noise + step.sigma * z
            torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("start", [0, 4, 9])
def test_only_trained_steps_carry_gradient_in_both_ways_of_taking_it(start):
    trained = trained_steps(50, 5, start)
    assert trained == tuple(start + 10 * k for k in range(5))
    latents = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = CountingUNet()
    autograd_trajectory(whole.predict, STEPS, latents, trained)
    assert len(whole.calls) == 50
    assert {batch for _, batch, *_ in whole.calls} == {6}
    assert [i for i, call in enumerate(whole.calls) if call[2] and call[3]] == list(trained)
    assert [i for i, call in enumerate(whole.calls) if call[2] or call[3]] == list(trained)

    staged = CountingUNet()
    trajectory = sample_trajectory(staged.predict, STEPS, latents, keep=trained)
    assert len(staged.calls) == 50
    assert not any(call[2] or call[3] for call in staged.calls)
    assert sorted(trajectory.kept) == list(trained)
    staged_adjoint(staged.predict, STEPS, trajectory.kept, torch.ones_like(latents), [staged.weight])
    replayed = staged.calls[50:]
    assert [call[0] for call in replayed] == [STEPS[i].timestep for i in reversed(trained)]
    assert all(call[2] and call[3] for call in replayed)


def test_starts_are_uniform_and_trained_steps_even():
    draws = [draw_start(3, step, 50, 5) for step in range(4000)]
    counts = torch.bincount(torch.tensor(draws), minlength=10).double()
    assert len(counts) == 10
    assert ((counts - 400) ** 2 / 400).sum().item() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    assert {trained: start_choices(50, trained) for trained in (1, 2, 5, 10, 50)} == {
        1: 50,
        2: 25,
        5: 10,
        10: 5,
        50: 1,
    }
    assert trained_steps(50, 50, 0) == tuple(range(50))
    assert trained_steps(50, 2, 24) == (24, 49)
    for trained in (3, 0, 51, 40):
        with pytest.raises(UserError):
            start_choices(50, trained)


@pytest.mark.parametrize("latent_jacobian", [True, False])
def test_the_latent_jacobian_is_taken_in_all_trained_steps_but_the_first_or_nowhere(latent_jacobian):
    trained = trained_steps(50, 5, 3)
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = list(trained[1:]) if latent_jacobian else []
    whole = CountingUNet()
    autograd_trajectory(whole.predict, STEPS, latents, trained, latent_jacobian=latent_jacobian)
    assert [i for i, call in enumerate(whole.calls) if call[4]] == expected
    staged = CountingUNet()
    kept = sample_trajectory(staged.predict, STEPS, latents, keep=trained).kept
    staged_adjoint(
        staged.predict,
        STEPS,
        kept,
        torch.ones_like(latents),
        [staged.weight],
        latent_jacobian=latent_jacobian,
    )
    assert [call[0] for call in staged.calls if call[4]] == [STEPS[i].timestep for i in reversed(expected)]


G4 = (
    -3.987093198,
    -3.513211502,
    -3.107808106,
    -2.760278727,
    -2.461991966,
    -2.206074926,
    -1.987478959,
    -1.803927013,
    -1.662048592,
    -1.426986249,
)


def both_gradients(predict, parameters, trained, latents, **kwargs):
    """Return the final latents and the gradient of their sum by the staged adjoint and by autograd."""
    trajectory = sample_trajectory(predict, STEPS, latents, keep=trained)
    staged = staged_adjoint(predict, STEPS, trajectory.kept, torch.ones_like(latents), parameters, **kwargs)
    final = autograd_trajectory(predict, STEPS, latents, trained, **kwargs)
    torch.testing.assert_close(final.detach(), trajectory.final)
    return trajectory.final, staged, torch.autograd.grad(final.sum(), parameters)


def test_gradient_of_a_constant_noise_has_its_closed_form():
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    latents = torch.ones(1, dtype=torch.float64)
    for start, expected in enumerate(G4):
        _, staged, whole = both_gradients(
            lambda x, t: c * torch.ones_like(x), [c], trained_steps(50, 5, start), latents
        )
        assert staged[0].item() == pytest.approx(expected, rel=1e-6)
        assert whole[0].item() == pytest.approx(expected, rel=1e-6)
    _, staged, _ = both_gradients(lambda x, t: c * torch.ones_like(x), [c], trained_steps(50, 50, 0), latents)
    assert staged[0].item() == pytest.approx(-24.916899239, rel=1e-6)


def test_gradient_of_a_constant_noise_per_step_has_its_closed_form():
    c = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    index = {step.timestep: i for i, step in enumerate(STEPS)}
    _, staged, _ = both_gradients(
        lambda x, t: c[index[t]] * torch.ones_like(x),
        [c],
        trained_steps(50, 5, 0),
        torch.ones(1, dtype=torch.float64),
    )
    terms = staged[0][[0, 10, 20, 30, 40]].tolist()
    assert terms == pytest.approx([-2.729726, -0.755138, -0.278794, -0.135501, -0.087935], abs=1e-6)
    assert staged[0].sum().item() == pytest.approx(sum(terms))


def test_gradient_through_guidance_weighs_both_halves_by_its_scale():
    halves = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def unet(latents, timestep, encoder_hidden_states):
        return SimpleNamespace(sample=halves.repeat_interleave(len(latents) // 2)[:, None] * torch.ones_like(latents))

    def predict(latents, timestep):
        text = torch.zeros(1, 1, 1, dtype=torch.float64)
        return guided_noise(unet, latents, timestep, text, text[0], 2.0)

    _, staged, whole = both_gradients(predict, [halves], trained_steps(50, 5, 0), torch.ones(1, 1, dtype=torch.float64))
    for found in (staged, whole):
        assert found[0].tolist() == pytest.approx([3.987093198, -7.974186397], rel=1e-6)


@pytest.mark.parametrize(
    ("start", "with_jacobian", "without"),
    [(0, -7.600876584, -7.703060062), (5, -6.582770311, -6.662564998), (9, -5.474582130, -5.529320877)],
)
def test_gradient_of_a_linear_noise_with_and_without_the_latent_jacobian(start, with_jacobian, without):
    c = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    for latent_jacobian, expected in ((True, with_jacobian), (False, without)):
        final, staged, whole = both_gradients(
            lambda x, t: c * x,
            [c],
            trained_steps(50, 5, start),
            torch.ones(1, dtype=torch.float64),
            latent_jacobian=latent_jacobian,
        )
        assert final.item() == pytest.approx(9.759526652, rel=1e-6)
        assert staged[0].item() == pytest.approx(expected, rel=1e-6)
        assert whole[0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("latent_jacobian", [True, False])
def test_staged_gradient_equals_autograd_through_unet_decoder_and_clip(
    tiny_pipeline_dir, tiny_clip_dir, latent_jacobian
):
    """A real UNet with LoRA, decoder and CLIP in float64: staged equals end-to-end autograd."""
    parts = load_pipeline(tiny_pipeline_dir, dtype=torch.float64)
    loaded = load_open_clip(f"local-dir:{tiny_clip_dir}")
    tower = OpenClipEncoder(loaded.model.double(), loaded._tokenizer, dtype=torch.float64)
    lora = list(add_lora(parts.unet, 4, seed=1).values())
    for index, each in enumerate(lora):
        each.data = torch.randn(each.shape, generator=torch.Generator().manual_seed(index), dtype=torch.float64) * 0.2
    steps = ancestral_steps(10, parts.scheduler_config)
    trained = trained_steps(10, 5, 1)
    text = encode_prompts(parts, ["tench", "hen", ""])
    target = torch.randn(2, tower.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def predict(latents, timestep):
        return guided_noise(parts.unet, latents, timestep, text[:2], text[2], 2.0)

    def noise():
        made = SampleNoise(0, 0, [0, 1], parts.latent_shape)
        return made.draw().double(), made.draw

    start, draw = noise()
    final = autograd_trajectory(predict, steps, start, trained, draw, latent_jacobian=latent_jacobian)
    images = parts.vae.decode(final / parts.scaling_factor).sample / 2 + 0.5
    from generators.lbgen.preprocess import preprocess

    features = tower.model.encode_image(preprocess(images, tower.size, tower.mean, tower.std))
    whole = torch.autograd.grad((features * target).sum(), lora)

    start, draw = noise()
    trajectory = sample_trajectory(predict, steps, start, draw, trained)
    decoded = parts.vae.decode(trajectory.final / parts.scaling_factor).sample / 2 + 0.5
    found, pullback = tower.image_features(decoded)
    torch.testing.assert_close(found, features.detach(), rtol=1e-9, atol=1e-9)
    image_gradient = pullback(target)
    staged = staged_adjoint(
        predict,
        steps,
        trajectory.kept,
        image_pullback(parts, trajectory.final, image_gradient),
        lora,
        latent_jacobian=latent_jacobian,
    )
    largest = max(each.abs().max().item() for each in whole)
    assert largest > 1e-6
    for ours, oracle in zip(staged, whole, strict=True):
        assert (ours - oracle).abs().max().item() < 1e-9 * largest


@pytest.mark.parametrize("outer", [True, False])
def test_grad_mode_of_the_caller_neither_matters_nor_changes(outer):
    unet = CountingUNet()
    latents = torch.ones(1, 4, 2, 2)
    with torch.set_grad_enabled(outer):
        kept = sample_trajectory(unet.predict, STEPS, latents, keep=(0, 25)).kept
        assert torch.is_grad_enabled() is outer
        (gradient,) = staged_adjoint(unet.predict, STEPS, kept, torch.ones_like(latents), [unet.weight])
        assert torch.is_grad_enabled() is outer
    assert gradient.item() != 0


def test_noise_is_replayable_and_independent_of_neighbours():
    together = SampleNoise(5, 7, [0, 1, 2], (4, 2, 2))
    alone = SampleNoise(5, 7, [1], (4, 2, 2))
    again = SampleNoise(5, 7, [0, 1, 2], (4, 2, 2))
    for _ in range(3):
        first = together.draw()
        assert torch.equal(first, again.draw())
        assert torch.equal(first[1:2], alone.draw())
        assert not torch.equal(first[0], first[1])
    assert not torch.equal(SampleNoise(5, 8, [1], (4,)).draw(), SampleNoise(5, 7, [1], (4,)).draw())


def test_sampling_is_the_recursion_and_keeps_what_stands_before_the_asked_steps():
    """x' = a x + b eps + sigma z with eps = 3 x + t and a z of its own per step."""
    steps = [Step(7, 2.0, 0.5, 0.1), Step(3, 1.5, -1.0, 0.2), Step(1, 1.0, 1.0, 0.0)]
    asked, noise = [], iter(torch.tensor([[10.0], [20.0], [30.0]], dtype=torch.float64))

    def predict(latents, timestep):
        asked.append(timestep)
        return 3 * latents + timestep

    first = torch.ones(1, dtype=torch.float64)
    found = sample_trajectory(predict, steps, first, lambda: next(noise), keep=(0, 2))
    x1 = 2 * 1 + 0.5 * (3 + 7) + 0.1 * 10
    x2 = 1.5 * x1 - (3 * x1 + 3) + 0.2 * 20
    assert found.final.item() == pytest.approx(x2 + 3 * x2 + 1)
    assert {index: each.item() for index, each in found.kept.items()} == pytest.approx({0: 1.0, 2: x2})
    assert asked == [7, 3, 1] and not found.final.requires_grad
    still = sample_trajectory(predict, steps[:1], first)
    assert still.final.item() == 7.0 and still.kept == {}, "without noise"


def test_the_last_step_adds_next_to_no_noise_and_others_the_posterior_variance():
    bars = alpha_bars(SD15_SCHEDULER)
    assert STEPS[-1].sigma == pytest.approx(1e-10) and STEPS[-1].timestep == 1
    for step in STEPS[:-1]:
        bar, before = bars[step.timestep].item(), bars[step.timestep - 20].item()
        assert step.sigma**2 == pytest.approx((1 - bar / before) * (1 - before) / (1 - bar), rel=1e-9)
    other = alpha_bars({"beta_start": 0.01, "beta_end": 0.04, "num_train_timesteps": 3})
    assert other.tolist() == pytest.approx([0.99, 0.99 * (1 - 0.15**2), 0.99 * (1 - 0.15**2) * 0.96])
    few = ancestral_steps(2, {"beta_start": 0.01, "beta_end": 0.04, "num_train_timesteps": 4, "steps_offset": 1})
    assert [step.timestep for step in few] == [3, 1]
    config = {"beta_start": 0.01, "beta_end": 0.04, "num_train_timesteps": 4, "steps_offset": 0}
    bars, (step, last) = alpha_bars(config), ancestral_steps(2, config)
    assert (step.timestep, last.timestep) == (2, 0)
    bar, before = bars[2].item(), bars[0].item()
    assert step.sigma**2 == pytest.approx((1 - bar / before) * (1 - before) / (1 - bar)), (
        "timestep 0 is a noise level, too"
    )


def test_starts_belong_to_seed_and_step_and_stay_in_their_range():
    draws = [draw_start(3, step, 50, 5) for step in range(200)]
    assert draws == [draw_start(3, step, 50, 5) for step in range(200)] and set(draws) == set(range(10))
    assert draws != [draw_start(4, step, 50, 5) for step in range(200)]
    generator = torch.Generator().manual_seed(derive_seed("lbgen-start", 3, 7))
    assert draws[7] == int(torch.randint(10, (1,), generator=generator)), "artifacts of other versions hold these draws"
    for start in (-1, 10):
        with pytest.raises(ValueError, match=r"outside \[0, 10\)"):
            trained_steps(50, 5, start)
    assert start_choices(1, 1) == 1 and trained_steps(50, 5, 9) == (9, 19, 29, 39, 49)


def test_noise_is_standard_normal_of_the_asked_shape():
    drawn = SampleNoise(5, 7, [0, 1], (4, 32, 32)).draw()
    assert drawn.shape == (2, 4, 32, 32) and drawn.dtype == torch.float32
    generator = torch.Generator().manual_seed(derive_seed("lbgen-noise", 5, 7, 1))
    assert torch.equal(drawn[1], torch.randn((4, 32, 32), generator=generator))
    assert drawn.mean().abs() < 0.05 and drawn.std().item() == pytest.approx(1, abs=0.05)
