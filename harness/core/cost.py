"""What work costs. A shard's cost is kept in the scratch folder while the others are made, and summed into the manifest."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.files import parse_json, write_json

FOLDER = "costs"
BY_SHARD = "shard_costs"
"""Field of a manifest: shard to ``[wall seconds, CPU-seconds]``. Manifests without it, of work in shards, know no cost."""


@dataclass(frozen=True)
class Cost:
    """What some work took; wall seconds of shards are summed over workers."""

    wall_seconds: float
    cpu_seconds: float


def stopwatch() -> Callable[[], Cost]:
    """Return a function that says what this process and its children have spent since now."""
    started, cpu = time.monotonic(), _cpu_seconds()
    return lambda: Cost(round(time.monotonic() - started, 3), round(_cpu_seconds() - cpu, 3))


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def save_shard_cost(scratch: Path, shard: str, spent: Cost, files: Mapping[str, str] | None = None) -> None:
    """Keep the cost of a shard beside it; to be called before the shard counts as made, so that none is without.

    Args:
        scratch: The artifact's scratch folder.
        shard: Name of the shard.
        spent: What it took.
        files: SHA-256 of its files as they were written, by path below the artifact's folder.
    """
    write_json(scratch / FOLDER / f"{shard}.json", [spent.wall_seconds, spent.cpu_seconds, dict(files or {})])


def read_shard_cost(scratch: Path, shard: str) -> tuple[Cost | None, dict[str, str]]:
    """Return what ``save_shard_cost`` kept; None and no files where nothing can be read. Older versions kept no files."""
    try:
        wall, cpu, *files = parse_json((scratch / FOLDER / f"{shard}.json").read_text(encoding="utf-8"))
        return Cost(float(wall), float(cpu)), {str(name): str(digest) for one in files for name, digest in one.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None, {}


def carry_over(scratch: Path, manifest: Mapping[str, Any]) -> None:
    """Keep the costs and hashes a manifest knows, for shards that stay while others are rebuilt."""
    files: dict[str, dict[str, str]] = {}
    for name, entry in manifest["files"].items():
        files.setdefault(Path(name).stem, {})[name] = entry["sha256"]
    for shard, (wall, cpu) in manifest.get(BY_SHARD, {}).items():
        save_shard_cost(scratch, shard, Cost(wall, cpu), files.get(shard))


def manifest_fields(scratch: Path, shards: Sequence[str], joining: Cost) -> dict[str, Any]:
    """Return a manifest's facts about cost: of joining alone where there are no shards, else of all shards together.

    Where the cost of a shard is not known (an older version made it), the whole cost is None.
    """
    if not shards:
        return {"wall_seconds": joining.wall_seconds, "cpu_seconds": joining.cpu_seconds}
    known: dict[str, list[float]] = {}
    for shard in shards:
        cost, _ = read_shard_cost(scratch, shard)
        if cost is not None:
            known[shard] = [cost.wall_seconds, cost.cpu_seconds]
    if len(known) < len(shards):
        return {"wall_seconds": None, "cpu_seconds": None, BY_SHARD: known}
    wall, cpu = (sum(cost[i] for cost in known.values()) for i in (0, 1))
    return {"wall_seconds": round(wall + joining.wall_seconds, 3), "cpu_seconds": round(cpu + joining.cpu_seconds, 3),
            BY_SHARD: known}  # fmt: skip


def read_cost(manifest: Mapping[str, Any]) -> Cost | None:
    """Return what an artifact took, or None where its manifest does not know."""
    shards = any(name.endswith(".tar") for name in manifest["files"])
    wall, cpu = manifest.get("wall_seconds"), manifest.get("cpu_seconds")
    return None if wall is None or cpu is None or (shards and BY_SHARD not in manifest) else Cost(wall, cpu)
