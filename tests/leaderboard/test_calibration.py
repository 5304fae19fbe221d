"""Calibration: what is said of metrics that follow, miss, cross-talk or turn round."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.calibrate import SUITES, _groups, worlds
from harness.cli.main import app
from harness.core.errors import DataMissing, UserError
from harness.core.identity import content_key
from harness.stats.estimate import Estimate
from harness.store.records import Check, Comparability, Metric, Record, Subject
from leaderboard.board import Board
from leaderboard.calibration import Point, Response, cross_talk, draw, responses, to_csv, to_markdown, verdict
from leaderboard.sources import Entry
from tests.leaderboard.conftest import MakeStore, flags

DOSES = (0.0, 0.2, 0.4, 0.6, 0.8)
METRICS = {
    "TI": ("texture-bias", "lower"),
    "CB_avg": ("context-bias", "higher"),
    "BG_Gap": ("background-bias", "lower"),
}


def entry(metric: str, cause: str, dose: float, seed: int, value: float, passed: bool = True) -> Entry:
    """Return one record of one world."""
    suite, better = METRICS[metric]
    unit = "points" if metric == "BG_Gap" else "fraction"
    estimate = Estimate(value, value - 0.02, value + 0.02, 500, "made up", "these stimuli")
    if unit == "points":
        estimate = Estimate(value, value - 2, value + 2, 500, "made up", "these stimuli")
    generator = f"world:{cause}={dose:g}"
    return Entry(
        Record(suite, 1, metric, Subject(generator, "resnet10", seed, seed), 0,
               (Metric(metric, estimate, unit, better),),  # type: ignore[arg-type]
               (Check("accuracy", passed, 0.5, 0.3, "m"),), Comparability("toy", 1, {}, "c", "p", "r"),
               content_key([metric, cause, dose, seed])),
        "run",
    )  # fmt: skip


def measured(metric: str, answers: dict[str, Callable[[float], float]], bad: tuple[float, ...] = ()) -> list[Entry]:
    """Return three seeds of every dose of every cause; seeds differ by half a point."""
    found = []
    for seed in range(3):
        wobble = (seed - 1) * (0.5 if metric == "BG_Gap" else 0.005)
        found.append(entry(metric, "all", 0.0, seed, next(iter(answers.values()))(0.0) + wobble))
        for cause, answer in answers.items():
            found += [
                entry(metric, cause, dose, seed, answer(dose) + wobble, dose not in bad) for dose in DOSES if dose
            ]
    return found


def by_cause(found: list[Response], metric: str) -> dict[str, Response]:
    return {response.cause: response for response in found if response.metric == metric}


def test_an_instrument_that_works_is_said_to_follow_its_own_cause_only() -> None:
    found = responses(
        measured("TI", {"texture": lambda dose: 0.1 + 0.5 * dose, "scene": lambda dose: 0.1 + 0.05 * dose})
    )
    ti = by_cause(found, "TI")
    assert ti["texture"].own and not ti["scene"].own
    assert ti["texture"].spearman == pytest.approx(0.976, abs=0.02)
    effect = ti["texture"].effect()
    assert effect is not None and effect[:2] == (0.8, pytest.approx(40.0))
    talk = cross_talk(ti["scene"], found)
    assert talk is not None and (talk.dose, talk.share) == (0.8, pytest.approx(0.1))
    error = ti["scene"].points[-1].error  # all points have one error; the balanced world is in both effects
    assert talk.error == pytest.approx(error * (2 + 2 * 0.1**2 - 2 * 0.1) ** 0.5 / 40, rel=1e-6)
    assert verdict(ti["texture"], found) == "rises with the dose (5 of 5 doses valid)"
    assert (
        verdict(ti["scene"], found) == "cross-talk at most 10 ± 7 % of the own effect at dose 0.8 (5 of 5 doses valid)"
    )


def test_higher_is_better_is_turned_over() -> None:
    found = responses(measured("CB_avg", {"scene": lambda dose: 0.9 - 0.5 * dose}))
    points = by_cause(found, "CB_avg")["scene"].points
    assert [point.bias for point in points] == pytest.approx([10, 20, 30, 40, 50])


def test_a_metric_that_answers_to_another_cause_is_named() -> None:
    found = responses(measured("BG_Gap", {"scene": lambda dose: 20 * dose, "texture": lambda dose: 12 * dose}))
    bg = by_cause(found, "BG_Gap")
    assert re.match("CROSS-TALK: 60 ± [0-9]+ % of the own effect at dose 0.8 ", verdict(bg["texture"], found))
    assert "CROSS-TALK" in to_markdown(found)


def test_cross_talk_of_a_middle_dose_is_not_hidden_by_the_last() -> None:
    found = responses(measured("BG_Gap", {"scene": lambda dose: 40 * dose, "light": lambda dose: 16.0 * (dose == 0.4)}))
    light = by_cause(found, "BG_Gap")["light"]
    assert re.match("CROSS-TALK: 50 ± [0-9]+ % of the own effect at dose 0.4 ", verdict(light, found))


@pytest.mark.parametrize(("doses", "words"), [(2, "too few doses to say (2 of 2 doses valid)"),
                                              (3, "rises with the dose (3 of 3 doses valid)")])  # fmt: skip
def test_too_few_doses_are_not_called_a_failure(doses: int, words: str) -> None:
    kept = {f"world:texture={dose:g}" for dose in DOSES[1:doses]} | {"world:all=0"}
    every = measured("TI", {"texture": lambda dose: 0.1 + 0.5 * dose})
    found = responses([entry for entry in every if entry.record.subject.generator in kept])
    assert verdict(by_cause(found, "TI")["texture"], found) == words


@pytest.mark.parametrize(("bad", "fails"), [((), False), ((0.8,), True)])
def test_fewer_than_five_sixths_of_the_doses_valid_fails_and_says_so(bad: tuple[float, ...], fails: bool) -> None:
    found = responses(measured("TI", {"texture": lambda dose: 0.1 + 0.5 * dose}, bad))
    words = verdict(by_cause(found, "TI")["texture"], found)
    assert ("FAILS: the validity checks must pass at five of six doses" in words) == fails
    assert f"({5 - len(bad)} of 5 doses valid)" in words
    six = Response("TI", "texture", tuple(Point(d / 10, 1.0, 0.1, (1.0,), d != 3) for d in range(6)))
    assert six.enough_valid


def test_worlds_stand_on_no_board_beside_generators(make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"sd15": {"in-domain": [flags(300, 0.5, 0)]}, "real": {"in-domain": [flags(300, 0.52, 1)]}}
    worlds_too = plain | {"world:texture=0.8": {"in-domain": [flags(300, 0.9, 2)]}}
    board, mixed = (Board().render([make_store(n, r)], "csv", False) for n, r in (("a", plain), ("b", worlds_too)))
    assert board == mixed and "harness calibrate" in capsys.readouterr().err


def test_a_profile_without_the_embedded_world_cannot_be_calibrated() -> None:
    with pytest.raises(UserError, match="profile in100 cannot be calibrated") as caught:
        app(["calibrate", "--profile", "in100"], standalone_mode=False)
    assert "embedded world" in caught.value.why and "--profile" in caught.value.fix


@pytest.mark.parametrize(
    ("bad", "words"), [((0.8,), "the validity check fires there"), ((), "NO validity check fires there")]
)
def test_a_turn_is_found_and_whether_the_check_fires(bad: tuple[float, ...], words: str) -> None:
    found = responses(measured("BG_Gap", {"scene": lambda dose: 40 * dose if dose < 0.7 else 10.0}, bad))
    scene = by_cause(found, "BG_Gap")["scene"]
    assert scene.turn is not None and scene.turn.dose == 0.8
    assert words in verdict(scene, found)
    assert (scene.spearman == pytest.approx(0.97, abs=0.03)) == bool(bad), "invalid points must not count"
    assert ("10.0±2.1 (x)" in to_markdown(found)) == bool(bad)


def test_a_dead_metric_does_not_pass() -> None:
    found = responses(measured("TI", {"texture": lambda dose: 0.1}))
    assert verdict(by_cause(found, "TI")["texture"], found).startswith(
        "does NOT respond: at dose 0.8 it has risen by 0.0 ± "
    )
    text = to_markdown(found)
    assert (
        text.endswith("no value says that there is no bias.\n")
        and "**Not calibrated here:** TI does NOT respond" in text
    )
    assert "Not calibrated" not in to_markdown(responses(measured("TI", {"texture": lambda dose: 0.1 + dose / 2})))


def test_a_metric_that_rises_without_order_does_not_follow() -> None:
    """Rank correlation 0.6 or so, and a rise at the last dose that is beyond its error."""
    steps = {0.0: 0.1, 0.2: 0.4, 0.4: 0.12, 0.6: 0.35, 0.8: 0.3}
    found = responses(measured("TI", {"texture": steps.__getitem__}))
    assert verdict(by_cause(found, "TI")["texture"], found).startswith("does not follow the dose closely (Spearman")


def image_entry(name: str, cause: str, dose: float, value: float, unit: str, better: str) -> Entry:
    """Return a record of the images of one world, which have no backbone."""
    made = second(name, "images", cause, dose, value, unit, better)
    subject = replace(made.record.subject, backbone="-", train_seed=0)
    return replace(made, record=replace(made.record, subject=subject))


def test_what_images_say_answers_to_flaws_of_the_images_and_needs_no_backbone() -> None:
    values = {
        ("labels", 0.4): 0.55,
        ("labels", 0.8): 0.15,
        ("tint", 0.4): 0.94,
        ("tint", 0.8): 0.92,
        ("all", 0.0): 0.95,
    }
    made = [image_entry("class_agreement", *at, value, "fraction", "higher") for at, value in values.items()]
    made += [image_entry("diversity", *at, 1 - dose / 2, "ratio", "neither")
             for at in values if at[0] != "tint" for dose in [at[1]]]  # fmt: skip
    found = responses(made)
    agreement = by_cause(found, "class_agreement")
    assert [point.bias for point in agreement["labels"].points] == pytest.approx([5, 45, 85]) and agreement[
        "labels"
    ].own
    assert verdict(agreement["tint"], found).startswith("cross-talk at most 4 ± ")
    diversity = by_cause(found, "diversity")["labels"]
    assert [point.bias for point in diversity.points] == pytest.approx([0, 20, 40]) and not diversity.own


def test_worlds_with_networks_are_read_with_what_their_images_say() -> None:
    mixed = measured("TI", {"texture": lambda dose: 0.1 + 0.5 * dose})
    mixed += [image_entry("origin_accuracy", cause, dose, 0.5 + dose / 2, "fraction", "lower")
              for cause, dose in (("all", 0.0), ("tint", 0.4), ("tint", 0.8))]  # fmt: skip
    found = responses(mixed)
    assert verdict(by_cause(found, "origin_accuracy")["tint"], found) == "rises with the dose (3 of 3 doses valid)"
    assert by_cause(found, "TI")["texture"].spearman is not None


def test_networks_are_trained_for_planted_bias_and_images_measured_for_flaws() -> None:
    names = worlds(["texture", "size", "labels"], ["0.4", "0.8"])
    (suites, biased), (images, flawed) = _groups(names)
    assert "texture-bias" in suites and fnmatch.filter(["images", "image-like", "generated-correlation"], images) == [
        "images"
    ]
    assert biased == [name for name in names if "labels" not in name] and "world:size=0" in biased
    assert flawed == ["world:all=0", "world:labels=0.4", "world:labels=0.8", "world:size=0.8", "world:texture=0.8"]
    assert _groups(worlds(["texture"], ["0.4"])) == [(SUITES, ["world:all=0", "world:texture=0.4"])]
    assert [suites for suites, _ in _groups(worlds(["tint"], ["0.4"]))] == [images]


def test_error_holds_items_and_seeds() -> None:
    found = responses(measured("TI", {"texture": lambda dose: 0.1 + 0.5 * dose}))
    point = by_cause(found, "TI")["texture"].points[2]
    sampling, spread = 2 / 1.959964, 0.5 / 3**0.5  # half interval 2 points; seeds at -.5, 0, +.5 points
    assert point.error == pytest.approx((sampling**2 + spread**2) ** 0.5, rel=1e-4)


def test_without_a_balanced_world_nothing_is_said() -> None:
    with pytest.raises(DataMissing):
        responses([entry("TI", "texture", 0.4, 0, 0.3)])


def test_figure_and_data_are_written(tmp_path: Path) -> None:
    found = responses(measured("TI", {"texture": lambda dose: dose / 2, "light": lambda dose: 0.0}, bad=(0.6,)))
    draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    lines = to_csv(found).splitlines()
    assert len(lines) == 1 + 2 * len(DOSES)
    assert sum(",0,accuracy," in line for line in lines) == 2


def test_worlds_hold_the_balanced_one_once() -> None:
    assert worlds(["texture", "all"], ["0", "0.4"]) == ["world:all=0", "world:texture=0.4", "world:all=0.4"]
    for causes, doses in ((["colour"], ["0.4"]), (["texture"], ["0"]), (["texture"], ["2"]), (["texture"], ["x"])):
        with pytest.raises(UserError):
            worlds(causes, doses)


def test_causes_that_only_their_own_worlds_vary_begin_with_a_world_of_their_own() -> None:
    assert worlds(["size", "texture"], ["0.4"]) == [
        "world:all=0",
        "world:size=0",
        "world:size=0.4",
        "world:texture=0.4",
    ]


def second(name: str, suite: str, cause: str, dose: float, value: float, unit: str, better: str) -> Entry:
    """Return a record of one world with a secondary metric."""
    made = entry("TI", cause, dose, 0, 0.1)
    width = 2.0 if unit == "points" else 0.02
    metric = Metric(
        name, Estimate(value, value - width, value + width, 500, "made up", "these"), unit, better, "secondary"
    )  # type: ignore[arg-type]
    return replace(
        made, record=replace(made.record, suite=suite, metrics=(metric,), key=content_key([name, cause, dose]))
    )


def test_the_response_to_size_begins_at_its_own_world_and_that_to_others_at_the_balanced_one() -> None:
    gaps = {"all": {0.0: 8.0}, "size": {0.0: 1.0, 0.4: 20.0, 0.8: 41.0}, "texture": {0.4: 9.0, 0.8: 12.0}}
    made = [second("size_gap", "object-bias", cause, dose, value, "points", "lower")
            for cause, doses in gaps.items() for dose, value in doses.items()]  # fmt: skip
    found = responses(made)
    by = by_cause(found, "size_gap")
    assert [point.bias for point in by["size"].points] == [1.0, 20.0, 41.0] and by["size"].own
    assert [point.bias for point in by["texture"].points] == [8.0, 9.0, 12.0]
    talk, size, texture = cross_talk(by["texture"], found), by["size"].points, by["texture"].points
    assert talk is not None and (talk.dose, talk.share) == (0.8, pytest.approx(0.1))
    whole = (size[0].error ** 2 + size[-1].error ** 2) ** 0.5
    rise = (texture[0].error ** 2 + texture[-1].error ** 2) ** 0.5
    assert talk.error == pytest.approx((rise**2 + (0.1 * whole) ** 2) ** 0.5 / 40), (
        "two worlds at dose 0: no error in common"
    )


def test_of_accuracy_kept_what_is_lost_counts_but_for_shuffled_pictures() -> None:
    made = [second(name, "cue-suppression", cause, dose, value, "fraction", "neither")
            for name, sign in (("without_colour", -1), ("without_global_shape", 1))
            for cause, dose, value in (("all", 0.0, 0.5), ("texture", 0.4, 0.5 + 0.1 * sign),
                                       ("texture", 0.8, 0.5 + 0.3 * sign))]  # fmt: skip
    found = responses(made)
    for name in ("without_colour", "without_global_shape"):
        own = by_cause(found, name)["texture"]
        assert [point.bias for point in own.points] == pytest.approx([50, 60, 80]) and own.spearman == pytest.approx(1)


def test_secondary_metrics_follow_the_three_in_the_tables_and_stay_out_of_the_figure(tmp_path: Path) -> None:
    """Bias of a sensitivity to texture is its value, of one to shape what it lacks of 100; without them the tables are as before."""
    plain = measured("TI", {"texture": lambda dose: 0.1 + 0.4 * dose, "scene": lambda dose: 0.1})
    rich = []
    for one in plain:
        value = one.record.metrics[0].estimate
        texture = Metric("texture_sensitivity", value.scaled(0.5), better="neither", role="secondary")
        shape = Metric("shape_sensitivity", value, better="higher", role="secondary")
        rich.append(replace(one, record=replace(one.record, metrics=(*one.record.metrics, texture, shape))))
    found, before = responses(rich), responses(plain)
    assert to_csv(found).startswith(to_csv(before))
    text = to_markdown(found)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## TI",
        "## texture_sensitivity",
        "## shape_sensitivity",
    ]
    own = by_cause(found, "texture_sensitivity")["texture"]
    assert own.own and own.points[0].bias == pytest.approx(5.0) and own.points[-1].bias == pytest.approx(21.0)
    assert "rises with the dose" in verdict(own, found) and "cross-talk at most" in verdict(
        by_cause(found, "texture_sensitivity")["scene"], found
    )
    assert by_cause(found, "shape_sensitivity")["texture"].points[0].bias == pytest.approx(90.0)
    for name, responses_ in (("rich", found), ("plain", before)):
        draw(responses_, tmp_path / f"{name}.png")
    assert (tmp_path / "rich.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
