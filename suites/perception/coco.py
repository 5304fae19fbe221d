"""Fine-tune Mask R-CNN from a backbone on COCO and return the evaluation rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import UserError
from suites.perception import bridge
from suites.perception.backbone import (
    check_strict,
    frozen_keys,
    resolve,
    save_backbone,
    save_weights,
    toolbox_state,
)
from suites.perception.cards import CocoCard, check_count, coco_classes, read_coco, settle_coco
from suites.perception.configs import coco_config
from suites.perception.jobs import Job, Places, Target
from suites.perception.pictures import check_pictures
from suites.perception.provenance import Cost, write_provenance
from suites.perception.settings import CocoSettings
from suites.perception.subsets import subset

if TYPE_CHECKING:
    import pandas as pd

Annotations = dict[str, Any]
USED = {(118_287, 32): 117_266}
"""Training images of COCO 2017 and smallest side -> those of them that have annotations and no smaller side."""


def run_coco(job: Job, card: CocoCard, settings: CocoSettings, keep_weights: bool = False) -> pd.DataFrame:
    """Train on a subset, evaluate on the whole validation split; continue where a killed run stopped.

    One call per process: the toolboxes' registries are global.

    Args:
        job: Backbone, folders, fraction and seed. ``out`` receives the reduced annotations, checkpoints, the
            results and ``provenance.json``.
        card: Layout and class list of the data.
        settings: Sizes and recipe.
        keep_weights: Leave the trained model as ``weights.safetensors`` in ``out``.

    Returns:
        COCO rows as described in ``metrics``.
    """
    arch = resolve(job.arch)
    ops = bridge.install()
    from suites.perception import detection, training

    out = job.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    settings, here = settings.at(job.fraction), settle_coco(job.root, card)
    truth, names, ids = draw(job, here)
    early_ends = check_pictures(pictures(job, here, truth), "COCO")
    cost = coco_cost(settings, used(json.loads((out / "train.json").read_text()), settings.min_side))
    job.progress(0, cost.iterations, cost.text(len(early_ends)))
    tensors = toolbox_state(job.state, arch)
    registry = detection.prepare()
    check_strict(tensors, registry.build({"type": arch.type, **arch.arguments}))
    results = (out / "results.bbox.json", out / "results.segm.json")
    places = Places(
        root=str(job.root.resolve()),
        backbone=str(save_backbone(tensors, out)),
        train_list=str(out / "train.json"),
        results=str(out / "results"),
    )
    target = Target(arch, names, job.mean, job.std)
    trained = training.run(
        coco_config(settings, here, target, places, job.seed),
        out / "work",
        results,
        tensors,
        frozen_keys(arch, settings.frozen_stages),
        settings.checkpoint_epochs,
        job.progress,
    )
    if keep_weights:
        save_weights(trained.model, out)
    resolved = coco_config(settings, card, target, Places(), job.seed)
    write_provenance(job, "coco", resolved, ops, ids, settings, cost, early_ends, trained.seconds_per_iteration)
    boxes, masks = (json.loads(path.read_text()) for path in results)
    from suites.perception.coco_rows import coco_rows

    return coco_rows(truth, {"bbox": boxes, "segm": masks})


def coco_cost(settings: CocoSettings, n_train: int) -> Cost:
    """Return what a run will process, known before it starts.

    Args:
        settings: Sizes and recipe, at the run's fraction.
        n_train: Pictures that training uses: those drawn, without those that the toolbox drops.
    """
    iterations = settings.epochs * -(-n_train // settings.batch_size)
    pixels = n_train * settings.epochs * settings.image_long * settings.image_short
    return Cost(iterations, n_train * settings.epochs, pixels / 1e6)


def used(annotations: Annotations, min_side: int) -> int:
    """Return how many images training uses: those with annotations and no side below ``min_side`` pixels."""
    annotated = {item["image_id"] for item in annotations["annotations"]}
    images = annotations["images"]
    return sum(item["id"] in annotated and min(item["width"], item["height"]) >= min_side for item in images)


def draw(job: Job, card: CocoCard) -> tuple[Annotations, tuple[str, ...], tuple[str, ...]]:
    """Read the annotations, draw the subset and write its reduced annotation file (categories untouched)."""
    truth, train = read_coco(job.root, card.val_json), read_coco(job.root, card.train_json)
    classes = coco_classes(truth, card)
    if coco_classes(train, card) != classes:
        raise UserError(
            "the COCO annotation files list different categories",
            f"{card.train_json} and {card.val_json} differ in ids, names or order",
            "give both files the same list",
        )
    check_count(len(train["images"]), card.train_images, "COCO train")
    check_count(len(truth["images"]), card.val_images, "COCO val")
    ids = subset((image["id"] for image in train["images"]), job.fraction, job.subset_seed)
    chosen = set(ids)
    reduced = {
        "images": [image for image in train["images"] if str(image["id"]) in chosen],
        "annotations": [a for a in train["annotations"] if str(a["image_id"]) in chosen],
        "categories": train["categories"],
    }
    (job.out / "train.json").write_text(json.dumps(reduced))
    return truth, tuple(name for _, name in classes), ids


def pictures(job: Job, card: CocoCard, truth: Annotations) -> list[Path]:
    """List the files of the run: those of the drawn subset, and all of the validation split."""
    drawn = json.loads((job.out / "train.json").read_text())["images"]
    return [
        job.root / folder / image["file_name"]
        for folder, images in ((card.train_folder, drawn), (card.val_folder, truth["images"]))
        for image in images
    ]
