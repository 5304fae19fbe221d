"""Write down what a perception run was: resolved config and hash, subset, operators, versions, cost."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites.perception.jobs import Job
from suites.perception.subsets import subset_hash

if TYPE_CHECKING:
    from suites.perception.settings import AdeSettings, CocoSettings

PACKAGES = ("mmcv-lite", "mmengine", "mmdet", "mmsegmentation", "pycocotools", "torch", "torchvision")


@dataclass(frozen=True)
class Cost:
    """Hold what a run processes: iterations, pictures, and megapixels of network input (an upper bound)."""

    iterations: int
    images: int
    megapixels: float

    def text(self, early_ends: int = 0) -> str:
        """Say it in one line, printed before the run, with the number of picture files that end early."""
        size = f"{self.iterations:,} iterations, {self.images:,} pictures, {self.megapixels:,.0f} megapixels"
        return size + (f"; {early_ends} picture files end early" if early_ends else "")


def config_hash(config: dict[str, Any]) -> str:
    """Hash a config resolved with placeholder paths."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def write_provenance(
    job: Job,
    task: str,
    resolved: dict[str, Any],
    ops: str,
    ids: tuple[str, ...],
    settings: CocoSettings | AdeSettings,
    cost: Cost,
    early_ends: tuple[Path, ...],
    seconds_per_iteration: float | None,
) -> None:
    """Write ``provenance.json`` into the job's folder."""
    content = {
        "task": task,
        "recipe": settings.recipe,
        "fraction": job.fraction,
        "subset_seed": job.subset_seed,
        "train_seed": job.seed,
        "backbone_weights": job.weights,
        "train_ids": sorted(ids),
        "train_ids_sha256": subset_hash(ids),
        "ops": ops,
        "packages": {name: version(name) for name in PACKAGES},
        "config": resolved,
        "config_sha256": config_hash(resolved),
        "cost": asdict(cost),
        "pictures_that_end_early": [str(path.relative_to(job.root)) for path in early_ends],
        "seconds_per_iteration": seconds_per_iteration,
    }
    (job.out / "provenance.json").write_text(json.dumps(content, indent=1, sort_keys=True))
