"""Fine-tune Mask R-CNN from a backbone on COCO and return the evaluation rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites.perception import bridge
from suites.perception.backbone import (
    check_strict,
    frozen_keys,
    resolve,
    save_backbone,
    save_weights,
    toolbox_state,
)
from suites.perception.cards import check_count, coco_classes, read_coco, require
from suites.perception.coco_rows import coco_rows
from suites.perception.configs import Places, coco_config
from suites.perception.provenance import Cost, write_provenance
from suites.perception.settings import CocoSettings
from suites.perception.subsets import subset

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


def run_coco(
    state: dict[str, Tensor],
    arch: str,
    root: Path,
    out: Path,
    settings: CocoSettings,
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
    keep_weights: bool = False,
) -> pd.DataFrame:
    """Train on a subset, evaluate on the whole validation split; continue where a killed run stopped.

    One call per process: the toolboxes' registries are global.

    Args:
        state: State dict of the classification network (``backbone.read_state``).
        arch: A name of ``arches.ARCHES``.
        root: Folder in the COCO 2017 layout.
        out: Folder for the reduced annotations, checkpoints and ``provenance.json``.
        settings: Sizes and recipe.
        seed: Training seed (heads, order, augmentation); the subset has its own seed in the settings.
        progress: Called after each iteration with (done, total, note).
        keep_weights: Leave the trained model as ``weights.safetensors`` in ``out``.

    Returns:
        COCO rows as described in ``metrics``.
    """
    description = resolve(arch)
    ops = bridge.install()
    from suites.perception import detection, training

    out.mkdir(parents=True, exist_ok=True)
    truth, classes, ids = _data(root, out, settings)
    tensors = toolbox_state(state, description)
    registry = detection.prepare()
    check_strict(tensors, registry.build({"type": description.type, **description.arguments}))
    clean = save_backbone(tensors, out)
    results = (out / "results.bbox.json", out / "results.segm.json")
    places = Places(
        str(root.resolve()), str(clean), str((out / "train.json").resolve()), str(out / "results")
    )
    names = tuple(name for _, name in classes)
    trained = training.run(
        coco_config(settings, description, names, places, seed),
        out / "work",
        results,
        tensors,
        frozen_keys(description, settings.frozen_stages),
        settings.checkpoint_epochs,
        progress,
    )
    if keep_weights:
        save_weights(trained.model, out)
    cost = coco_cost(settings, len(ids))
    resolved = coco_config(settings, description, names, Places(), seed)
    write_provenance(out, "coco", resolved, ops, ids, seed, settings, cost, trained.seconds_per_iteration)
    boxes, masks = (json.loads(path.read_text()) for path in results)
    return coco_rows(truth, {"bbox": boxes, "segm": masks})


def coco_cost(settings: CocoSettings, n_train: int) -> Cost:
    """Return what a run will process, known before it starts.

    Args:
        settings: Sizes and recipe.
        n_train: Pictures drawn for training.
    """
    iterations = settings.epochs * -(-n_train // settings.batch_size)
    pixels = n_train * settings.epochs * settings.image_long * settings.image_short
    return Cost(iterations, n_train * settings.epochs, pixels / 1e6)


def _data(
    root: Path, out: Path, settings: CocoSettings
) -> tuple[dict[str, Any], tuple[tuple[int, str], ...], tuple[str, ...]]:
    """Read the annotations, draw the subset and write its reduced annotation file (categories untouched)."""
    card = settings.card
    require(root / card.train_folder, "COCO")
    require(root / card.val_folder, "COCO")
    truth, train = read_coco(root, card.val_json), read_coco(root, card.train_json)
    classes = coco_classes(truth, card)
    coco_classes(train, card)
    check_count(len(train["images"]), card.train_images, "COCO train")
    check_count(len(truth["images"]), card.val_images, "COCO val")
    ids = subset((image["id"] for image in train["images"]), settings.fraction, settings.subset_seed)
    chosen = set(ids)
    reduced = {
        "images": [image for image in train["images"] if str(image["id"]) in chosen],
        "annotations": [a for a in train["annotations"] if str(a["image_id"]) in chosen],
        "categories": train["categories"],
    }
    (out / "train.json").write_text(json.dumps(reduced))
    return truth, classes, ids
