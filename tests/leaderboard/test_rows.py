"""One measurement, one row: what is averaged, what stands apart, how it is named, and that an added row moves no other."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.identity import content_key
from harness.stats.difference import flag_units
from leaderboard.baseline import gated
from leaderboard.compare import compare
from leaderboard.gate import decide
from leaderboard.rows import RowKey, give_way
from leaderboard.setups import Setups
from leaderboard.sources import Entry, merge
from leaderboard.systems import system
from leaderboard.tables import Table, build_tables
from tests.leaderboard.conftest import MakeStore, flags, make_record, put

IMAGENET: dict[str, Any] = {
    "weights": "ema", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "image_size": 224, "interpolation": "bicubic",
    "crop": 0.875, "precision": "fp32", "recipe": {"entry": ""},
}  # fmt: skip
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
N = 120


def entry(generator: str = "lbgen", suite: str = "texture-bias", rate: float = 0.5, seed: int = 0, *, backbone: str = "resnet10",
          recipe: str = "9974c2d46e0bb960", network: Mapping[str, Any] | None = None, setting: str = "", schema: int = 3,
          origin: str = "run", setups: bool = True, **terms: object) -> Entry:  # fmt: skip
    """Return a result with its units; ``setting`` is what of the generator's settings another setup has."""
    right = flags(N, rate, seed + 17 * len(setting))
    made = make_record(suite, generator, right, seed)
    how = [generator, backbone, recipe, setting, dict(network or {})]
    dataset, checkpoint = content_key([generator, setting, seed]), content_key([*how, seed])
    apart = {"checkpoint": content_key(how), "dataset": content_key([generator, setting])} if setups else {}
    terms = {"recipe": recipe, **terms}
    record = replace(
        made, key=content_key([*how, suite, seed, sorted(map(str, terms.items())), rate]), schema=schema, setups=apart,
        subject=replace(made.subject, backbone=backbone, network=dict(network or {})),
        inputs={"checkpoint": checkpoint, "checkpoint/copy/dataset": dataset},
        comparability=replace(made.comparability, **terms),
    )  # fmt: skip
    units = flag_units(record.metrics[0].name, [f"i{i:03d}" for i in range(N)], right)
    return Entry(record, origin, units=(units,))  # type: ignore[arg-type]


def checkpoint(**changes: Any) -> Entry:
    """Return one measurement of the file a-1234."""
    facts = IMAGENET | {name: changes.pop(name) for name in list(changes) if name in IMAGENET}
    return entry("checkpoint:a-1234", recipe="outside", network=facts, **changes)


def labels(*entries: Entry) -> list[str]:
    """Return the labels of the rows of one table."""
    (table,) = build_tables(entries)
    return sorted(key.label for key in table.rows)


def test_measurements_of_one_checkpoint_through_other_preprocessing_are_never_averaged() -> None:
    """27.8, -4.2 and 33.3 were once one row of 19.0, "1 seed"."""
    three = [checkpoint(rate=0.3), checkpoint(rate=0.1, **HALF), checkpoint(rate=0.4, image_size=160)]
    (table,) = build_tables(three)
    found = {
        key.label: round(value.estimate.value or 0, 3) for key, cells in table.rows.items() for value in cells.values()
    }
    assert found == {
        "checkpoint:a-1234 (normalisation imagenet, 224 px)": 0.3,
        "checkpoint:a-1234 (normalisation half)": 0.1,
        "checkpoint:a-1234 (160 px)": 0.4,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "raw"}, ("ema", "raw")),
        ({"precision": "bf16"}, ("fp32", "bf16")),
        ({"interpolation": "bilinear"}, ("bicubic", "bilinear")),
        ({"crop": 1.0}, ("crop 0.875", "crop 1")),
        (HALF, ("normalisation imagenet", "normalisation half")),
        ({"std": [0.3, 0.3, 0.3]}, ("normalisation imagenet", "normalisation 0.485,0.456,0.406/0.3,0.3,0.3")),
    ],
)
def test_rows_are_told_apart_by_the_shortest_difference(change: dict[str, Any], words: tuple[str, str]) -> None:
    """The one fact that differs, and nothing where there is one row."""
    assert labels(checkpoint()) == ["checkpoint:a-1234"]
    assert labels(checkpoint(), checkpoint(rate=0.3, **change)) == sorted(
        f"checkpoint:a-1234 ({word})" for word in words
    )


