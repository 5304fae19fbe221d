"""Comparing two systems: verdicts, reasons, Holm; merging stores; tampering; seeds and variants on the board."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm
from scipy.stats import t as student

from harness.core.errors import DataMissing, UserError
from harness.core.names import names_in
from harness.stats.difference import Part, Spread, difference, flag_units, with_seeds
from harness.stats.estimate import Estimate, holm, mcnemar_exact
from harness.store.records import SCHEMA, Check, Record
from leaderboard.board import Board
from leaderboard.compare import compare, networks_apart, systems
from leaderboard.simulate import TWELVE, simulate_runs
from leaderboard.sources import Entry, from_store, gather, shipped
from leaderboard.tables import Value, build_tables, varied
from leaderboard.ties import significantly_different, tie_groups, unpaired
from tests.leaderboard.conftest import MakeStore, flags, make_record, put


def test_verdicts_are_paired_and_holm_adjusted(make_store: MakeStore) -> None:
    rng, first = np.random.default_rng(0), flags(600, 0.7, 0)
    worse = [right and rng.random() > 0.1 for right in first]
    store = make_store("s", {"lbgen": {"in-domain": [first], "texture-bias": [flags(600, 0.3, 1)], "x": [first]},
                             "sd15": {"in-domain": [worse], "texture-bias": [flags(600, 0.31, 2)], "x": [worse]}})  # fmt: skip
    found = {one.column.suite: one for one in compare(*systems(("lbgen", "sd15"), [store]))}
    assert found["in-domain"].verdict == "better" and found["texture-bias"].verdict == "not significantly different"
    lost = sum(a and not b for a, b in zip(first, worse, strict=True))
    raw = [one.difference.p for one in found.values() if one.difference]
    assert found["in-domain"].difference is not None and found["in-domain"].difference.p == mcnemar_exact(lost, 0)
    assert [one.holm for one in found.values()] == holm(raw) and found["in-domain"].why == "these weights, new images"
    back = {one.column.suite: one.verdict for one in compare(*systems(("sd15", "lbgen"), [store]))}
    assert back["in-domain"] == "worse" and back["texture-bias"] == "not significantly different"


def test_a_claim_beyond_these_weights_needs_seeds(make_store: MakeStore) -> None:
    many = {"in-domain": [flags(400, rate, i) for i, rate in enumerate((0.8, 0.82, 0.81))]}
    less = {"in-domain": [flags(400, rate, 9 + i) for i, rate in enumerate((0.6, 0.62, 0.61))]}
    store = make_store("s", {"lbgen": many, "sd15": less})
    (one,) = compare(*systems(("lbgen", "sd15"), [store]))
    assert (one.verdict, one.why) == ("better", "new images and new seeds")
    assert one.difference is not None and one.difference.se_seeds is not None


def test_what_may_not_be_compared_says_why(make_store: MakeStore, tmp_path: Path) -> None:
    def against(**changes: object) -> str:
        name = f"s{len(list(tmp_path.iterdir()))}"
        store = make_store(name, {"lbgen": {"in-domain": [flags(200, 0.9, 0)]}}, **changes)
        make_store(name, {"sd15": {"in-domain": [flags(200, 0.5, 1)]}})
        (one,) = compare(*systems(("lbgen", "sd15"), [store]))
        assert one.verdict == "not comparable" and one.difference is None
        return one.why

    plain = make_record("in-domain", "x", flags(10, 0.5, 0)).comparability
    assert against(comparability=replace(plain, protocol="another crop")) == "protocol differs"
    assert against(comparability=replace(plain, suite_version=2, classes="other")) == "suite version, class list differ"
    broken = (Check("floor", False, 0.0, 0.5, "m"),)
    assert against(checks=broken) == "the first fails its validity check: floor"


def test_unknown_systems_and_ambiguous_variants_are_user_errors(make_store: MakeStore) -> None:
    store = make_store("s", {"lbgen": {"in-domain": [flags(50, 0.5, 0)]}, "sd15": {"in-domain": [flags(50, 0.5, 1)]}})
    with pytest.raises(UserError, match="did you mean 'lbgen'"):
        systems(("lbgn", "sd15"), [store])
    other = make_record(
        "in-domain", "lbgen", flags(50, 0.9, 3), key="f" * 64, inputs={"checkpoint/copy/dataset": "abcdef9" * 9}
    )
    put(store, other, [])
    with pytest.raises(UserError, match="does not name one row"):
        systems(("lbgen", "sd15"), [store])
    (one,) = compare(*systems(("lbgen:abcdef", "sd15"), [store]))
    assert one.first is not None and one.first.estimate.value == pytest.approx(0.9)
    assert one.difference is not None and one.difference.method.startswith("unpaired")


def test_the_same_system_of_two_stores_can_be_compared(make_store: MakeStore) -> None:
    old, new = (
        make_store(name, {"lbgen": {"in-domain": [flags(300, rate, 0)]}}) for name, rate in (("old", 0.5), ("new", 0.8))
    )
    text = Board().compare(f"lbgen@{new}", f"lbgen@{old}", [], "csv")
    (row,) = csv.DictReader(text.splitlines())
    assert row["verdict"] == "better" and float(row["difference"]) == pytest.approx(0.3)


def test_what_the_store_lacks_is_taken_from_the_recorded_rows(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("s", {"lbgen": {"in-domain": [flags(300, 0.9, 0)]}})
    shipped = Entry(make_record("in-domain", "sd15", flags(300, 0.5, 1)), "recorded", "micro")
    monkeypatch.setattr("leaderboard.systems.recorded", lambda: [shipped])
    (one,) = compare(*systems(("lbgen", "sd15"), [store]))
    assert one.verdict == "better" and one.difference is not None and one.difference.method.startswith("unpaired")
    with pytest.raises(UserError, match="no results of 'sd15'"):
        systems(("lbgen", f"sd15@{store}"), [store])


# --- merging ------------------------------------------------------------------------------------------------------------


def test_an_empty_store_says_where_recorded_rows_are(tmp_path: Path) -> None:
    for second in ("sd15", f"sd15@{shipped('micro')}"):
        with pytest.raises(DataMissing, match="no results in") as caught:
            Board().compare("lbgen", second, [tmp_path], "md")
        assert f"lbgen@{shipped('micro')}" in caught.value.fix
    here = shipped("micro")
    assert "## resnet10" in Board().compare(f"lbgen@{here}", f"sd15@{here}", [tmp_path], "md")


def test_stores_merge_and_equal_duplicates_count_once(make_store: MakeStore) -> None:
    one = make_store("one", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}, "real": {"in-domain": [flags(100, 0.6, 1)]}})
    two = make_store("two", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}, "sd15": {"in-domain": [flags(100, 0.4, 2)]}})
    assert sorted(e.record.subject.generator for e in gather([one, two])) == ["lbgen", "real", "sd15"]
    assert Board().render([one, two], "csv", False) == Board().render([two, one], "csv", False)


def test_duplicates_that_disagree_are_refused_and_both_are_named(make_store: MakeStore) -> None:
    one = make_store("one", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}})
    two = make_store("two", {"lbgen": {"in-domain": [flags(100, 0.7, 0)]}})
    with pytest.raises(UserError, match="disagree") as caught:
        gather([one, two])
    assert str(one) in caught.value.why and str(two) in caught.value.why and "metrics" in caught.value.why


def test_records_of_schema_1_are_read_and_merge_with_newer_ones(make_store: MakeStore) -> None:
    record = make_record("in-domain", "lbgen", flags(100, 0.5, 0))
    raw = json.loads(record.to_json()) | {"schema": 1}
    del raw["inputs"], raw["code"]
    old = Record.from_json(json.dumps(raw))
    assert old.metrics == record.metrics and old.inputs == {} and old.schema == 1
    store = make_store("s", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}})
    from leaderboard.sources import merge

    (kept,) = merge([Entry(old, "run", "old"), *from_store(store)])
    assert kept.record.schema == SCHEMA and kept.units


@pytest.mark.parametrize("name", ["record.json", "rows.parquet", "units.npz"])
def test_an_edited_file_of_an_evaluation_is_named(make_store: MakeStore, name: str) -> None:
    store = make_store("s", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}})
    (path,) = store.glob(f"evaluate/*/{name}")
    path.write_bytes(path.read_bytes()[:-1] + b"\n\n")
    with pytest.raises(UserError, match="was changed after it was written") as caught:
        from_store(store)
    assert str(path) in caught.value.what


# --- the board ----------------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_and_their_spread_has_its_own_column(make_store: MakeStore) -> None:
    rates = (0.5, 0.6, 0.7)
    store = make_store("s", {"lbgen": {"in-domain": [flags(200, rate, i) for i, rate in enumerate(rates)]}})
    (table,) = build_tables(from_store(store))
    ((key, cells),) = table.rows.items()
    (value,) = cells.values()
    assert (
        value.estimate.value == pytest.approx(0.6)
        and value.spread is not None
        and value.spread.sd == pytest.approx(0.1)
    )
    assert value.estimate.high is not None and value.estimate.low is not None
    # Sampling alone; the answers of these seeds have nothing in common, so their noise averages out.
    one_seed = 2 * 1.96 * (0.5 * 0.5 / 200) ** 0.5
    assert value.estimate.high - value.estimate.low == pytest.approx(one_seed / 3**0.5, rel=0.15)
    alike = make_store("alike", {"lbgen": {"in-domain": [flags(200, 0.5, 0)] * 3}})
    ((cells,),) = [table.rows.values() for table in build_tables(from_store(alike))]
    (value,) = cells.values()
    assert value.estimate.high is not None and value.estimate.low is not None
    assert value.estimate.high - value.estimate.low == pytest.approx(one_seed, rel=0.02), "equal seeds bring nothing"
    assert varied(table.seeds(key)) == "3 seeds (generator and train vary)"
    (row,) = csv.DictReader(Board().render([store], "csv", False).splitlines())
    assert float(row["in-domain/top1.seed_sd"]) == pytest.approx(0.1) and row["seeds"] == "0/0 1/1 2/2"
    assert "10.00 (3 seeds)" in Board().render([store], "md", False)


def test_two_settings_of_one_generator_are_two_rows_never_repeats(make_store: MakeStore) -> None:
    store = make_store("s", {"lbgen": {"in-domain": [flags(100, 0.5, 0)]}})
    put(
        store,
        make_record(
            "in-domain", "lbgen", flags(100, 0.9, 1), key="e" * 64, inputs={"checkpoint/copy/dataset": "9" * 64}
        ),
        [],
    )
    (table,) = build_tables(from_store(store))
    assert sorted(key.variant for key in table.rows) == sorted(
        ["999999", make_record("in-domain", "lbgen", [True]).dataset[:6]]
    )


def test_each_column_holds_one_key() -> None:
    base = make_record("in-domain", "real", flags(100, 0.5, 0))
    others = [
        replace(base, key=str(v) * 64, comparability=replace(base.comparability, suite_version=v)) for v in (2, 3)
    ]
    tables = build_tables([Entry(base, "run"), Entry(replace(base, key="8" * 64, subject=replace(base.subject, generator="sd15")), "run"),
                           *(Entry(other, "run") for other in others)])  # fmt: skip
    (table,) = tables
    assert [c.name for c in table.columns] == ["top1", "top1 (suite version 2)", "top1 (suite version 1)"]
    assert [sum(c in cells for cells in table.rows.values()) for c in table.columns] == [1, 1, 2]


def test_tie_groups_hold_all_between_two_tied_rows(make_store: MakeStore) -> None:
    rates = {"a": 0.9, "b": 0.89, "c": 0.6, "d": 0.59, "e": 0.2}
    store = make_store(
        "s", {name: {"in-domain": [flags(400, rate, i)]} for i, (name, rate) in enumerate(rates.items())}
    )
    (table,) = build_tables(from_store(store))
    groups = table.ties(table.columns[0], "resnet10")
    assert {key.generator: number for key, number in groups.items()} == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}


def test_a_row_between_two_tied_rows_is_tied_even_if_it_differs_from_the_best(make_store: MakeStore) -> None:
    """0.86 of 2000 is worse than 0.90 of 2000 (p = 0.0001); 25 of 30, below both, may still be as good as 0.90 (p = 0.3)."""
    store = make_store("s", {})
    for name, n, rate in (("a", 2000, 0.9), ("b", 2000, 0.86), ("c", 30, 25 / 30), ("d", 2000, 0.5)):
        put(store, make_record("in-domain", name, flags(n, rate, 0)), [])
    (table,) = build_tables(from_store(store))
    column = table.columns[0]
    a, b, c, _ = (table.rows[key][column] for key in sorted(table.rows, key=lambda key: key.generator))
    assert significantly_different(a, b) and not significantly_different(a, c)
    groups = {key.generator: number for key, number in table.ties(column, "resnet10").items()}
    assert groups == {"a": 1, "b": 1, "c": 1, "d": 2}


def test_bias_is_shown_against_accuracy_and_latex_escapes(make_store: MakeStore) -> None:
    store = make_store("s", {g: {"in-domain": [flags(200, r, 0)], "texture-bias": [flags(200, 0.3, 1)]}
                             for g, r in (("a_1", 0.5), ("b", 0.9))})  # fmt: skip
    text = Board().render([store], "md", False)
    block = text[text.index("bias against in-domain accuracy") :]
    assert block.index("| b |") < block.index("| a_1 |") and "TI ↓" in block
    latex = Board().render([store], "latex", False)
    assert (
        r"a\_1" in latex
        and r"\textbf{90.0}" in latex
        and latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2
    )
    assert "a_1" not in latex.replace(r"a\_1", "")


def test_units_of_other_items_never_pair() -> None:
    first = Entry(
        make_record("in-domain", "a", flags(50, 0.9, 0)),
        "run",
        units=(flag_units("top1", [f"x{i}" for i in range(50)], flags(50, 0.9, 0)),),
    )
    other = Entry(
        make_record("in-domain", "b", flags(50, 0.2, 0)),
        "run",
        units=(flag_units("top1", [f"y{i}" for i in range(50)], flags(50, 0.2, 0)),),
    )
    (a,), (b,) = build_tables([first]), build_tables([other])
    (one,) = compare(a, b)
    assert one.verdict == "not comparable" and "no test items in common" in one.why


# --- what differs, and what an interval covers --------------------------------------------------------------------------


def test_networks_that_differ_are_compared_and_the_facts_stand_above_the_table(make_store: MakeStore) -> None:
    """The same items decide; recipe, preprocessing and weights are facts of the two systems."""

    def put_one(store: Path, generator: str, rate: float, recipe: str, network: dict[str, Any]) -> None:
        made = make_record("in-domain", generator, flags(200, rate, 1))
        made = replace(
            made,
            subject=replace(made.subject, network=network),
            comparability=replace(made.comparability, recipe=recipe),
        )
        put(store, made, [flag_units("top1", [f"item {i:04d}" for i in range(200)], flags(200, rate, 1))])

    store = make_store("s", {})
    base = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "weights": "ema"}
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "weights": "ema"}
    for name, recipe, network in (
        ("lbgen", "a" * 16, base | {"recipe": {"epochs": 40}}),
        ("sd15", "b" * 16, half | {"recipe": {"epochs": 20}}),
        ("checkpoint:a-1", "outside", base | {"recipe": {"entry": "ema"}}),
        ("older", "a" * 16, {}),
    ):
        put_one(store, name, 0.9 if name == "lbgen" else 0.5, recipe, network)

    def said(first: str, second: str) -> tuple[str, list[str]]:
        (one,) = found = compare(*systems((first, second), [store]))
        return one.verdict, networks_apart(found)

    assert said("lbgen", "sd15") == (
        "better", ["The two differ in mean/std: imagenet / half; pre-training recipe: epochs 40 / 20."])  # fmt: skip
    assert "The two differ in mean/std: imagenet / half; pre-training" in Board().compare(
        "lbgen", "sd15", [store], "md"
    )
    verdict, facts = said("lbgen", "checkpoint:a-1")
    assert verdict == "better" and len(facts) == 1 and "pre-training recipe" in facts[0]
    assert said("lbgen", "older")[1] == ["The records of the second are older and say nothing of its preprocessing."]


def test_label_and_interval_say_the_same(make_store: MakeStore) -> None:
    """Whatever spread is in the interval is in its label, and the other way round."""
    one, many = [flags(400, 0.8, 0)], [flags(400, 0.6 + 0.02 * i, 9 + i) for i in range(3)]
    store = make_store(
        "s",
        {"a": {"in-domain": one}, "b": {"in-domain": one}, "c": {"in-domain": many}, "d": {"in-domain": many[::-1]}},
    )

    def said(first: str, second: str) -> tuple[str, bool]:
        (found,) = compare(*systems((first, second), [store]), (first, second))
        assert found.difference is not None
        return found.why, found.difference.se_seeds is not None

    assert said("a", "b") == ("these weights, new images", False)
    assert said("c", "d") == ("new images and new seeds", True)
    assert said("a", "c") == ("new images and new seeds; a has one seed, assumed to vary like the 3 seeds of c", True)
    assert said("c", "a") == ("new images and new seeds; a has one seed, assumed to vary like the 3 seeds of c", True)
    text = Board().compare(f"a@{store}", f"c@{store}", [], "md")
    assert "a has one seed, assumed to vary like the 3 seeds of c |" in text and "interval generalises to |" in text


def test_with_one_seed_on_one_side_the_interval_covers_the_difference_of_the_generators() -> None:
    """Two, three and five seeds on the other; leaving the single seed's luck out would cover too seldom."""
    rng, worlds, covered, alone = np.random.default_rng(3), TWELVE[:6], 0, 0
    for _ in range(50):
        for place, world in enumerate(worlds):
            items = world.items * rng.standard_normal(world.n)
            first, second = (simulate_runs(world, seeds, items, rng) for seeds in (1, (2, 3, 5)[place % 3]))
            found = difference(first, second, replicates=0)
            bare = with_seeds(found, None, None)
            covered, alone = covered + (found.low <= 0 <= found.high), alone + (bare.low <= 0 <= bare.high)
    assert covered / 300 >= binom.ppf(0.002, 300, 0.94) / 300, covered
    assert alone < covered - 6, (alone, covered)


