"""How often the gate cries wolf on real runs of identical code: every split of a store's seeds into candidate and baseline.

python -m harness run --generator lbgen --seeds 5 --store store && python benchmarks/gate_pairs.py --store store
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

from harness.core.files import write_text
from leaderboard.baseline import gated
from leaderboard.gate import Report, decide
from leaderboard.sources import Entry, from_store, read_head

SeedPair = tuple[int, int]


def seeds_of(entries: list[Entry]) -> list[SeedPair]:
    """Return the seeds of all backbones' results, in order."""
    subjects = [entry.record.subject for entry in entries]
    return sorted({(s.generator_seed, s.train_seed) for s in subjects if s.backbone != "-"})


def split(entries: list[Entry], candidate: tuple[SeedPair, ...], columns: list[str]) -> Report:
    """Hold some seeds against all others, in the gated columns."""
    generator_seeds = {seed[0] for seed in candidate}

    def chosen(entry: Entry) -> bool:
        s = entry.record.subject
        return (
            s.generator_seed in generator_seeds if s.backbone == "-" else (s.generator_seed, s.train_seed) in candidate
        )

    sides = [[e for e in entries if not chosen(e)], [e for e in entries if chosen(e)]]
    old, new = (gated(side, columns) for side in sides)
    return decide(old, new, {})


def main() -> None:
    """Print and write one line per split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--generator", default="lbgen")
    parser.add_argument("--candidate", type=int, default=2, help="seeds on the candidate's side")
    parser.add_argument(
        "--baseline", type=Path, default=Path("leaderboard/baselines/micro"), help="whose columns are gated"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gate-real-pairs.md"))
    a = parser.parse_args()
    entries = [entry for entry in from_store(a.store) if entry.record.subject.generator == a.generator]
    seeds, columns = seeds_of(entries), read_head(a.baseline)["gated"]
    lines = ["# The gate on real runs of identical code\n", f"{a.generator}, {len(seeds)} seeds; made by `benchmarks/gate_pairs.py`.\n",
             "| candidate seeds | answer | metrics | smallest adjusted p |", "|---|---|---|---|"]  # fmt: skip
    answers = []
    for candidate in combinations(seeds, a.candidate):
        report = split(entries, candidate, columns)
        answers.append(report.verdict)
        smallest = min((f.p for f in report.findings if f.p is not None), default=1.0)
        names = ", ".join(f"{g}/{t}" for g, t in candidate)
        lines.append(f"| {names} | {report.verdict} | {len(report.findings)} | {smallest:.3f} |")
        print(lines[-1], flush=True)
    lines.append(f"\n{answers.count('fail')} of {len(answers)} splits fail; at most one in twenty may.")
    write_text(a.out, "\n".join(lines) + "\n")
    print(lines[-1])


if __name__ == "__main__":
    main()
