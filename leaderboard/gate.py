"""The gate: has a change of the code made a number worse? Pass, fail or inconclusive per metric, with a direction.

For every gated value the candidate's difference to the baseline is taken on their common test items. Its standard error
adds the paired error of the test items and the spread over seeds beyond the per-item prediction noise, pooled over baseline and
candidate and moderated over the metrics. The one-sided p-values of "worse" are Holm-adjusted over the whole set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from xml.sax.saxutils import quoteattr

from harness.core.names import plain
from harness.stats.difference import Difference, Spread, difference, pooled_spread, seed_values
from harness.stats.estimate import holm
from leaderboard.baseline import Gated
from leaderboard.markup import md
from leaderboard.moderate import shrink_seed_variances
from leaderboard.network import RECIPE, differences, facts_of
from leaderboard.tables import Value
from leaderboard.terms import differ
from leaderboard.ties import unpaired

Verdict = Literal["pass", "fail", "inconclusive"]
ALPHA = 0.05
"""Chance of a false alarm in the whole set of gated metrics."""
GREY = 0.20
"""Adjusted p-values between ``ALPHA`` and this are inconclusive: too likely a loss to pass in silence."""


@dataclass(frozen=True)
class Finding:
    """The gate's answer for one metric."""

    title: str
    better: str
    verdict: Verdict
    why: str
    scale: float = 1.0
    baseline: float | None = None
    candidate: float | None = None
    difference: Difference | None = None
    p: float | None = None
    """One-sided p of "worse", Holm-adjusted over the set."""
    runs: tuple[str, str] = ("", "")
    """Generator and backbone: metrics that have them in common were measured on the same runs."""


@dataclass(frozen=True)
class Report:
    """The gate's answer."""

    findings: tuple[Finding, ...]
    head: dict[str, object]

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict."""
        found = {finding.verdict for finding in self.findings}
        return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"

    def exit_code(self, strict: bool) -> int:
        """Return 0 or 3; inconclusive fails under ``strict`` only."""
        return 3 if self.verdict == "fail" or (strict and self.verdict == "inconclusive") else 0


def decide(baseline: Sequence[Gated], candidate: Sequence[Gated], head: dict[str, object]) -> Report:
    """Hold a candidate against a baseline.

    Args:
        baseline: Gated values of the baseline; those that are undefined or failed a validity check there are left out.
        candidate: Gated values of the candidate; rows and columns that the baseline lacks are ignored.
        head: Content of ``baseline.json`` for the summary.
    """
    baseline = [one for one in baseline if one.value.valid and one.value.estimate.value is not None]
    runs = {(one.key.generator, one.key.backbone) for one in candidate}
    findings = [_finding(one, *counterpart(one, candidate, baseline)) for one in baseline
                if (one.key.generator, one.key.backbone) in runs]  # fmt: skip
    findings += _absent(baseline, runs)
    return Report(tuple(judge(findings)), head)


def counterpart(old: Gated, candidate: Sequence[Gated], baseline: Sequence[Gated]) -> tuple[Value | None, str]:
    """Return the candidate's value that a baseline's is held against, or why there is none.

    It is that of the same generator, backbone, metric and terms whose network is the same thing as far as both sides know.
    Whatever else the candidate holds, other recipes and checkpoints included, changes nothing.
    """
    mine = [one for one in candidate if _slot(one) == _slot(old)]
    if not mine:
        return None, "the candidate has not measured it"
    terms = [one for one in mine if _terms_apart(old, one) == []]
    if not terms:
        return mine[0].value if len(mine) == 1 else None, _differ(
            min((_terms_apart(old, one) for one in mine), key=len)
        )
    alike = [one for one in terms if not _network_apart(old, one)]
    if not alike:
        return terms[0].value if len(terms) == 1 else None, _differ(
            min((_network_apart(old, one) for one in terms), key=len)
        )
    made = [one for one in alike if _made_from(old.value) & _made_from(one.value)]
    if len(made) == 1:
        return made[0].value, ""
    rivals = [
        one
        for one in baseline
        if _slot(one) == _slot(old) and not _terms_apart(old, one) and not _network_apart(old, one)
    ]
    if len(alike) == 1 and len(rivals) == 1:
        return alike[0].value, ""
    names = ", ".join(one.key.label for one in alike)
    return None, f"the candidate has {len(alike)} rows of it and none from the baseline's images: {names}"


def _slot(one: Gated) -> tuple[str, str, str, int, str]:
    return one.key.generator, one.key.backbone, one.column.suite, one.column.position, one.column.metric


def _terms_apart(first: Gated, second: Gated) -> list[str]:
    return second.column.terms.differing(first.column.terms)


def _differ(names: Sequence[str]) -> str:
    return f"not comparable: {differ(names)}"


def _network_apart(first: Gated, second: Gated) -> list[str]:
    """Return in what the networks behind two values differ, as far as both sides say it."""
    sides = [[entry.record for entry in one.value.sources] for one in (first, second)]
    found = [RECIPE] if {r.comparability.recipe for r in sides[0]} != {r.comparability.recipe for r in sides[1]} else []
    facts = [next(filter(None, map(facts_of, records)), {}) for records in sides]
    if not found and all(facts):
        found = [text.partition(":")[0] for text in differences(*facts)]
    return found


def _made_from(value: Value) -> set[str]:
    """Return the keys that two values of one setup have in common: without seeds, or of an equal seed's images or network."""
    records = [entry.record for entry in value.sources]
    if any(record.setups.get("checkpoint") for record in records):
        return {record.setups.get("checkpoint", "") for record in records} | {r.checkpoint for r in records} - {""}
    return ({r.checkpoint for r in records} | {r.dataset for r in records}) - {""}


