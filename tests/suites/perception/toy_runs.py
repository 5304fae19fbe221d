"""Run the perception toolboxes on toy data and write what happened; started by the tests as a program of its own.

The toolboxes take about 15 s to import and register themselves globally, so this program imports them once and forks
one child per run. Usage: ``python toy_runs.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 160, 120
COCO_IDS = (3, 7)
KILL_AT = {"coco": 9, "ade": 5}


def draw_picture(index: int) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """Draw one or two filled boxes (class 0) or ellipses (class 1) on noise."""
    rng = np.random.default_rng(index)
    image = Image.fromarray(rng.integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    canvas, objects = ImageDraw.Draw(image), []
    for number in range(1 + index % 2):
        kind = int(rng.integers(2))
        left, top = 8 + 76 * number + int(rng.integers(10)), 10 + int(rng.integers(20))
        box = (left, top, left + int(rng.integers(40, 60)), top + int(rng.integers(40, 70)))
        (canvas.rectangle if kind == 0 else canvas.ellipse)(box, fill=(230, 40, 40) if kind == 0 else (40, 40, 230))
        objects.append((kind, box))
    return image, objects


def polygon(kind: int, box: tuple[int, int, int, int]) -> list[float]:
    """Outline an object: four corners, or sixteen points of the ellipse."""
    x0, y0, x1, y1 = box
    if kind == 0:
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    x = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(turns)
    y = (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(turns)
    return [float(v) for pair in zip(x, y, strict=True) for v in pair]


def write_coco(root: Path, train: int = 12, val: int = 4) -> None:
    """Write the COCO layout: one grey JPEG, one picture without objects, one crowd."""
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train", train), ("val", val)):
        folder = root / f"{part}2017"
        folder.mkdir()
        images, annotations = [], []
        for index in range(count):
            picture, objects = draw_picture(index + (100 if part == "val" else 0))
            name = f"{index + 1:012d}.jpg"
            (picture.convert("L") if index == 3 else picture).save(folder / name, quality=95)
            images.append({"id": index + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for kind, box in objects if index != 2 else []:
                x0, y0, x1, y1 = box
                crowd = int(part == "train" and index == 5)
                size = {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT - 400, 400]}
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": COCO_IDS[kind],
                        "iscrowd": crowd,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": (x1 - x0) * (y1 - y0),
                        "segmentation": size if crowd else [polygon(kind, box)],
                    }
                )
        categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, ("box", "ball"), strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))


def write_ade(root: Path, train: int = 8, val: int = 3) -> None:
    """Write the ADE20K layout with classes wall, box, ball and label 0 in a corner."""
    for part, stem, count in (("training", "train", train), ("validation", "val", val)):
        for folder in ("images", "annotations"):
            (root / folder / part).mkdir(parents=True)
        for index in range(count):
            picture, objects = draw_picture(index + (200 if part == "validation" else 50))
            labels = Image.new("L", (WIDTH, HEIGHT), 1)
            canvas = ImageDraw.Draw(labels)
            canvas.rectangle((0, 0, 9, 9), fill=0)
            for kind, box in objects:
                (canvas.rectangle if kind == 0 else canvas.ellipse)(box, fill=2 + kind)
            name = f"ADE_{stem}_{index + 1:08d}"
            picture.save(root / "images" / part / f"{name}.jpg", quality=95)
            labels.save(root / "annotations" / part / f"{name}.png")
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    table += [f"{i}\t0.3\t{train}\t{val}\t0\t{name}" for i, name in enumerate(("wall", "box", "ball"), start=1)]
    (root / "objectInfo150.txt").write_text("\n".join(table) + "\n")


def make_network(arch: str) -> Any:
    """Make a network with batch-norm statistics away from their initial values."""
    import torch

    from harness.backbones.models import create

    torch.manual_seed(0)
    model = create(arch, 5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def record_calls(calls: list[tuple[str, int, float]]) -> None:
    """Note every operator call as (name, output height, spatial scale)."""
    module = sys.modules["mmcv._ext"]
    for name in ("nms", "roi_align_forward", "roi_align_backward"):
        original = getattr(module, name)

        def noted(*args: Any, _name: str = name, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            calls.append((_name, kwargs.get("aligned_height", 0), kwargs.get("spatial_scale", 0.0)))
            return _original(*args, **kwargs)

        setattr(module, name, noted)


def run_coco(folder: Path, out: str, kill: bool = False) -> None:
    """Fine-tune on the toy COCO for two epochs of six iterations; perhaps kill the process on the way."""
    fine_tune_coco(folder, out, "resnet10", 12, 4, KILL_AT["coco"] if kill else 0)


def fine_tune_coco(folder: Path, out: str, arch: str, train: int, val: int, kill_at: int = 0, **changed: Any) -> None:
    """Fine-tune and write rows, weights, operator calls and progress."""
    from suites.perception.cards import CocoCard
    from suites.perception.coco import run_coco as run
    from suites.perception.jobs import Job
    from suites.perception.settings import CocoSettings

    sizes: dict[str, Any] = {
        "image_long": 160,
        "image_short": 120,
        "min_side": 16,
        "batch_size": 2,
        "workers": 0,
        "epochs": 2,
        "milestones": (1,),
        "warmup_iterations": 4,
        "fpn_channels": 16,
        "anchor_scale": 4,
        "rpn_samples": 32,
        "rpn_pre_nms_train": 100,
        "rpn_pre_nms_test": 50,
        "proposals": 50,
        "roi_samples": 32,
        "fc_channels": 32,
        "mask_convs": 1,
        "mask_channels": 16,
    }
    settings = CocoSettings(**(sizes | changed))
    card = CocoCard(classes=((3, "box"), (7, "ball")), train_images=train, val_images=val)
    calls: list[tuple[str, int, float]] = []
    marks: list[tuple[int, int, str, int]] = []
    record_calls(calls)

    def progress(done: int, total: int, note: str) -> None:
        marks.append((done, total, note, len(calls)))
        if done and done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(make_network(arch).state_dict(), arch, folder / "coco", folder / out, seed=3, progress=progress)
    run(job, card, settings, keep_weights=True).to_parquet(folder / out / "rows.parquet")
    (folder / out / "calls.json").write_text(json.dumps({"calls": calls, "marks": marks}))


def run_ade(folder: Path, out: str, kill: bool = False, **changed: Any) -> None:
    """Fine-tune on the toy ADE20K for six iterations; perhaps kill the process on the way."""

    def stop(done: int) -> None:
        if kill and done == KILL_AT["ade"]:
            os.kill(os.getpid(), signal.SIGKILL)

    fine_tune_ade(folder, "ade", out, stop, **changed)


def fine_tune_ade(folder: Path, data: str, out: str, after: Callable[[int], None], **changed: Any) -> None:
    """Fine-tune and write rows, weights and progress; ``after`` is called with the number of iterations done."""
    from suites.perception.ade import run_ade as run
    from suites.perception.cards import AdeCard
    from suites.perception.jobs import Job
    from suites.perception.settings import AdeSettings

    sizes: dict[str, Any] = {
        "image_long": 480,
        "image_short": 120,
        "crop": 96,
        "batch_size": 2,
        "workers": 0,
        "iterations": 6,
        "checkpoint_iterations": 2,
        "head_channels": 16,
        "auxiliary_channels": 8,
    }
    settings = AdeSettings(**(sizes | changed))
    calls: list[tuple[str, int, float]] = []
    marks: list[tuple[int, int, str, int]] = []
    record_calls(calls)

    def progress(done: int, total: int, note: str) -> None:
        marks.append((done, total, note, len(calls)))
        after(done)

    state = make_network("resnet10").state_dict()
    job = Job(state, "resnet10", folder / data, folder / out, seed=3, progress=progress)
    card = AdeCard(n_classes=3, train_images=8, val_images=3)
    run(job, card, settings, keep_weights=True).to_parquet(folder / out / "rows.parquet")
    (folder / out / "calls.json").write_text(json.dumps({"calls": calls, "marks": marks}))


def break_pictures(folder: Path) -> dict[Path, bytes]:
    """Put nothing that can be decoded between the marks of every JPEG file; return what was there."""
    kept = {path: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}
    for path in kept:
        path.write_bytes(b"\xff\xd8" + bytes(900) + b"\xff\xd9")
    return kept


def run_ade_broken(folder: Path) -> None:
    """Let every training picture break after iteration 4, note the error, mend the files, go on."""
    from harness.core.errors import UserError

    write_ade(folder / "ade_b")
    kept: dict[Path, bytes] = {}

    def stop(done: int) -> None:
        if done == 4:
            kept.update(break_pictures(folder / "ade_b" / "images" / "training"))

    try:
        fine_tune_ade(folder, "ade_b", "ade_broken", stop)
    except UserError as error:
        (folder / "ade_broken.json").write_text(json.dumps([error.what, error.why, error.fix]))
    for path, content in kept.items():
        path.write_bytes(content)


def run_ade_mended(folder: Path) -> None:
    """Go on where ``run_ade_broken`` stopped."""
    fine_tune_ade(folder, "ade_b", "ade_broken", lambda done: None)


def run_ade_labels(folder: Path) -> None:
    """Give every label picture a number that the table lacks; the error comes from a loader's worker."""
    from harness.core.errors import UserError

    write_ade(folder / "ade_l")
    for path in (folder / "ade_l" / "annotations" / "training").glob("*.png"):
        Image.new("L", (WIDTH, HEIGHT), 7).save(path)
    try:
        fine_tune_ade(folder, "ade_l", "ade_labels", lambda done: None, workers=2)
    except UserError as error:
        (folder / "ade_labels.json").write_text(json.dumps([error.what, error.why, error.fix]))


