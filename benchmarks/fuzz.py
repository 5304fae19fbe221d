"""Damaged input for every reader, many times over; the result is the table in docs/fuzzing.md.

    python benchmarks/fuzz.py [MINUTES] [SEED]      20 minutes of CPU and seed 0 by default; Ctrl-C ends earlier

Inputs follow from seed, reader and number, so that a find can be repeated. What stands below the table is kept.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import logging
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fuzz.bench import Bench, Broken, Reader  # noqa: E402
from tests.fuzz.table import READERS  # noqa: E402

REPORT = ROOT / "docs" / "fuzzing.md"
FOUND = "## What was found"
BATCH = 50
"""Inputs of a reader before the next one has its turn."""
MEMORY = 6 * 2**30
"""Bytes of address space: more than any of these inputs may ask for."""


@dataclass
class Tally:
    """What a reader did."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    finds: Counter[str] = field(default_factory=Counter)


def work(reader: Reader, place: Bench, tally: Tally, seed: int) -> None:
    """Give a reader one batch."""
    for _ in range(max(1, BATCH // reader.dear)):
        content = place.damaged(random.Random(f"{seed} {reader.name} {tally.inputs}"))
        began = time.monotonic()
        tally.inputs += 1
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                tally.accepted += not place.read(content)
        except Broken as error:
            tally.finds[where(error)] += 1
            print(f"{reader.name} input {tally.inputs - 1}: {error}"[:300], flush=True)
        tally.slowest = max(tally.slowest, time.monotonic() - began)


def where(error: Broken) -> str:
    """Return the kind of an error and the line of the project that it left last."""
    cause, found = error.__cause__, ""
    trace = cause.__traceback__ if cause else None
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and "tests" not in file.parts:
            found = f" {file.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return type(cause).__name__ + found if cause else str(error)


def report(tallies: dict[str, Tally], minutes: float, seed: int) -> str:
    """Return the page, with what stood below its table before."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    total, finds = (
        sum(value(each) for each in tallies.values()) for value in (lambda t: t.inputs, lambda t: len(t.finds))
    )
    rows = [
        f"| {name} | {t.inputs:,} | {t.inputs - t.accepted:,} | {len(t.finds)} | {t.slowest:.1f} |"
        for name, t in tallies.items()
    ]
    below = REPORT.read_text().partition(FOUND)[2] if REPORT.is_file() else "\n"
    return (
        f"""# Fuzzing

Every reader of files from outside, and of files that runs leave behind, is given damaged forms of files that it reads: bits, bytes and
lines changed, cut, repeated and spliced, and values of JSON replaced by others. It must return a value or raise an error that names what
is wrong, end within 20 seconds, and change no file. Checksums inside a file are made to fit its damage, so that what lies behind them is
reached.

`python benchmarks/fuzz.py`, commit {commit}, {datetime.date.today()}, {minutes:.0f} CPU-minutes, seed {seed}:
**{total:,} inputs, {len(tallies)} readers, {finds} finds**. `tests/fuzz` gives each reader five
inputs in every run of the tests, and forty in the slow one.

| reader | inputs | refused | finds | slowest, s |
|---|---|---|---|---|
"""
        + "\n".join(rows)
        + f"\n\n{FOUND}{below}"
    )


def main(minutes: float = 20.0, seed: int = 0) -> None:
    """Work until the time is over or somebody interrupts, then write the page."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what runs in the background
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tallies = {name: Tally() for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Bench(reader, Path(folder) / str(n)) for n, (name, reader) in enumerate(READERS.items())}
        began = time.process_time()
        with contextlib.suppress(KeyboardInterrupt):
            while time.process_time() - began < 60 * minutes:
                for name, reader in READERS.items():
                    work(reader, places[name], tallies[name], seed)
        spent = (time.process_time() - began) / 60
    REPORT.write_text(report(tallies, spent, seed))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3]))
