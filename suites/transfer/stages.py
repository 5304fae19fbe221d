"""What cells of the transfer suites do: extract features once, and fit probes on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.api import UserError, atomic_path, write_json
from suites.transfer.cards import card_for
from suites.transfer.data import LabelledImages, Part
from suites.transfer.features import Features, extract_features, image_batches, join_slices, rank_slice
from suites.transfer.fewshot import TrainingSet
from suites.transfer.metrics import mean_per_class, top1
from suites.transfer.readers import read
from suites.transfer.search import ProbeResult, ProbeSettings
from suites.transfer.settings import TransferSettings, check_device
from suites.transfer.transforms import EvalTransform, probe_transform

if TYPE_CHECKING:
    import pandas as pd

    from harness.api import Artifact, Context, Metric, Ranks

PARTS = ("trainval", "test")
AGREE_POINTS = 0.2
"""What the refit predicts at the tolerances reference and converged should agree to this, or to one image."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of one data set, as an extract cell has left them."""

    train: TrainingSet
    official_val: npt.NDArray[np.bool_] | None
    test_x: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]
    test_names: tuple[str, ...]
    notes: tuple[str, ...]


def extract(ctx: Context) -> None:
    """Write the features of both parts of a data set with the list of items they belong to.

    Under torchrun every rank extracts a run of the items and rank 0 joins and writes them.
    """
    from harness.api import classifier, join_ranks

    params = ctx.params
    name = str(params["dataset"])
    images = read(ctx.data(name), card_for(name, ctx.card(name)))
    model, transform = classifier(ctx), probe_transform(params["image_size"])
    total, done = len(images.trainval) + len(images.test), 0
    with join_ranks(ctx.device) as ranks:
        found: dict[str, Features] = {}
        for part in PARTS:
            items: Part = getattr(images, part)
            mine = rank_slice(len(items), ranks.rank, ranks.world)
            found[part] = extract_features(
                model,
                images.root,
                items.paths[mine],
                items.labels[mine],
                transform,
                kind=params["features"],
                name=name,
                batch_size=params["batch_size"],
                workers=ctx.cell.resources.threads,
                progress=partial(_report, ctx, done, total),
            )
            done += len(items)
        if ranks.world > 1:
            found = _gather(ctx, ranks, found)
        if ranks.rank == 0:
            _write(ctx, images, transform.id, found)


def _write(ctx: Context, images: LabelledImages, transform: str, found: Mapping[str, Features]) -> None:
    listing: dict[str, Any] = {
        "dataset": images.dataset,
        "layout": images.layout,
        "classes": images.classes,
        "fingerprint": images.listing_hash,
        "transform": transform,
        "notes": [],
    }
    for part in PARTS:
        items, features = getattr(images, part), found[part]
        _save(ctx.out / f"{part}.npy", features.x)
        listing[part] = {"paths": items.paths, "labels": items.labels.tolist()}
        listing["notes"] += [f"{images.dataset} {part}: {line}" for line in features.notes]
    listing["official_val"] = None if images.official_val is None else images.official_val.astype(int).tolist()
    write_json(ctx.out / "items.json", listing)


def _gather(ctx: Context, ranks: Ranks, mine: Mapping[str, Features]) -> dict[str, Features]:
    """Return on rank 0 the features of all ranks; they meet in the cell's scratch folder."""
    for part in PARTS:
        _save(ctx.scratch / f"{part}-{ranks.rank}.npy", mine[part].x)
        write_json(
            ctx.scratch / f"{part}-{ranks.rank}.json",
            {"labels": mine[part].labels.tolist(), "truncated": mine[part].truncated},
        )
    ranks.wait()
    return (
        {
            part: join_slices([_load_slice(ctx.scratch / f"{part}-{rank}") for rank in range(ranks.world)])
            for part in PARTS
        }
        if ranks.rank == 0
        else {}
    )


def _load_slice(stem: Path) -> Features:
    facts = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    return Features(
        np.load(stem.with_suffix(".npy"), allow_pickle=False),
        np.array(facts["labels"], dtype=np.int64),
        tuple(facts["truncated"]),
    )


def _report(ctx: Context, before: int, total: int, done: int, _: int) -> None:
    ctx.progress(before + done, total, "images")


def _save(path: Path, x: npt.NDArray[np.float32]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, x, allow_pickle=False)


def load_features(artifact: Artifact) -> FeatureSet:
    """Read what ``extract`` has written."""
    listing = artifact.json("items.json")
    x = {part: np.load(artifact.path(f"{part}.npy"), allow_pickle=False) for part in PARTS}
    labels = {part: np.array(listing[part]["labels"], dtype=np.int64) for part in PARTS}
    train = TrainingSet(
        listing["dataset"],
        x["trainval"],
        labels["trainval"],
        tuple(listing["trainval"]["paths"]),
        tuple(listing["classes"]),
    )
    official = listing["official_val"]
    return FeatureSet(
        train,
        None if official is None else np.array(official, dtype=bool),
        x["test"],
        labels["test"],
        tuple(listing["test"]["paths"]),
        tuple(listing["notes"]),
    )


def probe_settings(settings: TransferSettings) -> ProbeSettings:
    """Return the probe's own settings."""
    return ProbeSettings(
        settings.search,
        settings.solver,
        settings.one_standard_error,
        threads=settings.threads,
        normalise=settings.normalise,
        max_iterations=settings.max_iterations,
        device=check_device(settings),
    )


