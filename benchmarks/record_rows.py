"""Record rows of a finished store as the ones that ship with the project.

    python benchmarks/record_rows.py --store store --generators real,sd15 --out leaderboard/baselines/micro.jsonl
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from harness.files import write_text
from leaderboard.sources import from_store


def main() -> None:
    """Write one record a line, in board order, for the first seeds of the named generators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--generators", default="real,sd15")
    parser.add_argument("--out", type=Path, default=Path("leaderboard/baselines/micro.jsonl"))
    arguments = parser.parse_args()
    wanted = set(arguments.generators.split(","))
    records = [entry.record for entry in from_store(arguments.store)]
    chosen = [r for r in records if r.subject.generator in wanted and r.subject.generator_seed == 0]
    lines = [json.dumps(asdict(record), sort_keys=True, allow_nan=False) for record in chosen]
    write_text(arguments.out, "\n".join(lines) + "\n")
    print(f"{len(lines)} records of {', '.join(sorted({r.subject.generator for r in chosen}))} in {arguments.out}")


if __name__ == "__main__":
    main()
