"""Background bias: counts, pairing by foreground, folders with spaces, intervals, validity checks."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.errors import DataMissing, UserError
from suites.bias.background import VARIATIONS, foreground_key, pair_tables, predict_rows, read_views, score
from suites.bias.cards import In9Card
from tests.suites.bias.conftest import values

CARD = In9Card.load()


def counted_rows(original, same, rand, n=4050, classes=9):
    """Rows with the given numbers of correct answers, spread evenly over the classes."""
    label = np.arange(n) % classes
    columns = {"variation": [], "foreground": [], "label": [], "correct": []}
    for variation, count in zip(VARIATIONS, (original, same, rand), strict=True):
        columns["variation"] += [variation] * n
        columns["foreground"] += [f"n{i:08d}_{i:05d}" for i in range(n)]
        columns["label"] += label.tolist()
        columns["correct"] += [i < count for i in range(n)]
    columns["converted"] = columns["truncated"] = [False] * (3 * n)
    return {name: np.asarray(column) for name, column in columns.items()}


def test_gap_of_known_counts():
    result = score(counted_rows(3865, 3525, 3295), CARD)
    found = values(result)
    accuracies = [100 * found[name].value for name in VARIATIONS]
    assert accuracies == pytest.approx([95.43, 87.04, 81.36], abs=0.005)
    assert found["BG_Gap"].value == pytest.approx(5.679, abs=5e-4)
    assert found["relative_gap"].value == pytest.approx((3525 - 3295) / 3525)
    assert found["BG_Gap"].n == 4050 and result.checks[0].passed
    assert next(m.unit for m in result.metrics if m.name == "BG_Gap") == "points"


def test_paired_interval_is_narrower_than_independent_samples():
    nested = values(score(counted_rows(4000, 3491, 3195), CARD))["BG_Gap"]
    p = np.asarray([3491, 3195]) / 4050
    independent = 100 * np.sqrt((p * (1 - p) / 4050).sum())
    assert independent == pytest.approx(0.84, abs=0.01)
    assert 0.3 < (nested.high - nested.low) / 3.92 < 0.7 * independent


def test_constant_classifier_has_no_gap_and_is_flagged():
    rows = counted_rows(0, 0, 0)
    result = score(rows | {"correct": rows["label"] == 4}, CARD)
    found = values(result)
    assert found["BG_Gap"].value == 0.0 and found["mixed_same"].value == pytest.approx(1 / 9)
    assert not result.checks[0].passed and result.checks[0].threshold == 0.50
    nothing = values(score(rows, CARD))["relative_gap"]
    assert nothing.value is None and nothing.reason == "no Mixed-Same image is correct"


def test_rows_without_their_pair_are_refused():
    rows = counted_rows(9, 9, 9, n=18)
    keep = np.arange(len(rows["label"])) != 20
    with pytest.raises(ValueError, match="not paired"):
        score({name: column[keep] for name, column in rows.items()}, CARD)


def test_score_does_not_depend_on_row_order():
    rows = counted_rows(3865, 3525, 3295)
    order = np.random.default_rng(0).permutation(len(rows["label"]))
    assert score({name: column[order] for name, column in rows.items()}, CARD) == score(rows, CARD)


def test_foreground_keys_of_file_names():
    assert foreground_key("n02085936_00123", "original") == "n02085936_00123"
    for variation in ("mixed_same", "mixed_rand"):
        name = "fg_n02085936_00123_bg_n01614925_00456"
        assert foreground_key(name, variation) == "n02085936_00123"
        assert foreground_key("fg_n02085936_00123_bg_whatever", variation) == "n02085936_00123"
    for stem, variation in (("n02085936", "original"), ("fg_x_1", "mixed_same"), ("n1_2", "mixed_rand")):
        with pytest.raises(UserError, match="not a file name"):
            foreground_key(stem, variation)


# --- reading and classifying files ------------------------------------------------------------------------

FOLDERS = ("00_dog", "01_wheeled vehicle", "02_fish")
COLOURS = {"n1": (220, 40, 40), "n2": (40, 200, 40), "n3": (40, 40, 220), "n9": (230, 230, 230)}
SMALL = In9Card.load(
    {
        "name": "small",
        "categories": {"dog": ["n1"], "wheeled vehicle": ["n2"], "fish": ["n3"]},
        "folders": FOLDERS,
        "image_size": 24,
        "expected_per_variation": 12,
    }
)


@pytest.fixture
def small_in9(tmp_path, save_image):
    """Four foregrounds per class; Mixed-Rand shows the colour of the next class for every second one."""
    root = tmp_path / "bg_challenge"
    colours = list(COLOURS.values())
    for label, folder in enumerate(FOLDERS):
        for i in range(4):
            key = f"n0000000{label}_{10 * label + i:05d}"
            mixed = f"fg_{key}_bg_n09999999_{i:05d}"
            swapped = colours[(label + i % 2) % 3]
            save_image(root / "original" / "val" / folder / f"{key}.JPEG", colours[label])
            save_image(root / "mixed_same" / "val" / folder / f"{mixed}.JPEG", colours[label])
            save_image(root / "mixed_rand" / "val" / folder / f"{mixed}.JPEG", swapped)
    return tmp_path


def test_folders_with_spaces_and_label_order(small_in9, colour_classifier):
    rows = predict_rows(colour_classifier(COLOURS), small_in9, SMALL)
    folders = [name.split("/")[2] for name in rows["image"]]
    assert sorted(set(zip(folders, rows["label"].tolist(), strict=True))) == [
        ("00_dog", 0), ("01_wheeled vehicle", 1), ("02_fish", 2),
    ]  # fmt: skip
    result = score(rows, SMALL)
    found = values(result)
    assert (found["mixed_same"].value, found["mixed_rand"].value) == (1.0, 0.5)
    assert found["BG_Gap"].value == 50.0 and found["relative_gap"].value == 0.5
    assert result.checks[0].passed


def test_unmapped_answer_is_wrong_and_never_fish(small_in9, colour_classifier):
    class Unmapped(colour_classifier):
        def __call__(self, images):
            logits = super().__call__(images)
            logits[:, self.classes.index("n9")] = 99.0
            return logits

    rows = predict_rows(Unmapped(COLOURS), small_in9, SMALL)
    assert set(rows["answer"].tolist()) == {-1} and not rows["correct"].any()
    assert (rows["label"] == 2).any() and set(rows["top1"]) == {"n9"}
    assert not score(rows, SMALL).checks[0].passed


def test_wrong_background_part_of_mixed_rand_is_not_used(small_in9):
    base = small_in9 / "bg_challenge" / "mixed_rand" / "val" / "00_dog"
    first = min(base.iterdir())
    first.rename(first.with_name(first.name.split("_bg_")[0] + "_bg_n01234567_99999.JPEG"))
    assert len(read_views(small_in9, SMALL)[1]) == 36


def test_duplicate_and_unmatched_keys_are_errors(small_in9):
    base = small_in9 / "bg_challenge" / "mixed_rand" / "val" / "00_dog"
    first, second = sorted(base.iterdir())[:2]
    kept = second.read_bytes()
    second.rename(base / (first.stem.split("_bg_")[0] + "_bg_n00000000_77777.JPEG"))
    with pytest.raises(UserError, match="n00000000_00000 occurs 2 times"):
        read_views(small_in9, SMALL)
    (base / (first.stem.split("_bg_")[0] + "_bg_n00000000_77777.JPEG")).unlink()
    (base / "fg_n00000000_88888_bg_n00000000_00001.JPEG").write_bytes(kept)
    with pytest.raises(UserError, match="do not show the same foregrounds"):
        read_views(small_in9, SMALL)


def test_foreground_under_another_class_is_an_error(small_in9):
    base = small_in9 / "bg_challenge" / "mixed_same" / "val"
    moved = min((base / "00_dog").iterdir())
    moved.rename(base / "02_fish" / moved.name)
    with pytest.raises(UserError, match="do not show the same foregrounds"):
        read_views(small_in9, SMALL)


def test_damaged_layouts_are_refused(small_in9):
    with pytest.raises(DataMissing, match="backgrounds set: no known layout"):
        read_views(small_in9 / "bg_challenge" / "original", SMALL)
    base = small_in9 / "bg_challenge" / "original" / "val"
    min((base / "00_dog").iterdir()).unlink()
    with pytest.raises(UserError, match="holds 11 images, expected 12"):
        read_views(small_in9, SMALL)
    (base / "00_dog").rename(base / "00_hound")
    with pytest.raises(UserError, match="other class folders"):
        read_views(small_in9, SMALL)


def test_saved_rows_give_equal_metrics(small_in9, untrained_network, tmp_path):
    import pandas as pd

    rows = predict_rows(untrained_network(COLOURS), small_in9, SMALL)
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet", index=False)
    assert score(pd.read_parquet(tmp_path / "rows.parquet"), SMALL) == score(rows, SMALL)


def test_a_background_record_says_of_each_number_how_and_for_whom():
    rows = counted_rows(80, 70, 60, n=90) | {"converted": np.arange(270) < 3}
    result = score(rows, CARD)
    facts = {m.name: (m.unit, m.better, m.role, m.estimate.method, m.estimate.n, m.beside) for m in result.metrics}
    pairs, alone = "bootstrap (foreground pairs, within class)", "bootstrap (foregrounds, within class)"
    assert facts == {
        "BG_Gap": ("points", "lower", "primary", pairs, 90, ("mixed_same",)),
        "relative_gap": ("fraction", "lower", "companion", pairs, 90, ()),
        **dict.fromkeys(VARIATIONS, ("fraction", "higher", "companion", "wilson", 90, ())),
        "paste_cost": ("points", "lower", "secondary", alone, 90, ()),
        "paste_share": ("fraction", "lower", "secondary", alone, 90, ()),
    }
    assert {m.estimate.population for m in result.metrics} == {"new foregrounds"}
    found = values(result)
    assert [found[name].value for name in VARIATIONS] == pytest.approx([80 / 90, 70 / 90, 60 / 90])
    assert (found["BG_Gap"].value, found["relative_gap"].value) == pytest.approx((1000 / 90, 1 / 7))
    assert result.notes == ("3 files were not stored as RGB",)
    (check,) = result.checks
    assert (check.name, check.passed, check.threshold) == ("Mixed-Same accuracy", True, CARD.min_mixed_same)


def test_pairs_are_matched_by_foreground_and_kept_by_class():
    rows = {
        "variation": ["mixed_same", "mixed_same", "mixed_same", "mixed_rand", "mixed_rand", "mixed_rand", "original"],
        "foreground": ["c", "a", "b", "b", "c", "a", "a"], "label": [0, 1, 0, 0, 0, 1, 1], "correct": [1, 1, 0, 1, 0, 1, 0],
    }  # fmt: skip
    tables = pair_tables(rows)
    assert [table.tolist() for table in tables] == [[[0, 1, 1], [1, 0, 1]], [[1, 1, 1]]]
    for column, value in (
        ("foreground", ["c", "a", "b", "b", "c", "d", "a"]),
        ("foreground", ["a", "a", "b", "b", "a", "a", "a"]),
    ):
        with pytest.raises(ValueError, match="not paired one to one"):
            pair_tables(rows | {column: value})


def test_the_paste_cost_and_the_share_of_the_gap_it_could_explain_by_hand():
    """90 foregrounds: 85 right as they are, 80 pasted onto their own class, 70 onto another: 5 points of 90 lost by pasting, 10 more."""
    found = {m.name: m for m in score(counted_rows(85, 80, 70, n=90), CARD).metrics}
    cost, share = found["paste_cost"].estimate, found["paste_share"].estimate
    assert cost.value == pytest.approx(500 / 90) and cost.low < cost.value < cost.high and cost.n == 90
    assert share.value == pytest.approx(0.5) and 0 <= share.low < 0.5 < share.high <= 1
    assert found["BG_Gap"].estimate.value == pytest.approx(1000 / 90)


@pytest.mark.parametrize(
    ("counts", "share"), [((90, 80, 75), 1.0), ((75, 80, 70), 0.0), ((85, 80, 80), None), ((85, 80, 82), None)]
)
def test_the_share_stays_between_nothing_and_all_and_needs_a_gap(counts, share):
    found = values(score(counted_rows(*counts, n=90), CARD))["paste_share"]
    assert found.value == share
    assert share is not None or found.reason == "BG_Gap is not positive"


def test_paste_units_keep_both_views_of_a_foreground():
    from suites.bias.units import paste_units

    rows = counted_rows(85, 80, 70, n=90)
    one = paste_units(rows, "paste_cost")
    assert one.value() == pytest.approx(values(score(rows, CARD))["paste_cost"].value) and len(one.ids) == 90
    assert set(np.unique(one.features[:, 0])) <= {-1.0, 0.0, 1.0}


def test_foregrounds_that_original_lacks_are_refused():
    rows = counted_rows(85, 80, 70, n=90)
    kept = [*np.flatnonzero(np.asarray(rows["variation"]) != "original").tolist(), 0]
    broken = {name: np.asarray(column)[kept] for name, column in rows.items()}
    with pytest.raises(ValueError, match="original and mixed_same"):
        score(broken, CARD)
