"""Tie the two runs to the engine: items, jobs from contexts, scores from rows. Heavy imports are inside functions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.api import Context, Estimate, Item, Metric, NotPlanned, Resources, Score
from suites.perception.arches import unsupported
from suites.perception.bridge import INSTALL, missing_packages
from suites.perception.jobs import Job
from suites.perception.settings import AdeSettings, CocoSettings

if TYPE_CHECKING:
    import pandas as pd

MINUTES = 2.0
POPULATION = "new images"
NO_PART = {"fractions", "small_fraction_seeds", "workers", "replicates"}
"""Settings that leave a single run's numbers as they are."""


def items(task: str, settings: CocoSettings | AdeSettings, arch: str) -> Sequence[Item]:
    """Return one item per fraction and training seed.

    Raises:
        NotPlanned: The architecture has no place in the toolboxes, or the toolboxes are not installed.
    """
    reason = unsupported(arch)
    if reason is not None:
        raise NotPlanned(reason)
    missing = missing_packages()
    if missing:
        raise NotPlanned(f"not installed: {', '.join(missing)}; {INSTALL}")
    return [
        Item(
            label=f"{task}@{fraction:g}",
            data=(task,),
            params={"fraction": fraction, "subset_seed": subset},
            probe_seed=seed,
            resources=Resources(isolated=True, minutes=MINUTES, time_fraction=_share(settings, fraction)),
        )
        for fraction in settings.fractions
        for subset in settings.subsets_for(fraction)
        for seed in range(settings.seeds_for(fraction))
    ]


def _share(settings: CocoSettings | AdeSettings, fraction: float) -> float:
    return fraction if settings.constant == "epochs" else 1.0


def cost(item: Item, settings: CocoSettings | AdeSettings, train_images: int | None) -> str:
    """Return what the run of an item will process, for the plan; empty when the data set may have any size.

    Of COCO 2017 the number of images left after the filter is known; of a subset about that share of them is left.
    """
    from suites.perception.ade import ade_cost
    from suites.perception.coco import USED, coco_cost

    fraction = float(item.params["fraction"])
    if isinstance(settings, AdeSettings):
        return ade_cost(settings, fraction).text()
    if train_images is None:
        return ""
    used = USED.get((train_images, settings.min_side), train_images)
    return coco_cost(settings.at(fraction), math.floor(fraction * used + 0.5)).text()


def wording(settings: CocoSettings | AdeSettings) -> str:
    """Return the recipe's name and the settings that differ from it."""
    plain = type(settings)(recipe=settings.recipe)
    changed = {
        name: value
        for name, value in settings.model_dump().items()
        if name not in NO_PART and value != getattr(plain, name)
    }
    words = ", ".join(f"{name} {value}" for name, value in sorted(changed.items()))
    return f"recipe {settings.recipe}" + (f" with {words}" if words else "")


def job(ctx: Context, data: str) -> Job:
    """Make the run of a cell: the checkpoint's weights and normalisation, the item's fraction and seed."""
    from harness.api import load_backbone

    if ctx.device == "cpu":  # the toolboxes take any GPU they see; this process is theirs alone
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    artifact = ctx.inputs["checkpoint"]
    artifact.verify()
    model, info, sha256 = load_backbone(artifact.folder)
    return Job(
        state=model.state_dict(),
        arch=info.arch,
        root=ctx.data(data),
        out=ctx.scratch,
        seed=int(ctx.cell.seeds["probe_seed"]),
        fraction=float(ctx.params["item_params"]["fraction"]),
        subset_seed=int(ctx.params["item_params"]["subset_seed"]),
        weights=f"{info.weights} {sha256}",
        mean=(info.mean[0], info.mean[1], info.mean[2]),
        std=(info.std[0], info.std[1], info.std[2]),
        progress=ctx.progress,
    )


def keep_provenance(ctx: Context, run: Job) -> None:
    """Keep the resolved config, the training ids and the measured cost in the artifact."""
    from harness.api import write_text

    write_text(ctx.out / "training.json", (run.out / "provenance.json").read_text())


def coco_score(rows: pd.DataFrame, item: Item, replicates: int) -> Score:
    """Return box and mask AP (primary), AP50 and AP75 with intervals, AP by object size without.

    Args:
        rows: COCO rows as described in ``metrics``.
        item: The evaluation; its fraction is part of the metric names.
        replicates: Most images or groups of images that are left out in turn.
    """
    from suites.perception.metrics import arrange_coco, coco_summary, jackknife

    metrics: list[Metric] = []
    for kind, word in (("bbox", "box"), ("segm", "mask")):
        arranged = arrange_coco(rows, kind)
        ends = jackknife(arranged.summary, [str(image) for image in sorted(set(rows["image_id"]))], replicates)
        for name, value in coco_summary(rows, kind).items():
            label = f"COCO_{name}_{word}{_suffix(item)}"
            reason = "no object of this size" if name not in ends else "no ground truth"
            metrics.append(_metric(label, value, ends.get(name), arranged.n_images, replicates, name == "AP", reason))
    return Score(tuple(metrics))


def ade_score(rows: pd.DataFrame, item: Item, replicates: int) -> Score:
    """Return mIoU (primary), pixel and class accuracy, with intervals.

    Args:
        rows: ADE20K rows as described in ``metrics``.
        item: The evaluation; its fraction is part of the metric names.
        replicates: Most images or groups of images that are left out in turn.
    """
    from suites.perception.metrics import ade_summary, arrange_ade, jackknife

    arranged = arrange_ade(rows)
    n = len(arranged.union)
    ends = jackknife(lambda w: ade_summary(arranged, w), sorted(set(rows["stem"])), replicates)
    return Score(
        tuple(
            _metric(f"ADE20K_{name}{_suffix(item)}", value, ends[name], n, replicates, name == "mIoU", "no labels")
            for name, value in ade_summary(arranged).items()
        )
    )


def _suffix(item: Item) -> str:
    fraction = item.params["fraction"]
    return "" if fraction == 1 else f"@{fraction:g}"


def _metric(
    name: str,
    value: float,
    ends: tuple[float, float] | None,
    n: int,
    replicates: int,
    primary: bool,
    reason: str,
) -> Metric:
    known = not math.isnan(value)
    bounded = known and ends is not None and not math.isnan(ends[0])
    low, high = ends if bounded and ends is not None else (None, None)
    method = f"jackknife (image{'' if n <= replicates else f', {replicates} groups'})" if bounded else "none"
    estimate = Estimate(value if known else None, low, high, n, method, POPULATION, "" if known else reason)
    return Metric(name, estimate, role="primary" if primary else "companion")
