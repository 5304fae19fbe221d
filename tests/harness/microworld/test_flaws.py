"""Worlds with flaws: shares of copies, missing looks, wrong labels and colour casts are those that were planted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from generators.world import FLAWS, World
from harness.core.settings import parse_settings
from harness.microworld import flaws
from harness.microworld.causes import BALANCED, SHAPES, draw_causes

SEEDS = np.arange(4000, dtype=np.uint64) * 7 + 3
INDICES = np.arange(4000)


def samples(argument: str, count: int = 40) -> np.ndarray:
    """Return the pictures of one class of a world: (n, 64, 64, 3)."""
    settings = parse_settings(World().bind(argument).Settings, {}, "world").model_dump()
    request = SimpleNamespace(class_name="star", start=0, stop=count, size_px=64, seed=lambda index: 1000 + 17 * index)
    made = World().synthesise(SimpleNamespace(params={"settings": settings}), request)  # type: ignore[arg-type]
    return np.stack([sample.image for sample in made]).astype(int)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_planted_share_is_found(share: float) -> None:
    shape = np.full(4000, 3)
    copies = flaws.copied(INDICES, SEEDS, share)
    assert 2 * copies.mean() == pytest.approx(share, abs=0.03) and not copies[::2].any(), "an original stays"
    drawn = flaws.mislabelled(shape, SEEDS, share)
    assert (drawn != 3).mean() == pytest.approx(share, abs=0.03)
    if share:
        wrong = np.bincount(drawn[drawn != 3], minlength=len(SHAPES)) / (drawn != 3).sum()
        assert wrong[3] == 0 and np.delete(wrong, 3) == pytest.approx(1 / 11, abs=0.03), "all others alike"
    modes = flaws.without_modes(draw_causes(shape, SEEDS, BALANCED), share)
    assert len(np.unique(modes.texture)) == round(12 * (1 - share))
    assert len(np.unique(modes.scene)) == round(8 * (1 - share))
    blank = flaws.finish(np.ones((4000, 3, 1, 1), dtype=np.float32), np.zeros(4000, dtype=bool), SEEDS, share)
    assert (blank[:, 2, 0, 0] < 1).mean() == pytest.approx(share, abs=0.03)


def test_a_world_without_flaws_has_the_pictures_it_had_and_copies_are_near_their_originals() -> None:
    plain, doubled = samples("all=0"), samples("duplicates=1")
    assert (samples("tint=0+labels=0+modes=0+duplicates=0") == plain).all()
    assert (doubled[::2] == plain[::2]).all()
    apart = doubled[1::2] - doubled[::2]
    assert apart.min() >= 0 and 0 < apart.max() <= 3, (
        "a copy is brighter by at most three steps, so its bytes are others"
    )
    assert np.abs(plain[1::2] - plain[::2]).max() > 50


def test_only_worlds_that_name_a_flaw_have_its_setting() -> None:
    """Settings stand in a world's key: those of earlier worlds stay as they were."""
    for flaw in FLAWS:
        with_it = parse_settings(World().bind(f"{flaw}=0.4").Settings, {}, "world").model_dump()
        assert set(with_it) == {"texture", "scene", "light", "weather", flaw}
    assert FLAWS == flaws.FLAWS