def cut_checkpoint(path: Path, network: Any) -> list[str]:
    """Inspector at a checkpoint as it is, then without one tensor; return the refusals."""
    import torch

    from harness.core.errors import UserError
    from suites.perception.training import check_checkpoint

    state, found = network.state_dict(), []
    for kept in (state, {key: value for key, value in state.items() if key != "bn1.weight"}):
        torch.save({"state_dict": kept}, path)
        try:
            check_checkpoint(path, network)
        except UserError as error:
            found.append(error.why)
    return found


def inspect(folder: Path, name: str) -> None:
    """Load networks into one toolbox and write differences of keys and of features, and the refusals."""
    import torch
    import torchvision

    from harness.core.errors import UserError
    from suites.perception import detection, segmentation
    from suites.perception.arches import ARCHES
    from suites.perception.backbone import check_strict, toolbox_state

    registry = (detection if name == "mmdet" else segmentation).prepare()
    facts: dict[str, Any] = {"features": {}}
    wide = torchvision.models.resnet50(weights=None).state_dict()
    plain = registry.build({"type": "ResNet", "depth": 50})
    facts["missing"] = sorted(plain.state_dict().keys() - wide.keys())
    facts["unexpected"] = sorted(wide.keys() - plain.state_dict().keys())
    check_strict(toolbox_state(wide, ARCHES["resnet50"]), plain)
    if name == "mmseg":
        try:
            check_strict(toolbox_state(wide, ARCHES["resnet50"]), registry.build({"type": "ResNetV1c", "depth": 50}))
        except UserError as error:
            facts["v1c"] = error.why
    facts["checkpoint"] = cut_checkpoint(folder / f"{name}_cut.pth", plain)
    for arch in ("resnet10", "resnet18"):
        network, spec = make_network(arch), ARCHES[arch]
        backbone = registry.build({"type": spec.type, **spec.arguments, "norm_eval": True})
        backbone.eval()  # the toolboxes' own train() returns nothing
        tensors = toolbox_state(network.state_dict(), spec)
        check_strict(tensors, backbone)
        backbone.load_state_dict(tensors)
        with torch.no_grad():
            picture = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
            ours = backbone(picture)
            theirs = network.forward_intermediates(picture, indices=[1, 2, 3, 4], intermediates_only=True)
        facts["features"][arch] = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
        facts["features"][f"{arch}_size"] = min(float(a.abs().max()) for a in ours)
    (folder / f"{name}.json").write_text(json.dumps(facts))


