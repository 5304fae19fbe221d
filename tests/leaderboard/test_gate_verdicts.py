"""The gate on known differences: verdicts, texts, and which value is held against which."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.core.identity import content_key
from harness.stats.difference import Difference, Part, flag_units, pooled_spread, seed_values
from harness.stats.estimate import Estimate
from leaderboard.baseline import Gated, gated
from leaderboard.gate import Finding, Report, counterpart, decide, gated_difference, judge, to_junit, to_markdown
from leaderboard.sources import Entry
from leaderboard.tables import Value
from tests.leaderboard.conftest import flags, make_record

# --- verdicts of known differences ----------------------------------------------------------------------------------------


def finding(p_worse: float, *, better: str = "higher", seeds: bool = True) -> Finding:
    """Return a metric whose one-sided p of being worse is known."""
    p_lower, p_higher = (p_worse, 1 - p_worse) if better == "higher" else (1 - p_worse, p_worse)
    d = Difference(-0.01, -0.02, 0.0, 0.005, 0.001 if seeds else None, 99, 0.5, p_higher, p_lower, 100, "m")
    return Finding("lbgen resnet10 x", better, "pass", "", 100.0, 0.8, 0.79, d, runs=("lbgen", "resnet10"))


@pytest.mark.parametrize(
    ("p", "verdict", "why"),
    [
        (0.049, "fail", "worse, beyond test items and seeds"),
        (0.051, "inconclusive", "perhaps worse: adjusted p below 0.2"),
        (0.199, "inconclusive", "perhaps worse: adjusted p below 0.2"),
        (0.201, "pass", "no loss beyond chance"),
    ],
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_verdicts_follow_from_the_one_sided_p_of_worse(p: float, verdict: str, why: str, better: str) -> None:
    (one,) = judge([finding(p, better=better)])
    assert (one.verdict, one.why, one.p) == (verdict, why, pytest.approx(p))


def test_p_values_are_holm_adjusted_over_what_was_tested_and_no_more() -> None:
    untested = Finding("lbgen resnet10 y", "higher", "inconclusive", "the candidate has not measured it")
    found = judge([finding(0.02), untested, finding(0.9), finding(0.04, better="lower")])
    assert [one.p for one in found] == [pytest.approx(0.06), None, pytest.approx(0.9), pytest.approx(0.08)]
    assert [one.verdict for one in found] == ["inconclusive", "inconclusive", "pass", "inconclusive"]
    assert found[1] == untested and Report(tuple(found), {}).verdict == "inconclusive"


@pytest.mark.parametrize(("p", "verdict"), [(0.049, "inconclusive"), (0.051, "pass")])
def test_without_a_seed_spread_nothing_fails_and_the_plain_p_warns(p: float, verdict: str) -> None:
    found = judge([finding(p, seeds=False), finding(0.9, seeds=False)])
    assert found[0].verdict == verdict and "no seed spread was measured" in found[0].why and found[1].verdict == "pass"


def test_exit_codes_of_reports() -> None:
    passed, doubtful, failed = (Report(tuple(judge([finding(p)])), {}) for p in (0.9, 0.1, 0.01))
    assert [(each.exit_code(False), each.exit_code(True)) for each in (passed, doubtful, failed)] == [
        (0, 0),
        (0, 3),
        (3, 3),
    ]
    assert [each.verdict for each in (passed, doubtful, failed)] == ["pass", "inconclusive", "fail"]


def test_texts_of_a_report_hold_its_numbers() -> None:
    lost = Finding("lbgen resnet10 z", "lower", "fail", "undefined: none", 100.0, 0.3)
    report = Report((*judge([finding(0.9), finding(0.08, better="lower")]), lost), {"reason": "first"})
    text = to_markdown(report)
    assert text.startswith("## Gate: ❌ fail\n") and "1 worse, 1 inconclusive, 1 passed." in text
    assert (
        "over 2 metrics" in text
        and "Baseline: first" in text
        and text.index("lbgen resnet10 z") < text.index("<details>")
    )
    assert "| lbgen resnet10 x ↑ | 80.0 | 79.0 | -1.00 | 0.50 | 0.10 | 0.9 | ✅ pass: no loss beyond chance |" in text
    assert "| lbgen resnet10 z ↓ | 30.0 | – | – | – | – | – | ❌ fail: undefined: none |" in text
    odd, (bare,) = replace(lost, why='<"&>'), judge([finding(0.9, seeds=False)])
    quiet = to_markdown(Report((bare,), {}))
    assert "| -1.00 | 0.50 | – | 0.9 | ✅" in quiet and "<details><summary>1 passed</summary>" in quiet
    for strict, doubtful in ((False, "skipped"), (True, "error")):
        suite = ElementTree.fromstring(to_junit(replace(report, findings=(*report.findings[:2], odd)), strict))
        assert {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "3", "failures": "1", "errors": str(int(strict)), "skipped": str(int(not strict)),
        }  # fmt: skip
        assert [[child.tag for child in case] for case in suite] == [[], [doubtful], ["failure"]]
        assert suite[2][0].attrib["message"] == '<"&>' and suite[2].attrib["classname"] == "gate"


# --- which value of the candidate is held against which of the baseline ----------------------------------------------------


def one_value(
    rate: float = 0.8, *, recipe: str = "r", image: str = "i", data: str = "f", network: dict[str, Any] | None = None
) -> Gated:
    """Return a gated value of lbgen with what it was made from."""
    made = make_record("in-domain", "lbgen", flags(100, rate, 0), key=content_key([rate, recipe, image, data, network]))
    terms = replace(made.comparability, recipe=recipe, data={"d": data})
    subject = replace(made.subject, network=network or {})
    made = replace(made, subject=subject, comparability=terms, inputs={"checkpoint/copy/dataset": content_key(image)})
    (found,) = gated([Entry(made, "run")], ())
    return found


def test_the_counterpart_is_the_same_network_from_the_same_images() -> None:
    old, same, other = one_value(), one_value(0.7), one_value(0.6, image="j")
    assert counterpart(old, [other, same], [old]) == (same.value, "")
    assert counterpart(old, [other], [old]) == (other.value, ""), "one on either side can only be each other"
    value, why = counterpart(old, [other], [old, one_value(0.5, image="k")])
    assert value is None and why.startswith("the candidate has 1 rows of it and none from the baseline's images: lbgen")
    value, why = counterpart(old, [other, one_value(0.5, image="k")], [old])
    assert value is None and why.startswith("the candidate has 2 rows of it")
    assert counterpart(old, [], [old]) == (None, "the candidate has not measured it")
    fewer = replace(other, column=replace(other.column, metric="top5"))
    assert counterpart(old, [fewer], [old]) == (None, "the candidate has not measured it")


def test_values_without_seeds_in_their_keys_are_the_same_network_by_its_set_up() -> None:
    """Records of newer versions name the set-up of the checkpoint, which other seeds of the same recipe share."""

    def of(key: str, image: str) -> Gated:
        one = one_value(0.7, image=image)
        (entry,) = one.value.sources
        record = replace(entry.record, setups={"checkpoint": content_key(key)})
        return replace(one, value=replace(one.value, sources=(replace(entry, record=record),)))

    old, same, other = of("a", "i"), of("a", "j"), of("b", "k")
    assert counterpart(old, [other, same], [old, other]) == (same.value, "")


def test_other_terms_are_shown_where_there_is_one_value_and_the_shortest_difference_is_named() -> None:
    old = one_value()
    terms = one_value(0.7, data="g")
    assert counterpart(old, [terms], [old]) == (terms.value, "not comparable: data differs")
    both = replace(terms, column=replace(terms.column, terms=replace(terms.column.terms, version=9)))
    assert counterpart(old, [both, terms], [old]) == (None, "not comparable: data differs")
    assert counterpart(old, [both], [old])[1] == "not comparable: suite version, data differ"


def test_other_networks_are_shown_where_there_is_one_value_and_named() -> None:
    old, longer = one_value(network={"image_size": 224}), one_value(0.7, recipe="long")
    assert counterpart(old, [longer], [old]) == (longer.value, "not comparable: pre-training recipe differs")
    assert counterpart(old, [longer, one_value(0.6, recipe="short")], [old]) == (
        None,
        "not comparable: pre-training recipe differs",
    )
    other = one_value(0.7, recipe="long", network={"image_size": 256})
    assert counterpart(old, [other], [old])[1] == "not comparable: pre-training recipe differs", (
        "which implies the rest"
    )
    wider = one_value(0.7, network={"image_size": 256})
    assert counterpart(old, [wider], [old]) == (wider.value, "not comparable: image size differs")
    unsaid = one_value(0.7)
    assert counterpart(old, [unsaid], [old]) == (unsaid.value, ""), "where one side says nothing there is no difference"


def test_what_was_undefined_or_invalid_in_the_baseline_and_rows_nobody_measured() -> None:
    old = one_value()
    undefined = replace(old, value=replace(old.value, estimate=Estimate(None, None, None, 0, "m", "p", "why")))
    invalid = replace(old, value=replace(old.value, valid=False, failed=("floor",)))
    assert decide([undefined, invalid], [old], {}).findings == ()
    (found,) = decide([old], [invalid], {}).findings
    assert (found.verdict, found.why, found.candidate) == ("fail", "validity check failed: floor", 0.8)
    (found,) = decide([old], [undefined], {}).findings
    assert (found.verdict, found.why, found.candidate, found.baseline) == ("fail", "undefined: why", None, 0.8)
    missing = decide([old, replace(old, key=replace(old.key, generator="sd15"))], [old], {"reason": "x"})
    assert [f.title for f in missing.findings] == ["lbgen resnet10 in-domain top1", "sd15 resnet10"]
    assert [f.verdict for f in missing.findings] == ["pass", "inconclusive"]
    assert missing.findings[1].why == "the candidate has no results for it" and missing.head == {"reason": "x"}
    assert missing.findings[0].runs == ("lbgen", "resnet10") and missing.findings[0].better == "higher"
    assert missing.findings[1].better == ""
    bare = replace(old, value=replace(old.value, estimate=replace(old.value.estimate, low=None, high=None)))
    (found,) = decide([old], [bare], {}).findings
    assert (found.verdict, found.why) == ("inconclusive", "not comparable: neither paired rows nor intervals")


def test_a_gated_difference_is_candidate_less_baseline() -> None:
    old, new = one_value(0.8).value, one_value(0.6).value
    found = gated_difference(old, new)
    assert found.value == pytest.approx(-0.2) and found.p_lower < 0.01 and found.method.startswith("unpaired")
    bare = replace(new, estimate=replace(new.estimate, low=None, high=None))
    with pytest.raises(ValueError, match="neither paired rows nor intervals"):
        gated_difference(old, bare)


def test_a_gated_difference_pools_the_seed_spread_of_both_sides() -> None:
    rng, names = np.random.default_rng(1), [f"i{k}" for k in range(200)]

    def value(*rates: float) -> Value:
        runs = tuple((Part("x", flag_units("m", names, rng.random(200) < rate)),) for rate in rates)
        return replace(one_value().value, parts=runs)

    old, new = value(0.5, 0.5), value(0.3, 0.6, 0.9)
    found, spread = gated_difference(old, new), pooled_spread(seed_values(old.parts), seed_values(new.parts))
    assert spread is not None and spread.df == 3
    assert found.se_runs == pytest.approx(spread.sd * math.sqrt(1 / 2 + 1 / 3))