def _absent(baseline: Sequence[Gated], measured: set[tuple[str, str]]) -> list[Finding]:
    missing = dict.fromkeys((one.key.generator, one.key.backbone) for one in baseline)
    return [
        Finding(f"{generator} {backbone}", "", "inconclusive", "the candidate has no results for it")
        for generator, backbone in missing
        if (generator, backbone) not in measured
    ]


def _finding(old: Gated, new: Value | None, why: str) -> Finding:
    runs = (old.key.generator, old.key.backbone)
    made = Finding(old.title, old.column.better, "pass", "", old.column.scale, old.value.estimate.value, runs=runs)
    if new is not None:
        made = replace(made, candidate=new.estimate.value)
    if why or new is None:
        return replace(made, verdict="inconclusive", why=why)
    if not new.valid:
        return replace(made, verdict="fail", why=f"validity check failed: {', '.join(new.failed)}")
    if new.estimate.value is None:
        return replace(made, verdict="fail", why=f"undefined: {new.estimate.reason}")
    try:
        return replace(made, difference=gated_difference(old.value, new))
    except ValueError as error:
        return replace(made, verdict="inconclusive", why=f"not comparable: {error}")


def gated_difference(old: Value, new: Value) -> Difference:
    """Return candidate - baseline, with the seed spread of both pooled.

    Raises:
        ValueError: nothing in common, or no interval at all.
    """
    if old.parts and new.parts:
        spread: Spread | None = pooled_spread(seed_values(old.parts), seed_values(new.parts))
        return difference(new.parts, old.parts, spread=spread, replicates=0)
    found = unpaired(new, old)
    if found is None:
        raise ValueError("neither paired rows nor intervals")
    return found


def judge(findings: Sequence[Finding]) -> list[Finding]:
    """Turn differences into verdicts: seed spreads moderated over all of them, then Holm."""
    paired = [(f.difference, f.runs) for f in findings if f.difference is not None]
    moderated = iter(shrink_seed_variances([difference for difference, _ in paired], [runs for _, runs in paired]))
    findings = [f if f.difference is None else replace(f, difference=next(moderated)) for f in findings]
    tested = [finding for finding in findings if finding.difference is not None]
    raw = [_p_worse(finding) for finding in tested]
    adjusted = dict(zip((id(finding) for finding in tested), holm(raw), strict=True))
    plain = dict(zip((id(finding) for finding in tested), raw, strict=True))
    found = []
    for finding in findings:
        if id(finding) in adjusted:
            verdict, why = _verdict(finding, adjusted[id(finding)], plain[id(finding)])
            finding = replace(finding, p=adjusted[id(finding)], verdict=verdict, why=why)
        found.append(finding)
    return found