def check_unsupported(folder: Path) -> None:
    """Call an operator that the bridge does not have, and list what mmcv sees."""
    import mmcv.ops
    import torch

    facts = {}
    try:
        mmcv.ops.soft_nms(torch.rand(3, 4), torch.rand(3), 0.5)
    except NotImplementedError as error:
        facts["softnms"] = str(error)
    facts["modulated"] = callable(sys.modules["mmcv._ext"].modulated_deform_conv_forward)
    (folder / "operators.json").write_text(json.dumps(facts))


def compare_counts(folder: Path) -> None:
    """Recompute mIoU from the rows of the toy run with mmsegmentation's own formula, unrounded."""
    import pandas as pd
    import torch
    from mmseg.evaluation.metrics import IoUMetric

    rows = pd.read_parquet(folder / "ade_out" / "rows.parquet").groupby("class_index").sum(numeric_only=True)
    parts = [torch.tensor(rows[n].to_numpy()) for n in ("intersection", "union", "predicted", "labelled")]
    theirs = IoUMetric.total_area_to_metrics(*parts, metrics=["mIoU"])
    facts = {
        "mIoU": float(np.nanmean(theirs["IoU"])),
        "aAcc": float(theirs["aAcc"]),
        "mAcc": float(np.nanmean(theirs["Acc"])),
    }
    (folder / "counts.json").write_text(json.dumps(facts))


