"""The gate: verdicts, exit codes, baselines, and how often it errs."""

from __future__ import annotations

import gzip
import json
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma as scipy_digamma
from scipy.special import polygamma

from harness.cli.main import app
from harness.core.errors import DataMissing, UserError
from harness.core.identity import content_key
from harness.stats.difference import Difference, with_seeds
from harness.stats.estimate import Estimate
from harness.store.records import Check, Metric
from leaderboard.baseline import gated
from leaderboard.board import Board
from leaderboard.gate import decide
from leaderboard.moderate import _FLOOR, digamma, shrink_seed_variances, trigamma
from leaderboard.simulate import TWELVE, simulate_gate
from leaderboard.sources import from_store, gather, shipped
from tests.harness.test_cli import answer_without_torch
from tests.leaderboard.conftest import MakeStore, flags, make_record, put


def gate(*arguments: object) -> int:
    """Run the command; returns its exit code."""
    result = app(["gate", *map(str, arguments)], standalone_mode=False)
    return int(result or 0)


def runs(rate: float, first_seed: int, count: int = 4, n: int = 800) -> Sequence[Sequence[bool]]:
    """Return runs of one accuracy with seeds that differ a little, on items of persistent difficulty."""
    hard = np.random.default_rng(99).random(n)
    found = []
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        found.append(((hard + 0.15 * rng.standard_normal(n)) < rate + 0.004 * rng.standard_normal()).tolist())
    return found


def test_pass_fail_and_missing_baseline_have_their_exit_codes(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0), "texture-bias": runs(0.3, 10)}})
    same = make_store("same", {"lbgen": {"in-domain": runs(0.8, 50), "texture-bias": runs(0.3, 60)}})
    worse = make_store("worse", {"lbgen": {"in-domain": runs(0.8, 50), "texture-bias": runs(0.5, 60)}})
    base = tmp_path / "base"
    with pytest.raises(DataMissing, match="no baseline") as caught:
        gate(old, "--baseline", base)
    assert caught.value.code == 4 and (tmp_path / "base.candidate" / "baseline.json").is_file() and not base.exists()
    assert gate(old, "--baseline", base, "--update", "--reason", "first") == 0
    head = json.loads((base / "baseline.json").read_text())
    assert head["reason"] == "first" and head["measured_by"] == ["abc"] and "commit" in head["code"]
    assert head["values"]["lbgen resnet10 in-domain top1"]["seeds"] == "4 seeds (generator and train vary)"
    assert head["values"]["lbgen resnet10 in-domain top1"]["n"] == 800
    assert gate(same, "--baseline", base) == 0 and gate(same, "--baseline", base, "--strict") == 0
    summary, cases = tmp_path / "summary.md", tmp_path / "cases.xml"
    assert gate(worse, "--baseline", base, "--markdown", summary, "--junit", cases) == 3
    text = summary.read_text()
    assert (
        text.startswith("## Gate: ❌ fail")
        and "texture-bias TI ↓ | 26.8 | 46.3" in text
        and "1 worse, 0 inconclusive, 1 passed" in text
    )
    tree = ElementTree.fromstring(cases.read_text())
    assert tree.attrib["failures"] == "1" and tree.attrib["tests"] == "2"
    assert [case.attrib["name"] for case in tree if case.find("failure") is not None] == [
        "lbgen resnet10 texture-bias TI"
    ]
    assert text in capsys.readouterr().out


