"""The cells that make one classifier: a backbone trained on a dataset, a checkpoint from outside, a trivial baseline."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.backbones import baseline as baselines
from harness.backbones.recipe import PretrainSettings
from harness.core.classes import ClassList, load_classes
from harness.core.code import code_fingerprint, modules_fingerprint
from harness.core.errors import DataMissing, UserError
from harness.core.identity import content_key
from harness.plan.datasets import common_form, copy_mb, estimated, image_count
from harness.plan.model import Outside, Trained
from harness.plan.profile import ORIGINALS
from harness.plugins.common import Amount
from harness.plugins.generator import Generator
from harness.store.cells import Cell, Resources
from harness.store.data import DataSource

if TYPE_CHECKING:
    from harness.plan.builder import Builder

COPIED_PER_SECOND = 60.0
"""Assumed speed of the training copy: images of 512 px decoded and resized by one thread."""
COPY_VERSION = 2
"""2 rounds the offsets of the centre crop as torchvision does."""
PRETRAIN_VERSION = 1
_COPY_CODE = tuple(f"harness.images.{name}" for name in ("copy", "shards", "common"))
_TRAINING_CODE = tuple(
    f"harness.backbones.{name}"
    for name in ("train", "augment", "randaugment", "randomness", "recipe", "ranks", "state", "small")
)
_ORIGINALS_CODE = ("harness.backbones.originals", *_COPY_CODE)
OUTSIDE_VERSION = 3
CHECKPOINT = "checkpoint"
"""Name under which the file of a checkpoint from outside is found."""


def pretrained(
    builder: Builder, generator: Generator, dataset: Cell, classes: ClassList, arch: str, seeds: tuple[int, int]
) -> Trained:
    """Add the training of a backbone on a dataset, through its training copy unless the originals are asked for.

    ``seeds`` are (generator, train).
    """
    told = {"name": classes.name, "content": classes.content}
    values = dict(builder.profile.backbones[arch])
    devices, threads = (_count(f"backbones.{arch}.{name}", values.pop(name, 1)) for name in ("devices", "threads"))
    recipe = PretrainSettings.from_mapping({"arch": arch, **values}).record()
    originals = builder.profile.dataset.copy_px == ORIGINALS
    images = dataset if originals else _training_copy(builder, dataset, classes, told)
    cell = builder.plan.add(
        Cell(
            "pretrain",
            arch,
            PRETRAIN_VERSION,
            {"settings": recipe, "classes": told, **(common_form(builder.profile) if originals else {})},
            {"dataset" if originals else "copy": images.key},
            {"train_seed": seeds[1]},
            "harness.run.tasks:pretrain",
            f"{dataset.label} {arch} train {seeds[1]}",
            data=dataset.data if originals else (),
            fingerprint=modules_fingerprint((*_TRAINING_CODE, *(_ORIGINALS_CODE if originals else ()))),
            resources=builder.expected("pretrain", arch, Resources(threads=threads, devices=devices)),
        )
    )
    recipe_key = content_key({**recipe, "images": "originals"} if originals else recipe)[:16]
    return Trained(cell, generator.card.id, arch, *seeds, generator.card.told, classes, recipe_key)


def _training_copy(builder: Builder, dataset: Cell, classes: ClassList, told: dict[str, str]) -> Cell:
    count = builder.profile.dataset.common_count * len(classes) or image_count(builder.profile, classes)
    amount = Amount(count, "images", COPIED_PER_SECOND)
    need = estimated(Resources(disk_mb=copy_mb(builder.profile, classes)), amount)
    return builder.plan.add(
        Cell(
            "extract",
            "training-copy",
            COPY_VERSION,
            {"copy_px": builder.profile.dataset.copy_px, "classes": told, **common_form(builder.profile)},
            {"dataset": dataset.key},
            work="harness.run.tasks:training_copy",
            label=dataset.label,
            data=dataset.data,
            fingerprint=modules_fingerprint(_COPY_CODE),
            resources=builder.expected("extract", "training-copy", need),
        )
    )


def imported(builder: Builder, outside: Outside) -> Trained:
    """Add the import of a checkpoint.

    Raises:
        DataMissing: it does not exist.
    """
    if not outside.path.is_file():
        raise DataMissing(f"checkpoint {outside.path} does not exist", "no such file", "correct --checkpoint")
    classes, mark = load_classes(outside.classes), builder.fingerprints.file(outside.path)
    _announce(builder, outside)
    # A data set of one file: where it lies is not part of what it is, nor where its preprocessing was found.
    builder.plan.sources[CHECKPOINT] = DataSource(CHECKPOINT, str(outside.path), mark, {"warnings": outside.warnings})
    params = {
        "sha256": mark,
        "arch": outside.arch,
        "classes": {"name": classes.name, "content": classes.content},
        "weights": outside.weights,
        **asdict(outside.feed),
    }
    cell = builder.plan.add(
        Cell(
            "pretrain",
            "outside",
            OUTSIDE_VERSION,
            params,
            work="harness.run.tasks:import_outside",
            label=outside.path.name,
            data=(CHECKPOINT,),
            fingerprint=code_fingerprint("harness.backbones"),
        )
    )
    name, size = f"checkpoint:{outside.path.stem}-{mark[:6]}", outside.feed.image_size
    return Trained(cell, name, outside.arch, 0, 0, (), classes, "outside", image_size=size)


def _announce(builder: Builder, outside: Outside) -> None:
    for note in outside.notes:
        builder.plan.note(note)
    for warning in outside.warnings:
        builder.plan.warn(warning)


def baseline_of(builder: Builder, outside: Outside, baseline: baselines.Baseline) -> Trained:
    """Add a trivial baseline."""
    classes = load_classes(outside.classes)
    _announce(builder, outside)
    network = baseline.kind == "untrained"
    made = {"arch": outside.arch, **asdict(outside.feed)}
    params = {
        "kind": baseline.kind,
        "class": baseline.class_id,
        "classes": {"name": classes.name, "content": classes.content},
        **(made if network else {}),
    }
    seeds = {"train_seed": 0} if network else {}
    name = f"{baseline.name} {outside.arch}" if network else baseline.name
    work, mark = "harness.run.tasks:make_baseline", code_fingerprint("harness.backbones.baseline")
    cell = Cell("pretrain", "baseline", baselines.VERSION, params, seeds=seeds, work=work, label=name, fingerprint=mark)
    arch = outside.arch if network else "baseline"
    return Trained(builder.plan.add(cell), name, arch, 0, 0, (), classes, "none", baseline.kind)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"setting {name} is {value!r}", "it is a whole number from 1 on", "correct it")
    return value