def compare_metric(folder: Path) -> None:
    """Give one set of predictions to the rows' metric and to mmsegmentation's own; write both, unrounded."""
    import torch
    from mmseg.evaluation.metrics import IoUMetric

    from suites.perception.ade import ade_rows
    from suites.perception.metrics import ade_summary, arrange_ade
    from suites.perception.segmentation import PixelCounts

    rng, facts = np.random.default_rng(4), {}
    for name in ("noisy", "perfect"):
        samples = []
        for index in range(7):
            label = rng.integers(0, 6, (20 + index, 31))  # classes 6 and 7 occur in no label
            wrong = rng.random(label.shape) < 0.4
            guess = np.where(wrong, rng.integers(0, 7, label.shape), label) if name == "noisy" else label
            label = np.where(rng.random(label.shape) < 0.1, 255, label)
            data = {
                "pred_sem_seg": {"data": torch.tensor(guess)[None]},
                "gt_sem_seg": {"data": torch.tensor(label)[None]},
            }
            samples.append({**data, "img_path": f"somewhere/{index}.jpg"})
        ours = PixelCounts(str(folder / f"{name}.npz"))
        theirs = IoUMetric(iou_metrics=["mIoU"])
        for metric in (ours, theirs):
            metric.dataset_meta = {"classes": tuple("abcdefgh")}
            for sample in samples:
                metric.process({}, [sample])
        ours.compute_metrics(ours.results)
        areas = [sum(parts) for parts in zip(*theirs.results, strict=True)]
        values = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU"])
        facts[name] = {
            "ours": ade_summary(arrange_ade(ade_rows(folder / f"{name}.npz"))),
            "theirs": {
                "mIoU": float(np.nanmean(values["IoU"])), "aAcc": float(values["aAcc"]),
                "mAcc": float(np.nanmean(values["Acc"])),
            },
        }  # fmt: skip
    (folder / "metric.json").write_text(json.dumps(facts))


def in_child(log: Path, work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            log.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    """Write the toy data, then do every run in a child of its own."""
    import torch

    from suites.perception import bridge

    torch.set_num_threads(1)
    ops = bridge.install()
    from suites.perception import detection, segmentation  # noqa: F401  (imported once, before the forks)

    if os.environ.get("TOY_ARCH"):
        write_coco(folder / "coco", train=4, val=1)
    else:
        write_coco(folder / "coco")
        write_ade(folder / "ade")
    work: dict[str, Callable[[], None]] = {
        "coco": lambda: run_coco(folder, "coco_out"),
        "coco_killed": lambda: run_coco(folder, "coco_again", kill=True),
        "coco_resumed": lambda: run_coco(folder, "coco_again"),
        "ade": lambda: run_ade(folder, "ade_out"),
        "ade_killed": lambda: run_ade(folder, "ade_again", kill=True),
        "ade_resumed": lambda: run_ade(folder, "ade_again"),
        "ade_workers": lambda: run_ade(folder, "ade_workers", workers=2),
        "ade_broken": lambda: run_ade_broken(folder),
        "ade_mended": lambda: run_ade_mended(folder),
        "ade_labels": lambda: run_ade_labels(folder),
        "metric": lambda: compare_metric(folder),
        "mmdet": lambda: inspect(folder, "mmdet"),
        "mmseg": lambda: inspect(folder, "mmseg"),
        "operators": lambda: check_unsupported(folder),
        "counts": lambda: compare_counts(folder),
    }
    if os.environ.get("TOY_ARCH"):
        sizes = {"image_long": 96, "image_short": 64, "epochs": 1}
        work = {"coco": lambda: fine_tune_coco(folder, "coco_out", os.environ["TOY_ARCH"], 4, 1, **sizes)}
    codes = {name: in_child(folder / f"{name}.log", one) for name, one in work.items()}
    (folder / "codes.json").write_text(json.dumps({"ops": ops, **codes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
