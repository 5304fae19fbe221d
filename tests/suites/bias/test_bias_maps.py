"""Class maps and cards: the coarse categories of the three bias suites."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.classes import load_classes
from harness.core.errors import UserError
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.maps import ClassMap

IMAGENET = load_classes("imagenet1k").ids
COUNTS = {
    CueConflictCard: [1, 4, 2, 49, 5, 7, 3, 6, 4, 3, 109, 2, 2, 1, 1, 8],
    In9Card: [116, 52, 42, 36, 35, 27, 26, 20, 16],
    FocusCard: [10, 10, 2, 11, 5, 121, 2, 3, 3, 59],
}
KEYS = {CueConflictCard: "cue_conflict", In9Card: "in9", FocusCard: "focus"}


def bound(card_type, classes=IMAGENET):
    return ClassMap.of(card_type.load().categories).bind(classes)


@pytest.mark.parametrize("card_type", COUNTS)
def test_counts_indices_and_wnids_agree(card_type, class_indices):
    head = bound(card_type)
    assert [len(members) for members in head.members] == COUNTS[card_type]
    facts = class_indices[KEYS[card_type]]
    assert list(facts) == list(head.categories)
    for name, members in zip(head.categories, head.members, strict=True):
        assert {str(i): IMAGENET[i] for i in members} == facts[name]
    every = [index for members in head.members for index in members]
    assert len(every) == len(set(every)) == sum(COUNTS[card_type])
    assert head.uncovered == ()


def test_in9_oddities_are_unmapped():
    table = bound(In9Card).lookup()
    assert (table >= 0).sum() == 370 and (table < 0).sum() == 630
    assert (table[[171, 172, *range(80, 87), *range(281, 286), *range(25, 33)]] == -1).all()
    assert table[0] == 8 and table[151] == 0


def test_mean_not_sum_decides():
    head = bound(CueConflictCard)
    dogs = head.members[head.categories.index("dog")]
    cleaver = head.members[head.categories.index("knife")]
    assert len(dogs) == 109 and IMAGENET[cleaver[0]] == "n03041632"
    mapped = head.lookup() >= 0
    p = np.zeros(1000)
    p[list(dogs)], p[cleaver[0]] = 0.005, 0.10
    p[~mapped] = (1 - p.sum()) / (~mapped).sum()
    assert p.sum() == pytest.approx(1) and p[list(dogs)].sum() > p[cleaver[0]]
    with np.errstate(divide="ignore"):
        answer, tied = head.decide(np.log(p)[None])
    assert head.categories[answer[0]] == "knife" and not tied[0]


def test_vanishing_mass_still_decides():
    head = bound(CueConflictCard)
    mapped = head.lookup() >= 0
    cat = list(head.members[head.categories.index("cat")])
    p = np.where(mapped, 1e-12 / mapped.sum(), 1 / (~mapped).sum())
    p[cat] *= 3
    answer, _ = head.decide(np.log(p)[None])
    assert head.categories[answer[0]] == "cat"
    buried = np.where(mapped, -2000.0, 0.0)  # softmax underflows to zero on every mapped class
    buried[cat] += 1
    assert head.categories[head.decide(buried[None])[0][0]] == "cat"


def test_decision_is_the_mean_of_softmax_probabilities():
    head = bound(CueConflictCard)
    logits = np.random.default_rng(0).normal(scale=4, size=(200, 1000))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    means = np.stack([p[:, list(members)].mean(axis=1) for members in head.members], axis=1)
    assert (head.decide(logits)[0] == means.argmax(axis=1)).all()
    constant, tied = head.decide(np.zeros((1, 1000)))
    assert tied[0] and constant[0] == 0


def test_head_order_does_not_matter_and_list_is_required():
    logits = np.random.default_rng(1).normal(scale=3, size=(100, 1000))
    order = np.random.default_rng(2).permutation(1000)
    shuffled = bound(CueConflictCard, [IMAGENET[i] for i in order])
    assert (shuffled.decide(logits[:, order])[0] == bound(CueConflictCard).decide(logits)[0]).all()
    top = logits.argmax(axis=1)
    background = bound(In9Card, [IMAGENET[i] for i in order])
    assert (background.category_of(logits[:, order].argmax(axis=1)) == bound(In9Card).category_of(top)).all()
    with pytest.raises(UserError, match="no ordered class list"):
        bound(CueConflictCard, ())
    with pytest.raises(UserError, match="twice"):
        bound(CueConflictCard, ("n02690373", "n02690373"))


def test_imagenet100_head_is_refused_with_the_missing_categories():
    classes = load_classes("imagenet100").ids
    missing = {CueConflictCard: 9, In9Card: 1, FocusCard: 5}
    for card_type, count in missing.items():
        head = bound(card_type, classes)
        assert len(head.uncovered) == count
        with pytest.raises(UserError) as caught:
            head.require("the metric")
        assert all(name in caught.value.why for name in head.uncovered)
    head = bound(CueConflictCard, classes)
    answers = head.decide(np.random.default_rng(3).normal(size=(500, 100)))[0]
    assert not {head.categories[a] for a in answers} & set(head.uncovered)


def test_map_with_a_class_in_two_categories_is_refused():
    with pytest.raises(UserError, match="two categories"):
        ClassMap.of({"a": ["n1"], "b": ["n1"]})
    with pytest.raises(UserError, match="no classes"):
        ClassMap.of({"a": [], "b": ["n1"]})


def test_card_changes_are_strict():
    assert In9Card.load({"expected_per_variation": 9}).expected_per_variation == 9
    assert In9Card.load().expected_per_variation == 4050
    with pytest.raises(UserError, match="expected_images"):
        In9Card.load({"expected_images": 9})
    with pytest.raises(UserError, match="image_size"):
        FocusCard.load({"image_size": "large"})
