"""Fine-tune UperNet from a backbone on ADE20K and return the evaluation rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suites.perception import bridge
from suites.perception.backbone import check_strict, resolve, save_backbone, save_weights, toolbox_state
from suites.perception.cards import ade_classes, ade_stems, check_count
from suites.perception.configs import Places, ade_config
from suites.perception.provenance import Cost, write_provenance
from suites.perception.settings import AdeSettings
from suites.perception.subsets import subset

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


def run_ade(
    state: dict[str, Tensor],
    arch: str,
    root: Path,
    out: Path,
    settings: AdeSettings,
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
    keep_weights: bool = False,
) -> pd.DataFrame:
    """Train on a subset, evaluate on the whole validation split; continue where a killed run stopped.

    One call per process: the toolboxes' registries are global.

    Args:
        state: State dict of the classification network (``backbone.read_state``).
        arch: A name of ``arches.ARCHES``.
        root: Folder in the ADEChallengeData2016 layout.
        out: Folder for the list of training stems, checkpoints and ``provenance.json``.
        settings: Sizes and recipe.
        seed: Training seed (heads, order, augmentation); the subset has its own seed in the settings.
        progress: Called after each iteration with (done, total, note).
        keep_weights: Leave the trained model as ``weights.safetensors`` in ``out``.

    Returns:
        ADE20K rows as described in ``metrics``.
    """
    description = resolve(arch)
    ops = bridge.install()
    from suites.perception import segmentation, training

    out.mkdir(parents=True, exist_ok=True)
    classes, ids = _data(root, out, settings)
    tensors = toolbox_state(state, description)
    registry = segmentation.prepare()
    check_strict(tensors, registry.build({"type": description.type, **description.arguments}))
    results = (out / "results.npz").resolve()
    places = Places(
        str(root.resolve()),
        str(save_backbone(tensors, out)),
        str((out / "train.txt").resolve()),
        str(results),
    )
    trained = training.run(
        ade_config(settings, description, classes, places, seed),
        out / "work",
        (results,),
        tensors,
        (),
        max(1, round(settings.checkpoint_iterations * settings.fraction)),
        progress,
    )
    if keep_weights:
        save_weights(trained.model, out)
    resolved = ade_config(settings, description, classes, Places(), seed)
    cost = ade_cost(settings)
    write_provenance(out, "ade20k", resolved, ops, ids, seed, settings, cost, trained.seconds_per_iteration)
    return ade_rows(results)


def ade_cost(settings: AdeSettings) -> Cost:
    """Return what a run will process, known before it starts."""
    images = settings.total_iterations * settings.batch_size
    return Cost(settings.total_iterations, images, images * settings.crop**2 / 1e6)


def ade_rows(path: Path) -> pd.DataFrame:
    """Turn the counts the evaluation wrote into one row per image and class."""
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


def _data(root: Path, out: Path, settings: AdeSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the class table, draw the subset and write its list of stems."""
    card = settings.card
    classes = ade_classes(root, card)
    train, val = ade_stems(root, card.train_folder), ade_stems(root, card.val_folder)
    check_count(len(train), card.train_images, "ADE20K training")
    check_count(len(val), card.val_images, "ADE20K validation")
    ids = subset(train, settings.fraction, settings.subset_seed)
    (out / "train.txt").write_text("\n".join(sorted(ids)) + "\n")
    return classes, ids
