"""Second reading of cue-conflict answers: over all classes, absolute sensitivities, and error consistency with people."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.api import Item
from suites.bias.cards import CueConflictCard
from suites.bias.people import answer_rows
from suites.bias.second_reading import reciprocal_ranks, second_reading
from suites.bias.settings import TextureSettings
from suites.bias.texture import score
from suites.texture_bias import TextureBias
from tests.suites.bias.conftest import values, with_answers

CARD = CueConflictCard.load()
CAT, DOG = (CARD.categories[name][0] for name in ("cat", "dog"))
ELSE = "n00000000"


def reading(rows, card=CARD):
    return {metric.name: metric for metric in second_reading(rows, card)}


def toy():
    """Five conflict images of a cat with the texture of a dog, one dog with its own; answers and the five best classes."""
    best = [
        [CAT, DOG, ELSE, ELSE, ELSE],  # the shape; the texture comes second
        [DOG, ELSE, ELSE, CAT, ELSE],  # the texture; the shape comes fourth
        [ELSE, DOG, ELSE, ELSE, ELSE],  # neither, though the forced choice was the texture
        [ELSE, ELSE, ELSE, ELSE, ELSE],  # neither
        [CAT, ELSE, ELSE, ELSE, DOG],  # the shape; the texture comes fifth
        [DOG, ELSE, ELSE, ELSE, ELSE],
    ]
    n = len(best)
    return {
        "image": np.asarray([f"toy/toy{i}.png" for i in range(n)]),
        "shape": np.asarray(["cat"] * 5 + ["dog"]),
        "texture": np.asarray(["dog"] * n),
        "shape_source": np.asarray([f"s{i}" for i in range(n)]),
        "texture_source": np.asarray([f"t{i % 2}" for i in range(n)]),
        "answer": np.asarray(["cat", "dog", "dog", "bear", "cat", "dog"]),
        "top1": np.asarray([line[0] for line in best]),
        "top5": np.asarray([" ".join(line) for line in best]),
        "tied": np.zeros(n, dtype=bool), "converted": np.zeros(n, dtype=bool), "truncated": np.zeros(n, dtype=bool),
    }  # fmt: skip


def test_top1_over_all_classes_and_sensitivities_by_hand():
    found = {name: metric.estimate for name, metric in reading(toy()).items()}
    assert [found[f"top1_{name}"].value for name in ("shape", "texture", "neither")] == pytest.approx(
        [2 / 5, 1 / 5, 2 / 5]
    )
    assert all(
        found[f"top1_{name}"].n == 5 and found[f"top1_{name}"].method == "wilson" for name in ("shape", "neither")
    )
    assert (found["TI_all_classes"].value, found["TI_all_classes"].n) == (pytest.approx(1 / 3), 3)
    assert found["shape_sensitivity"].value == pytest.approx((1 + 1 / 4 + 0 + 0 + 1) / 5)
    assert found["texture_sensitivity"].value == pytest.approx((1 / 2 + 1 + 1 / 2 + 0 + 1 / 5) / 5)
    assert (found["shape_accuracy"].value, found["shape_accuracy"].n) == (pytest.approx(3 / 6), 6), (
        "images that agree count"
    )
    assert values(score(toy(), CARD))["TI"].value == pytest.approx(1 / 2), "the forced choice says one half"


def test_a_rank_is_that_of_the_best_class_of_the_category():
    two = CARD.categories["dog"][:2]
    rows = toy() | {"top5": np.asarray([f"{ELSE} {two[1]} {two[0]}"] * 6)}
    assert reciprocal_ranks(rows, CARD)[:, 1].tolist() == [0.5] * 6


def test_two_networks_of_equal_ti_can_differ_in_what_they_read():
    """One that names both cues often, one that hardly names any; their TI is the same."""
    strong = toy() | {"answer": np.asarray(["cat", "cat", "dog", "dog", "bear", "dog"])}
    weak = toy() | {
        "answer": np.asarray(["cat", "dog", "bear", "bear", "bear", "dog"]),
        "top5": np.asarray([" ".join([CAT, *[ELSE] * 4]), " ".join([DOG, *[ELSE] * 4]), *[" ".join([ELSE] * 5)] * 4]),
    }
    assert values(score(strong, CARD))["TI"].value == values(score(weak, CARD))["TI"].value == 0.5
    found = [reading(rows)["shape_sensitivity"].estimate.value for rows in (strong, weak)]
    assert found == pytest.approx([0.45, 0.2])


def test_rows_of_older_versions_say_why_nothing_is_known(answers, stimuli):
    rows = with_answers(stimuli, answers["mvh:resnet50"])
    found = reading(rows)
    reasons = {name for name, metric in found.items() if metric.estimate.value is None}
    assert reasons == {
        "top1_shape",
        "top1_texture",
        "top1_neither",
        "TI_all_classes",
        "shape_sensitivity",
        "texture_sensitivity",
    }
    assert "run the suite again" in found["top1_shape"].estimate.reason
    assert found["error_consistency"].estimate.value is not None and found["shape_accuracy"].estimate.n == 1280


def test_error_consistency_with_people_is_that_of_the_published_answers(answers, stimuli):
    """Recomputed apart from this code from the per-image files of model-vs-human: 0.067997 for its ResNet-50."""
    found = reading(with_answers(stimuli, answers["mvh:resnet50"]))["error_consistency"]
    e = found.estimate
    assert e.value == pytest.approx(0.067997, abs=1e-6) and e.n == 1280 and e.low < e.value < e.high
    assert (found.role, found.unit, found.better, e.population) == (
        "secondary",
        "ratio",
        "neither",
        "new images, these people",
    )


def test_error_consistency_between_people_is_that_of_all_45_pairs(answers, stimuli, monkeypatch):
    import suites.bias.people
    from suites.bias.texture import parse_name

    names = [parse_name(name) for name in stimuli["image"]]
    monkeypatch.setattr(suites.bias.people, "read_stimuli", lambda root, card: (root, names))
    found = {m.name: m.estimate for m in second_reading(answer_rows(None, CARD), CARD)}
    assert found["error_consistency"].value == pytest.approx(0.331052, abs=1e-6)
    assert found["error_consistency"].n == 1280
    assert found["top1_shape"].reason == "people chose among the categories"
    assert found["shape_accuracy"].value is not None and found["shape_accuracy"].method == "bootstrap (image)"


def test_other_stimuli_have_no_error_consistency_with_people():
    found = reading(toy())["error_consistency"].estimate
    assert found.value is None and found.reason == "people were shown the public stimuli only"


def test_the_suite_adds_secondary_metrics_and_changes_no_other():
    rows, suite = pd.DataFrame(toy()), TextureBias()
    item = Item("texture-bias", ("cue-conflict",))
    plain, whole = score(toy(), CARD), suite.score(rows, item, TextureSettings(), {})
    assert (
        whole.metrics[: len(plain.metrics)] == plain.metrics
        and whole.checks == plain.checks
        and whole.notes == plain.notes
    )
    assert {m.role for m in whole.metrics[len(plain.metrics) :]} == {"secondary"}
    assert {m.name for m in whole.metrics} == set(TextureBias.card.metrics)
    backwards = suite.score(rows[::-1], item, TextureSettings(), {})
    assert backwards.metrics == whole.metrics, "the order of rows does not count"


def test_units_of_the_second_reading_are_the_numbers_themselves():
    rows, item = pd.DataFrame(toy()), Item("texture-bias", ("cue-conflict",))
    wanted = [m.name for m in second_reading(toy(), CARD)]
    units = {one.metric: one for one in TextureBias().units(rows, item, TextureSettings(), {}, wanted)}
    assert set(units) == set(wanted) - {"error_consistency"}
    for name, one in units.items():
        assert one.value() == pytest.approx(reading(toy())[name].estimate.value), name


def test_names_of_a_restricted_head_carry_its_coverage():
    rows = toy() | {
        "coverage": np.asarray(["2of16"] * 6),
        "head": np.asarray([""] * 6),
        "members": np.ones(6, dtype=int),
    }
    frame, item = pd.DataFrame(rows), Item("texture-bias", ("cue-conflict",))
    found = TextureBias().score(frame, item, TextureSettings(), {})
    names = [m.name for m in found.metrics]
    assert "top1_shape@2of16" in names and all(name.endswith("@2of16") for name in names)
    units = TextureBias().units(frame, item, TextureSettings(), {}, names)
    assert {"TI@2of16", "TI_all_classes@2of16", "shape_accuracy@2of16"} <= {one.metric for one in units}