def test_unpaired_systems_of_one_seed_scatter_like_the_other() -> None:
    """As the paired ones; and nothing is divided by a spread of nothing."""
    estimate = Estimate(0.8, 0.78, 0.82, 100, "m", "p")
    one = Value(estimate, True, ((0, 0),))
    three = Value(replace(estimate, value=0.5, low=0.48, high=0.52), True, ((0, 0), (1, 1), (2, 2)), Spread(0.03, 2))
    found, bare = unpaired(one, three), unpaired(one, one)
    assert found is not None and found.se_seeds == pytest.approx(0.03 * (1 + 1 / 3) ** 0.5) and found.df == 2
    assert bare is not None and bare.se_seeds is None and bare.p == 1
    sure = [Value(replace(estimate, value=v, low=v, high=v), True, ((0, 0),)) for v in (0.8, 0.5)]
    assert significantly_different(*sure) and not significantly_different(sure[0], sure[0])


@pytest.mark.parametrize(
    "name", ["checkpoint:a-1234", "baseline:constant:n04285008", "world:texture=0.4", "folder:sets/a (2)"]
)
def test_commands_take_the_names_that_the_board_prints(
    make_store: MakeStore, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare and gate, with and without the store; a name that nobody has is exit code 2 with what was meant."""
    from harness.cli.main import app

    store = make_store("s", {name: {"in-domain": [flags(200, 0.9, 0)]}, "sd15": {"in-domain": [flags(200, 0.5, 1)]}})
    for first in (name, f"{name}@{store}"):
        app(["compare", first, "sd15", "--store", str(store)], standalone_mode=False)
        assert "| better |" in capsys.readouterr().out
    with pytest.raises(UserError, match="no results of") as caught:
        app(["compare", name[:-2], "sd15", "--store", str(store)], standalone_mode=False)
    assert caught.value.code == 2 and f"did you mean '{name}'" in caught.value.fix
    if name.startswith("world"):
        return  # calibration worlds are in no gate
    app(["gate", str(store), "--baseline", str(tmp_path / "b"), "--update", "--reason", "r"], standalone_mode=False)
    app(["gate", str(store), "--baseline", str(tmp_path / "b"), "--generator", name], standalone_mode=False)
    assert "1 passed" in capsys.readouterr().out
    with pytest.raises(UserError, match="the baseline has no") as caught:
        app(["gate", str(store), "--baseline", str(tmp_path / "b"), "--generator", name[:-2]], standalone_mode=False)
    assert caught.value.code == 2 and f"did you mean '{name}'" in caught.value.fix


def test_a_list_of_names_is_split_outside_brackets() -> None:
    assert names_in("lbgen, checkpoint:a (ema, 160 px),sd15 ") == ["lbgen", "checkpoint:a (ema, 160 px)", "sd15"]


def test_checkpoints_of_different_architectures_are_paired_and_generators_are_not(
    make_store: MakeStore, tmp_path: Path
) -> None:
    for place, names in (("c", ("checkpoint:a-1", "checkpoint:b-2")), ("g", ("lbgen", "sd15"))):
        for name, rate, backbone in zip(names, (0.9, 0.5), ("resnet50", "vit_small_patch16_224"), strict=True):
            subject = replace(make_record("in-domain", name, [True]).subject, generator=name, backbone=backbone)
            make_store(place, {name: {"in-domain": [flags(200, rate, 0)]}}, subject=subject)
    (one,) = compare(*systems(("checkpoint:a-1", "checkpoint:b-2"), [tmp_path / "c"]))
    assert (one.backbone, one.verdict) == ("resnet50 against vit_small_patch16_224", "better")
    assert one.difference is not None and one.difference.value == pytest.approx(0.4)
    for line in compare(*systems(("lbgen", "sd15"), [tmp_path / "g"])):
        assert line.verdict == "not comparable" and "has not been measured" in line.why


def test_names_with_any_characters_are_found_and_cut_nowhere(make_store: MakeStore, tmp_path: Path) -> None:
    odd = "checkpoint:my net (v2), x@y-fd519b"
    lbgen = [flags(200, 0.7, 2), flags(200, 0.7, 3)]
    store = make_store("s", {odd: {"in-domain": [flags(200, 0.8, 1)]}, "lbgen": {"in-domain": lbgen}})
    text = Board().compare(odd, "lbgen", [store], "md")
    assert f"{odd} has one seed, assumed to vary like the 2 seeds of lbgen" in text
    assert odd in Board().compare(f"{odd}@{store}", f"lbgen@{store}", [store], "md")
    Board().write_baseline(tmp_path / "odd", [store], "a test", (), {})
    _, summary, _ = Board().gate([store], tmp_path / "odd", True, odd)
    assert odd in summary and "lbgen" not in summary.replace("baseline", "")


def test_an_unpaired_difference_is_welchs_with_the_errors_of_both_intervals_and_the_pooled_spread_of_seeds() -> None:
    """Errors (0.04 / 3.92) and (0.08 / 3.92); spreads 0.03 of 2 and 0.01 of 1 degrees of freedom over three and two seeds."""
    first = Value(Estimate(0.80, 0.78, 0.82, 100, "m", "p"), True, ((0, 0), (1, 1), (2, 2)), Spread(0.03, 2))
    second = Value(Estimate(0.75, 0.71, 0.79, 80, "m", "p"), True, ((0, 0), (1, 1)), Spread(0.01, 1))
    items = np.hypot(0.04, 0.08) / (2 * norm.ppf(0.975))
    seeds = np.sqrt((2 * 0.03**2 + 0.01**2) / 3 * (1 / 3 + 1 / 2))
    error = np.hypot(items, seeds)
    found = unpaired(first, second)
    assert found is not None and (found.value, found.df, found.n) == (pytest.approx(0.05), 3, 80)
    assert (found.se_items, found.se_seeds) == pytest.approx((items, seeds))
    assert (found.low, found.high) == pytest.approx(
        (0.05 - student.ppf(0.975, 3) * error, 0.05 + student.ppf(0.975, 3) * error)
    )
    p = student.sf(0.05 / error, 3)
    assert (found.p, found.p_higher, found.p_lower) == pytest.approx((2 * p, p, 1 - p), abs=1e-7)
    back = unpaired(second, first)
    assert back is not None and (back.value, back.p_lower) == (pytest.approx(-0.05), pytest.approx(p, abs=1e-7))
    alone = unpaired(replace(first, spread=None), replace(second, spread=None))
    assert alone is not None and alone.se_seeds is None and alone.p == pytest.approx(2 * norm.sf(0.05 / items))
    assert (alone.low, alone.high) == pytest.approx((0.05 - 1.96 * items, 0.05 + 1.96 * items), abs=1e-5)
    assert unpaired(first, replace(second, estimate=replace(second.estimate, low=None, high=None))) is None


def test_values_without_any_error_differ_by_their_sign() -> None:
    point = Value(Estimate(0.5, 0.5, 0.5, 10, "m", "p"), True, ((0, 0),))
    higher = replace(point, estimate=Estimate(0.6, 0.6, 0.6, 10, "m", "p"))
    results = [unpaired(*pair) for pair in ((point, point), (higher, point), (point, higher))]
    assert [(d.p_higher, d.p) for d in results if d] == [(0.5, 1.0), (0.0, 0.0), (1.0, 0.0)]
    assert significantly_different(higher, point) and not significantly_different(point, point)
    nothing = replace(point, estimate=Estimate(None, None, None, 0, "m", "p", "why"))
    assert not significantly_different(nothing, point) and not significantly_different(point, nothing)


def test_lower_is_better_and_invalid_or_lonely_rows_have_no_group(make_store: MakeStore) -> None:
    store = make_store(
        "s", {name: {"texture-bias": [flags(400, rate, 0)]} for name, rate in (("a", 0.9), ("b", 0.2), ("c", 0.5))}
    )
    failed = make_record("texture-bias", "d", flags(400, 0.1, 0), checks=(Check("floor", False, 0.1, 0.5, "m"),))
    put(store, failed, [])
    (table,) = build_tables(from_store(store))
    column = table.columns[0]
    groups = {key.generator: number for key, number in table.ties(column, "resnet10").items()}
    assert groups == {"b": 1, "c": 2, "a": 3}
    assert table.ties(column, "vit") == {} == table.ties(replace(column, better="neither", metric="other"), "resnet10")
    one = Value(Estimate(0.5, 0.4, 0.6, 10, "m", "p"), True)
    assert tie_groups({"a": one}, True) == {} and tie_groups({"a": one, "b": one}, True) == {"a": 1, "b": 1}


def test_ranks_use_the_linearised_error_and_intervals_may_begin_at_nothing() -> None:
    """Five of 1,000 answers lost and none won: t = 2.24, p = 0.025, where the exact test of single runs has 0.06."""
    right = np.ones(1000, dtype=bool)
    names = [str(i) for i in range(1000)]
    values = [Value(Estimate(rate, rate, rate, 1000, "m", "p"), True, ((0, 0),), parts=((Part("x", flag_units("m", names, flags)),),))
              for rate, flags in ((1.0, right), (0.995, np.arange(1000) >= 5))]  # fmt: skip
    assert mcnemar_exact(5, 0) == 0.0625 and significantly_different(*values)
    low = Value(Estimate(0.05, 0.0, 0.1, 10, "m", "p"), True, ((0, 0),))
    found = unpaired(low, low)
    assert found is not None and found.se_items == pytest.approx(0.1 * 2**0.5 / (2 * norm.ppf(0.975)))
