"""Texture bias: names, counts, known values, intervals, validity checks."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from harness.core.errors import DataMissing, UserError
from harness.stats.estimate import bootstrap_two_way, cluster_sums, resample_strata, resample_two_way
from suites.bias.cards import CueConflictCard
from suites.bias.texture import (
    cue_table,
    parse_name,
    predict_rows,
    read_stimuli,
    score,
    texture_inclination,
    ti_statistic,
)
from tests.suites.bias.conftest import values, with_answers

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (120, 120, 120),
    "pink": (240, 150, 180), "brown": (110, 70, 20), "cyan": (30, 220, 220), "yellow": (230, 220, 40),
}  # fmt: skip


def test_the_manifest_holds_1280_stimuli_of_sixteen_categories(manifest):
    items = [parse_name(row["relpath"]) for row in manifest]
    assert len(items) == 1280
    assert sum(item.shape != item.texture for item in items) == 1200
    assert len({item.shape_source for item in items}) == 160
    assert len({item.texture_source for item in items}) == 48
    pairs = Counter((item.shape, item.texture) for item in items)
    assert len(pairs) == 256 and set(pairs.values()) == {5}
    for item, row in zip(items, manifest, strict=True):
        assert (item.shape, item.shape_source) == (row["shape"], row["shape_source"])
        assert (item.texture, item.texture_source) == (row["texture"], row["texture_source"])


def test_experiment_prefixes_are_dropped_from_stimulus_names():
    item = parse_name("0001_s5n_dnn_0_airplane_00_airplane10-boat3.png")
    assert (item.shape_source, item.texture_source) == ("airplane10", "boat3")
    for wrong in ("airplane10.png", "airplane10-boat3.jpg", "10airplane-3boat.png"):
        with pytest.raises(UserError, match="not a cue-conflict file name"):
            parse_name(wrong)


def test_ti_of_every_observer_is_reproduced_exactly(stimuli, answers, reference_values):
    card = CueConflictCard.load()
    expected = [row for row in reference_values["networks_from_per_image_files"]["rows"] if row["observer"] in answers]
    assert len(expected) == len(answers) == 19
    for row in expected:
        rows = with_answers(stimuli, answers[row["observer"]])
        table, conflict = cue_table(rows)
        assert table.sum(axis=0).tolist() == [row["shape"], row["texture"]] and conflict.sum() == 1200
        found = values(score(rows, card))
        assert 100 * found["TI"].value == pytest.approx(row["TI_pct"], abs=1e-4)
        assert 100 * found["shape_bias"].value == pytest.approx(row["shape_bias_pct"], abs=1e-4)
        assert 100 * found["texture_rate"].value == pytest.approx(row["texture_of_all_conflict_pct"], abs=1e-4)
        assert 100 * found["cue_coverage"].value == pytest.approx(row["cue_coverage_pct"], abs=1e-4)
        if row["same_class_acc_pct"] is not None:
            same = found["same_category_accuracy"]
            assert 100 * same.value == pytest.approx(row["same_class_acc_pct"], abs=1e-4) and same.n == 80


def test_ti_of_pooled_humans_and_of_known_counts(stimuli, answers):
    humans = [name for name in answers if name.startswith("human:")]
    counts = sum(cue_table(with_answers(stimuli, answers[name]))[0].sum(axis=0) for name in humans)
    assert len(humans) == 10 and counts.tolist() == [9236, 398]
    resnet = texture_inclination(with_answers(stimuli, answers["mvh:resnet50"]))
    assert (round(100 * resnet.value, 4), resnet.n) == (78.5805, 789)


def test_ti_of_toy_observers(stimuli):
    shape, texture = np.asarray(["cat"] * 5), np.asarray(["dog"] * 5)
    rows = {"shape": shape, "texture": texture, "answer": np.asarray(["cat", "dog", "dog", "dog", "car"])}
    assert texture_inclination(rows).value == 0.75
    nothing = texture_inclination(rows | {"answer": np.asarray(["car"] * 5)})
    assert nothing.value is None and "no conflict image" in nothing.reason
    result = score(with_answers(stimuli, np.full(1280, "dog")), CueConflictCard.load())
    found = values(result)
    assert (found["TI"].value, found["TI"].n, found["cue_coverage"].value) == (0.5, 150, 0.125)


def test_ti_at_the_border_keeps_an_honest_interval():
    rows = {"shape": ["cat"] * 4, "texture": ["dog"] * 4, "answer": ["dog"] * 4}
    estimate = texture_inclination(rows)
    assert estimate.value == 1.0 and estimate.low < 0.6 and estimate.method == "wilson"


def test_ti_standard_errors_and_their_reproducibility(stimuli, answers):
    rows = with_answers(stimuli, answers["mvh:resnet50"])
    table, conflict = cue_table(rows)
    shapes, textures = stimuli["shape_source"][conflict], stimuli["texture_source"][conflict]
    image = 100 * ti_statistic(resample_strata([table], 0))
    cluster = 100 * ti_statistic(resample_strata([cluster_sums(table, shapes)], 0))
    two_way = 100 * ti_statistic(resample_two_way(table, shapes, textures, 0))
    assert image.std() == pytest.approx(1.45, abs=0.1)
    assert cluster.std() == pytest.approx(2.2, abs=0.15)
    assert two_way.std() == pytest.approx(4.0, abs=0.3)
    for unit in ("image", "shape source", "two-way"):
        first, again = texture_inclination(rows, unit, seed=3), texture_inclination(rows, unit, seed=3)
        assert first == again and first.low < first.value < first.high
    direct = bootstrap_two_way(ti_statistic, table, shapes, textures, seed=3, population="new stimuli", n=789)
    assert direct == texture_inclination(rows, "two-way", seed=3)


def test_constant_and_random_answers_are_flagged_and_a_network_is_not(stimuli, answers):
    card = CueConflictCard.load()
    assert all(check.passed for check in score(with_answers(stimuli, answers["mvh:resnet50"]), card).checks)
    names = np.asarray(list(card.categories))
    for answer in (np.full(1280, "dog"), np.random.default_rng(0).choice(names, 1280)):
        checks = score(with_answers(stimuli, answer), card).checks
        assert [check.passed for check in checks] == [False, False]
        assert [check.threshold for check in checks] == [0.40, 0.50]


# --- reading and classifying files ------------------------------------------------------------------------


@pytest.fixture
def small_set(tmp_path, save_image):
    """Every ordered pair of eight colours; an image has the colour of its texture. Returns (root, card)."""
    root = tmp_path / "cue-conflict"
    for (i, shape), (j, texture) in itertools.product(enumerate(COLOURS), repeat=2):
        path = root / shape / f"{shape}{1 + j % 4}-{texture}{1 + (i + j) % 3}.png"
        save_image(path, COLOURS[texture], noise=1 + i + 10 * j)
    card = CueConflictCard.load(
        {"name": "small", "attribution": "", "categories": {name: [f"c-{name}"] for name in COLOURS},
         "image_size": 24, "expected_images": 64, "expected_conflict": 56}
    )  # fmt: skip
    return tmp_path, card


def by_class(colours):
    return {f"c-{name}": colour for name, colour in colours.items()}


def test_texture_classifier_is_measured_from_files(small_set, colour_classifier):
    root, card = small_set
    calls = []
    model = colour_classifier(by_class(COLOURS))
    rows = predict_rows(model, root, card, lambda *facts: calls.append(facts))
    assert (rows["answer"] == rows["texture"]).all() and len(rows["image"]) == 64
    assert rows["top1"][0].startswith("c-") and len(rows["top5"][0].split()) == 5
    result = score(rows, card)
    assert values(result)["TI"].value == 1.0 and all(check.passed for check in result.checks)
    assert calls[-1] == (64, 64, "images")


def test_untrained_and_constant_classifiers_are_flagged(small_set, colour_classifier, untrained_network):
    root, card = small_set
    for model in (untrained_network(by_class(COLOURS)), colour_classifier(by_class(COLOURS), gain=0.0)):
        result = score(predict_rows(model, root, card), card)
        verdicts = [check.passed for check in result.checks if check.name == "same-category accuracy"]
        assert verdicts == [False]


def test_saved_rows_give_equal_metrics(small_set, colour_classifier, untrained_network, tmp_path):
    import pandas as pd

    root, card = small_set
    rows = predict_rows(untrained_network(by_class(COLOURS)), root, card)
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet", index=False)
    assert score(pd.read_parquet(tmp_path / "rows.parquet"), card) == score(rows, card)


def test_head_without_a_category_is_refused_before_reading(tmp_path, small_set, colour_classifier):
    _, card = small_set
    seven = {name: colour for name, colour in by_class(COLOURS).items() if name != "c-grey"}
    with pytest.raises(UserError, match="covers 7 of 8") as caught:
        predict_rows(colour_classifier(seven), tmp_path / "nowhere", card)
    assert "grey" in caught.value.why


def test_damaged_sets_are_refused(small_set, save_image):
    root, card = small_set
    base = root / "cue-conflict"
    with pytest.raises(DataMissing):
        read_stimuli(root / "absent", card)
    (base / "red" / "red3-blue3.png").rename(base / "green" / "red3-blue3.png")
    with pytest.raises(UserError, match="does not belong here"):
        read_stimuli(root, card)
    (base / "green" / "red3-blue3.png").unlink()
    with pytest.raises(UserError, match="63 images"):
        read_stimuli(root, card)


def test_wrong_size_and_undecodable_files_are_named(small_set, save_image, colour_classifier):
    root, card = small_set
    victim = root / "cue-conflict" / "red" / "red3-blue3.png"
    save_image(victim, (1, 2, 3), size=(30, 24))
    with pytest.raises(UserError, match=r"red3-blue3\.png is 30x24"):
        predict_rows(colour_classifier(by_class(COLOURS)), root, card)
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(UserError, match=r"red3-blue3\.png cannot be read as an image"):
        predict_rows(colour_classifier(by_class(COLOURS)), root, card)


def test_broken_outputs_are_refused(small_set, colour_classifier):
    root, card = small_set

    class Broken(colour_classifier):
        def __call__(self, images):
            return super().__call__(images) * float("nan")

    class TooWide(colour_classifier):
        def __call__(self, images):
            import torch

            return torch.zeros(len(images), 7)

    with pytest.raises(UserError, match="not finite"):
        predict_rows(Broken(by_class(COLOURS)), root, card)
    with pytest.raises(UserError, match="7 outputs but lists 8"):
        predict_rows(TooWide(by_class(COLOURS)), root, card)


# --- what a record says of each number ------------------------------------------------------------------------


def small_rows():
    """Six conflict images (three shape answers, two texture answers, one neither) and two of equal cues, one right."""
    rows = {
        "shape": ["cat", "cat", "cat", "dog", "dog", "dog", "cat", "dog"],
        "texture": ["dog", "dog", "dog", "cat", "cat", "cat", "cat", "dog"],
        "answer": ["cat", "cat", "dog", "dog", "cat", "car", "cat", "car"],
        "shape_source": ["cat1", "cat1", "cat2", "dog1", "dog1", "dog2", "cat1", "dog1"],
        "texture_source": ["dog1", "dog2", "dog1", "cat1", "cat1", "cat2", "cat1", "dog1"],
        "tied": [True] + [False] * 7, "converted": [True, True] + [False] * 6, "truncated": [False] * 7 + [True],
    }  # fmt: skip
    return {name: np.asarray(column) for name, column in rows.items()}


def test_a_texture_record_says_of_each_number_how_and_for_whom():
    result = score(small_rows(), CueConflictCard.load())
    facts = {
        m.name: (m.unit, m.better, m.role, m.estimate.population, m.estimate.method, m.estimate.n)
        for m in result.metrics
    }
    images = "these sources, new images"
    assert facts == {
        "TI": ("fraction", "lower", "primary", images, "bootstrap (image)", 5),
        "TI_shape_sources": ("fraction", "lower", "companion", "new shape sources", "bootstrap (shape source)", 5),
        "TI_two_way": ("fraction", "lower", "companion", "new stimuli", "bootstrap (two-way)", 5),
        "shape_bias": ("fraction", "higher", "companion", images, "bootstrap (image)", 5),
        "texture_rate": ("fraction", "neither", "companion", images, "wilson", 6),
        "shape_rate": ("fraction", "neither", "companion", images, "wilson", 6),
        "neither_rate": ("fraction", "neither", "companion", images, "wilson", 6),
        "cue_coverage": ("fraction", "higher", "companion", images, "wilson", 6),
        "same_category_accuracy": ("fraction", "higher", "companion", images, "wilson", 2),
    }
    found = values(result)
    expected = (("TI", 2 / 5), ("shape_bias", 3 / 5), ("texture_rate", 2 / 6), ("shape_rate", 3 / 6), ("neither_rate", 1 / 6),
                ("cue_coverage", 5 / 6), ("same_category_accuracy", 1 / 2))  # fmt: skip
    for name, value in expected:
        assert found[name].value == pytest.approx(value), name
    assert (found["shape_bias"].low, found["shape_bias"].high) == pytest.approx(
        (1 - found["TI"].high, 1 - found["TI"].low)
    )
    assert result.metrics[0].beside == ("cue_coverage", "same_category_accuracy")
    assert result.notes == (
        "s = 3, t = 2, neither = 1, of 6 conflict images", "2 files were not stored as RGB",
        "1 files ended early and were completed", "1 answers were tied; the first category in map order was taken",
    )  # fmt: skip
    checks = [(c.name, c.passed, c.threshold, c.value, c.meaning) for c in result.checks]
    assert checks == [
        ("cue coverage", True, 0.4, 5 / 6, "answers name one of the two cues"),
        ("same-category accuracy", True, 0.5, 0.5, "answers are right where the cues agree"),
    ]


def test_the_seed_of_a_score_reaches_every_interval_and_an_undefined_ti_leaves_its_complement_undefined():
    rows = {name: np.tile(column, 20) for name, column in small_rows().items()}
    found = values(score(rows, CueConflictCard.load(), seed=3))
    units = {"TI": "image", "TI_shape_sources": "shape source", "TI_two_way": "two-way"}
    assert {name: found[name] for name in units} == {
        name: texture_inclination(rows, unit, 3) for name, unit in units.items()
    }
    assert found["TI_two_way"] != texture_inclination(rows, "two-way", 0)
    nothing = values(score(rows | {"answer": np.full(160, "car")}, CueConflictCard.load()))
    assert nothing["TI"].value is nothing["shape_bias"].value is nothing["shape_bias"].low is None


def test_ti_without_any_cue_answer_is_undefined_and_answers_of_people_stay_with_their_stimulus():
    rows = small_rows()
    nothing = texture_inclination(rows | {"answer": np.full(8, "car")}, "shape source")
    assert (nothing.value, nothing.population, nothing.method) == (
        None,
        "new shape sources",
        "bootstrap (shape source)",
    )
    assert nothing.reason == "no conflict image was answered with its shape or its texture"
    border = texture_inclination(rows | {"answer": rows["shape"]}, "two-way")
    assert (border.value, border.n, border.method, border.population) == (0.0, 6, "wilson", "new stimuli")
    many = {name: np.repeat(column, 30) for name, column in rows.items()}
    plain, people = (
        texture_inclination(many | extra, "image") for extra in ({}, {"stimulus": np.repeat(np.arange(8), 30)})
    )
    assert plain.value == people.value and people.n == 150 and people.method == "bootstrap (image)"
    assert people.high - people.low > 3 * (plain.high - plain.low), "thirty people saw each of five images"