def test_recipes_of_one_generator_are_rows_of_one_column_and_their_seeds_are_averaged() -> None:
    """A recipe is a fact of the row, never a condition of comparing on the same items."""
    short = [
        entry(rate=0.3, seed=seed, recipe="a" * 16, network={"recipe": {"epochs": 20, "lr": 0.001}})
        for seed in range(3)
    ]
    long = [
        entry(rate=0.4, seed=seed, recipe="b" * 16, network={"recipe": {"epochs": 40, "lr": 0.001}})
        for seed in range(2)
    ]
    (table,) = build_tables([*short, *long])
    assert {key.label: len(table.seeds(key)) for key in table.rows} == {"lbgen (epochs 20)": 3, "lbgen (epochs 40)": 2}
    assert len(table.columns) == 1


def test_settings_of_a_generator_keep_their_seeds_together() -> None:
    """An added setting once split the averaged seeds of the other into rows of their own."""
    plain = [entry(seed=seed) for seed in range(3)]
    other = entry(rate=0.3, setting="weight_en=0")
    (table,) = build_tables([*plain, other])
    assert sorted(len(table.seeds(key)) for key in table.rows) == [1, 3]
    assert labels(*plain, other) == sorted(f"lbgen ({e.record.setups['dataset'][:6]})" for e in (plain[0], other))


def test_runs_that_differ_in_the_training_copy_alone_are_two_rows() -> None:
    """Same images, same recipe, same seed, another network: once the mean of two "repeats"."""
    one = entry(rate=0.2)
    other = replace(one, record=replace(one.record, key="k" * 64, setups=one.record.setups | {"checkpoint": "e" * 64},
                                        inputs=one.record.inputs | {"checkpoint": "f" * 64}))  # fmt: skip
    assert labels(one, other) == sorted(
        [f"lbgen (setup {one.record.setups['checkpoint'][:6]})", "lbgen (setup eeeeee)"]
    )


# --- older records ------------------------------------------------------------------------------------------------------


def old(**changes: Any) -> Entry:
    """Return a record of schema 2 that knows neither facts nor setup."""
    return entry(schema=2, setups=False, **changes)


def test_an_older_record_belongs_to_the_row_that_it_can_belong_to() -> None:
    """The same network says its facts in another record; another seed of the same recipe joins; two possible rows are not guessed."""
    facts = {"recipe": {"epochs": 20}, "precision": "fp32"}
    new = entry(network=facts)
    same = replace(old(suite="in-domain").record, inputs=new.record.inputs)
    assert labels(new, Entry(same, "run")) == ["lbgen"]
    assert labels(new, old(seed=1), old(seed=2)) == ["lbgen"]
    other = entry(network=facts | {"precision": "bf16"}, rate=0.2)
    assert labels(new, other, old(seed=1)) == ["lbgen (bf16)", "lbgen (fp32)", "lbgen (older record)"]
    assert labels(new, old(seed=1, recipe="b" * 16)) == ["lbgen", "lbgen (older record)"]


def test_older_measurements_of_one_file_are_told_apart_by_their_network() -> None:
    """They say nothing of their preprocessing, but each was imported for itself."""
    three = [old(generator="checkpoint:a-1234", recipe="outside", setting=text) for text in ("imagenet", "half", "160")]
    (table,) = build_tables(three)
    assert len(table.rows) == len({key.label for key in table.rows}) == 3


def test_an_old_store_and_its_successor_lose_nothing(make_store: MakeStore) -> None:
    """One cell of two schemas is one record, whose newer facts stay; slimmed records do not contradict whole ones."""
    new = entry(network={"recipe": {"epochs": 20}})
    past = replace(new.record, schema=2, subject=replace(new.record.subject, network={}), setups={})
    (kept,) = merge([Entry(past, "run", "old"), new])
    assert kept.record == new.record and kept.units == new.units
    assert len(merge([old(seed=1), new, entry(seed=2)])) == 3


