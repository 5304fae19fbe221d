"""What an interval of a difference covers when one side has a single seed, by how that seed's own scatter is taken into account.

python benchmarks/one_seed.py [--pairs 120] [--apart]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.stats.difference import Difference, difference, with_seeds
from leaderboard.moderate import shrink_seed_variances
from leaderboard.simulate import TWELVE, World, simulate_runs

WAYS = ("for both sides", "for its own side", "no spread", "moderated")
APART = {0: World(600, 1.9, 1.5, 0.35), 8: World(511, -3.0, 1.5, 0.5)}
"""With ``--apart``: two of the twelve metrics, their seeds scattering three times as much as any other's."""


def own_side(found: Difference, seeds: tuple[int, int]) -> Difference:
    """Return the difference with the second side's spread for the second side alone."""
    both, second = np.sqrt(1 / seeds[0] + 1 / seeds[1]), np.sqrt(1 / seeds[1])
    return with_seeds(
        replace(found, se_noise=found.se_noise / both * second), (found.se_runs or 0) / both * second, found.df_seeds
    )


def simulate(worlds: Sequence[World], seeds: tuple[int, int], rng: np.random.Generator) -> list[list[Difference]]:
    """Return the differences of two alike systems in all metrics, once for each way."""
    found = []
    for world in worlds:
        items = world.items * rng.standard_normal(world.n)
        first, second = (simulate_runs(world, count, items, rng) for count in seeds)
        found.append(difference(first, second, replicates=0))
    bare = [with_seeds(one, None, None) for one in found]
    return [
        found,
        [own_side(one, seeds) for one in found],
        bare,
        shrink_seed_variances(found, [i % 2 for i in range(len(found))]),
    ]


def main() -> None:
    """Print a Markdown table: coverage and half the mean width for each way, over all metrics or those set apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument(
        "--apart", action="store_true", help="two metrics scatter more than the others; count them alone"
    )
    a = parser.parse_args()
    worlds = [APART.get(i, world) if a.apart else world for i, world in enumerate(TWELVE)]
    counted = sorted(APART) if a.apart else range(len(worlds))
    print(f"| seeds | {' | '.join(WAYS)} |\n|---|---|---|---|---|")
    for seeds in ((1, 2), (1, 3), (1, 5)):
        rng = np.random.default_rng(1)
        pairs = [simulate(worlds, seeds, rng) for _ in range(a.pairs)]
        cells = []
        for way in range(len(WAYS)):
            chosen = [pair[way][i] for pair in pairs for i in counted]
            covered = np.mean([one.low <= 0 <= one.high for one in chosen])
            half = np.mean([one.high - one.low for one in chosen]) / 2
            cells.append(f"{100 * covered:.1f} % (± {100 * half:.0f})")
        print(f"| {seeds[0]} and {seeds[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
