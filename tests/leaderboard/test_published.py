"""The paper's numbers: recomputed means, wrong averages, differences against noise."""

from __future__ import annotations

import pytest

from leaderboard.published import ARXIV, judgements, rows, sections

MEANS = {
    (1, "ResNet50", "IN-Real"): 70.9125, (1, "ResNet50", "IN-SD1.5"): 69.9625, (1, "ResNet50", "IN-GenRobust"): 67.15,
    (1, "ResNet50", "IN-RealFake"): 71.9875, (1, "ResNet50", "IN-lbGen"): 73.95, (1, "ViT-S", "IN-lbGen"): 74.4,
    (4, "ResNet50", "IN100-Real"): 55.725, (4, "ResNet50", "IN100-lbGen-no_quality"): 53.8,
}  # fmt: skip
WRONG = {(1, "ResNet50", f"IN-{name}") for name in ("Real", "SD1.5", "GenRobust", "RealFake", "lbGen")} | {
    (1, "ViT-S", "IN-GenRobust"),
    (4, "ResNet50", "IN100-Real"),
}


def test_published_averages_are_recomputed_and_the_seven_wrong_ones_are_flagged() -> None:
    every = {(row.table, row.backbone, row.data): row for row in rows()}
    for name, mean in MEANS.items():
        assert every[name].mean == pytest.approx(mean, abs=1e-9)
    assert {name for name, row in every.items() if row.average_is_wrong} == WRONG


@pytest.mark.parametrize(
    ("backbone", "first", "second", "metric", "verdicts"),
    [
        ("ResNet50", "IN-SD1.5", "IN-Real", "TI", {"noise"}),
        ("ResNet50", "IN-lbGen", "IN-Real", "TI", {"suggestive"}),
        ("ViT-S", "IN-lbGen", "IN-Real", "TI", {"beyond noise"}),
        ("ResNet50", "IN-lbGen", "IN-Real", "CB_avg", {"noise", "borderline"}),
        ("ViT-S", "IN-lbGen", "IN-Real", "CB_avg", {"noise", "borderline"}),
        ("ResNet50", "IN-RealFake", "IN-Real", "CB_avg", {"noise"}),
        ("ResNet50", "IN-GenRobust", "IN-Real", "CB_avg", {"suggestive"}),
        ("ResNet50", "IN-lbGen", "IN-Real", "BG_Gap", {"noise"}),
        ("ViT-S", "IN-lbGen", "IN-Real", "BG_Gap", {"noise"}),
        ("ResNet50", "IN-lbGen", "IN-SD1.5", "BG_Gap", {"borderline"}),
    ],
)
def test_published_differences_are_judged(
    backbone: str, first: str, second: str, metric: str, verdicts: set[str]
) -> None:
    (one,) = [
        j
        for j in judgements()
        if (j.table, j.backbone, j.first, j.second, j.metric) == (3, backbone, first, second, metric)
    ]
    assert one.verdict in verdicts


def test_the_page_names_source_and_table_and_never_ranks() -> None:
    text = "\n".join(section.markdown() for section in sections())
    assert ARXIV in text and all(f"### Table {n}" in text for n in (1, 2, 3, 4))
    assert "| ResNet50 IN-Real |" in text and "71.5 ✗ | 70.91 |" in text and "73.2 ✗ | 73.95 |" in text
    assert all(j.verdict == "not judged" for j in judgements() if "@" in j.metric)
