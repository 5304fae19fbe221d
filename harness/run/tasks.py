"""The work behind each kind of cell: how plugins, images and backbones meet the store."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.backbones.baseline import FILE, Baseline
from harness.core.cost import stopwatch
from harness.core.errors import UserError
from harness.core.files import write_json, write_text
from harness.core.provenance import code_version
from harness.images.request import Sample, parse_shard
from harness.plugins import registry
from harness.plugins.border import checked_rows, guarded, plugin_errors
from harness.plugins.context import Context
from harness.plugins.inputs import INDEX, live_model, open_images
from harness.run.facts import measured_with
from harness.run.join import discard_shard, join, keep_if_whole, keep_shard, tar_of
from harness.run.scoring import ROWS, Measured, lineage, score_rows, write_scored
from harness.store.data import CHECKPOINT, HEAD

_QUEUE = 32


def fit(ctx: Context) -> None:
    """Fit a generator."""
    generator = registry.generators().get(ctx.cell.name)
    with plugin_errors(generator):
        generator.fit(ctx)


def synthesise(ctx: Context, shard: str = "") -> dict[str, str] | None:
    """Make one shard of images, or, without a shard, check that all are there and join their lists.

    Returns:
        Without a shard, the SHA-256 of the shards' files, which have been read.
    """
    if not shard:
        return join(ctx, lambda missing: _make_shard(ctx, missing))
    with suppress(UserError):  # a shard that is whole is kept; any other is made again
        keep_if_whole(ctx, shard)
        return None
    _make_shard(ctx, shard)
    return None


def _make_shard(ctx: Context, shard: str) -> None:
    from harness.images.shards import write_shard

    request = parse_shard(shard, ctx.classes, ctx.params["dataset"]["size_px"], ctx.cell.seeds["generator_seed"])
    discard_shard(ctx, shard)
    spent = stopwatch()
    generator = registry.generators().get(ctx.cell.name)
    samples = _checked(guarded(generator, ctx, request), request.start, request.stop, ctx)
    images = _shard_images(_off_thread(samples), request.class_id, request.class_index)
    keep_shard(ctx, shard, write_shard(ctx.out / tar_of(shard), images), spent)


def _checked(samples: Iterator[Sample], start: int, stop: int, ctx: Context) -> Iterator[Sample]:
    size = ctx.params["dataset"]["size_px"]
    expected = start
    for sample in samples:
        if not isinstance(sample, Sample):
            raise UserError(
                f"generator {ctx.cell.name!r} breaks its contract",
                f"synthesise yielded {type(sample).__name__} {sample!r}"[:200],
                "yield Sample(index, pixels)",
            )
        if start and sample.index == expected - start:
            raise UserError(
                f"generator {ctx.cell.name!r} breaks its contract",
                f"asked for the images {start} to {stop - 1}, it yielded index {sample.index}: counted from the request",
                "count from request.start: for index in range(request.start, request.stop)",
            )
        if sample.index != expected or sample.image.shape != (size, size, 3) or sample.image.dtype.name != "uint8":
            raise UserError(
                f"generator {ctx.cell.name!r} breaks its contract",
                f"expected image {expected} as ({size}, {size}, 3) uint8, got image {sample.index} as "
                f"{sample.image.shape} {sample.image.dtype}",
                "fix the generator's synthesise",
            )
        expected += 1
        ctx.progress(expected - start, stop - start, "images")
        yield sample
    if expected != stop:
        raise UserError(
            f"generator {ctx.cell.name!r} breaks its contract",
            f"it made {expected - start} of {stop - start} images",
            "fix the generator's synthesise",
        )


def _off_thread(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Run the sampler in a thread of its own, so that encoding and writing never hold it up; it ends with its consumer."""
    ready: queue.Queue[Sample | BaseException | None] = queue.Queue(_QUEUE)
    gone = threading.Event()

    def hand_over(item: Sample | BaseException | None) -> bool:
        while not gone.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return True
        return False

    def work() -> None:
        try:
            if all(hand_over(sample) for sample in samples):
                hand_over(None)
        except BaseException as error:  # handed to the consumer, which raises it
            hand_over(error)

    threading.Thread(target=work, name="sampler", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        gone.set()


def _shard_images(samples: Iterator[Sample], class_id: str, class_index: int) -> Iterator[Any]:
    from harness.images.shards import ShardImage

    for sample in samples:
        facts = (sample.prompt, sample.seed, sample.negative_prompt, sample.parent)
        yield ShardImage(class_id, class_index, sample.index, sample.image, *facts)


def import_images(ctx: Context) -> None:
    """List the images of a folder somebody else made; nothing is copied."""
    from harness.images.folder import FolderSource, image_folder

    (name,) = ctx.cell.data
    source = FolderSource(image_folder(ctx.data(name)), ctx.classes.ids)
    limit = ctx.params["dataset"]["images_per_class"]
    seen: dict[int, int] = {}
    lines = []
    for path, label in zip(source.names, source.labels, strict=True):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= limit:
            lines.append(json.dumps({"path": path, "class_index": label}, sort_keys=True))
    write_text(ctx.out / INDEX, "\n".join(lines) + "\n")
    write_json(ctx.out / "source.json", {"data": name, "fingerprint": ctx.sources[name].data_hash})


def training_copy(ctx: Context) -> None:
    """Make the uint8 training copy of a dataset artifact."""
    from harness.images.copy import build_copy

    build_copy(
        _training_images(ctx),
        ctx.out,
        ctx.classes.ids,
        ctx.params["copy_px"],
        progress=lambda done, total: ctx.progress(done, total, "images"),
    )


def _training_images(ctx: Context) -> Any:
    """Return the images of the ``dataset`` input, in the common form that the profile asks for."""
    from harness.images.common import CommonSource

    source, common = open_images(ctx), ctx.params.get("common")
    return CommonSource(source, ctx.classes.ids, common["count"], common["codec"], common["px"]) if common else source


def pretrain(ctx: Context) -> None:
    """Train a backbone on a training copy."""
    from harness.images.copy import TrainingCopy

    copy = ctx.inputs["copy"]
    copy.verify()
    _train(ctx, TrainingCopy.open(copy.folder))


def pretrain_on_originals(ctx: Context) -> None:
    """Train a backbone on the original files."""
    from harness.backbones.originals import Originals
    from harness.backbones.recipe import PretrainSettings

    settings = PretrainSettings.from_mapping(ctx.params["settings"])
    images, threads = _training_images(ctx), ctx.cell.resources.threads
    _train(ctx, Originals(images, ctx.classes.ids, settings, ctx.seed("pretrain"), threads))


def _train(ctx: Context, data: Any) -> None:
    from harness.backbones.recipe import PretrainSettings
    from harness.backbones.train import Hooks, Progress, train

    def progress(at: Progress) -> None:
        ctx.progress(at.step, at.steps, f"steps, loss {at.loss:.2f}")

    train(
        PretrainSettings.from_mapping(ctx.params["settings"]),
        data,
        ctx.out,
        seed=ctx.seed("pretrain"),
        state_file=ctx.scratch / "state.pt",
        device=ctx.device.partition(":")[0],
        hooks=Hooks(progress=progress),
    )


def import_checkpoint_file(ctx: Context) -> None:
    """Bring a checkpoint from outside into the form of our own."""
    from harness.backbones.checkpoint import import_checkpoint
    from harness.backbones.models import size_arguments

    p = ctx.params
    import_checkpoint(
        Path(ctx.sources[CHECKPOINT].root),
        p["arch"],
        ctx.classes.ids,
        tuple(p["mean"]),
        tuple(p["std"]),
        ctx.out,
        weights=p["weights"],
        **{name: p[name] for name in ("image_size", "interpolation", "crop", "precision")},
        warnings=ctx.card(CHECKPOINT)["warnings"],
        kwargs={**p.get("arguments", {}), **size_arguments(p["arch"], p["image_size"])},
        head_file=Path(ctx.sources[HEAD].root) if "head_sha256" in p else None,
    )


def describe_live_model(ctx: Context) -> None:
    """Write what stands for a model that lives in this process, and how it is fed; its weights are not written.

    Raises:
        UserError: the model does not give one row of logits per image, or they depend on chance or on other images.
    """
    from harness.backbones import live
    from harness.backbones.checkpoint import write_backbone

    model = live_model(ctx, ctx.params["identity"])
    live.check_answers(model, ctx.device)
    write_backbone(ctx.out, model.info, {})
    write_json(ctx.out / live.FILE, {"identity": model.identity})


def evaluate(ctx: Context) -> None:
    """Measure rows, and make of them the record and the units for paired comparisons."""
    rows, measured = measure(ctx)
    cards = {name: dict(ctx.card(name)) for name in ctx.cell.data}
    inputs = lineage(ctx.out.parent.parent, ctx.cell.inputs)
    scored = score_rows(ctx.cell.spec, ctx.cell.key, rows, cards, inputs, dict(code_version()), measured)
    write_scored(ctx.out, scored, cards, measured)


def measure(ctx: Context) -> tuple[Any, Measured]:
    """Measure rows and keep them; return them with facts of the network and the data. Scores can be made of both at any time."""
    suite = registry.suites().get(ctx.cell.name)
    with plugin_errors(suite):
        rows = suite.rows(ctx)
    rows = checked_rows(suite, rows)
    write_rows_table(ctx.out / ROWS, rows)
    return rows, measured_with(ctx, suite, lineage(ctx.out.parent.parent, ctx.cell.inputs))


def write_rows_table(path: Path, rows: Any) -> None:
    """Write rows as parquet, whole or not at all; equal rows give equal bytes."""
    from harness.core.files import atomic_path

    with atomic_path(path) as temporary:
        rows.to_parquet(temporary, index=False, compression="zstd")


def make_baseline(ctx: Context) -> None:
    """Write what stands for a trained backbone: a network with random weights, or a note of what is answered."""
    from harness.core.files import write_json

    baseline = Baseline(ctx.params["kind"], ctx.params["class"])
    if baseline.kind != "untrained":
        write_json(
            ctx.out / FILE, {"kind": baseline.kind, "class": baseline.class_id, "classes": list(ctx.classes.ids)}
        )
        return
    import torch

    from harness.backbones.checkpoint import BackboneInfo, write_backbone
    from harness.backbones.models import create, size_arguments

    p = ctx.params
    kwargs = size_arguments(p["arch"], p["image_size"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed("untrained"))
        state = create(p["arch"], len(ctx.classes), **kwargs).state_dict()
    info = BackboneInfo(
        p["arch"],
        dict(kwargs),
        ctx.classes.ids,
        tuple(p["mean"]),
        tuple(p["std"]),
        p["image_size"],
        p["interpolation"],
        "raw",
        {},
        p["crop"],
        p["precision"],
    )
    write_backbone(ctx.out, info, {"raw": state})
