"""Every number others published or left counts of, from these counts; per-image columns that may not ship, if given."""

from __future__ import annotations

import csv
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from harness.stats.estimate import cluster_sums, paired, resample_strata, resample_two_way
from suites.bias.background import gap_statistic, relative_gap_statistic
from suites.bias.cards import CueConflictCard
from suites.bias.context import cb
from suites.bias.texture import cue_table, score, ti_statistic
from tests.suites.bias.conftest import in_order, values, with_answers

SIZES = [14146, 5974, 674, 21]
REFERENCE = os.environ.get("HARNESS_REFERENCE", "")
WANTED = "*cue-conflict-decisions.csv"


def test_ti_of_every_network_from_its_counts(reference_values):
    rows = reference_values["networks_from_per_image_files"]["rows"]
    assert len(rows) == 35
    for row in rows:
        assert row["shape"] + row["texture"] + row["neither"] == 1200
        ti = 100 * ti_statistic(np.asarray([[[row["shape"], row["texture"]]]], dtype=float))[0]
        assert ti == pytest.approx(row["TI_pct"], abs=1e-4) and 100 - ti == pytest.approx(
            row["shape_bias_pct"], abs=1e-4
        )
    for row in reference_values["published_aggregates"]["rows"]:
        ti = 100 * ti_statistic(np.asarray([[[row["shape"], row["texture"]]]], dtype=float))[0]
        assert ti == pytest.approx(row["TI_pct"], abs=1e-4), row["model"]


def test_cb_of_all_public_runs_from_their_counts(reference_values):
    rows = reference_values["focus"]["rows"]
    assert len(rows) == 37
    for row in rows:
        totals = np.asarray([list(zip(SIZES, row["top1_correct_P0_P3"], strict=True))], dtype=float)
        assert 100 * cb(totals, (1, 2, 3))[0] == pytest.approx(row["CB_avg_pct"], abs=1e-3), row["model"]
        assert 100 * cb(totals, (1, 2))[0] == pytest.approx(row["CB_1_2_pct"], abs=1e-3), row["model"]


def test_gaps_of_all_public_runs_from_their_counts(reference_values):
    rows = reference_values["in9"]["rows"]
    assert len(rows) == 37
    for row in rows:
        _, same, rand = row["correct_of_4050_original_same_rand"]
        totals = np.asarray([[[same, rand, 4050]]], dtype=float)
        assert 100 * gap_statistic(totals)[0] == pytest.approx(row["BG_Gap_pts"], abs=1e-4)
        assert 100 * relative_gap_statistic(totals)[0] == pytest.approx(row["relative_gap_pct"], abs=1e-3)
    assert 100 * gap_statistic(np.asarray([[[3525.0, 3295.0, 4050.0]]]))[0] == pytest.approx(5.679, abs=5e-4)


@pytest.fixture(scope="module")
def all_answers(manifest):
    if not REFERENCE:
        pytest.skip(f"set HARNESS_REFERENCE to a folder with {WANTED}: the columns tvs* may not ship with the project")
    found = sorted(Path(REFERENCE).glob(WANTED))
    assert len(found) == 1, f"HARNESS_REFERENCE={REFERENCE} should hold one {WANTED}"
    with found[0].open(encoding="utf-8", newline="") as file:
        return in_order(list(csv.DictReader(file)), manifest)


def test_ti_of_all_columns_of_the_decisions(stimuli, all_answers, reference_values):
    card = CueConflictCard.load()
    rows = {row["observer"]: row for row in reference_values["networks_from_per_image_files"]["rows"]}
    assert set(all_answers) == set(rows)
    for name in (name for name in rows if name.startswith("tvs")):
        expected = rows[name]
        answered = with_answers(stimuli, all_answers[name])
        assert cue_table(answered)[0].sum(axis=0).tolist() == [expected["shape"], expected["texture"]]
        found = values(score(answered, card))
        assert 100 * found["TI"].value == pytest.approx(expected["TI_pct"], abs=1e-4)
        same = 100 * found["same_category_accuracy"].value
        assert same == pytest.approx(expected["same_class_acc_pct"], abs=1e-4)


def test_paired_error_of_sibling_networks(stimuli, all_answers):
    first, conflict = cue_table(with_answers(stimuli, all_answers["tvs:resnet50"]))
    second, _ = cue_table(with_answers(stimuli, all_answers["tvs:resnet101"]))
    both, difference = np.hstack([first, second]), paired(ti_statistic)
    shapes, textures = (stimuli[name][conflict] for name in ("shape_source", "texture_source"))
    assert 100 * difference(resample_strata([both], 0)).std() == pytest.approx(1.3, abs=0.1)
    assert 100 * difference(resample_strata([cluster_sums(both, shapes)], 0)).std() == pytest.approx(1.34, abs=0.1)
    assert 100 * difference(resample_two_way(both, shapes, textures, 0)).std() == pytest.approx(2.42, abs=0.2)
    value = 100 * float(difference(both.sum(axis=0)[None, None])[0])
    assert value == pytest.approx(-4.05, abs=0.01)


def test_paired_error_of_networks_that_ship(stimuli, answers):
    """Pairing helps most between networks that answer alike; unpaired the two errors add up."""
    names = [name for name in answers if name.startswith("mvh:swag-vit")]
    for first, second in itertools.pairwise(names):
        tables = [cue_table(with_answers(stimuli, answers[name]))[0] for name in (first, second)]
        together = paired(ti_statistic)(resample_strata([np.hstack(tables)], 0)).std()
        apart = np.hypot(*(ti_statistic(resample_strata([table], 0)).std() for table in tables))
        assert together < 0.95 * apart