def _p_worse(finding: Finding) -> float:
    assert finding.difference is not None
    return finding.difference.p_lower if finding.better == "higher" else finding.difference.p_higher


def _verdict(finding: Finding, p: float, raw: float) -> tuple[Verdict, str]:
    d = finding.difference
    if d is not None and d.se_seeds is None:
        if raw < ALPHA:
            return "inconclusive", "worse on these items, but no seed spread was measured"
        return "pass", "not worse on these items; no seed spread was measured"
    if p < ALPHA:
        return "fail", "worse, beyond test items and seeds"
    if p < GREY:
        return "inconclusive", f"perhaps worse: adjusted p below {GREY:g}"
    return "pass", "no loss beyond chance"


# --- text ---------------------------------------------------------------------------------------------------------------

_SIGN = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}


def to_markdown(report: Report) -> str:
    """Return a summary fit for a pull-request comment: what matters first, the rest folded away."""
    counts = {
        verdict: sum(f.verdict == verdict for f in report.findings) for verdict in ("fail", "inconclusive", "pass")
    }
    lines = [
        f"## Gate: {_SIGN[report.verdict]}\n",
        f"{counts['fail']} worse, {counts['inconclusive']} inconclusive, {counts['pass']} passed. "
        f"One-sided, Holm-adjusted over {sum(f.difference is not None for f in report.findings)} metrics; a false alarm in one of "
        f"twenty runs at most.\n",
        f"Baseline: {md(str(report.head.get('reason', '')))}\n",
    ]
    loud = [finding for finding in report.findings if finding.verdict != "pass"]
    quiet = [finding for finding in report.findings if finding.verdict == "pass"]
    if loud:
        lines.append(_table(loud))
    if quiet:
        lines += [f"<details><summary>{len(quiet)} passed</summary>\n", _table(quiet), "</details>\n"]
    return "\n".join(lines)


def _table(findings: Sequence[Finding]) -> str:
    lines = [
        "| metric | baseline | candidate | difference | ± items | ± seeds | p | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for f in findings:
        values = ["–" if v is None else f"{f.scale * v:.1f}" for v in (f.baseline, f.candidate)]
        d = f.difference
        parts = ["–"] * 4
        if d is not None and f.p is not None:
            seeds = "–" if d.se_seeds is None else f"{f.scale * d.se_seeds:.2f}"
            parts = [f"{f.scale * d.value:+.2f}", f"{f.scale * d.se_items:.2f}", seeds, f"{f.p:.3g}"]
        arrow = {"higher": " ↑", "lower": " ↓"}.get(f.better, "")
        lines.append(f"| {md(f.title)}{arrow} | {' | '.join([*values, *parts])} | {_SIGN[f.verdict]}: {md(f.why)} |")
    return "\n".join(lines) + "\n"


def to_junit(report: Report, strict: bool) -> str:
    """Return JUnit XML: one test case per metric; inconclusive is skipped, or an error under ``strict``."""
    soft = "error" if strict else "skipped"
    tags = {"fail": "failure", "inconclusive": soft}
    counts = {tag: sum(tags.get(f.verdict) == tag for f in report.findings) for tag in ("failure", "error", "skipped")}
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="harness gate" tests="{len(report.findings)}" failures="{counts["failure"]}" '
        f'errors="{counts["error"]}" skipped="{counts["skipped"]}">',
    ]
    for f in report.findings:
        name = f'<testcase classname="gate" name={quoteattr(plain(f.title))}'
        tag = tags.get(f.verdict)
        lines.append(f" {name}/>" if tag is None else f" {name}><{tag} message={quoteattr(plain(f.why))}/></testcase>")
    return "\n".join([*lines, "</testsuite>"]) + "\n"
