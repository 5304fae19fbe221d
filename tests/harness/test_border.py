"""What plugins return is checked where it enters the harness, and their exceptions are reported as theirs."""

from __future__ import annotations

import errno
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from harness.core.errors import UserError
from harness.core.settings import NoSettings
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.border import (
    PluginFailed,
    checked_names,
    checked_rows,
    checked_score,
    checked_units,
    planned_items,
    plugin_errors,
)
from harness.plugins.generator import Generator
from harness.plugins.registry import DISTRIBUTION, Registry
from harness.plugins.suite import ColumnKind, Item, Score, Suite, SuiteCard
from harness.run.scoring import score_rows
from harness.run.tasks import _checked
from harness.run.worker import describe
from harness.stats.difference import Units, flag_units
from harness.stats.estimate import Estimate, wilson
from harness.store.records import Check, Metric

MODULE = """
import json
from harness.api import Item, Score, Suite, SuiteCard, UserError

class Toy(Suite):
    card = SuiteCard(id="toy", version=1, summary="", formula="", conventions=(), citation="", order=1, data=())
    def rows(self, ctx):
        return helper(ctx)
    def score(self, rows, item, settings, cards):
        return Score(())

def helper(text):
    return json.loads(text)  # the innermost line of the plugin: json's own frames are not it
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "toyplug.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import toyplug

    yield toyplug.Toy()
    del sys.modules["toyplug"]


def test_an_exception_names_the_plugin_its_file_and_line(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(PluginFailed) as caught, plugin_errors(toy):
        toy.rows("no json")
    line = 1 + MODULE.splitlines().index(
        "    return json.loads(text)  # the innermost line of the plugin: json's own frames are not it"
    )
    error = caught.value
    assert error.what.startswith("suite 'toy' failed: JSONDecodeError: Expecting value") and error.code == 1
    assert error.why == f"raised at {tmp_path / 'toyplug.py'}:{line} in helper"
    assert "toyplug" in error.fix and "harness" not in error.fix
    assert error.__cause__ is not None, "the log keeps the traceback"
    assert describe(error)["what"] == error.what


def test_a_nan_estimate_fails_the_plugin_that_makes_it(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(toy), "score", lambda self, *given: Estimate(float("nan"), None, None, 3, "toy", "toy"))
    with pytest.raises(PluginFailed, match="suite 'toy' failed: ValueError: Estimate.value is nan"), plugin_errors(toy):
        toy.score(good(), None, None, {})


def test_user_errors_and_full_disks_pass(toy: Any) -> None:
    with pytest.raises(UserError, match="mine") as caught, plugin_errors(toy):
        raise UserError("mine", "because", "do")
    assert type(caught.value) is UserError
    with pytest.raises(OSError, match="full"), plugin_errors(toy):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(PluginFailed), plugin_errors(toy):
        raise OSError(errno.ENOENT, "gone")


def test_an_error_of_a_built_in_asks_for_a_report() -> None:
    with pytest.raises(PluginFailed) as caught, plugin_errors(registry.generators().get("real")):
        raise ValueError("x")
    assert "generator 'real' failed" in caught.value.what and "bug of the harness" in caught.value.fix


class Declared(Suite[NoSettings]):
    card = SuiteCard(id="declared", version=1, summary="", formula="", conventions=(), citation="", order=1, data=())
    columns = {"item": "text", "right": "flag", "n": "integer", "x": "number", "many": "list"}  # noqa: RUF012
    row_key = ("item",)
    made: Any = ()

    def items(self, settings: NoSettings, arch: str) -> Any:
        return self.made

    def rows(self, ctx: Any) -> Any: ...

    def score(self, rows: Any, item: Item, settings: NoSettings, cards: Any) -> Any: ...


class Bare(Declared):
    columns = {}  # noqa: RUF012
    row_key = ()


def good() -> pd.DataFrame:
    return pd.DataFrame(
        {"item": ["a", "b"], "right": [True, False], "n": [1, 2], "x": [0.5, np.nan], "many": [[1], []], "more": [0, 0]}
    )


def test_rows_that_keep_the_contract_pass_unchanged() -> None:
    rows = good()
    assert checked_rows(Declared(), rows) is rows
    assert checked_rows(Bare(), rows) is rows
    assert len(checked_rows(Bare(), rows.iloc[:0])) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.to_dict(), "rows returned dict"),
        (lambda rows: rows.drop(columns="right"), "no column 'right'"),
        (lambda rows: rows.assign(right=[1, 0]), "column 'right' of its rows is int64.*make it flag"),
        (lambda rows: rows.assign(n=[1.0, 2.0]), "column 'n' of its rows is float64.*make it integer"),
        (lambda rows: rows.assign(x=[True, False]), "column 'x' of its rows is bool.*make it number"),
        (lambda rows: rows.assign(item=["a", None]), "column 'item'.*make it text, without missing values"),
        (lambda rows: rows.assign(many=["ab", "c"]), "column 'many'.*make it list"),
        (lambda rows: rows.assign(item=["a", "a"]), "1 of 2 rows repeat another, such as item='a'"),
        (lambda rows: rows.rename(columns={"more": "x"}), "column 'x' of its rows comes twice"),
        (lambda rows: rows.rename(columns={"more": 3}), "column 3 of its rows comes twice or is not a string"),
    ],
)
def test_rows_that_break_the_contract_are_refused(change: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)suite 'declared' breaks its contract.*{words}"):
        checked_rows(Declared(), change(good()))


def test_without_a_key_whole_rows_must_differ() -> None:
    assert checked_rows(Bare(), good().assign(item="a")) is not None
    twice = pd.concat([good(), good().iloc[:1]])
    with pytest.raises(UserError, match="1 of 3 rows repeat another"):
        checked_rows(Bare(), twice)


def metric(name: str, value: float) -> Metric:
    return Metric(name, Estimate(value, 0.0, 1.0, 3, "toy", "toy"))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"accuracy": 0.5}, "score returned dict"),
        (Score((metric("a", 0.5), metric("a", 0.6))), "holds the metric 'a' 2 times"),
        (Score((0.5,)), "its score holds float 0.5.*a Metric is expected"),  # type: ignore[arg-type]
        (Score((Metric("a", 0.5),)), "metric 'a' holds float 0.5.*an Estimate is expected"),  # type: ignore[arg-type]
        (Score((), notes=(3,)), "its score holds int 3.*a str is expected"),  # type: ignore[arg-type]
    ],
)
def test_scores_that_break_the_contract_are_refused(score: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)suite 'declared' breaks its contract.*{words}"):
        checked_score(Declared(), score)


def test_a_score_may_be_undefined_and_may_lack_an_interval() -> None:
    none = Metric("b", Estimate(None, None, None, 0, "toy", "toy", reason="no images"))
    score = Score((metric("a", 0.5), none), notes=("x",))
    assert checked_score(Declared(), score) is score


SHARE = wilson(3, 40)


def shown(value: float, low: float | None, high: float | None, n: int = 40, **facts: Any) -> Score:
    return Score((Metric("m", Estimate(value, low, high, n, "toy", "toy"), **facts),))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (
            Score((Metric("m", SHARE, better="up"),)),
            "metric 'm': better is str 'up', not one of higher, lower, neither",
        ),  # type: ignore[arg-type]
        (Score((Metric("m", SHARE, unit="percent"),)), "unit is str 'percent', not one of fraction"),  # type: ignore[arg-type]
        (Score((Metric("m", SHARE, role="main"),)), "role is str 'main', not one of primary"),  # type: ignore[arg-type]
        (Score((Metric(" ", SHARE),)), "the name of a metric ' ' is empty"),
        (Score((Metric("a\nb", SHARE),)), "holds a line feed or another control character"),
        (Score((Metric("a\x1b[1m", SHARE),)), "holds a line feed or another control character"),
        (Score((Metric(3, SHARE),)), "the name of a metric int 3 is not a string"),  # type: ignore[arg-type]
        (Score((Metric("m", SHARE, group="g\r", group_size=2),)), r"its group 'g\\r' holds a line feed"),
        (Score((Metric("m", SHARE, group="g"),)), "group 'g' of size 0"),
        (Score((Metric("m", SHARE, group_size=2.0),)), "group_size is float 2.0, not a Python int"),  # type: ignore[arg-type]
        (Score((Metric("m", SHARE, beside=("x",)),)), "read beside 'x', which its score lacks"),
        (Score((Metric("m", SHARE, beside="m"),)), "beside is str 'm', not a tuple of a string"),  # type: ignore[arg-type]
        (shown(57.0, 50.0, 60.0), r"m' is 57 \[50, 60\]: a value of the unit 'fraction' is in \[0, 1\]"),
        (shown(0.5, 0.4, 60.0), "a value of the unit 'fraction'"),
        (shown(-0.1, None, None), "is -0.1: a value of the unit 'fraction'"),
        (shown(157.0, None, None, unit="points"), r"a value of the unit 'points' is in \[-100, 100\]"),
        (shown(0.5, 0.6, 0.7), r"0.5 is outside its interval \[0.6, 0.7\]"),
        (shown(0.5, 0.4, 0.6, 0), "is 0.5 of n = 0 items"),
        (shown(0.5, 0.4, 0.6, np.int64(40)), "n is int64 np.int64.40., not a Python int"),  # type: ignore[arg-type]
        (shown(np.float32(0.5), 0.4, 0.6), "value is float32 .*, not a finite number or None"),  # type: ignore[arg-type]
        (shown(True, 0.0, 1.0), "value is bool True"),
        (Score((), (Check("c", np.True_, 0.5, 0.1, "x"),)), "its check 'c': passed is bool.*, not True or False"),  # type: ignore[arg-type]
        (Score((), (Check("c", True, float("nan"), 0.1, "x"),)), "its check 'c': value is float nan"),
    ],
)
def test_values_that_a_metric_cannot_have_are_refused(score: Score, words: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)suite 'declared' breaks its contract.*{words}"):
        checked_score(Declared(), score)


class Quotient(Declared):
    unbounded = ("CB_*",)


@pytest.mark.parametrize(
    "score",
    [
        shown(0.0, 0.0, 0.0),
        shown(1.0 + 1e-12, 0.9, 1.05),
        shown(-100.0, -101.0, -99.0, unit="points"),
        shown(-3.0, -4.0, 57.0, unit="ratio"),
        Score((Metric("CB_1", Estimate(1.4, 0.9, 2.5, 40, "toy", "toy"), beside=("Acc_0",)), Metric("Acc_0", SHARE))),
        shown(0.5, None, None, group="g", group_size=2),
    ],
)
def test_values_inside_their_range_pass_and_quotients_may_leave_it(score: Score) -> None:
    assert checked_score(Quotient(), score) is score


IDS = tuple(f"i{k}" for k in range(40))
FLAGS = np.arange(40) < 3
"""Whose share is ``SHARE``."""


def unit_of(metric: str = "m", ids: Any = IDS, flags: Any = FLAGS) -> Units:
    return flag_units(metric, list(ids), flags)


def other(**facts: Any) -> Units:
    return replace(unit_of(), **facts)


def test_units_of_the_score_pass() -> None:
    score = Score((Metric("m", SHARE), Metric("none", Estimate(None, None, None, 0, "toy", "toy", "no images"))))
    empty = Units("none", "share", (), np.zeros(0, np.int64), np.zeros((0, 2)))
    assert [each.metric for each in checked_units(Declared(), (unit_of(), empty), score, ["m", "none"])] == [
        "m",
        "none",
    ]
    points = shown(7.5, 1.0, 20.0, unit="points")
    assert len(checked_units(Declared(), (other(scale=100.0),), points, ["m"])) == 1
    assert checked_units(Declared(), (), score, ["m"]) == ()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"m": 1}, "units returned dict"),
        (("m",), "units returned str 'm' in its tuple"),
        ((unit_of("x"),), "units of the metric 'x', asked for were m"),
        ((unit_of(), unit_of()), "units of the metric 'm' twice"),
        ((unit_of(flags=~FLAGS),), "units of the metric 'm' give 0.925, its score says 0.075"),
        ((unit_of(ids=["same"] * 40),), "are 'same', the metric's n is 40"),
        ((other(ids=("a",) * 40),), "item names are not unique"),
        ((other(ids=("a\nb", *IDS[1:])),), r"the item name 'a\\nb' holds a line feed"),
        ((other(ids=("\udc80", *IDS[1:])),), "holds a line feed or another control character"),
        ((other(ids=("", *IDS[1:])),), "the item name '' is empty"),
        ((other(statistic="median"),), "the statistic is 'median', not one of share, mean share, relative"),
        ((other(features=np.ones((40, 3))),), "a share of 3 features"),
        ((other(features=np.full((40, 2), np.nan)),), "a feature or the scale is not finite"),
        ((other(strata=np.zeros(40)),), "strata .40,. and float64"),
        ((Units("m", "share", (), np.zeros(0, np.int64), np.zeros((0, 2))),), "are none, the metric's n is 40"),
        ((other(features=np.zeros((40, 2))),), "give nan, its score says 0.075"),
    ],
)
def test_units_that_cannot_be_compared_are_refused(found: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)suite 'declared' breaks its contract.*{words}"):
        checked_units(Declared(), found, Score((Metric("m", SHARE),)), ["m"])


@pytest.mark.parametrize("name", ["a\nb", "", "\u2028"])
def test_rows_whose_item_names_a_store_cannot_hold_are_refused(name: str) -> None:
    checked_names(Declared(), good())
    with pytest.raises(UserError, match="(?s)in column 'item' of its rows, the name"):
        checked_names(Declared(), good().assign(item=["a", name]))
    with pytest.raises(UserError, match="(?s)in column 'image' of its rows, the name"):
        checked_names(Declared(), good().assign(image=["a", name]))


def test_what_score_and_units_return_is_checked_where_rows_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Declared):
        def score(self, rows: Any, item: Item, settings: NoSettings, cards: Any) -> Any:
            return Score((Metric("m", wilson(1, 2)),))

        def units(self, rows: Any, item: Item, settings: NoSettings, cards: Any, names: Any) -> Any:
            return (flag_units("m", list(rows["item"]), [False, False]),)

    monkeypatch.setattr(registry, "suites", lambda: SimpleNamespace(get=lambda name: Wrong()))
    subject = dict.fromkeys(("generator", "backbone", "information", "profile", "class_list", "recipe"), "")
    spec = {
        "name": "declared", "version": 1, "seeds": {"probe_seed": 0},
        "params": {"settings": {}, "item": "a", "item_params": {}, "data": {},
                   "subject": {**subject, "generator_seed": 0, "train_seed": 0}},
    }  # fmt: skip
    with pytest.raises(UserError, match="units of the metric 'm' give 0, its score says 0.5"):
        score_rows(spec, "key", good(), {}, {}, {})
    with pytest.raises(UserError, match="in column 'item' of its rows"):
        score_rows(spec, "key", good().assign(item=["a", "b\n"]), {}, {}, {})


def test_a_repeated_row_is_named_as_python_prints_it() -> None:
    twice = pd.concat([good(), good().iloc[:1]]).assign(many=0)
    with pytest.raises(UserError, match="such as item='a', right=True, n=1"):
        checked_rows(Bare(), twice)


def test_equal_items_are_refused_and_repeats_with_other_seeds_are_not() -> None:
    suite = Declared()
    suite.made = (Item("a", ()), Item("a", (), probe_seed=1), Item("b", ()))
    assert planned_items(suite, NoSettings(), "resnet10") == suite.made
    suite.made = (Item("a", (), {"k": 1}), Item("a", (), {"k": 2}))
    with pytest.raises(UserError, match="2 items with the label 'a' and probe seed 0"):
        planned_items(suite, NoSettings(), "resnet10")
    suite.made = ("a",)
    with pytest.raises(UserError, match="items returned str 'a'"):
        planned_items(suite, NoSettings(), "resnet10")


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([0, 1], "asked for the images 4 to 5, it yielded index 0: counted from the request"),
        ([4], "made 1 of 2 images"),
    ],
)
def test_images_must_be_counted_from_zero_of_the_class(indices: list[int], words: str) -> None:
    from harness.api import Sample

    ctx: Any = SimpleNamespace(
        params={"dataset": {"size_px": 2}}, cell=SimpleNamespace(name="dots"), progress=lambda *facts: None
    )
    samples = (Sample(i, np.zeros((2, 2, 3), np.uint8)) for i in indices)
    with pytest.raises(UserError, match=words):
        list(_checked(samples, 4, 6, ctx))
    with pytest.raises(UserError, match="synthesise yielded ndarray"):
        list(_checked(iter([np.zeros(3)]), 4, 6, ctx))  # type: ignore[list-item]


def test_declared_columns_of_built_in_suites_are_sound() -> None:
    good, broken = registry.suites().available()
    ours = [suite for suite in good if type(suite).__module__.startswith("suites.")]
    assert len(ours) == 12 and not broken
    for suite in ours:
        assert suite.row_key and set(suite.row_key) <= set(suite.columns), suite.card.id
        assert set(suite.columns.values()) <= set(get_args(ColumnKind))


def test_no_hook_of_the_contract_takes_untyped_settings() -> None:
    seen = 0
    for contract in (Generator, Suite):
        for name, hook in inspect.getmembers(contract, inspect.isfunction):
            if "settings" in (parameters := inspect.signature(hook).parameters):
                seen += 1
                assert parameters["settings"].annotation == "S", name
    assert seen == 17
    for plugin in (*registry.generators().available()[0], *registry.suites().available()[0]):
        for name, hook in inspect.getmembers(type(plugin), inspect.isfunction):
            found = inspect.signature(hook).parameters.get("settings")
            assert found is None or found.annotation != "Any", f"{plugin.card.id}.{name}"


class Twin(Declared):
    card = SuiteCard(id="twin", version=1, summary="", formula="", conventions=(), citation="", order=1, data=())


@dataclass(frozen=True)
class Distributed:
    """What is looked at of an installed distribution."""

    name: str


def point(name: str, value: str, distribution: str) -> EntryPoint:
    made = EntryPoint(name, value, "harness.suites")
    return made._for(Distributed(distribution))  # type: ignore[attr-defined]


def found(*points: EntryPoint) -> Registry[Suite]:
    return Registry("suite", "harness.suites", Suite, points)  # type: ignore[type-abstract]


def test_a_built_in_keeps_its_name_and_the_plugin_that_takes_it_is_listed_as_broken() -> None:
    suites = found(
        point("coco", "aaa_plugin:Coco", "greedy"),
        point("coco", "suites.coco:Coco", DISTRIBUTION),
        point("ade20k", "suites.ade20k:ADE20K", DISTRIBUTION),
    )
    assert suites.ids() == ("ade20k", "coco")
    assert type(suites.get("coco")).__module__ == "suites.coco"
    good, (broken,) = suites.available()
    assert [suite.card.id for suite in good] == ["ade20k", "coco"] and suites.groups()["all"]
    assert (broken.id, broken.origin) == ("coco", "aaa_plugin:Coco (greedy)")
    assert "the built-in suite 'coco' has this name" in broken.reason


def test_of_two_plugins_with_one_name_neither_is_taken() -> None:
    suites = found(point("twin", "a:Twin", "first"), point("twin", "b:Twin", "second"))
    with pytest.raises(UserError, match=r"both a:Twin \(first\) and b:Twin \(second\) register this name"):
        suites.get("twin")


def test_the_installed_built_ins_are_known_as_such() -> None:
    points = [p for p in importlib.metadata.entry_points(group="harness.suites") if p.name == "coco"]
    assert {p.dist.name for p in points if p.dist} == {DISTRIBUTION}


def test_all_names_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    suites = found(
        point("coco", "suites.coco:Coco", DISTRIBUTION), point("rotten", "no_such_module:Thing", "bad-plugin")
    )
    monkeypatch.setattr(registry, "suites", lambda: suites)
    profile = load_profile("micro", ["suites={}"], []).profile.model_copy(update={"suites": {}, "data": {}})
    notes = Planner(Selection(profile, "", "all")).plan.notes
    assert notes == [
        "all leaves out suite rotten (no_such_module:Thing (bad-plugin)): ModuleNotFoundError: No module named 'no_such_module'"
    ]
    assert Planner(Selection(profile, "", "coco")).plan.notes == []


def test_a_hook_that_fails_while_planning_is_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, settings: Any) -> str:
        raise KeyError("absent")

    monkeypatch.setattr(type(registry.generators().get("real")), "missing", fails)
    profile = load_profile("micro", [], []).profile
    with pytest.raises(PluginFailed, match="generator 'real' failed: KeyError: 'absent'"):
        Planner(Selection(profile, "real", "")).build()


class Failing(Declared):
    card = SuiteCard(
        id="failing",
        version=1,
        summary="",
        formula="",
        conventions=(),
        citation="",
        order=1,
        data=(),
        subject="dataset",
    )

    def items(self, settings: NoSettings, arch: str) -> Any:
        raise IndexError("none")


class Willing(Failing):
    card = replace(Failing.card, id="willing")

    def items(self, settings: NoSettings, arch: str) -> Any:
        return (Item("a", ()), Item("b", ()))


class Costly(Willing):
    card = SuiteCard(
        id="costly", version=1, summary="", formula="", conventions=(), citation="", order=1, data=(), subject="dataset"
    )

    def cost(self, item: Item, settings: NoSettings, cards: Any) -> str:
        return {"a": "cheap"}[item.label]


def planned(monkeypatch: pytest.MonkeyPatch, suites: str, *hidden: type[Suite]) -> Any:
    known = Registry("suite", "harness.suites", Suite, [])  # type: ignore[type-abstract]
    for cls in (Failing, Willing, Costly, *hidden):
        plugin: Any = cls()
        known._points[plugin.card.id], known._loaded[plugin.card.id] = point(plugin.card.id, "a:b", "toys"), plugin
    monkeypatch.setattr(registry, "suites", lambda: known)
    profile = load_profile("micro", [], []).profile.model_copy(update={"suites": {}, "data": {}})
    return Planner(Selection(profile, "sd15", suites, "resnet10"), assume_present={}).build()


@pytest.mark.parametrize(("suites", "asked"), [("all", False), ("failing,costly,willing", True)])
def test_a_suite_that_fails_while_planning_is_not_run_and_the_others_are(
    monkeypatch: pytest.MonkeyPatch, suites: str, asked: bool
) -> None:
    plan = planned(monkeypatch, suites)
    assert [cell.label.split()[-2:] for cell in plan.cells.values() if cell.kind == "evaluate"] == [
        ["willing", "a"],
        ["willing", "b"],
    ]
    faults = {entry.what: entry for entry in plan.not_run}
    assert set(faults) == {"failing", "costly"} and all(entry.failed for entry in faults.values())
    assert {entry.asked for entry in faults.values()} == {asked}
    assert "suite 'failing' failed: IndexError: none: raised at" in faults["failing"].reason
    assert f"{__file__}:" in faults["failing"].reason and "KeyError: 'b'" in faults["costly"].reason


def test_a_suite_that_breaks_its_contract_while_planning_is_named_with_file_and_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for made, words in (
        ((Item("a", ()), Item("a", ())), "2 items with the label 'a'"),
        ((Item("a\nb", ()),), "the label of an item"),
        ((Item("a", "dtd"),), "data is str 'dtd', not a tuple of a string"),  # type: ignore[arg-type]
        ((Item("a", (), {"x": object()}),), "its params are not JSON"),
    ):
        monkeypatch.setattr(Failing, "items", lambda self, settings, arch, made=made: made)
        (entry,) = [each for each in planned(monkeypatch, "failing,willing").not_run if each.what == "failing"]
        assert words in entry.reason and f"(items at {__file__}:" in entry.reason and entry.failed
        with pytest.raises(PluginFailed, match="suite 'failing' breaks its contract"):
            planned(monkeypatch, "failing")


def test_a_generator_that_fails_while_planning_is_not_run_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, settings: Any) -> str:
        raise KeyError("absent")

    monkeypatch.setattr(type(registry.generators().get("sd15")), "missing", fails)
    profile = load_profile("micro", [], []).profile.model_copy(update={"suites": {}, "data": {}})
    plan = Planner(Selection(profile, "sd15,genrobust-base", "", "resnet10"), assume_present={}).build()
    (entry,) = [each for each in plan.not_run if each.failed]
    assert entry.what == "generator sd15" and "KeyError: 'absent'" in entry.reason
    assert {cell.name for cell in plan.cells.values() if cell.kind == "synthesise"} == {"genrobust-base"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"card": None}, "its card is NoneType, not a SuiteCard"),
        ({"card": replace(Declared.card, id="twin", subject="pictures")}, "its card: subject is str 'pictures'"),
        (
            {"card": replace(Declared.card, id="twin", data="dtd")},
            "its card: data is str 'dtd', not a tuple of a string",
        ),
    ],
)
def test_a_plugin_whose_card_says_what_none_can_is_listed_as_broken(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(Twin, name, value)
    (broken,) = found(point("twin", f"{__name__}:Twin", "first")).available()[1]
    assert words in broken.reason


SULKY = """
from dataclasses import replace
from fakeplug import Brightness
from harness.api import SuiteCard

