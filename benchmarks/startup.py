"""How long commands take to answer: ``list``, ``plan`` and ``leaderboard`` beside another checkout, in turn.

    python benchmarks/startup.py --beside CHECKOUT --store STORE [--pairs 7]

CPU-seconds (user and system) of whole processes. Each checkout has a cache of its own, and one run of each command goes before
those that count: modules are compiled then, and hashes of code kept, as they are for a user from the second command on.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
FLOORS = {"python alone": "pass", "typer and pydantic": "import typer, pydantic", "numpy": "import numpy"}


def seconds(checkout: Path, scratch: Path, arguments: list[str]) -> float:
    """Return the CPU-seconds of one process."""
    own = scratch / checkout.name
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "PYTHONPATH": str(checkout),
        "HARNESS_CACHE": str(own),
        "PYTHONPYCACHEPREFIX": str(own / "bytecode"),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, required=True, help="an older checkout")
    parser.add_argument("--store", type=Path, required=True, help="a store with results")
    parser.add_argument("--pairs", type=int, default=7)
    asked = parser.parse_args()
    beside, store = asked.beside.resolve(), str(asked.store.resolve())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {asked.pairs} pairs\n")
    print("| command | now | before | ratio, pair by pair |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        commands = [
            ["list"],
            ["plan", "--generator", "real", "--store", f"{folder}/none"],
            ["plan", "--generator", "all", "--store", f"{folder}/none"],
            ["leaderboard", store],
            ["leaderboard", store, "--format", "csv"],
        ]
        for command in commands:
            arguments = ["-m", "harness", *command]
            runs = [
                (seconds(ROOT, scratch, arguments), seconds(beside, scratch, arguments)) for _ in range(asked.pairs + 1)
            ]
            ours, theirs = zip(*runs[1:], strict=True)
            ratios = sorted(a / b for a, b in runs[1:])
            shown = " ".join(command).replace(folder, "").replace(store, "STORE").replace(" --store /none", "")
            print(f"| `{shown}` | {median(ours):.2f} ({min(ours):.2f}-{max(ours):.2f}) | {median(theirs):.2f} "
                  f"({min(theirs):.2f}-{max(theirs):.2f}) | {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) |")  # fmt: skip
        for name, code in FLOORS.items():
            runs_of = [seconds(ROOT, scratch, ["-c", code]) for _ in range(asked.pairs + 1)][1:]
            print(f"| floor: {name} | {median(runs_of):.2f} ({min(runs_of):.2f}-{max(runs_of):.2f}) | | |")


if __name__ == "__main__":
    main()
