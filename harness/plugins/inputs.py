"""Inputs of a cell as a suite or the engine reads them: the images of a dataset, a classifier."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones.baseline import FILE, Baseline, BaselineClassifier
from harness.core.files import parse_json, write_json, write_text
from harness.plugins.context import Context, shared
from harness.store.data import CHECKPOINT

if TYPE_CHECKING:
    from harness.backbones.live import LiveModel

INDEX = "images.jsonl"


def write_image_list(ctx: Context, data: str, rows: Iterable[Mapping[str, Any]], **origin: str) -> None:
    """Write the artifact of a generator that lists images where they are: ``images.jsonl`` and ``source.json``.

    Args:
        ctx: The cell's context.
        data: Name of the data set whose images are listed.
        rows: One per image, with ``path`` (below the root) and ``class_index``.
        **origin: Further facts about the data set, such as its ``layout``.
    """
    write_text(ctx.out / INDEX, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    write_json(ctx.out / "source.json", {"data": data, "fingerprint": ctx.sources[data].data_hash, **origin})


def open_images(ctx: Context, role: str = "dataset") -> Any:
    """Return the images of an input as a source with names, labels and bytes.

    Args:
        ctx: The cell's context.
        role: Which input; those that a mix is drawn from are inputs called ``ROLE/part-0`` and so on.
    """
    from harness.images.copy import ShardSource
    from harness.images.folder import FolderSource, image_folder
    from harness.images.mixed import MixedSource
    from harness.images.published import PublishedSource

    dataset = ctx.inputs[role]
    shards = [dataset.path(name) for name in dataset.files(".tar")]
    if shards:
        return ShardSource(shards, ctx.classes.ids)
    origin = dataset.json("source.json")
    rows = [parse_json(line) for line in dataset.path(INDEX).read_text(encoding="utf-8").splitlines()]
    if "parts" in origin:
        return MixedSource({part: open_images(ctx, f"{role}/{inner}") for part, inner in origin["parts"].items()}, rows)
    if "layout" in origin:
        return PublishedSource(ctx.data(origin["data"]), rows)
    chosen = {row["path"] for row in rows}
    source = FolderSource(image_folder(ctx.data(origin["data"])), ctx.classes.ids)
    kept = [i for i, name in enumerate(source.names) if name in chosen]
    source.names, source.labels = [source.names[i] for i in kept], [source.labels[i] for i in kept]
    return source


def live_model(ctx: Context, identity: str, folder: Path | None = None) -> LiveModel:
    """Return a model that is in no file: the one this process holds, or the one that its function makes again.

    Args:
        ctx: The cell's context.
        identity: What it is known by.
        folder: Its artifact, which says how it is fed; None while that is made, which the cell's parameters say then.

    Raises:
        UserError: this process does not hold it and no function makes it, or one that makes another model now.
    """
    from harness.backbones import live
    from harness.backbones.checkpoint import read_info

    source = ctx.sources.get(CHECKPOINT)
    if source is None or not source.function:
        return live.find_live(identity)
    from harness.backbones.loaded import CodeSource, made_again
    from harness.backbones.preprocessing import NAMES

    p = ctx.params
    info = (
        read_info(folder)
        if folder is not None
        else live.live_info(
            p["arch"], ctx.classes.ids, {name: p[name] for name in NAMES}, p.get("facts", {}), source.card["warnings"]
        )
    )
    return made_again(CodeSource(**source.card["source"]), identity, info)


def classifier(ctx: Context, role: str = "checkpoint") -> Any:
    """Return the backbone of an input artifact on the worker's device; verified, and built once per worker."""
    from harness.backbones import live
    from harness.backbones.classifier import load_classifier

    artifact = ctx.inputs[role]

    def build() -> Any:
        artifact.verify()
        if FILE in artifact.files():
            facts = artifact.json(FILE)
            return BaselineClassifier(Baseline(facts["kind"], facts["class"]), facts["classes"])
        if live.FILE in artifact.files():
            return live.live_classifier(
                live_model(ctx, artifact.json(live.FILE)["identity"], artifact.folder), ctx.device
            )
        return load_classifier(artifact.folder, device=ctx.device)

    return shared(f"classifier/{artifact.key}", build)
