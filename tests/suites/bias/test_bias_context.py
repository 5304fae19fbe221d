"""Context bias: uncommon counts, reading the database, known values, intervals, validity checks."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest

from harness.core.errors import DataMissing, UserError
from harness.core.normalisation import KNOWN
from harness.stats.estimate import paired, resample_strata
from suites.bias.cards import FocusCard
from suites.bias.context import (
    Annotation,
    cb,
    find_duplicates,
    list_annotations,
    miscounted,
    partition_tables,
    predict_rows,
    read_annotations,
    score,
    standardised,
    uncommon_count,
    uncommon_flags,
)
from tests.suites.bias.conftest import values

CARD = FocusCard.load()
SIZES = [14146, 5974, 674, 21]


def model_rows(focus_counts, model):
    chance = {name: len(ids) / 1000 for name, ids in CARD.categories.items()}
    correct = model if isinstance(model, np.ndarray) else focus_counts[f"correct:{model}"]
    return focus_counts | {
        "correct": correct,
        "chance": np.asarray([chance[name] for name in focus_counts["category"]]),
    }


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        (("cat", "night", "none", ("water",)), 2),
        (("frog", "night", "none", ("grass",)), 0),
        (("bird", "day", "sunny", ("rocks",)), 0),
        (("ship", "day", "snowing", ("snow", "water")), 2),
        (("dog", "day", "none", ("none",)), 0),
        (("car", "day", "none", ("rocks", "snow")), 1),
        (("truck", "night", "foggy", ("grass", "water")), 3),
    ],
)
def test_uncommon_counting(facts, count):
    assert sum(uncommon_flags(Annotation("x.jpg", *facts), CARD)) == count


@pytest.mark.parametrize(
    ("model", "correct", "cb_avg"),
    [
        ("resnet50", [10248, 2652, 189, 9], 53.048),
        ("syn_clone", [9246, 2434, 196, 8], 55.037),
        ("vit-b", [10554, 2996, 250, 14], 68.764),
        ("ConvNext", [10952, 3247, 290, 13], 68.579),
    ],
)
def test_cb_avg_of_known_models_follows_from_their_counts(focus_counts, model, correct, cb_avg):
    rows = model_rows(focus_counts, model)
    k = uncommon_count(rows)
    assert np.bincount(k).tolist() == SIZES
    assert [int(rows["correct"][k == value].sum()) for value in range(4)] == correct
    result = score(rows, CARD)
    found = values(result)
    assert 100 * found["CB_avg"].value == pytest.approx(cb_avg, abs=1e-3)
    for value in (1, 2, 3):
        share = (correct[value] / SIZES[value]) / (correct[0] / SIZES[0])
        assert found[f"CB_{value}"].value == pytest.approx(share, rel=1e-12)
    assert found["CB_12"].value == pytest.approx((found["CB_1"].value + found["CB_2"].value) / 2)
    assert found["CB_2plus"].n == 695 and result.checks[0].passed


def test_standardised_ratios_and_small_partition(focus_counts):
    found = values(score(model_rows(focus_counts, "resnet50"), CARD))
    ratios = [100 * found[f"CB_{k}_standardised"].value for k in (1, 2, 3)]
    assert ratios == pytest.approx([70.71, 46.81, 72.18], abs=0.01)
    assert "21 images: not reportable alone" in found["Acc_3"].reason
    assert "21 images" in found["CB_avg"].reason and found["CB_12"].reason == ""
    assert (round(found["Acc_3"].low, 2), round(found["Acc_3"].high, 2)) == (0.24, 0.63)


@pytest.mark.parametrize(("category", "cb_avg"), [("car", 241.8), ("dog", 50.3), ("frog", 4.9), ("bird", 51.5)])
def test_a_constant_classifier_wins_but_is_flagged(focus_counts, category, cb_avg):
    result = score(model_rows(focus_counts, focus_counts["category"] == category), CARD)
    assert 100 * values(result)["CB_avg"].value == pytest.approx(cb_avg, abs=0.05)
    assert not result.checks[0].passed and result.checks[0].threshold == 0.20


def test_chance_level_raises_the_floor(focus_counts):
    rows = model_rows(focus_counts, "resnet50") | {"chance": np.full(sum(SIZES), 1 / 6)}
    check = score(rows, CARD).checks[0]
    assert check.threshold == pytest.approx(5 / 6) and not check.passed


def toy(correct, total):
    """Rows of one category with the given correct and total counts at k = 0..3."""
    k = np.repeat(np.arange(4), total)
    right = np.concatenate([np.arange(n) < c for c, n in zip(correct, total, strict=True)])
    flags = {f"uncommon_{name}": k > i for i, name in enumerate(("time", "weather", "location"))}
    quiet = np.zeros(len(k), dtype=bool)
    return flags | {
        "category": np.full(len(k), "cat"), "correct": right, "chance": np.full(len(k), 0.001),
        "converted": quiet, "truncated": quiet,
    }  # fmt: skip


def test_cb_of_a_toy_set():
    found = values(score(toy((80, 60, 10, 2), (100, 100, 20, 5)), CARD))
    assert [found[f"CB_{k}"].value for k in (1, 2, 3)] == pytest.approx([0.75, 0.625, 0.5])
    assert found["CB_avg"].value == pytest.approx(0.625)
    assert found["CB_1_standardised"].value == pytest.approx(0.75)
    rows = toy((80, 60, 10, 2), (100, 100, 20, 5))
    assert score(rows, CARD) == score(rows, CARD, seed=0) != score(rows, CARD, seed=1)


def test_undefined_ratios_say_why():
    empty = values(score(toy((80, 60, 10, 0), (100, 100, 20, 0)), CARD))
    assert empty["CB_avg"].value is None and empty["CB_avg"].reason == "no images in P3"
    assert (empty["CB_avg"].method, empty["CB_avg"].n) == ("bootstrap (image, within partition)", 120)
    assert empty["CB_12"].defined and not empty["Acc_3"].defined
    blind = score(toy((0, 60, 10, 2), (100, 100, 20, 5)), CARD)
    assert values(blind)["CB_1"].reason == "no image in common context is correct"
    assert (values(blind)["CB_1"].method, values(blind)["CB_1"].n) == ("bootstrap (image, within partition)", 100)
    assert not blind.checks[0].passed
    (check,) = score(toy((0, 60, 10, 2), (0, 100, 20, 5)), CARD).checks
    assert (check.passed, check.value, check.threshold) == (False, None, CARD.min_acc0)
    assert (
        check.meaning
        == blind.checks[0].meaning
        == "accuracy in common context is above a floor and a multiple of chance"
    )


def test_cb_standard_errors(focus_counts):
    first = partition_tables(model_rows(focus_counts, "resnet50"))
    second = partition_tables(model_rows(focus_counts, "vit-b"))

    def cb_avg(totals):
        return 100 * cb(totals, (1, 2, 3))

    assert cb_avg(resample_strata(first, 0)).std() == pytest.approx(5.0, abs=0.3)
    assert (100 * cb(resample_strata(first, 0), (1, 2))).std() == pytest.approx(1.3, abs=0.1)
    both = [np.hstack(pair) for pair in zip(first, second, strict=True)]
    assert paired(cb_avg)(resample_strata(both, 0)).std() == pytest.approx(4.4, abs=0.4)
    rows = model_rows(focus_counts, "resnet50")
    assert score(rows, CARD, seed=1) == score(rows, CARD, seed=1) != score(rows, CARD, seed=2)


# --- reading and classifying files ------------------------------------------------------------------------

COLOURS = {"cat": (220, 40, 40), "dog": (40, 200, 40), "car": (40, 40, 220)}
ROWS = [
    ("/cat-day/1.jpg", "cat", "day", "none", "grass", "no"),
    ("/cat-night/2.jpeg", "cat", "night", "none", "indoors", "no"),
    ("/dog-snow/1.JPG", "dog", "day", "none", "grass, street", "yes"),
    ("/dog-indoors/2.png", "dog", "night", "foggy", "snow", "no"),
    ("/car-snow/9.jpeg", "dog", "day", "snowing", "snow", "no"),
    ("/car-rain/3.jpg", "car", "day", "sunny", "none", "no"),
]
SMALL = FocusCard.load(
    {
        "name": "small",
        "categories": {name: (f"c-{name}",) for name in COLOURS},
        "uncommon": {name: CARD.uncommon[name].model_dump() for name in COLOURS},
        "image_size": 32,
        "expected_images": len(ROWS),
    }
)
MODEL = {f"c-{name}": colour for name, colour in COLOURS.items()}


def write_database(root, rows):
    (root / "annotations.db").unlink(missing_ok=True)
    connection = sqlite3.connect(root / "annotations.db")
    connection.execute(
        "CREATE TABLE annotations (file_name TEXT PRIMARY KEY, category TEXT, time TEXT, weather TEXT, "
        "locations TEXT, humans TEXT)"
    )
    connection.executemany("INSERT INTO annotations VALUES (?,?,?,?,?,?)", rows)
    connection.commit()
    connection.close()


@pytest.fixture
def small_focus(tmp_path, save_image):
    for number, (name, category, *_) in enumerate(ROWS):
        mode = "L" if name == "/car-rain/3.jpg" else "RGB"
        save_image(tmp_path / name[1:], COLOURS[category], size=(60, 40), mode=mode, noise=number + 1)
    write_database(tmp_path, ROWS)
    return tmp_path


def test_layout_is_read_by_the_database(small_focus, colour_classifier):
    truncated = small_focus / "cat-night" / "2.jpeg"
    truncated.write_bytes(truncated.read_bytes()[:-60])
    rows = predict_rows(colour_classifier(MODEL), small_focus, SMALL)
    assert rows["image"].tolist() == sorted(name[1:] for name, *_ in ROWS)
    by_name = {name: i for i, name in enumerate(rows["image"])}
    snow = by_name["car-snow/9.jpeg"]
    assert rows["category"][snow] == "dog" and rows["correct"][snow]
    assert uncommon_count(rows)[[by_name["dog-indoors/2.png"], by_name["dog-snow/1.JPG"]]].tolist() == [3, 0]
    assert rows["converted"].tolist() == [name == "car-rain/3.jpg" for name in rows["image"]]
    assert rows["truncated"].tolist() == [name == "cat-night/2.jpeg" for name in rows["image"]]
    assert rows["chance"][0] == pytest.approx(1 / 3)
    assert score(rows, SMALL).notes == (
        "1 files were not stored as RGB",
        "1 files ended early and were completed",
    )


def test_clip_towers_are_given_bicubic_images(small_focus, colour_classifier):
    plain, tower = colour_classifier(MODEL), colour_classifier(MODEL)
    tower.info = SimpleNamespace(mean=KNOWN["clip"][0], std=KNOWN["clip"][1])
    bilinear, bicubic = (predict_rows(model, small_focus, SMALL) for model in (plain, tower))
    assert set(bilinear["geometry"]) == {"shorter side 32 (PIL bilinear), centre crop 32"}
    assert set(bicubic["geometry"]) == {"shorter side 32 (PIL bicubic), centre crop 32"}
    assert not any("geometry" in note for note in score(bilinear, SMALL).notes)
    (note,) = [note for note in score(bicubic, SMALL).notes if "geometry" in note]
    assert note.startswith("geometry: shorter side 32 (PIL bicubic)") and "this kind of network" in note
    assert any("non-reference" in note for note in score({**bicubic, "geometry": np.array(["x"] * 6)}, SMALL).notes)


def test_row_count_must_match_the_card(small_focus):
    with pytest.raises(UserError, match="lists 6 images, expected 20815"):
        read_annotations(small_focus, SMALL.model_copy(update={"expected_images": 20815}))
    assert len(read_annotations(small_focus, SMALL)[1]) == 6


def test_duplicate_bytes_are_detected(small_focus):
    (small_focus / "cat-day" / "1.jpg").write_bytes((small_focus / "car-snow" / "9.jpeg").read_bytes())
    with pytest.raises(UserError, match="1 groups of byte-identical") as caught:
        read_annotations(small_focus, SMALL)
    assert "cat-day/1.jpg" in caught.value.why and "car-snow/9.jpeg" in caught.value.why
    base, items = read_annotations(small_focus, SMALL.model_copy(update={"allow_duplicates": True}))
    assert len(find_duplicates(base, [item.name for item in items])) == 1


def test_missing_and_hopeless_files_are_named(small_focus, colour_classifier):
    victim = small_focus / "cat-day" / "1.jpg"
    victim.write_bytes(b"not an image at all")
    with pytest.raises(UserError, match=r"1\.jpg cannot be read as an image"):
        predict_rows(colour_classifier(MODEL), small_focus, SMALL)
    victim.unlink()
    with pytest.raises(DataMissing, match=r"1\.jpg is missing"):
        read_annotations(small_focus, SMALL)
    with pytest.raises(DataMissing, match="FOCUS set: no known layout"):
        read_annotations(small_focus / "cat-night", SMALL)


def test_every_missing_or_unreadable_file_is_named_at_once(small_focus):
    (small_focus / "cat-day" / "1.jpg").unlink()
    (small_focus / "car-snow" / "9.jpeg").unlink()
    with pytest.raises(DataMissing, match="2 files cannot be used") as caught:
        read_annotations(small_focus, SMALL)
    assert (
        "cat-day/1.jpg" in caught.value.why and "car-snow/9.jpeg" in caught.value.why and "left out" in caught.value.fix
    )
    (small_focus / "cat-day" / "1.jpg").mkdir()
    with pytest.raises(UserError, match="2 files") as caught:
        read_annotations(small_focus, SMALL)
    assert "1.jpg cannot be read" in caught.value.why and not isinstance(caught.value, DataMissing)


def test_doctor_compares_categories_and_partitions_with_the_card(small_focus):
    counts = {"category_images": {"cat": 2, "dog": 3, "car": 1}, "partition_images": (2, 2, 1, 1)}
    card = SMALL.model_copy(update=counts)
    items = list_annotations(small_focus, card)[1]
    assert list(miscounted(items, card)) == ["P0 has 3 images, expected 2", "P1 has 1 images, expected 2"]
    swapped = SMALL.model_copy(update={"category_images": {"cat": 3, "dog": 2, "car": 1}})
    assert list(miscounted(items, swapped)) == ["cat has 2 images, expected 3", "dog has 3 images, expected 2"]
    assert list(miscounted(items, CARD.model_copy(update={"expected_images": 6}))) == [], "counts of another release"
    assert sum(CARD.category_images.values()) == sum(CARD.partition_images) == CARD.expected_images == 20815


@pytest.mark.parametrize("column", [0, 4])
def test_a_row_without_a_value_is_refused(small_focus, column):
    row = [*ROWS[-1][:column], None, *ROWS[-1][column + 1 :]]
    write_database(small_focus, [*ROWS[:-1], row])
    with pytest.raises(UserError, match="has no text in " + ("file_name" if column == 0 else "locations")):
        read_annotations(small_focus, SMALL)


def test_unknown_words_and_damaged_databases_are_refused(small_focus):
    write_database(small_focus, [*ROWS[:-1], ("/car-rain/3.jpg", "car", "dusk", "sunny", "grass,street", "no")])
    with pytest.raises(UserError, match="unknown time 'dusk', location 'grass,street'"):
        read_annotations(small_focus, SMALL)
    (small_focus / "annotations.db").write_bytes(b"garbage" * 300)
    with pytest.raises(UserError, match="not a FOCUS database"):
        read_annotations(small_focus, SMALL)


def test_reading_does_not_write_beside_the_data(small_focus):
    before = sorted(path.name for path in small_focus.iterdir())
    read_annotations(small_focus, SMALL)
    assert sorted(path.name for path in small_focus.iterdir()) == before


def test_a_context_record_says_of_each_number_how_and_for_whom():
    result = score(toy((80, 60, 10, 2), (100, 100, 20, 40)), CARD)
    facts = {m.name: (m.unit, m.better, m.role, m.estimate.method, m.estimate.n, m.beside) for m in result.metrics}
    bootstrapped = "bootstrap (image, within partition)"
    assert facts == {
        "CB_avg": ("fraction", "higher", "primary", bootstrapped, 160, ("Acc_0",)),
        "CB_12": ("fraction", "higher", "companion", bootstrapped, 120, ()),
        "CB_1": ("fraction", "higher", "companion", bootstrapped, 100, ("Acc_0",)),
        "CB_2": ("fraction", "higher", "companion", bootstrapped, 20, ("Acc_0",)),
        "CB_3": ("fraction", "higher", "companion", bootstrapped, 40, ()),
        "CB_2plus": ("fraction", "higher", "companion", bootstrapped, 60, ()),
        "CB_1_standardised": ("fraction", "higher", "companion", bootstrapped, 100, ()),
        "CB_2_standardised": ("fraction", "higher", "companion", bootstrapped, 20, ()),
        "CB_3_standardised": ("fraction", "higher", "companion", bootstrapped, 40, ()),
        **{f"Acc_{k}": ("fraction", "higher", "companion", "wilson", n, ()) for k, n in enumerate((100, 100, 20, 40))},
    }
    assert {m.estimate.population for m in result.metrics} == {"new images of each partition"}
    found = values(result)
    assert [found[f"Acc_{k}"].value for k in range(4)] == pytest.approx([0.8, 0.6, 0.5, 0.05])
    assert found["CB_2plus"].value == pytest.approx(12 / 60 / 0.8)
    assert found["CB_avg"].value == pytest.approx((0.75 + 0.625 + 0.0625) / 3)
    (check,) = result.checks
    assert (check.name, check.passed, check.value, check.threshold) == ("Acc_0", True, 0.8, CARD.min_acc0)


def test_small_partitions_are_remarked_upon_by_their_size():
    """Below 100 images low n, below 30 not reportable alone; the smallest one is named."""
    sizes = (
        (99, "P1 has 99 images: low n"),
        (100, ""),
        (29, "P1 has 29 images: not reportable alone"),
        (30, "P1 has 30 images: low n"),
    )
    for n, remark in sizes:
        found = values(score(toy((80, 20, 120, 120), (150, n, 200, 200)), CARD))
        assert [found[name].reason for name in ("CB_1", "CB_12", "Acc_1", "CB_2")] == [remark, remark, remark, ""], n


def test_standardised_ratio_is_one_where_context_changes_nothing_within_a_category():
    """Cats 90 % and dogs 30 % right everywhere; uncommon images are mostly dogs, so that CB_1 falls and its standardised form not."""
    category = np.repeat(["cat", "dog", "cat", "dog"], [100, 100, 10, 90])
    correct = np.concatenate([np.arange(n) < right for n, right in ((100, 90), (100, 30), (10, 9), (90, 27))])
    k = np.repeat([0, 1], [200, 100])
    totals = np.stack([part.sum(axis=0) for part in partition_tables({
        "category": category, "correct": correct, "uncommon_time": k, "uncommon_weather": 0 * k, "uncommon_location": 0 * k,
    })])[None]  # fmt: skip
    assert standardised(totals, 1)[0] == pytest.approx(1.0)
    assert cb(totals, (1,))[0] == pytest.approx(0.36 / 0.6)
    assert totals[0, :2].tolist() == [[100, 100, 90, 30], [10, 90, 9, 27]]


def test_a_category_without_a_right_answer_in_common_context_leaves_the_standardised_ratio_undefined():
    rows = toy((80, 60, 10, 2), (100, 100, 120, 105))
    last = np.flatnonzero(uncommon_count(rows) == 1)[-1]
    rows["category"][last] = "dog"
    found = values(score(rows, CARD))["CB_1_standardised"]
    assert found.value is None and found.reason == "a category has no images, or none correct, in common context"
