"""The renderer and the worlds: determinism, independence of the batch, planted doses, swapped backgrounds."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from harness.microworld.captions import LEVELS, oracle_captions, vocabulary
from harness.microworld.causes import (
    BALANCED,
    SCENES,
    SHAPES,
    TEXTURES,
    WEB,
    Causes,
    Doses,
    draw_causes,
    partner_scene,
    partner_texture,
)
from harness.microworld.renderer import Placement, object_masks, render
from harness.microworld.shapes import SHAPE_FUNCTIONS, circle

SEEDS = np.arange(1000, 1000 + 150, dtype=np.uint64)
CAUSES = draw_causes(np.arange(150) % 12, SEEDS, BALANCED)


def test_an_image_does_not_depend_on_its_batch() -> None:
    whole = render(CAUSES, SEEDS)
    picked = np.array([149, 3, 70, 64, 63])
    some = render(CAUSES.take(picked), SEEDS[picked])
    assert np.array_equal(some.images, whole.images[picked])
    assert np.array_equal(some.masks, whole.masks[picked])
    one = render(CAUSES.take(slice(7, 8)), SEEDS[7:8])
    assert np.array_equal(one.images, whole.images[7:8])


def test_causes_do_not_depend_on_the_batch_and_doses_are_planted() -> None:
    seeds = np.arange(6000, dtype=np.uint64)
    shapes = np.arange(6000) % 12
    for rho in (0.0, 0.3, 0.9):
        causes = draw_causes(shapes, seeds, Doses.all(rho))
        for values, partner, n in (
            (causes.texture, partner_texture(shapes), len(TEXTURES)),
            (causes.scene, partner_scene(shapes), len(SCENES)),
        ):
            expected = rho + (1 - rho) / n
            error = (expected * (1 - expected) / 6000) ** 0.5
            assert abs((values == partner).mean() - expected) < 5 * error
    again = draw_causes(shapes[50:60], seeds[50:60], WEB)
    assert np.array_equal(again.texture, draw_causes(shapes, seeds, WEB).texture[50:60])


def test_doses_are_separate_and_checked() -> None:
    causes = draw_causes(np.arange(600) % 12, np.arange(600, dtype=np.uint64), Doses(1.0, 0.0, 0.0, 0.0))
    assert np.array_equal(causes.texture, partner_texture(causes.shape))
    assert (causes.scene == partner_scene(causes.shape)).mean() < 0.3
    with pytest.raises(ValueError, match="outside"):
        Doses.all(1.2)


def test_another_background_seed_changes_only_the_background() -> None:
    here = render(CAUSES, SEEDS)
    there = render(CAUSES, SEEDS, background_seeds=SEEDS + np.uint64(5000))
    assert np.array_equal(here.masks, there.masks)
    inside = (here.masks > 1 - 1e-6)[:, None] & np.ones((1, 3, 1, 1), bool)
    assert np.allclose(here.images[inside], there.images[inside], atol=1e-5)
    outside = (here.masks < 0.01)[:, None] & np.ones((1, 3, 1, 1), bool)
    assert np.abs(here.images[outside] - there.images[outside]).mean() > 0.02


def test_images_are_in_range_and_objects_are_large_enough() -> None:
    rendered = render(CAUSES, SEEDS)
    assert rendered.images.dtype == np.float32 and rendered.images.shape == (150, 3, 64, 64)
    assert rendered.images.min() >= 0 and rendered.images.max() <= 1
    area = rendered.masks.mean((1, 2))
    assert area.min() > 0.03 and area.max() < 0.75
    assert 0.1 < rendered.images.std() < 0.4


def test_every_cause_changes_the_picture() -> None:
    base = {"shape": 3, "texture": 1, "scene": 2, "light": 0, "weather": 0}
    seed = np.array([5], dtype=np.uint64)

    def picture(**change: int) -> np.ndarray:
        return render(Causes(**{k: np.array([v]) for k, v in {**base, **change}.items()}), seed).images

    for cause in base:
        assert np.abs(picture() - picture(**{cause: base[cause] + 1})).mean() > 0.005, cause


def test_shapes_differ_from_one_another() -> None:
    n = len(SHAPES)
    same = np.ones(n, dtype=np.float32)
    masks = object_masks(np.arange(n), Placement(0 * same, 0 * same, 0.75 * same, 0 * same))
    for a in range(n):
        for b in range(a):
            union = np.maximum(masks[a], masks[b]).sum()
            assert np.minimum(masks[a], masks[b]).sum() / union < 0.9, (SHAPES[a], SHAPES[b])


def test_placement_and_novel_shapes() -> None:
    one = np.ones(2, dtype=np.float32)
    place = Placement(-0.5 * one, 0.25 * one, 0.3 * one, 0 * one)
    novel = {**SHAPE_FUNCTIONS, "dot": lambda x, y: circle(x, y, 0, 0, 0.9)}
    causes = Causes(*(np.full(2, v) for v in (len(SHAPES), 0, 1, 0, 0)))
    masks = render(causes, SEEDS[:2], size_px=96, place=place, shape_functions=novel).masks
    rows, columns = np.nonzero(masks[0] > 0.5)
    assert abs((columns.mean() + 0.5) / 48 - 1 + 0.5) < 0.02 and abs((rows.mean() + 0.5) / 48 - 1 - 0.25) < 0.02
    assert abs((columns.max() - columns.min() + 1) / 96 - 0.27) < 0.03


def test_rate_is_a_thousand_images_a_second() -> None:
    render(CAUSES, SEEDS)
    begun = time.process_time()
    for _ in range(3):
        render(CAUSES, SEEDS)
    assert 3 * len(SEEDS) / (time.process_time() - begun) > 1000


def test_captions_are_true_and_in_the_vocabulary() -> None:
    words = set(vocabulary())
    captions = oracle_captions(CAUSES, SEEDS)
    for i, caption in enumerate(captions):
        assert set(caption.text.split()) <= words
        assert SHAPES[CAUSES.shape[i]] in caption.text.split()
        assert all(v in (-1, getattr(CAUSES, k)[i]) for v, k in zip(caption.named, _CAUSE_NAMES, strict=True))
    assert len({c.named for c in captions}) > 50 and set(LEVELS) <= words


_CAUSE_NAMES = ("shape", "texture", "scene", "light", "weather")


def test_the_renderer_needs_no_torch() -> None:
    code = "import sys, harness.microworld.renderer, harness.microworld.towers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
