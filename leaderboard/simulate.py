"""Simulated runs for the gate and for intervals: test items with their own difficulty, seeds with their own level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.stats.difference import Difference, Part, Units, difference
from leaderboard.gate import Finding, judge


@dataclass(frozen=True)
class World:
    """One simulated metric: a share of correct answers on fixed test items.

    Attributes:
        n: Test items.
        level: Mean logit of a correct answer.
        items: Standard deviation of the items' logits: what all seeds find easy or hard together.
        seeds: Standard deviation of the seeds' logits: how much a whole run differs from the next.
    """

    n: int
    level: float
    items: float
    seeds: float


TWELVE = (
    World(600, 1.9, 1.5, 0.10), World(600, 1.7, 1.5, 0.05), World(440, -0.7, 1.2, 0.05), World(528, -1.2, 1.2, 0.05),
    World(440, 0.4, 1.2, 0.10), World(528, 0.0, 1.5, 0.05), World(440, -0.8, 1.0, 0.03), World(528, 0.3, 1.2, 0.08),
    World(511, -3.0, 1.5, 0.15), World(540, 0.7, 1.8, 0.10), World(405, -1.6, 1.5, 0.10), World(3784, -0.4, 1.2, 0.03),
)  # fmt: skip
"""Sizes, rates and spreads like those of the embedded profile's twelve main columns."""


def simulate_runs(world: World, seeds: int, items: npt.NDArray[np.float64], rng: np.random.Generator,
                  loss: float = 0.0) -> list[list[Part]]:  # fmt: skip
    """Return one run per seed on the given items; ``loss`` is the share of accuracy taken away, in points of one."""
    names, one_stratum = tuple(map(str, range(world.n))), np.zeros(world.n, dtype=np.int64)
    runs = []
    for _ in range(seeds):
        logits = world.level + items + world.seeds * rng.standard_normal()
        chance = 1 / (1 + np.exp(-logits))
        kept = max(0.0, 1 - loss / float(chance.mean()))
        flags = np.stack([rng.random(world.n) < chance * kept, np.ones(world.n)], axis=1).astype(np.float64)
        runs.append([Part("items", Units("m", "share", names, one_stratum, flags))])
    return runs


def simulate_gate(
    worlds: Sequence[World], baseline: int, candidate: int, rng: np.random.Generator, loss: Sequence[float] = ()
) -> list[Finding]:
    """Return the gate's findings for one simulated pair of baseline and candidate.

    Args:
        worlds: The gated metrics; higher is better.
        baseline: Seeds of the baseline.
        candidate: Seeds of the candidate.
        rng: Randomness.
        loss: Planted loss per metric, as a fraction; empty: none.
    """
    findings = []
    for index, world in enumerate(worlds):
        items = world.items * rng.standard_normal(world.n)
        old = simulate_runs(world, baseline, items, rng)
        new = simulate_runs(world, candidate, items, rng, loss[index] if loss else 0.0)
        found: Difference = difference(new, old, replicates=0)
        runs = ("simulated", f"backbone {index % 2}")
        findings.append(Finding(f"metric {index}", "higher", "pass", "", difference=found, runs=runs))
    return judge(findings)