def test_setups_are_read_from_a_stores_manifests(tmp_path: Path) -> None:
    """Seeds are left out all the way down; what has none keeps its key; what is missing is not known."""

    def artifact(kind: str, spec: dict[str, Any]) -> str:
        key = content_key(spec)
        folder = tmp_path / kind / f"x-{key[:16]}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"key": key, "spec": spec}))
        return key

    def trained(seed: int, weight: float = 1.0) -> str:
        fit = artifact(
            "fit", {"params": {"w": weight}, "inputs": {}, "seeds": {"generator_seed": seed}, "threads": 1 + seed}
        )
        copy = artifact("extract", {"params": {}, "inputs": {"dataset": fit}, "seeds": {}})
        return artifact("pretrain", {"params": {}, "inputs": {"copy": copy}, "seeds": {"train_seed": seed}})

    one, two, other = trained(0), trained(1), trained(0, 2.0)
    outside = artifact("pretrain", {"params": {"sha256": "a"}, "inputs": {}, "seeds": {}})
    lost = artifact("pretrain", {"params": {}, "inputs": {"copy": "9" * 64}, "seeds": {}})
    found = Setups(tmp_path)
    assert found.without_seeds(one) == found.without_seeds(two) != found.without_seeds(other)
    assert found.without_seeds(outside) == outside and found.without_seeds(lost) == "" == found.without_seeds("")


# --- an added row moves no other ----------------------------------------------------------------------------------------


def pool() -> list[Entry]:
    """Return results of many kinds: seeds, recipes, settings, checkpoints, terms, suites, older records, recorded rows."""
    found = [entry(g, s, 0.3 + 0.05 * seed, seed, network={"recipe": {"epochs": 20}})
             for g in ("lbgen", "sd15") for s in ("texture-bias", "in-domain") for seed in range(3)]  # fmt: skip
    found += [
        entry("lbgen", rate=0.2, seed=seed, recipe="b" * 16, network={"recipe": {"epochs": 40}}) for seed in range(2)
    ]
    found += [entry("lbgen", rate=0.6, setting="weight_en=0", network={"recipe": {"epochs": 20}})]
    found += [checkpoint(rate=0.25), checkpoint(rate=0.1, **HALF), checkpoint(rate=0.4, image_size=160)]
    found += [
        checkpoint(rate=0.35, classes="imagenet1k"),
        entry("sd15", rate=0.5, suite_version=2, network={"recipe": {"epochs": 20}}),
    ]
    found += [entry("real", rate=0.5, data={"d": "other"}), entry("real", rate=0.45, protocol="p; logits narrowed")]
    found += [old(generator="real", rate=0.4, seed=seed) for seed in range(2)]
    found += [
        entry("lbgen", rate=0.31, seed=seed, network={"recipe": {"epochs": 20}}, origin="recorded") for seed in (5, 6)
    ]
    return [*found, entry("real", rate=0.7, profile="in1k"), entry("real", "in-domain", 0.7, backbone="vit")]


Cells = dict[tuple[str, RowKey], dict[object, object]]


def cells(tables: Sequence[Table]) -> Cells:
    """Return all values by table, row and column, without labels."""
    return {(table.title, key): {column: (value, frozenset(e.record.key for e in value.sources)) for column, value in row.items()}
            for table in tables for key, row in table.rows.items()}  # fmt: skip


def whole_rows(entries: Sequence[Entry], rng: random.Random) -> list[Entry]:
    """Return some rows of a board with all their results."""
    groups: dict[RowKey, list[Entry]] = {}
    for table in build_tables(entries):
        for key, row in table.rows.items():
            for value in row.values():
                groups.setdefault(key, []).extend(
                    source for source in value.sources if source not in groups.get(key, [])
                )
    chosen = [key for key in sorted(groups, key=lambda key: (*key.order, key.identity)) if rng.random() < 0.6]
    return [one for key in chosen for one in groups[key]]


def test_rows_do_not_depend_on_which_others_exist() -> None:
    """Random boards: every row's values, columns and table are what they are in the whole board."""
    every, rng = pool(), random.Random(7)
    whole = cells(build_tables(every))
    assert len(whole) == 11
    for _ in range(40):
        some = whole_rows(every, rng)
        rng.shuffle(some)
        for place, row in cells(build_tables(some)).items():
            assert row == whole[place], place


