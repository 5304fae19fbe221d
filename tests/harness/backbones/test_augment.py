"""The batched augmentation against Pillow, and the facts it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from harness.backbones import augment as augment_module
from harness.backbones.augment import (
    Augment,
    Crops,
    crop_resize,
    draw_boxes,
    draw_crops,
    draw_mix,
    smooth_targets,
)
from harness.backbones.randaugment import OPERATIONS, Policy, apply_policy, draw_policy
from harness.backbones.randomness import normals, permutation, uniforms
from harness.backbones.recipe import PretrainSettings

FILL = (124, 116, 104)


def pictures(n: int, size: int = 32) -> np.ndarray:
    """Return smooth coloured pictures whose histograms do not fill the range: (n, size, size, 3) uint8."""
    g = np.random.default_rng(5)
    small = g.integers(30, 200, (n, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(s).resize((size, size), Image.Resampling.BICUBIC)) for s in small])


def apply(name: str, value: float, images: np.ndarray) -> np.ndarray:
    n = len(images)
    policy = Policy(np.full((n, 1), OPERATIONS.index(name)), np.full((n, 1), value))
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    return apply_policy(x, policy, FILL).permute(0, 2, 3, 1).numpy()


def solarize_add(image: Image.Image, add: int) -> Image.Image:
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


PILLOW = {
    ("autocontrast", 0.0): lambda i: ImageOps.autocontrast(i),
    ("equalize", 0.0): lambda i: ImageOps.equalize(i),
    ("invert", 0.0): lambda i: ImageOps.invert(i),
    ("posterize", 2.0): lambda i: ImageOps.posterize(i, 2),
    ("solarize", 90.0): lambda i: ImageOps.solarize(i, 90),
    ("solarize_add", 60.0): lambda i: solarize_add(i, 60),
    ("brightness", 0.4): lambda i: ImageEnhance.Brightness(i).enhance(0.4),
    ("brightness", 1.6): lambda i: ImageEnhance.Brightness(i).enhance(1.6),
    ("contrast", 0.3): lambda i: ImageEnhance.Contrast(i).enhance(0.3),
    ("contrast", 1.8): lambda i: ImageEnhance.Contrast(i).enhance(1.8),
    ("colour", 0.1): lambda i: ImageEnhance.Color(i).enhance(0.1),
    ("colour", 1.9): lambda i: ImageEnhance.Color(i).enhance(1.9),
    ("sharpness", 0.2): lambda i: ImageEnhance.Sharpness(i).enhance(0.2),
    ("sharpness", 1.9): lambda i: ImageEnhance.Sharpness(i).enhance(1.9),
}


@pytest.mark.parametrize("key", PILLOW, ids=lambda key: f"{key[0]}-{key[1]}")
def test_grey_value_operations_equal_pillow(key: tuple[str, float]) -> None:
    images = pictures(3)
    ours = apply(*key, images)
    theirs = np.stack([np.asarray(PILLOW[key](Image.fromarray(i))) for i in images])
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1  # one level of rounding
    assert (ours != images).any()


GEOMETRY = {
    ("rotate", 20.0): None,
    ("shear_x", 0.25): (1, 0.25, 0, 0, 1, 0),
    ("shear_y", -0.25): (1, 0, 0, -0.25, 1, 0),
    ("translate_x", 0.25): (1, 0, 8, 0, 1, 0),
    ("translate_y", -0.125): (1, 0, 0, 0, 1, -4),
}


@pytest.mark.parametrize("key", GEOMETRY, ids=lambda key: key[0])
def test_geometric_operations_follow_pillow(key: tuple[str, float]) -> None:
    def by_pillow(pixels: np.ndarray) -> np.ndarray:
        image, matrix, kernel = Image.fromarray(pixels), GEOMETRY[key], Image.Resampling.BICUBIC
        if matrix is None:
            return np.asarray(image.rotate(key[1], resample=kernel, fillcolor=FILL))
        return np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, kernel, fillcolor=FILL))

    images = pictures(3)
    ours = apply(*key, images).astype(int)
    theirs = np.stack([by_pillow(image) for image in images]).astype(int)
    difference = np.abs(ours - theirs)
    assert difference.mean() < 1.0  # the cubic kernels differ by a level here and there
    assert (difference.max(-1) > 12).mean() < 0.01  # and edges fall on the same pixels
    assert np.abs(ours - images).mean() > 5


def test_crop_resize_equals_pillow() -> None:
    images = pictures(4, 40)
    crops = Crops(
        np.array([0, 5, 10, 2]),
        np.array([0, 7, 3, 20]),
        np.array([40, 17, 30, 12]),
        np.array([40, 22, 25, 20]),
        np.array([False, True, False, True]),
    )
    ours = crop_resize(torch.from_numpy(images), crops, 24).permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(images):
        top, left, height, width = crops.top[i], crops.left[i], crops.height[i], crops.width[i]
        part = Image.fromarray(image).crop((left, top, left + width, top + height))
        expected = np.asarray(part.resize((24, 24), Image.Resampling.BICUBIC))
        expected = expected[:, ::-1] if crops.mirrored[i] else expected
        assert np.abs(ours[i].astype(int) - expected.astype(int)).max() <= 1


def test_draws_lie_in_the_recipes_ranges() -> None:
    samples = np.arange(4000)
    side = np.full(4000, 64)
    c = draw_crops(3, 0, samples, side, side, (0.08, 1.0))
    area, aspect = c.height * c.width / 64**2, c.width / c.height
    assert area.min() > 0.07 and area.max() <= 1 and 0.45 < area.mean() < 0.62
    assert aspect.min() > 0.65 and aspect.max() < 1.55
    assert (c.top >= 0).all() and (c.top + c.height <= 64).all() and (c.left + c.width <= 64).all()
    assert abs(c.mirrored.mean() - 0.5) < 0.04
    boxes, _ = draw_boxes(3, 0, samples, 64, 0.25)
    erased = boxes[:, 2] > 0
    share = (boxes[:, 2] * boxes[:, 3])[erased] / 64**2
    assert abs(erased.mean() - 0.25) < 0.03 and share.min() > 0.015 and share.max() < 0.36
    policy = draw_policy(3, 0, samples, layers=2, magnitude=9, std=0.5, probability=0.5)
    assert abs((policy.operation >= 0).mean() - 0.5) < 0.03
    assert set(np.unique(policy.operation)) == {-1, *range(15)}
    angles = policy.value[policy.operation == OPERATIONS.index("rotate")]
    assert abs(np.abs(angles).mean() - 27) < 0.5 and np.abs(angles).max() <= 30 and angles.min() < 0


def test_uniforms_are_uniform_and_streams_differ() -> None:
    u = uniforms(0, 2, 0, np.arange(5000), 4)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.003
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.05
    for other in ((1, 2, 0), (0, 3, 0), (0, 2, 1)):
        assert abs(np.corrcoef(u[:, 0], uniforms(*other, np.arange(5000), 1)[:, 0])[0, 1]) < 0.05
    z = normals(u[:, 0], u[:, 1])
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
    assert sorted(permutation(1, 2, 100)) == list(range(100))
    assert not np.array_equal(permutation(1, 2, 100), permutation(1, 3, 100))


def settings(**kwargs: object) -> PretrainSettings:
    return PretrainSettings(epochs=1, warmup_epochs=0, batch_size=8, image_size=32, **kwargs)  # type: ignore[arg-type]


def test_an_image_is_augmented_the_same_alone_and_in_any_batch() -> None:
    images, labels, samples = pictures(8), np.arange(8), np.array([5, 9, 2, 100, 7, 31, 4, 77])
    a = Augment(settings(mixup=0.0, cutmix=0.0), 8, seed=4, device=torch.device("cpu"))
    x, _ = a(images, labels, samples, epoch=3, step=0)
    order = np.array([6, 1, 3, 0, 7, 2, 5, 4])
    shuffled, _ = a(images[order], labels[order], samples[order], epoch=3, step=9)
    torch.testing.assert_close(shuffled, x[torch.from_numpy(order)], rtol=0, atol=1e-5)
    alone = torch.cat([a(images[i : i + 1], labels[:1], samples[i : i + 1], 3, 0)[0] for i in range(8)])
    torch.testing.assert_close(alone, x, rtol=0, atol=0.02)  # one grey level where a product rounds the other way
    other, _ = a(images, labels, samples, epoch=4, step=0)
    assert (other - x).abs().mean() > 0.1


def test_without_any_augmentation_the_image_is_only_normalised() -> None:
    plain = settings(randaugment_ops=0, mixup=0.0, cutmix=0.0, erasing=0.0, crop_area=(1.0, 1.0), smoothing=0.0)
    images = np.full((2, 32, 32, 3), 128, dtype=np.uint8)
    x, targets = Augment(plain, 3, 0, torch.device("cpu"))(images, np.array([2, 0]), np.arange(2), 0, 0)
    expected = torch.tensor([0.0741, 0.2052, 0.4265])  # 128 / 255 less the mean, over the standard deviation
    torch.testing.assert_close(x, expected[None, :, None, None].expand(2, 3, 32, 32), rtol=0, atol=1e-4)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_mixing_takes_partner_and_share_together(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = settings(randaugment_ops=0, erasing=0.0, smoothing=0.1, crop_area=(1.0, 1.0))
    levels = np.array([0, 80, 160, 240], dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (4, 32, 32, 3)).copy()
    a = Augment(plain, 4, seed=0, device=torch.device("cpu"))
    kinds = set()
    for step in range(12):
        kind, share, (top, bottom, left, right) = draw_mix(0, step, 32, plain)
        kinds.add(kind)
        x, targets = a(images, np.arange(4), np.arange(4), 0, step)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        grey = ((x * a._std + a._mean) * 255).mean((1, 2, 3))
        expected = share * levels + (1 - share) * levels[::-1]
        np.testing.assert_allclose(grey.numpy(), expected, atol=0.01)
        hard = smooth_targets(torch.arange(4), 4, 0.1)
        torch.testing.assert_close(targets, share * hard + (1 - share) * hard.flip(0))
        if kind == "cutmix":
            assert share == pytest.approx(1 - (bottom - top) * (right - left) / 32**2)
    assert kinds == {"mixup", "cutmix"}


def test_mixing_is_as_frequent_as_asked() -> None:
    s = settings(mix_probability=0.3)
    kinds = [draw_mix(0, step, 32, s)[0] for step in range(600)]
    assert abs(1 - kinds.count("none") / 600 - 0.3) < 0.06
    assert abs(kinds.count("mixup") - kinds.count("cutmix")) < 50
    assert {draw_mix(0, step, 32, settings(cutmix=0.0))[0] for step in range(9)} == {"mixup"}
    assert {draw_mix(0, step, 32, settings(cutmix=0.0, mixup=0.0))[0] for step in range(9)} == {"none"}


def test_erasing_writes_standard_normal_noise() -> None:
    s = settings(randaugment_ops=0, mixup=0.0, cutmix=0.0, erasing=1.0, crop_area=(1.0, 1.0))
    images = np.full((64, 32, 32, 3), 255, dtype=np.uint8)
    a = Augment(s, 2, 0, torch.device("cpu"))
    x, _ = a(images, np.zeros(64, dtype=np.int64), np.arange(64), 0, 0)
    white = (1 - a._mean) / a._std
    noise = x[(x - white).abs() > 1e-4]
    assert 0.02 < noise.numel() / x.numel() < 0.33
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert augment_module._NOISE > 3 * 256 * 256
