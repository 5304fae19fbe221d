"""Tables of the paper: averages over exactly the eight transfer columns."""

from __future__ import annotations

import pytest

from leaderboard.published import rows

MEANS = {
    (1, "ResNet50", "Real"): 70.9125, (1, "ResNet50", "SD1.5"): 69.9625, (1, "ResNet50", "GenRobust"): 67.15,
    (1, "ResNet50", "RealFake"): 71.9875, (1, "ResNet50", "lbGen"): 73.95, (1, "ViT-S", "Real"): 72.2625,
    (1, "ViT-S", "SD1.5"): 69.85, (1, "ViT-S", "GenRobust"): 66.125, (1, "ViT-S", "RealFake"): 70.775,
    (1, "ViT-S", "lbGen"): 74.4, (4, "ResNet50", "Real"): 55.725, (4, "ResNet50", "lbGen"): 58.45,
    (4, "ResNet50", "no_entire"): 53.6625, (4, "ResNet50", "no_individual"): 42.9375, (4, "ResNet50", "no_quality"): 53.8,
    (4, "ResNet50", "SD1.5"): 53.2375, (4, "ResNet50", "clip_base"): 56.7125,
}  # fmt: skip


def test_transfer_paper_tables_means_of_eight_columns() -> None:
    found = sorted(row.mean for row in rows() if row.mean is not None)
    assert len(found) == 17
    assert found == pytest.approx(sorted(MEANS.values()), abs=1e-9)


def test_transfer_paper_tables_seven_averages_are_flagged() -> None:
    flagged = [row for row in rows() if row.average_is_wrong]
    kinds = sorted((row.table, row.backbone) for row in flagged)
    assert kinds == [(1, "ResNet50")] * 5 + [(1, "ViT-S"), (4, "ResNet50")]
    assert {round(row.mean or 0, 2) for row in flagged if row.table == 1 and row.backbone == "ViT-S"} == {66.12}
    (at_the_bound,) = [row for row in rows() if row.mean is not None and abs(row.mean - 53.8) < 1e-9]
    assert at_the_bound.printed_average == 53.7 and not at_the_bound.average_is_wrong
