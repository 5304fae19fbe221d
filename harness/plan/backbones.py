"""The cells that make one classifier: a backbone trained on a dataset, a checkpoint from external, a trivial baseline."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.backbones import baseline as baselines
from harness.backbones.recipe import PretrainSettings
from harness.core.classes import ClassList, load_classes
from harness.core.code import code_hash
from harness.core.errors import DataMissing, UserError
from harness.core.identity import content_key
from harness.plan.datasets import common_form, copy_mb, dataset_inputs, estimated, image_count
from harness.plan.model import ExternalCheckpoint, PlannedSubject
from harness.plan.profile import ORIGINALS
from harness.plugins.common import Workload
from harness.plugins.generator import Generator
from harness.store.cells import Cell, Resources
from harness.store.data import CHECKPOINT, HEAD, DataSource

if TYPE_CHECKING:
    from harness.plan.builder import Builder

COPIED_PER_SECOND = 60.0
"""Assumed speed of the training copy: images of 512 px decoded and resized by one thread."""
COPY_VERSION = 2
"""2 rounds the offsets of the centre crop as torchvision does."""
PRETRAIN_VERSION = 1
EXTERNAL_VERSION = 3
LIVE_VERSION = 1


def pretrained(
    builder: Builder, generator: Generator, dataset: Cell, classes: ClassList, arch: str, seeds: tuple[int, int]
) -> PlannedSubject:
    """Add the training of a backbone on a dataset, through its training copy unless the originals are asked for.

    ``seeds`` are (generator, train).
    """
    values = dict(builder.profile.backbones[arch])
    devices, threads = (_count(f"backbones.{arch}.{name}", values.pop(name, 1)) for name in ("devices", "threads"))
    recipe = PretrainSettings.from_mapping({"arch": arch, **values}).record()
    originals = builder.profile.dataset.copy_px == ORIGINALS
    images = dataset if originals else _training_copy(builder, dataset, classes)
    work = f"harness.run.tasks:pretrain{'_on_originals' if originals else ''}"
    cell = builder.plan.add(
        Cell(
            "pretrain",
            arch,
            PRETRAIN_VERSION,
            {"settings": recipe, "classes": classes.key(), **(common_form(builder.profile) if originals else {})},
            dataset_inputs(dataset) if originals else {"copy": images.key},
            {"train_seed": seeds[1]},
            work,
            f"{dataset.label} {arch} train {seeds[1]}",
            data=dataset.data if originals else (),
            code_hash=code_hash(work),
            resources=builder.expected("pretrain", arch, Resources(threads=threads, devices=devices)),
        )
    )
    recipe_key = content_key({**recipe, "images": "originals"} if originals else recipe)[:16]
    return PlannedSubject(cell, generator.card.id, arch, *seeds, generator.card.supervision, classes, recipe_key)


def _training_copy(builder: Builder, dataset: Cell, classes: ClassList) -> Cell:
    work = "harness.run.tasks:training_copy"
    count = builder.profile.dataset.common_count * len(classes) or image_count(builder.profile, classes)
    workload = Workload(count, "images", COPIED_PER_SECOND)
    need = estimated(Resources(disk_mb=copy_mb(builder.profile, classes)), workload)
    return builder.plan.add(
        Cell(
            "extract",
            "training-copy",
            COPY_VERSION,
            {"copy_px": builder.profile.dataset.copy_px, "classes": classes.key(), **common_form(builder.profile)},
            dataset_inputs(dataset),
            callable_path=work,
            label=dataset.label,
            data=dataset.data,
            code_hash=code_hash(work),
            resources=builder.expected("extract", "training-copy", need),
        )
    )


def imported(builder: Builder, external: ExternalCheckpoint) -> PlannedSubject:
    """Add the import of a checkpoint.

    Raises:
        DataMissing: it does not exist.
    """
    if external.identity:
        return _live(builder, external)
    if not external.path.is_file():
        raise DataMissing(f"checkpoint {external.path} does not exist", "no such file", "correct --checkpoint")
    classes, mark = load_classes(external.classes), builder.fingerprints.file(external.path)
    _announce(builder, external)
    work = "harness.run.tasks:import_checkpoint_file"
    # A data set of one file: where it lies is not part of what it is, nor where its preprocessing was found.
    builder.plan.sources[CHECKPOINT] = DataSource(CHECKPOINT, str(external.path), mark, {"warnings": external.warnings})
    params = {
        "sha256": mark,
        "arch": external.arch,
        "classes": classes.key(),
        "weights": external.weights,
        **asdict(external.feed),
        **({"arguments": dict(external.arguments)} if external.arguments else {}),
    }
    if external.head is not None:
        params["head_sha256"] = builder.fingerprints.file(external.head)
        builder.plan.sources[HEAD] = DataSource(HEAD, str(external.head), params["head_sha256"], {})
    cell = builder.plan.add(
        Cell(
            "pretrain",
            "outside",
            EXTERNAL_VERSION,
            params,
            callable_path=work,
            label=external.path.name,
            data=(CHECKPOINT,) if external.head is None else (CHECKPOINT, HEAD),
            code_hash=code_hash(work),
        )
    )
    name, size = f"checkpoint:{external.name or external.path.stem}-{mark[:6]}", external.feed.image_size
    return PlannedSubject(
        cell, name, external.arch, 0, 0, (), classes, "outside", image_size=size, features_only=external.features_only
    )


def _live(builder: Builder, external: ExternalCheckpoint) -> PlannedSubject:
    """Add a model that lives in this process: what stands for it and how it is fed; there is no file to import."""
    classes, digits = load_classes(external.classes), external.identity[:6]
    _announce(builder, external)
    params = {
        "identity": external.identity,
        "arch": external.arch,
        "classes": classes.key(),
        **asdict(external.feed),
        **({"facts": dict(external.facts)} if external.facts else {}),
    }
    if external.source is not None:
        card = {"warnings": external.warnings, "source": asdict(external.source)}
        root, function = external.source.folder, external.source.function
        builder.plan.sources[CHECKPOINT] = DataSource(CHECKPOINT, root, external.identity, card, function=function)
    cell = builder.plan.add(
        Cell(
            "pretrain",
            "live",
            LIVE_VERSION,
            params,
            callable_path="harness.run.tasks:describe_live_model",
            label=external.name,
            data=() if external.source is None else (CHECKPOINT,),
            code_hash=code_hash("harness.backbones"),
        )
    )
    name = f"checkpoint:{external.name}" + ("" if external.identity == f"name:{external.name}" else f"-{digits}")
    return PlannedSubject(
        cell, name, external.arch, 0, 0, (), classes, "outside", image_size=external.feed.image_size, logits_only=True
    )


def _announce(builder: Builder, external: ExternalCheckpoint) -> None:
    for note in external.notes:
        builder.plan.note(note)
    for warning in external.warnings:
        builder.plan.warn(warning)


def baseline_of(builder: Builder, external: ExternalCheckpoint, baseline: baselines.Baseline) -> PlannedSubject:
    """Add a trivial baseline."""
    classes = load_classes(external.classes)
    _announce(builder, external)
    network = baseline.kind == "untrained"
    made = {"arch": external.arch, **asdict(external.feed)}
    params = {
        "kind": baseline.kind,
        "class": baseline.class_id,
        "classes": classes.key(),
        **(made if network else {}),
    }
    seeds = {"train_seed": 0} if network else {}
    name = f"{baseline.name} {external.arch}" if network else baseline.name
    work = "harness.run.tasks:make_baseline"
    cell = Cell(
        "pretrain",
        "baseline",
        baselines.VERSION,
        params,
        seeds=seeds,
        callable_path=work,
        label=name,
        code_hash=code_hash(work),
    )
    arch = external.arch if network else "baseline"
    return PlannedSubject(builder.plan.add(cell), name, arch, 0, 0, (), classes, "none", baseline.kind)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"setting {name} is {value!r}", "it is a whole number from 1 on", "correct it")
    return value