def test_gate_and_compare_need_no_torch(make_store: MakeStore, tmp_path: Path) -> None:
    suites = {f"suite-{i}": [flags(500, 0.4, 10 * i + seed) for seed in range(3)] for i in range(12)}
    store = make_store("s", {"lbgen": suites, "sd15": suites})
    gate(store, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    for arguments in (["gate", store, "--baseline", tmp_path / "b"], ["leaderboard", store, "--format", "html"]):
        assert len(answer_without_torch([*map(str, arguments)], tmp_path)) > 100


def test_every_split_of_real_seeds_can_be_held_against_the_others(make_store: MakeStore) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "gate_pairs.py"
    names = runpy.run_path(str(path), run_name="gate_pairs")
    store = make_store("s", {"lbgen": {"in-domain": runs(0.8, 0, 5), "texture-bias": runs(0.3, 20, 5)}})
    entries = from_store(store)
    splits = list(combinations(names["seeds_of"](entries), 2))
    verdicts = [names["split"](entries, candidate, []).verdict for candidate in splits]
    assert len(verdicts) == 10 and verdicts.count("fail") <= 2


def test_a_better_number_passes(make_store: MakeStore, tmp_path: Path) -> None:
    old = make_store("old", {"lbgen": {"in-domain": runs(0.7, 0), "texture-bias": runs(0.5, 10)}})
    new = make_store("new", {"lbgen": {"in-domain": runs(0.9, 50), "texture-bias": runs(0.2, 60)}})
    gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    assert gate(new, "--baseline", tmp_path / "b", "--strict") == 0


def test_inconclusive_warns_and_fails_only_under_strict(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0, 1)}})
    worse = make_store("new", {"lbgen": {"in-domain": runs(0.6, 50, 1)}})
    gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    assert gate(worse, "--baseline", tmp_path / "b") == 0
    assert "no seed spread was measured" in capsys.readouterr().out
    assert gate(worse, "--baseline", tmp_path / "b", "--strict") == 3


def test_what_the_candidate_lacks_or_measures_otherwise_is_never_passed(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_store(
        "old",
        {"lbgen": {"in-domain": runs(0.8, 0), "texture-bias": runs(0.3, 10)}, "sd15": {"in-domain": runs(0.7, 20)}},
    )
    gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    part = make_store("part", {"lbgen": {"in-domain": runs(0.8, 50)}})
    assert gate(part, "--baseline", tmp_path / "b", "--strict") == 3
    text = capsys.readouterr().out
    assert "has not measured it" in text and "sd15 resnet10 | – | –" in text and "no results for it" in text
    broken = make_store(
        "broken", {"lbgen": {"in-domain": runs(0.8, 50)}}, checks=(Check("floor", False, 0.1, 0.5, "m"),)
    )
    assert gate(broken, "--baseline", tmp_path / "b") == 3 and "validity check failed: floor" in capsys.readouterr().out


def test_what_the_baseline_never_had_is_not_gated(make_store: MakeStore, tmp_path: Path) -> None:
    none = Metric("CB_avg", Estimate(None, None, None, 0, "none", "p", "6 images in P3"))
    old = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0)}})
    put(old, make_record("context-bias", "lbgen", [True], metrics=(none,)), [])
    broken = make_record("texture-bias", "lbgen", flags(100, 0.2, 0), checks=(Check("floor", False, 0.1, 0.5, "m"),))
    put(old, broken, [])
    gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    assert gate(old, "--baseline", tmp_path / "b", "--strict") == 0


def test_updating_needs_a_reason_and_known_metrics(make_store: MakeStore, tmp_path: Path) -> None:
    old = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0)}})
    with pytest.raises(UserError, match="needs a reason"):
        gate(old, "--baseline", tmp_path / "b", "--update")
    with pytest.raises(UserError, match="cannot gate TI"):
        gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r", "--metrics", "TI")
    with pytest.raises(UserError, match="need --update"):
        gate(old, "--baseline", tmp_path / "b", "--reason", "r")


