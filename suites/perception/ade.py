"""Fine-tune UperNet from a backbone on ADE20K and return the evaluation rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from suites.perception import bridge
from suites.perception.backbone import check_strict, resolve, save_backbone, save_weights, toolbox_state
from suites.perception.cards import AdeCard, ade_classes, ade_stems, check_count, settle_ade
from suites.perception.configs import ade_config
from suites.perception.jobs import Job, Places, Target
from suites.perception.pictures import check_labels, check_pictures
from suites.perception.provenance import Cost, write_provenance
from suites.perception.settings import AdeSettings
from suites.perception.subsets import subset

if TYPE_CHECKING:
    import pandas as pd


def run_ade(job: Job, card: AdeCard, settings: AdeSettings, keep_weights: bool = False) -> pd.DataFrame:
    """Train on a subset, evaluate on the whole validation split; continue where a killed run stopped.

    One call per process: the toolboxes' registries are global.

    Args:
        job: Backbone, folders, fraction and seed. ``out`` receives the list of training stems, checkpoints,
            results and ``provenance.json``.
        card: Layout and class table of the data.
        settings: Sizes and recipe.
        keep_weights: Leave the trained model as ``weights.safetensors`` in ``out``.

    Returns:
        ADE20K rows as described in ``metrics``.
    """
    arch = resolve(job.arch)
    ops = bridge.install()
    from suites.perception import segmentation, training

    out = job.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    root = settle_ade(job.root)
    names, ids = draw(root, job, card)
    early_ends = check_files(root, card, ids)
    cost = ade_cost(settings, job.fraction)
    job.progress(0, cost.iterations, cost.text(len(early_ends)))
    tensors = toolbox_state(job.state, arch)
    registry = segmentation.prepare()
    check_strict(tensors, registry.build({"type": arch.type, **arch.arguments}))
    results = out / "results.npz"
    places = Places(
        root=str(root.resolve()),
        backbone=str(save_backbone(tensors, out)),
        train_list=str(out / "train.txt"),
        results=str(results),
    )
    target = Target(arch, names, job.mean, job.std)
    trained = training.run(
        ade_config(settings, card, target, places, job.seed, job.fraction),
        out / "work",
        (results,),
        tensors,
        (),
        settings.checkpoint_interval(job.fraction),
        job.progress,
    )
    if keep_weights:
        save_weights(trained.model, out)
    resolved = ade_config(settings, card, target, Places(), job.seed, job.fraction)
    write_provenance(job, "ade20k", resolved, ops, ids, settings, cost, early_ends, trained.seconds_per_iteration)
    return ade_rows(results)


def ade_cost(settings: AdeSettings, fraction: float) -> Cost:
    """Return what a run will process, known before it starts."""
    iterations = settings.total_iterations(fraction)
    images = iterations * settings.batch_size
    return Cost(iterations, images, images * settings.crop**2 / 1e6)


def ade_rows(path: Path) -> pd.DataFrame:
    """Turn the counts the evaluation wrote into one row per image and class."""
    import numpy as np
    import pandas as pd

    with np.load(path) as content:
        stems, counts = content["stems"], content["counts"]
    order = np.argsort(stems)
    stems, counts = stems[order], counts[order]
    n_classes = counts.shape[2]
    columns = ("intersection", "union", "predicted", "labelled")
    return pd.DataFrame(
        {
            "stem": np.repeat(stems.astype(object), n_classes),
            "class_index": np.tile(np.arange(n_classes), len(stems)),
            **{name: counts[:, i].reshape(-1) for i, name in enumerate(columns)},
        }
    )


def draw(root: Path, job: Job, card: AdeCard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the class table, draw the subset and write its list of stems."""
    classes = ade_classes(root, card)
    train, val = ade_stems(root, card.train_folder), ade_stems(root, card.val_folder)
    check_count(len(train), card.train_images, "ADE20K training")
    check_count(len(val), card.val_images, "ADE20K validation")
    ids = subset(train, job.fraction, job.subset_seed)
    (job.out / "train.txt").write_text("\n".join(sorted(ids)) + "\n")
    return classes, ids


def check_files(root: Path, card: AdeCard, ids: tuple[str, ...]) -> tuple[Path, ...]:
    """Look at the pictures and labels of the run; return the pictures that end early."""
    parts = (
        (card.train_folder, card.train_labels, ids),
        (card.val_folder, card.val_labels, ade_stems(root, card.val_folder)),
    )
    pairs = [
        (root / images / f"{stem}.jpg", root / labels / f"{stem}.png")
        for images, labels, stems in parts
        for stem in stems
    ]
    early_ends = check_pictures([path for pair in pairs for path in pair], "ADE20K")
    check_labels(pairs, "ADE20K")
    return early_ends