def probe_rows(features: FeatureSet, results: Mapping[int, ProbeResult], extra: Mapping[int, str]) -> pd.DataFrame:
    """Return one row per test image and probe seed, with the C that made it.

    Args:
        features: The data set.
        results: Probe seed to its probe.
        extra: Probe seed to how C was chosen.
    """
    import pandas as pd

    frames = [
        pd.DataFrame(
            {
                "item": features.test_names,
                "label": features.test_labels,
                "predicted": found.predictions,
                "predicted_reference": found.reference,
                "seed": seed,
                "c": found.c,
                "gap": found.fit.gap,
                "train_images": len(features.train.labels),
                "validation": extra[seed],
                "remark": "; ".join(found.warnings),
            }
        )
        for seed, found in results.items()
    ]
    return pd.concat(frames, ignore_index=True)


def write_search(ctx: Context, results: Mapping[int, ProbeResult], members: Mapping[int, Mapping[str, str]]) -> None:
    """Write every C that was tried, in order, with its validation accuracy and how the solver ended.

    Args:
        ctx: The cell.
        results: Probe seed to its probe.
        members: Probe seed to hashes of the split or subset, equal for all backbones.
    """
    write_json(
        ctx.out / "search.json",
        [
            {
                "seed": seed,
                **members[seed],
                "chosen_c": found.c,
                "objective": found.fit.objective,
                "gradient": found.fit.gradient,
                "gap": found.fit.gap,
                "iterations": found.fit.iterations,
                "converged": found.fit.converged,
                "warnings": found.warnings,
                "tried": [
                    {
                        "c": p.c,
                        "accuracy": p.accuracy,
                        "iterations": p.iterations,
                        "gradient": p.gradient,
                        "gap": p.gap,
                        "converged": p.converged,
                    }
                    for p in found.points
                ],
            }
            for seed, found in results.items()
        ],
    )


def probe_metrics(rows: pd.DataFrame, name: str, *, group: str, group_size: int, primary: bool) -> tuple[Metric, ...]:
    """Return top-1 and, as a companion, mean-per-class, each averaged over the probe seeds."""
    from harness.api import Metric

    columns = [rows[column].to_numpy() for column in ("label", "predicted", "item")]
    first = Metric(name, top1(*columns), role="primary" if primary else "companion", group=group, group_size=group_size)
    return first, Metric(f"{name}.mean_per_class", mean_per_class(*columns), role="companion")


def probe_notes(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the chosen C of every seed, the spread over seeds, and every warning."""
    by_seed = rows.groupby("seed", sort=True)
    first = by_seed.first()
    lines = ["chosen C by probe seed: " + ", ".join(f"{c:.4g}" for c in first["c"])]
    accuracy: Sequence[float] = [float((part["label"] == part["predicted"]).mean()) for _, part in by_seed]
    if len(accuracy) > 1:
        lines.append(
            f"standard deviation over {len(accuracy)} probe seeds: {100 * float(np.std(accuracy, ddof=1)):.2f} points"
        )
    lines += [f"C chosen by {how}" for how in sorted(set(first["validation"]))]
    if "gap" in first:
        lines.append(
            f"proved: the objective exceeds its optimum by at most {first['gap'].max():.1e} of its penalty |W|^2 / 2"
        )
    lines += [f"seed {seed}: {remark}" for seed, remark in first["remark"].items() if remark]
    if "predicted_reference" in rows:
        lines += [line for seed, part in by_seed if (line := _unlike_reference(part, f"seed {seed}"))]
    return tuple(lines)


def _unlike_reference(part: pd.DataFrame, name: str) -> str:
    """Warn where one seed's refit and the tolerance with which C is chosen differ by more than 0.2 points, or one image."""
    right, reference = (float((part["label"] == part[name]).mean()) for name in ("predicted", "predicted_reference"))
    difference = 100 * (right - reference)
    if abs(difference) <= max(AGREE_POINTS, 100 / len(part)):
        return ""
    return (
        f"warning: {name}: at the chosen C the accuracy of the refit differs by {difference:+.2f} points from that at the tolerance "
        "'reference', with which C is chosen by default; compare with solver = converged"
    )


def classify(
    model: Any,
    root: Path,
    paths: Sequence[str],
    labels: npt.NDArray[np.int64],
    transform: EvalTransform,
    outputs: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    progress: Callable[[int, int, str], None],
    name: str,
    read: Callable[[str], bytes] | None = None,
) -> pd.DataFrame:
    """Return item, label, predicted, confidence and state ("ok") per image; predictions are positions in ``outputs``.

    The confidence is the softmax probability of the prediction among ``outputs``, in double precision.

    Raises:
        UserError: logits are not finite, or files are damaged (all are named).
    """
    import pandas as pd
    import torch

    index = torch.as_tensor(list(outputs))
    predicted: list[npt.NDArray[np.int64]] = []
    confidence: list[npt.NDArray[np.float64]] = []
    done = 0
    batches = image_batches(root, paths, transform, batch_size=batch_size, workers=workers, complete=False, read=read)
    for pixels, _ in batches:
        logits = model(torch.from_numpy(pixels)).cpu()[:, index]
        if not torch.isfinite(logits).all():
            raise UserError(
                f"{name}: the backbone gives logits that are not finite",
                f"first seen at {paths[done]}",
                "the checkpoint is damaged or its training diverged; train or load it again",
            )
        predicted.append(logits.numpy().argmax(axis=1))
        confidence.append(logits.double().softmax(dim=1).amax(dim=1).numpy())
        done += len(pixels)
        progress(done, len(paths), "images")
    return pd.DataFrame(
        {"item": list(paths), "label": labels, "predicted": np.concatenate(predicted),
         "confidence": np.concatenate(confidence), "state": "ok"}
    )  # fmt: skip
