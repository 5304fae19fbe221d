"""Losses, discriminator and preprocessing of lbGen's recipe, by hand and against outside code."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from generators.lbgen.discriminator import Discriminator
from generators.lbgen.losses import (
    alignment_loss,
    discriminator_loss,
    entire_alignment_value,
    individual_loss,
    quality_loss,
)
from generators.lbgen.preprocess import CLIP_MEAN, CLIP_STD, preprocess
from generators.lbgen.schedule import negative_class
from generators.lbgen.settings import RecipeSettings
from harness.core.errors import UserError


def logits(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_the_discriminator_has_its_stated_number_of_parameters():
    for dim, count in ((768, 2311), (512, 1543)):
        net = Discriminator(dim)
        assert net(torch.zeros(5, dim)).shape == (5, 1)
        assert sum(each.numel() for each in net.parameters()) == count


def test_discriminator_initialisation_is_seeded_and_leaves_the_global_stream():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = Discriminator(8, seed=1), Discriminator(8, seed=1), Discriminator(8, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_losses_of_a_zero_discriminator_are_logarithms_of_two():
    net = Discriminator(16).double()
    for each in net.parameters():
        torch.nn.init.zeros_(each)
    image, text = net(torch.randn(4, 16).double()), net(torch.randn(4, 16).double())
    assert discriminator_loss(image, text).item() == pytest.approx(math.log(2))
    assert alignment_loss(image).item() == pytest.approx(0.693147181, rel=1e-6)
    assert entire_alignment_value(image, text).item() == pytest.approx(-1.386294361, rel=1e-6)
    assert alignment_loss(image, "saturating").item() == pytest.approx(-0.693147181, rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "low", "apart", "swapped", "loss_low"),
    [
        ("leaky_relu", -0.6, 0.243037651, 2.043037651, 0.437487951),
        ("relu", 0.0, 0.370867266, 1.870867266, 0.693147181),
    ],
)
def test_losses_of_a_discriminator_set_by_hand(activation, low, apart, swapped, loss_low):
    net = Discriminator(768, activation=activation).double()
    first, last = net.layers[0], net.layers[2]
    torch.nn.init.constant_(first.weight, 1 / 768)
    torch.nn.init.constant_(last.weight, 1.0)
    torch.nn.init.zeros_(first.bias)
    torch.nn.init.zeros_(last.bias)
    up, down = net(torch.ones(2, 768).double()), net(-torch.ones(2, 768).double())
    assert up.mean().item() == pytest.approx(3)
    assert down.mean().item() == pytest.approx(low, abs=1e-12)
    assert discriminator_loss(up, down).item() == pytest.approx(apart, rel=1e-6)
    assert discriminator_loss(down, up).item() == pytest.approx(swapped, rel=1e-6)
    assert alignment_loss(up).item() == pytest.approx(3.048587352, rel=1e-6)
    assert alignment_loss(down).item() == pytest.approx(loss_low, rel=1e-6)


def test_losses_and_gradient_of_logits_set_by_hand():
    assert discriminator_loss(logits(2, 0), logits(-1, 1)).item() == pytest.approx(0.611649642, rel=1e-6)
    image = logits(0, 1, -1, 3).requires_grad_(True)
    loss = alignment_loss(image)
    assert loss.item() == pytest.approx(1.342064477, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, image)
    assert gradient.flatten().tolist() == pytest.approx([0.125, 0.182764645, 0.067235355, 0.238143532], rel=1e-6)


def test_a_generator_step_lowers_image_logits_and_a_discriminator_step_raises_them():
    image, text = logits(0.3, -0.7).requires_grad_(True), logits(1.1, 0.2).requires_grad_(True)
    for form in ("non-saturating", "saturating"):
        (down,) = torch.autograd.grad(alignment_loss(image, form), image)
        assert (down > 0).all(), "a generator step lowers the image logits"
    d_image, d_text = torch.autograd.grad(discriminator_loss(image, text), (image, text))
    assert (d_image < 0).all() and (d_text > 0).all()


def test_saturating_gradient_vanishes_when_the_discriminator_wins():
    image = logits(9.0).requires_grad_(True)
    (saturated,) = torch.autograd.grad(alignment_loss(image, "saturating"), image)
    (strong,) = torch.autograd.grad(alignment_loss(image), image)
    assert saturated.item() < 2e-4 < 0.99 < strong.item()


def test_paper_value_is_minus_twice_the_discriminator_loss():
    image, text = logits(2, -1, 0.5), logits(-0.2, 1, 3)
    assert entire_alignment_value(image, text).item() == pytest.approx(-2 * discriminator_loss(image, text).item())


def test_the_adversarial_loss_depends_on_the_length_of_features():
    net = Discriminator(16, seed=3).double()
    features = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)).double()
    assert alignment_loss(net(2 * features)).item() != pytest.approx(alignment_loss(net(features)).item(), rel=1e-3)


def test_negatives_are_uniform_over_the_other_names():
    names = ["tench", "missile", "hen", "missile", "crane"]
    for own, others in ((0, {1, 2, 3, 4}), (1, {0, 2, 4}), (3, {0, 2, 4})):
        counts = Counter(negative_class(names, own, 9, step, sample) for step in range(750) for sample in range(4))
        assert set(counts) == others
        expected = 3000 / len(others)
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < 16.3  # p = 0.001, 3 d.o.f.
    by_position = [[negative_class(names, 0, 9, step, sample) for step in range(400)] for sample in range(4)]
    assert all(len(set(drawn)) == 4 for drawn in by_position)
    with pytest.raises(UserError, match="no other class"):
        negative_class(["missile", "missile"], 0, 9, 0, 0)


def test_individual_loss_is_one_minus_the_cosine():
    features = torch.eye(4, dtype=torch.float64)
    assert individual_loss(features, features).item() == pytest.approx(0)
    assert individual_loss(features, -features).item() == pytest.approx(2)
    assert individual_loss(features, features.roll(1, 0)).item() == pytest.approx(1)
    image, text = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1)).double()
    assert individual_loss(3 * image, 0.1 * text).item() == pytest.approx(individual_loss(image, text).item())


def test_individual_loss_pairs_each_image_with_its_own_caption():
    image, text = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1)).double()
    permuted = individual_loss(image, text[[1, 0, 3, 2]]).item()
    assert permuted != pytest.approx(individual_loss(image, text).item(), rel=1e-3)


def test_quality_loss_range():
    assert quality_loss(torch.tensor([5.0, 5.0])).item() == pytest.approx(0)
    assert quality_loss(torch.tensor([1.0, 1.0])).item() == pytest.approx(0.8)
    assert quality_loss(torch.tensor([3.0])).item() == pytest.approx(0.4)


@pytest.mark.parametrize("size", [224, 448])
def test_preprocessing_of_flat_images_is_their_normalised_value(size):
    image = torch.full((1, 3, 512, 512), 0.5, dtype=torch.float64)
    for value, expected in (
        (0.5, (0.069036860, 0.161393355, 0.332838610)),
        (1.7, (4.536154, 4.753770, 4.684178)),
    ):
        out = preprocess(image * 2 * value, size)
        assert out.shape == (1, 3, size, size)
        for channel, want in enumerate(expected):
            assert out[0, channel].min().item() == pytest.approx(want, rel=1e-6)
            assert out[0, channel].max().item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(224, (373570.23, 384045.19, 363888.07)), (448, (1494280.93, 1536180.78, 1455552.28))],
)
def test_gradient_of_preprocessing_sums_to_what_resizing_keeps(size, expected):
    image = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(preprocess(image, size).sum(), image)
    assert gradient.sum((0, 2, 3)).tolist() == pytest.approx(list(expected), rel=1e-6)


def test_preprocessing_agrees_with_open_clips_on_8_bit_images():
    """Against the reference transform on an 8-bit image (PIL bicubic, uint8 in between)."""
    from open_clip import image_transform
    from PIL import Image

    coarse = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    smooth = torch.nn.functional.interpolate(coarse, (512, 512), mode="bilinear") * 0.8 + 0.1
    pixels = (smooth[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    reference = image_transform(224, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)(Image.fromarray(pixels))
    ours = preprocess(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, 224)[0]
    assert (ours - reference).abs().max().item() < 0.02
    assert not torch.equal(ours, reference)


def test_the_first_adamw_steps_have_the_size_of_the_learning_rate():
    settings = RecipeSettings()
    element = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    generator = torch.optim.AdamW(
        [element], settings.generator_lr, settings.generator_betas, weight_decay=settings.weight_decay
    )
    element.grad = torch.full((1,), 3.0, dtype=torch.float64)
    generator.step()
    assert element.item() == pytest.approx(-2e-5, rel=1e-6)

    other = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    discriminator = torch.optim.AdamW(
        [other], settings.discriminator_lr, settings.discriminator_betas, weight_decay=settings.weight_decay
    )
    for count in range(1, 6):
        other.grad = torch.full((1,), -0.7, dtype=torch.float64)
        discriminator.step()
        assert other.item() == pytest.approx(count * 1e-5, rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trained_steps": 3},
        {"micro_batch": 5},
        {"weight_en": 0.0, "weight_in": 0.0, "weight_q": 0.0},
        {"weight_q": -1.0},
        {"caption": "photo"},
        {"rank": 0},
    ],
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(UserError, match="unusable lbGen settings"):
        RecipeSettings(**wrong)