class Sulky(Brightness):
    card = replace(Brightness.card, id="sulky")
    def items(self, settings, arch):
        raise IndexError("none today")
"""


def test_a_run_lists_a_suite_whose_items_fail_does_the_rest_and_says_so_by_its_exit_code(
    harness: Any, plugins: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    (site / "sulky-1.0.dist-info").mkdir(parents=True)
    (site / "sulkyplug.py").write_text(SULKY)
    (site / "sulky-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: sulky\nVersion: 1.0\n")
    (site / "sulky-1.0.dist-info" / "entry_points.txt").write_text("[harness.suites]\nsulky = sulkyplug:Sulky\n")
    path = os.pathsep.join(filter(None, (str(site), str(plugins), os.environ.get("PYTHONPATH"))))
    flags = ("--profile", str(plugins / "toy.toml"), "--generator", "noise")
    for suites, command in (("sulky,brightness", "run"), ("all", "plan")):
        done = harness(command, *flags, "--suite", suites, PYTHONPATH=path)
        shown = done.stdout + done.stderr
        assert done.returncode == 1 and "Traceback" not in shown, shown
        assert "not run: sulky: suite 'sulky' failed: IndexError: none today: raised at" in shown
        assert f"{site}/sulkyplug.py:9 in items" in shown
    assert len(list((tmp_path / "store" / "evaluate").glob("brightness-*/record.json"))) == 1
    alone = harness("run", *flags, "--suite", "sulky", PYTHONPATH=path)
    assert alone.returncode == 1 and "error: suite 'sulky' failed: IndexError" in alone.stderr