def test_added_rows_change_no_comparison_and_no_gate() -> None:
    """Verdicts, differences and intervals of two systems, and every finding of the gate, whatever else there is."""
    every = pool()
    baseline = [e for e in every if e.record.subject.generator in ("lbgen", "sd15") and e.origin == "run"
                and e.record.comparability.recipe.startswith("9") and e.record.comparability.suite_version == 1
                and e.record.setups["dataset"] == content_key([e.record.subject.generator, ""])]  # fmt: skip
    held = gated(baseline, ())
    calm = decide(held, gated(baseline, ()), {}).findings
    assert {finding.verdict for finding in calm} == {"pass"} and len(calm) == 4
    first, second = (
        build_tables([e for e in baseline if e.record.subject.generator == g])[0] for g in ("lbgen", "sd15")
    )
    verdicts = compare(first, second)
    rng, others = random.Random(3), [e for e in every if e not in baseline and e.origin == "run"]
    for _ in range(15):
        more = [*baseline, *rng.sample(others, rng.randrange(len(others)))]
        assert decide(held, gated(more, ()), {}).findings == calm
        chosen = [table_of(more, g) for g in ("lbgen", "sd15")]
        again = [one for one in compare(*chosen) if one.column in {one.column for one in verdicts}]
        assert [(one.verdict, one.difference, one.holm) for one in again] == [
            (o.verdict, o.difference, o.holm) for o in verdicts
        ]


def table_of(entries: Sequence[Entry], generator: str) -> Table:
    """Return the row of a generator's plain setup on the plain terms, however it is labelled now."""
    table = build_tables([e for e in entries if e.record.subject.generator == generator])[0]
    mark = content_key([generator, "resnet10", "9974c2d46e0bb960", "", {"recipe": {"epochs": 20}}])
    rows = {key: {column: value for column, value in row.items() if column.terms.version == 1} for key, row in table.rows.items()
            if any(e.record.setups.get("checkpoint") == mark for value in row.values() for e in value.sources)}  # fmt: skip
    assert len(rows) == 1
    return replace(table, rows=rows)


def test_a_recorded_row_gives_way_to_the_same_thing_alone() -> None:
    """Suite by suite, on equal terms; another recipe, another setting or another version leaves it on the board."""
    facts = {"recipe": {"epochs": 20}}
    recorded = [entry(suite=suite, seed=seed, network=facts, origin="recorded") for suite in ("in-domain", "texture-bias")
                for seed in range(3)]  # fmt: skip

    def left(*own: Entry) -> list[str]:
        return [e.record.suite for e in give_way(recorded, own)]

    assert left(entry(seed=9, network=facts)) == ["in-domain"] * 3
    assert left(entry("sd15")) == left(entry(network={"recipe": {"epochs": 40}}, recipe="b" * 16)) == left(
        entry(setting="weight_en=0", network=facts)
    ) == left(entry(network=facts, suite_version=2)) == left(entry(network=facts, data={"d": "other"})) == [
        "in-domain"] * 3 + ["texture-bias"] * 3  # fmt: skip


# --- names --------------------------------------------------------------------------------------------------------------


def test_every_name_that_a_board_prints_finds_its_row(tmp_path: Path) -> None:
    """Colons, brackets, stores; the same words from another store; several rows of one name are an error that lists them."""
    names = (
        "checkpoint:a-1234",
        "baseline:constant:n04285008",
        "world:texture=0.4",
        "folder:my set (2)",
        "baseline:untrained resnet10",
    )
    for place, generator in enumerate(names):
        for one in (
            (checkpoint(rate=0.3), checkpoint(rate=0.1, **HALF)) if not place else (entry(generator, recipe="none"),)
        ):
            put(tmp_path / "s", one.record, one.units)
    found = []
    for label in ("checkpoint:a-1234 (normalisation half)", "checkpoint:a-1234 (normalisation imagenet)", *names[1:]):
        for text in (label, f"{label}@{tmp_path / 's'}"):
            ((key, row),) = system(text, [tmp_path / "s"]).rows.items()
            found.append((key.generator, *(value.estimate.value for value in row.values())))
    assert [value for _, value in found[:4]] == pytest.approx([0.1, 0.1, 0.3, 0.3], abs=0.01)
    assert [generator for generator, _ in found[4:]] == [name for name in names[1:] for _ in range(2)]
