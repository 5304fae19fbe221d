"""Heads that lack categories: coverage facts, refusal, names of their own, and the same answers from a restricted head."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.core.settings import parse_settings
from harness.plan.profile import load_profile
from harness.stats.estimate import totals_of
from suites.bias import background, context, texture
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.heads import restrict_logits
from suites.bias.maps import ClassMap
from suites.bias.settings import TextureSettings
from suites.context_bias import ContextBias
from tests.suites.bias.conftest import values, with_answers

CARDS = {"cue_conflict": CueConflictCard.load(), "in9": In9Card.load(), "focus": FocusCard.load()}
IN100 = load_classes("imagenet100").ids


def head_of(name, classes=IN100):
    return ClassMap.of(CARDS[name].categories).bind(classes)


@pytest.mark.parametrize(("name", "covered", "total"), [("cue_conflict", 7, 16), ("in9", 8, 9), ("focus", 5, 10)])
def test_coverage_of_the_cmc_list_is_computed(name, covered, total, in100_coverage):
    facts, card = in100_coverage[name], CARDS[name]
    for classes in (IN100, in100_coverage["in100_order_in_file"]):
        head = head_of(name, classes)
        assert set(head.covered) == set(facts["covered"]) and set(head.uncovered) == set(facts["uncovered"])
        assert (len(head.covered), len(card.categories)) == (covered, total)
        found = {c: {classes[i] for i in members} for c, members in zip(head.categories, head.members, strict=True)}
        assert found == {category: set(ids) for category, ids in facts["members"].items()}


@pytest.mark.parametrize(("name", "metric"), [("cue_conflict", "TI"), ("in9", "BG_Gap"), ("focus", "CB_avg")])
def test_standard_metrics_refuse_and_list_what_is_missing(name, metric, in100_coverage):
    with pytest.raises(UserError, match=f"{metric} is undefined") as caught:
        head_of(name).require(metric)
    assert all(category in caught.value.why for category in in100_coverage[name]["uncovered"])
    assert "restricted=true" in caught.value.fix
    head_of(name).require(metric, restricted=True)
    with pytest.raises(UserError, match="covers [01] of"):
        head_of(name, ["n02123045"]).require(metric, restricted=True)


def test_images_that_a_restricted_head_sees(manifest, focus_counts, in100_coverage):
    covered = set(head_of("cue_conflict").covered)
    seen = [row for row in manifest if {row["shape"], row["texture"]} <= covered]
    facts = in100_coverage["cue_conflict"]
    conflict = sum(row["is_conflict"] == "1" for row in seen)
    assert (conflict, len(seen) - conflict) == (210, 35)
    assert conflict == facts["n_conflict_images_with_both_cues_covered"]
    kept = np.isin(focus_counts["category"], head_of("focus").covered)
    sizes = np.bincount(context.uncommon_count(focus_counts)[kept]).tolist()
    assert sizes == [8419, 2476, 238, 6] == list(in100_coverage["focus"]["partition_sizes_covered_categories"].values())
    assert 450 * len(head_of("in9").covered) == 3600 == in100_coverage["in9"]["n_images_per_variation_covered"]


def names_of(score, role="primary"):
    return [metric.name for metric in score.metrics if metric.role == role]


def test_ti_carries_its_coverage(stimuli, answers):
    kept = np.isin(stimuli["shape"], head_of("cue_conflict").covered)
    kept &= np.isin(stimuli["texture"], head_of("cue_conflict").covered)
    rows = {name: column[kept] for name, column in with_answers(stimuli, answers["mvh:resnet50"]).items()}
    members = dict(zip(head_of("cue_conflict").categories, head_of("cue_conflict").counts(), strict=True))
    rows |= {"members": np.asarray([members[name] for name in rows["shape"]]), "coverage": np.full(245, "7of16")}
    score = texture.score(rows, CARDS["cue_conflict"])
    assert score.metrics[0].beside == ("cue_coverage@7of16", "same_category_accuracy@7of16")
    assert names_of(score) == ["TI@7of16"] and all(name.endswith("@7of16") for name in names_of(score, "companion"))
    table, _ = texture.cue_table(rows)
    s, t = table.sum(axis=0)
    assert (
        values(score)["TI@7of16"].value == pytest.approx(t / (s + t)) and values(score)["cue_coverage@7of16"].n == 210
    )
    assert "covers 7 of 16 categories" in score.notes[0] and "dog 17" in score.notes[0] and "cat 1" in score.notes[0]


def test_cb_avg_is_undefined_with_its_six_images(focus_counts):
    head = head_of("focus")
    kept = np.isin(focus_counts["category"], head.covered)
    rows = {name: column[kept] for name, column in focus_counts.items()}
    label = np.asarray([head.categories.index(name) for name in rows["category"]])
    rows |= {
        "correct": rows["correct:resnet50"],
        "chance": head.counts()[label] / head.width,
        "members": head.counts()[label],
        "coverage": np.full(len(label), "5of10"),
    }
    score = context.score(rows, CARDS["focus"])
    assert set(names_of(score)) == {"CB_avg", "CB_1@5of10", "CB_2@5of10"}
    assert [check.name for check in score.checks] == ["Acc_0"]
    assert {m.beside for m in score.metrics if m.role == "primary"} == {("Acc_0@5of10",)}
    found = values(score)
    for name in ("CB_avg", "CB_3", "CB_3_standardised"):
        assert found[name].value is None and found[name].reason == "6 images in P3"
    k, correct = context.uncommon_count(rows), rows["correct"]
    assert found["CB_1@5of10"].value == pytest.approx(correct[k == 1].mean() / correct[k == 0].mean())
    assert found["CB_2@5of10"].n == 238 and "CB_12@5of10" in found and "CB_1" not in found
    paired = ContextBias().units(rows | {"image": np.arange(len(label)).astype(str)}, None, None, {}, names_of(score))
    assert [units.metric for units in paired] == ["CB_1@5of10", "CB_2@5of10"]
    for units in paired:
        assert units.apply(totals_of(units.tables()))[0] == pytest.approx(found[units.metric].value)


def test_gap_carries_its_coverage():
    n = 3600
    label = np.arange(n) % 8
    rows = {
        "variation": np.repeat(background.VARIATIONS, n),
        "foreground": np.tile([f"n{i:08d}_{i:05d}" for i in range(n)], 3),
        "label": np.tile(label, 3),
        "correct": np.concatenate([np.arange(n) < count for count in (3400, 3000, 2700)]),
        "converted": np.zeros(3 * n, dtype=bool),
        "truncated": np.zeros(3 * n, dtype=bool),
        "members": np.tile(head_of("in9").counts()[label], 3),
        "coverage": np.full(3 * n, "8of9"),
    }
    score = background.score(rows, CARDS["in9"])
    assert names_of(score) == ["BG_Gap@8of9"]
    assert (values(score)["BG_Gap@8of9"].n, values(score)["BG_Gap@8of9"].value) == (
        3600,
        pytest.approx(100 * 300 / 3600),
    )


# --- from files ---------------------------------------------------------------------------------------------

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (120, 120, 120)}
HEAD = {f"c-{name}": colour for name, colour in COLOURS.items() if name != "grey"}
RESTRICTED = TextureSettings(restricted=True)


@pytest.fixture
def four_colours(tmp_path, save_image):
    """Every ordered pair of four colours; an image has the colour of its texture."""
    for i, shape in enumerate(COLOURS):
        for j, name in enumerate(COLOURS):
            save_image(tmp_path / shape / f"{shape}{1 + j}-{name}{1 + i}.png", COLOURS[name], noise=1 + i + 10 * j)
    changes = {"name": "four", "attribution": "", "categories": {name: [f"c-{name}"] for name in COLOURS}}
    return tmp_path, CueConflictCard.load(changes | {"image_size": 24, "expected_images": 16, "expected_conflict": 12})


def test_restricted_head_is_measured_on_covered_images_only(four_colours, colour_classifier):
    root, card = four_colours
    with pytest.raises(UserError, match="covers 3 of 4"):
        texture.predict_rows(colour_classifier(HEAD), root, card)
    rows = texture.predict_rows(colour_classifier(HEAD), root, card, settings=RESTRICTED)
    assert len(rows["image"]) == 9 and "grey" not in {*rows["shape"], *rows["texture"], *rows["answer"]}
    score = texture.score(rows, card)
    assert values(score)["TI@3of4"].value == 1.0 and values(score)["TI@3of4"].n == 6


def test_permuting_head_and_list_together_changes_nothing(four_colours, colour_classifier):
    root, card = four_colours
    first = texture.predict_rows(colour_classifier(HEAD), root, card, settings=RESTRICTED)
    other = {name: HEAD[name] for name in reversed(HEAD)}
    again = texture.predict_rows(colour_classifier(other), root, card, settings=RESTRICTED)
    assert (first["answer"] == again["answer"]).all() and (first["top1"] == again["top1"]).all()
    assert texture.score(first, card) == texture.score(again, card)


def test_head_without_a_list_is_rejected(four_colours, colour_classifier):
    root, card = four_colours
    nameless = colour_classifier(HEAD)
    nameless.classes = ()
    with pytest.raises(UserError, match="no ordered class list"):
        texture.predict_rows(nameless, root, card, settings=RESTRICTED)


def test_wide_head_narrowed_to_the_list_is_scored_like_a_head_of_that_list(four_colours, colour_classifier, tmp_path):
    root, card = four_colours
    wide = colour_classifier({f"c-{name}": colour for name, colour in COLOURS.items()})
    listed = tmp_path / "three.txt"
    listed.write_text("".join(f"{name} {name[2:]}\n" for name in sorted(HEAD)))
    narrow = TextureSettings(restricted=True, head=str(listed))
    rows = texture.predict_rows(wide, root, card, settings=narrow)
    small = texture.predict_rows(colour_classifier(HEAD), root, card, settings=RESTRICTED)
    assert (rows["answer"] == small["answer"]).all() and set(rows["top1"]) <= set(HEAD)
    assert next(iter(values(texture.score(rows, card)))) == "TI@3of4"
    assert f"narrowed to {listed}" in narrow.wording()
    listed.write_text("c-red red\nc-violet violet\n")
    with pytest.raises(UserError, match="cannot be restricted") as caught:
        restrict_logits(wide, str(listed))
    assert "c-violet" in caught.value.why


def test_profile_in100_asks_for_restricted_suites_and_in1k_for_the_standard_ones():
    for profile, restricted in (("in100", True), ("in1k", False), ("micro", False)):
        suites = load_profile(profile).profile.suites
        for name in ("texture-bias", "context-bias"):
            assert parse_settings(TextureSettings, suites.get(name, {}), name).restricted is restricted
        assert suites.get("background-bias", {}).get("restricted", False) is restricted
