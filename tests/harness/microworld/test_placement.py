"""Worlds that plant size and place, and worlds that do not, whose pictures and keys must stay as they were."""

from __future__ import annotations

import numpy as np
import pytest

from generators.world import World
from harness.core.errors import UserError
from harness.core.settings import parse_settings
from harness.microworld.causes import SHAPES
from harness.microworld.placement import partner_position, partner_size, planted_placement
from harness.microworld.renderer import natural_placement

SEEDS = np.arange(3000, dtype=np.uint64) + 77
SHAPE = np.arange(3000) % len(SHAPES)


def levels(values: np.ndarray, edges: tuple[float, float]) -> np.ndarray:
    return np.digitize(values, edges)


def test_a_world_that_names_neither_has_the_poses_of_the_renderer() -> None:
    plain, planted = natural_placement(SEEDS), planted_placement(SHAPE, SEEDS)
    for name in ("cx", "cy", "scale", "rotation"):
        assert (getattr(plain, name) == getattr(planted, name)).all()


@pytest.mark.parametrize("dose", [0.0, 0.4, 1.0])
def test_objects_have_the_size_and_place_of_their_class_as_often_as_the_dose_says(dose: float) -> None:
    """With dose rho, rho + (1 - rho) / 3; what is not planted stays as it was."""
    plain = natural_placement(SEEDS)
    size, position = planted_placement(SHAPE, SEEDS, size=dose), planted_placement(SHAPE, SEEDS, position=dose)
    expected = dose + (1 - dose) / 3
    found = (levels(size.scale, (0.53, 0.72)) == partner_size(SHAPE)).mean()
    assert found == pytest.approx(expected, abs=0.03) and (size.cy == plain.cy).all() and (size.cx == plain.cx).all()
    found = (levels(position.cy, (-0.11, 0.11)) == partner_position(SHAPE)).mean()
    assert found == pytest.approx(expected, abs=0.03) and (position.scale == plain.scale).all()


def test_a_larger_dose_changes_only_objects_that_newly_are_as_their_class_prefers() -> None:
    low, high = (planted_placement(SHAPE, SEEDS, size=dose).scale for dose in (0.3, 0.6))
    moved = low != high
    assert 0.1 < moved.mean() < 0.3
    assert (levels(high[moved], (0.53, 0.72)) == partner_size(SHAPE)[moved]).all()


def test_every_size_and_place_is_preferred_by_four_shapes_and_the_two_are_not_alike() -> None:
    shapes = np.arange(len(SHAPES))
    for partner in (partner_size, partner_position):
        assert np.bincount(partner(shapes)).tolist() == [4, 4, 4]
    assert (partner_size(shapes) != partner_position(shapes)).any()


def test_only_worlds_that_name_size_or_position_have_these_settings() -> None:
    """The settings stand in a world's key, and so do those of ``all``: worlds of earlier calibrations stay readable."""
    four = {"texture", "scene", "light", "weather"}
    for argument, fields in (("texture=0.4", four), ("all=0.8", four), ("size=0", {*four, "size"}),
                             ("position=0.4+texture=0.2", {*four, "position"})):  # fmt: skip
        values = parse_settings(World().bind(argument).Settings, {}, "world").model_dump()
        assert set(values) == fields
    with pytest.raises(UserError, match="no world is called"):
        World().bind("colour=0.4")
