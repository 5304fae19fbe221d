"""How cost grows: dispatch, resume and join of 1,000, 10,000 and 100,000 shards, and boards of 2,000 records, beside another checkout.

    python benchmarks/growth.py --beside CHECKOUT [--store STORE_OF_2000_RECORDS] [--shards 1000,10000,100000]

Every figure is of a process of its own: CPU-seconds (user and system), bytes read (``rchar`` of /proc) and peak resident memory.
Shards hold one image of 8 x 8 pixels, so that what grows is what is measured. Dispatching talks to a worker that answers at once:
the figure is the dispatching process's, without what workers spend on reading their orders.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LARGEST_BESIDE = {"dispatch": 1_000, "resume": 10_000}
"""Above these numbers of shards the other checkout is extrapolated from what it took for fewer, or for some of the orders."""
SOME_ORDERS = 200
ANSWERS = 'import sys\nfor _ in sys.stdin.buffer: print(\'{"event": "done", "cpu_seconds": 0.0}\', flush=True)'


class Enough(BaseException):
    """Ends a dispatch of which only some orders are measured."""


def used() -> float:
    """Return the CPU-seconds of this process."""
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime


def read_bytes() -> int:
    """Return the bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def cell_of(shards: int) -> Any:
    """Return a dataset of some shards of one image."""
    from harness.core.classes import load_classes
    from harness.images.request import shards as names
    from harness.store.cells import Cell

    classes = load_classes("micro")
    params = {"dataset": {"size_px": 8}, "classes": classes.key()}
    return Cell("synthesise", "noise", 1, params, seeds={"generator_seed": 0},
                shards=names(classes, -(-shards // len(classes.ids)), 1)[:shards],
                callable_path="harness.run.tasks:synthesise")  # fmt: skip


def dispatch(folder: Path, shards: int, orders: int = 0) -> dict[str, float]:
    """Dispatch all shards of a cell, or the first ``orders`` of them, of which every further one costs ``each``."""
    from harness.plan.model import Plan
    from harness.run.local import LocalExecutor
    from harness.run.progress import ProgressReporter
    from harness.store.artifacts import Store

    started = subprocess.Popen
    subprocess.Popen = lambda command, **how: started([sys.executable, "-c", ANSWERS], **how)  # type: ignore[assignment, misc]
    plan, store, marks = Plan(), Store(folder), []
    key = plan.add(cell_of(shards)).key
    board = ProgressReporter(store, 1, quiet=True)
    count: Callable[..., None] = board.done

    def done(*what: Any) -> None:
        count(*what)
        marks.append(used())
        if len(marks) == orders:
            raise Enough

    if orders:
        board.done = done  # type: ignore[method-assign]
    before = used()
    try:
        LocalExecutor(store, 1, "cpu", board).run(plan, frozenset([key]))
    except Enough:
        half = orders // 2
        each = (marks[-1] - marks[half - 1]) / (orders - half)
        return {"cpu": marks[half - 1] - before + each * (shards - half)}
    return {"cpu": used() - before}


def make(folder: Path, shards: int) -> dict[str, float]:
    """Make all shards of a cell."""
    import numpy as np

    from harness.core.cost import Cost, save_shard_cost
    from harness.images import shards as images
    from harness.images.request import parse_shard
    from harness.plugins.context import Context
    from harness.store.artifacts import Store

    cell = cell_of(shards)
    ctx = Context(cell, Store(folder).folder(cell), {}, {})
    (ctx.out / "shards").mkdir(parents=True)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for shard in cell.shards:
        path, request = ctx.out / "shards" / f"{shard}.tar", parse_shard(shard, ctx.classes, 8, 0)
        one = images.ShardImage(request.class_id, request.class_index, request.start, pixels, "", 0)
        rows = images.write_shard(path, [one])
        if hasattr(images, "write_rows"):  # before orders named their shard alone
            save_shard_cost(ctx.scratch, shard, Cost(1.0, 1.0))
            images.write_rows(ctx.out / "shards" / f"{shard}.jsonl", rows)
        else:
            from harness.run.join import keep_shard

            keep_shard(ctx, shard, rows, lambda: Cost(1.0, 1.0))
    return {}


def resume(folder: Path, shards: int) -> dict[str, float]:
    """Do the orders of a dataset that lacks one shard, and join it.

    What makes the missing shard is the same everywhere and left out: its files are there when its order comes.
    """
    import harness.core.provenance
    import harness.images.shards
    import harness.plugins.registry
    import harness.run.tasks  # noqa: F401
    from harness.run.job import Job, execute
    from harness.store.artifacts import Store

    cell = cell_of(shards)
    cpu, size = used(), read_bytes()
    try:
        from harness.run.join import missing_shards
    except ImportError:
        orders = list(cell.shards)
    else:
        orders = [*missing_shards(Store(folder).folder(cell), cell), cell.shards[-1]]
    for shard in orders:
        job = Job(cell, {}, {}, str(folder), shard)
        execute(job)
    execute(Job(cell, {}, {}, str(folder)))
    return {"cpu": used() - cpu, "read": read_bytes() - size}


def board(store: Path, style: str) -> dict[str, float]:
    """Write a board of a store."""
    from harness.cli.main import main

    sys.argv = ["harness", "leaderboard", str(store), "--format", style, "--output", os.devnull]
    with contextlib.suppress(SystemExit):
        main()
    return {"cpu": used(), "read": read_bytes()}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "dispatch": dispatch, "make": make, "resume": resume, "board": board,
}  # fmt: skip


def measured(checkout: Path, name: str, *arguments: str) -> dict[str, float]:
    """Return the figures of one measurement in a process of a checkout, with its peak memory in MB."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, "--measure", name, *arguments], cwd=checkout, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def grown(checkout: Path, sizes: list[int], resumed: list[int], beside: bool) -> dict[str, list[dict[str, float]]]:
    """Return what dispatching and resuming take in one checkout, size by size; what is too long beside is extrapolated."""
    found: dict[str, list[dict[str, float]]] = {"dispatch": [], "resume": []}
    for shards in sizes:
        with tempfile.TemporaryDirectory() as folder:
            some = beside and shards > LARGEST_BESIDE["dispatch"]
            one = measured(checkout, "dispatch", folder, str(shards), str(SOME_ORDERS if some else 0))
            found["dispatch"].append(one | {"extrapolated": float(some)})
        print(f"{checkout.name}: {shards} shards: {found['dispatch'][-1]}", file=sys.stderr)
        if shards not in resumed:
            continue
        if beside and shards > LARGEST_BESIDE["resume"]:
            last, factor = found["resume"][-1], shards / sizes[len(found["resume"]) - 1]
            found["resume"].append({"cpu": factor * last["cpu"], "read": factor * last["read"], "extrapolated": 1.0})
            continue
        with tempfile.TemporaryDirectory() as folder:
            measured(checkout, "make", folder, str(shards))
            found["resume"].append(measured(checkout, "resume", folder, str(shards)))
        print(f"{checkout.name}: {shards} shards: {found['resume'][-1]}", file=sys.stderr)
    return found


def cell(one: dict[str, float], unit: str) -> str:
    """Return a figure in words."""
    if unit not in one:
        return "-"
    text = (
        f"{one[unit] / 1e6:,.1f}" if unit == "read" else f"{one[unit]:,.0f}" if unit == "peak" else f"{one[unit]:,.2f}"
    )
    return f"{text} (extrapolated)" if one.get("extrapolated") else text


def exponent(sizes: list[int], ones: list[dict[str, float]], unit: str) -> str:
    """Return the exponent of growth between the two last sizes; of peak memory it says nothing."""
    if len(sizes) < 2 or unit == "peak":
        return ""
    (a, b), (x, y) = sizes[-2:], (one.get(unit, 0.0) for one in ones[-2:])
    return f"{math.log(y / x) / math.log(b / a):.2f}" if x and y else "-"


def table_of_shards(sizes: dict[str, list[int]], ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the table of dispatching and resuming, a line for each size."""
    lines = ["| what | unit | shards | now | before | ratio | exponent now | before |", "|---" * 8 + "|"]
    for name in ours:
        for unit, words in (("cpu", "CPU-s"), ("read", "MB read"), ("peak", "peak MB")):
            for place, shards in enumerate(sizes[name]):
                one, other = ours[name][place], theirs[name][place]
                if unit not in one:
                    continue
                ratio = f"{one[unit] / other[unit]:.3g}" if unit in other else "-"
                until = [exponent(sizes[name][: place + 1], side[name][: place + 1], unit) for side in (ours, theirs)]
                lines.append(f"| {name} | {words} | {shards:,} | {cell(one, unit)} | {cell(other, unit)} | {ratio} | "
                             f"{' | '.join(until)} |")  # fmt: skip
    return lines


def table_of_boards(store: Path, beside: Path, pairs: int) -> list[str]:
    """Return the table of boards: medians of runs in turn."""
    lines = [
        "| board | now: CPU-s | before | ratio, pair by pair | now: peak MB | before |",
        "|---|---|---|---|---|---|",
    ]
    for style in ("csv", "html"):
        runs = [(measured(ROOT, "board", str(store), style), measured(beside, "board", str(store), style))
                for _ in range(pairs + 1)][1:]  # the first pair fills caches  # fmt: skip
        ours, theirs = ([run[side] for run in runs] for side in (0, 1))
        ratios = sorted(a["cpu"] / b["cpu"] for a, b in runs)
        middle = [sorted(one["cpu"] for one in side)[len(side) // 2] for side in (ours, theirs)]
        lines.append(
            f"| {style} | {middle[0]:.2f} | {middle[1]:.2f} | {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) "
            f"| {max(one['peak'] for one in ours):.0f} | {max(one['peak'] for one in theirs):.0f} |"
        )
    return lines


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="an older checkout")
    parser.add_argument("--store", type=Path, help="a store of many records, whose board is written")
    parser.add_argument("--shards", default="1000,10000,100000")
    parser.add_argument("--resume", default="", help="numbers of shards to resume with; default: those of --shards")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        name, folder, *rest = asked.measure
        os.fsync = lambda _: None  # type: ignore[assignment]  # waiting for the disk costs no CPU-seconds
        found = MEASURES[name](Path(folder), *(int(text) if text.isdigit() else text for text in rest))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("\n" + json.dumps(found | {"peak": peak}))
        return
    beside, sizes = asked.beside.resolve(), [int(text) for text in asked.shards.split(",") if text]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if sizes:
        resumed = [int(text) for text in (asked.resume or asked.shards).split(",")]
        ours, theirs = grown(ROOT, sizes, resumed, False), grown(beside, sizes, resumed, True)
        print("\n".join(table_of_shards({"dispatch": sizes, "resume": resumed}, ours, theirs)) + "\n")
    if asked.store:
        print("\n".join(table_of_boards(asked.store.resolve(), beside, asked.pairs)))


if __name__ == "__main__":
    main()