def test_a_damaged_baseline_is_named(make_store: MakeStore, tmp_path: Path) -> None:
    old = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0)}})
    gate(old, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    path = tmp_path / "b" / "records.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"0.8", b"0.9")))
    with pytest.raises(UserError, match="records.jsonl.gz was changed after it was written"):
        gate(old, "--baseline", tmp_path / "b")


def edit_head(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit ``baseline.json`` by hand."""
    head = json.loads((folder / "baseline.json").read_text())
    change(head)
    (folder / "baseline.json").write_text(json.dumps(head))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda head: head["gated"].remove("in-domain top1"), "was changed after it was written"),
        (
            lambda head: head["values"]["lbgen resnet10 in-domain top1"].update(value=0.1),
            "was changed after it was written",
        ),
        (lambda head: head.update(reason="another"), "was changed after it was written"),
        (lambda head: head.pop("seal"), "cannot be read"),
        (lambda head: head.pop("gated"), "was changed after it was written"),
        (lambda head: head.update(schema=9), "has schema 9"),
    ],
)
def test_an_edited_head_of_a_baseline_is_named_by_all_who_read_it(
    make_store: MakeStore, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    old, base = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0), "texture-bias": runs(0.3, 9)}}), tmp_path / "b"
    gate(old, "--baseline", base, "--update", "--reason", "r")
    assert Board().verify(base) == []
    edit_head(base, change)
    with pytest.raises(UserError, match=words):
        gate(old, "--baseline", base)
    with pytest.raises(UserError, match=words):
        Board().render([base], "md", False)
    (problem,) = Board().verify(base) or []
    assert words in problem


def test_verify_looks_at_baselines(make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, base = make_store("old", {"lbgen": {"in-domain": runs(0.8, 0)}}), tmp_path / "b"
    gate(old, "--baseline", base, "--update", "--reason", "r")
    app(["verify", str(base)], standalone_mode=False)
    assert "all files match their manifests" in capsys.readouterr().err
    (base / "units.npz").write_bytes((base / "units.npz").read_bytes()[:-9])
    with pytest.raises(SystemExit) as caught:
        app(["verify", str(base)])
    assert caught.value.code == 1 and "units.npz was changed" in capsys.readouterr().out


def test_only_a_bare_name_stands_for_a_shipped_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Board().find_baseline("micro") == shipped("micro")
    assert (
        Board().find_baseline(str(tmp_path / "nowhere" / "micro")) is None and Board().find_baseline("./micro") is None
    )
    (tmp_path / "micro").mkdir()
    assert Board().find_baseline("micro") is None, "a folder of that name is meant, even if it is none"
    assert Board().verify(shipped("micro")) == []


def test_a_baseline_of_micro_size_stays_below_two_megabytes(make_store: MakeStore, tmp_path: Path) -> None:
    suites = {f"suite-{i}": [flags(528, 0.4, 10 * i + seed) for seed in range(4)] for i in range(30)}
    store = make_store("big", dict.fromkeys(("real", "sd15", "lbgen"), suites))
    gate(store, "--baseline", tmp_path / "b", "--update", "--reason", "r")
    assert sum(path.stat().st_size for path in (tmp_path / "b").iterdir()) < 2_000_000 / 3  # of three


def test_baselines_are_byte_identical_for_identical_results(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("s", {"lbgen": {"in-domain": runs(0.8, 0)}, "real": {"in-domain": runs(0.7, 4)}})
    for name in ("one", "two"):
        gate(store, "--baseline", tmp_path / name, "--update", "--reason", "r")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


# --- errors of the gate; the whole table is made by benchmarks/gate_power.py ----------------------------------------------


def test_identical_code_seldom_fails_and_a_planted_loss_is_found() -> None:
    rng, errors, failed = np.random.default_rng(5), np.zeros(len(TWELVE)), 0
    for _ in range(60):
        found = simulate_gate(TWELVE, 5, 3, rng)
        failed += any(f.verdict == "fail" for f in found)
        errors += [f.difference.se / 60 for f in found if f.difference is not None]
    assert failed <= 7  # at 5 % more than seven of sixty happen less than once in a hundred runs
    caught = 0
    for pair in range(48):
        index = pair % len(TWELVE)
        loss = [4.0 * errors[index] if i == index else 0.0 for i in range(len(TWELVE))]
        caught += simulate_gate(TWELVE, 5, 3, rng, loss)[index].verdict == "fail"
    assert caught >= 32  # at 80 % fewer happen less than once in a hundred runs


@pytest.mark.parametrize("x", [0.3, 1.0, 2.5, 40.0])
def test_digamma_and_trigamma_agree_with_scipy(x: float) -> None:
    assert digamma(x) == pytest.approx(scipy_digamma(x), abs=5e-9)
    assert trigamma(x) == pytest.approx(polygamma(1, x), rel=5e-8)


def test_spreads_that_differ_by_chance_alone_are_pooled_and_others_keep_their_own() -> None:
    def at(ratio: float, df: float) -> Difference:
        plain = Difference(0.1, 0, 0, 1.0, None, 500, 1, 0.5, 0.5, 500, "m", 500, se_noise=1.0)
        return with_seeds(plain, ratio**0.5, df)

    alike = [at(ratio, 6) for ratio in np.random.default_rng(0).chisquare(6, 200) / 6]
    pooled = [d.se_runs or 0 for d in shrink_seed_variances(alike, range(200))]
    assert np.ptp(pooled) < 0.35 and np.mean(pooled) == pytest.approx(1.0, abs=0.1)
    apart = [at(ratio, 400) for ratio in (0.1, 1.0, 10.0, 100.0)]
    kept = [d.se_runs or 0 for d in shrink_seed_variances(apart, range(4))]
    assert kept == pytest.approx([d.se_runs for d in apart], rel=0.05)
    assert shrink_seed_variances(alike[:3], range(3)) == alike[:3]
    four = shrink_seed_variances(alike[:4], range(4))
    assert [d.df_seeds for d in four] == [30] * 4, "four are enough: all that the runs know and a metric's own"
    same_runs = [d.df_seeds for d in shrink_seed_variances(alike, ["the same runs"] * 200)]
    assert same_runs == [12] * 200, "alike, but measured on the same runs: half the weight is a metric's own"
    silent = replace(at(1.0, 6), se_noise=0.0)
    assert shrink_seed_variances([silent, *alike[:4]], range(5)) == [
        silent,
        *shrink_seed_variances(alike[:4], range(1, 5)),
    ]
    still, least = (shrink_seed_variances([at(ratio, 6), *alike[:4]], range(5))[0].se_runs for ratio in (0.0, _FLOOR))
    assert still == pytest.approx(least), "runs that agree exactly"


def test_moderated_spreads_are_those_of_smyth_2004_solved_with_scipy() -> None:
    """Section 6.2 of the paper: the log variances' mean and variance give the prior, posterior variances are weighted by d.f."""
    ratios, dfs = np.array([0.2, 0.7, 1.1, 2.5, 9.0, 40.0]), np.array([3.0, 4.0, 6.0, 3.0, 5.0, 8.0])
    plain = Difference(0.1, 0, 0, 1.0, None, 500, 1, 0.5, 0.5, 500, "m", 500, se_noise=2.0)
    found = shrink_seed_variances(
        [with_seeds(plain, 2 * r**0.5, df) for r, df in zip(ratios, dfs, strict=True)], range(6)
    )
    logs = np.log(ratios) - scipy_digamma(dfs / 2) + np.log(dfs / 2)
    excess = logs.var(ddof=1) - polygamma(1, dfs / 2).mean()
    prior = 2 * brentq(lambda half: polygamma(1, half) - excess, 1e-3, 1e3)
    common = np.exp(logs.mean() + scipy_digamma(prior / 2) - np.log(prior / 2))
    assert 1 < prior < 3, "neither all alike nor all apart"
    assert [d.df_seeds for d in found] == pytest.approx(list(prior + dfs), rel=1e-5)
    posterior = (prior * common + dfs * ratios) / (prior + dfs)
    assert [(d.se_runs or 0) ** 2 / 4 for d in found] == pytest.approx(list(posterior), rel=1e-5)


def test_one_metric_that_alone_changed_is_not_excused_by_the_others(make_store: MakeStore) -> None:
    """Same machine, same seeds, one suite broken: every other difference is exactly nothing."""
    suites = ["in-domain", "texture-bias", "aircraft", "pets", "dtd", "food101"]
    right = {suite: [flags(400, 0.8 + 0.01 * seed, seed) for seed in range(3)] for suite in suites}
    broken = right | {"in-domain": [flags(400, 0.5, 10 + seed) for seed in range(3)]}
    old, new = make_store("old", {"lbgen": right}), make_store("new", {"lbgen": broken})
    found = decide(gated(gather([old]), ()), gated(gather([new]), ()), {})
    verdicts = {finding.title.split()[-1]: finding.verdict for finding in found.findings}
    assert verdicts.pop("top1") == "fail" and set(verdicts.values()) == {"pass"}, found.findings


def test_of_several_datasets_of_one_generator_the_baselines_own_is_held_against_it(make_store: MakeStore) -> None:
    """Where none is, nothing says which is meant."""
    right = {"in-domain": [flags(400, 0.8, 0)]}
    old = make_store("old", {"lbgen": right})
    for content in ("one", "two"):
        told = {"key": content_key(content), "inputs": {"checkpoint/copy/dataset": content_key(content)}}
        new = make_store("new", {"lbgen": right}, **told)

    def findings(*places: Path) -> list[tuple[str, str]]:
        return [(f.verdict, f.why) for f in decide(gated(gather([old]), ()), gated(gather(places), ()), {}).findings]

    ((verdict, why),) = findings(new)
    assert verdict == "inconclusive" and why.startswith("the candidate has 2 rows of it") and "lbgen (" in why
    assert findings(old, new) == findings(old) and findings(old)[0][0] == "pass"


def test_an_added_checkpoint_leaves_the_gate_as_it_is(make_store: MakeStore) -> None:
    """README's own checkpoint in the default store: a row more, in all columns, once moved the others to another table."""
    extra = [
        e.record
        for e in gather([shipped("micro")])
        if e.record.subject.generator == "sd15" and e.record.suite == "texture-bias"
    ]
    store = make_store("s", {})
    for place, record in enumerate(extra):
        subject = replace(record.subject, generator="checkpoint:ema-1234ab")
        terms = replace(record.comparability, recipe="outside")
        put(store, replace(record, key=content_key(place), subject=subject, comparability=terms), [])
    calm = Board().gate([shipped("micro")], shipped("micro"), True, "lbgen")
    assert calm[0] == 0 and "0 worse, 0 inconclusive, 14 passed" in calm[1]
    assert Board().gate([shipped("micro"), store], shipped("micro"), True, "lbgen") == calm


def test_other_terms_and_other_networks_are_named_and_never_passed(make_store: MakeStore, tmp_path: Path) -> None:
    """What the candidate has under the same name but measured or made another way is inconclusive, whichever fact it is."""
    right = {"in-domain": runs(0.8, 0, 2)}
    plain = make_record("in-domain", "x", [True])
    old = gated(gather([make_store("old", {"lbgen": right})]), ())

    def why(**changes: object) -> str:
        place = make_store(f"new{len(list(tmp_path.iterdir()))}", {"lbgen": right}, **changes)
        (finding,) = decide(old, gated(gather([place]), ()), {}).findings
        assert finding.verdict == "inconclusive"
        return finding.why

    assert why(comparability=replace(plain.comparability, suite_version=2)) == "not comparable: suite version differs"
    assert (
        why(comparability=replace(plain.comparability, data={"d": "g"}, protocol="q"))
        == "not comparable: data, protocol differ"
    )
    assert (
        why(comparability=replace(plain.comparability, recipe="long")) == "not comparable: pre-training recipe differs"
    )
