"""Readers of data sets: pictures, archives, tables, lists and annotations."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.bench import Reader, put

WNIDS = ("n01440764", "n01443537")
_TRANSFER = {
    "aircraft": ("**/variants.txt", "**/images_variant_train.txt"),
    "cars196": ("**/cars_meta.mat", "**/cars_test_annos_withlabels.mat"),
    "dtd": ("**/train1.txt",),
    "flowers": ("**/setid.mat", "**/imagelabels.mat"),
    "food101": ("**/train.txt", "**/train.json"),
    "pets": ("**/trainval.txt",),
    "sun397": ("**/ClassName.txt", "**/Training_01.txt"),
}
"""Transfer sets and their files of text and of MATLAB, as patterns; the first match is damaged."""


_SIZES = {"flowers": (8, 12)}
_MATLAB = 50
"""Files of MATLAB are read in a process of their own first."""


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> bytes:
    """Return an encoded picture of noise."""
    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, form)
    return stream.getvalue()


def _picture(form: str, mode: str) -> Callable[[Path], Path]:
    return lambda folder: put(folder, f"a.{form.lower()}", picture(form, mode))


def _read_picture(path: Path) -> object:
    from harness.core.errors import UserError
    from harness.images.decode import open_picture, picture_header, read_indices

    for read in (open_picture, picture_header, read_indices):
        with contextlib.suppress(UserError):
            read(path)
    return open_picture(path, complete=True)


def _archive(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from tests.generators.test_imports import write_tar

        image = picture("JPEG")
        members = {f"{wnid}/{i}.jpg": image for wnid in WNIDS for i in range(2)}
        if kind == "webdataset":
            facts = {wnid: json.dumps({"label": wnid, "split": "train"}).encode() for wnid in WNIDS}
            parts = {wnid: (("jpg", image), ("cls", wnid.encode()), ("json", facts[wnid])) for wnid in WNIDS}
            members = {f"{i:03d}.{end}": content for i, wnid in enumerate(WNIDS) for end, content in parts[wnid]}
        if kind == "nested":
            write_tar(folder / "inner" / "x.tar", {f"{i}.jpg": image for i in range(2)})
            members = {f"{wnid}.tar": (folder / "inner" / "x.tar").read_bytes() for wnid in WNIDS}
            (folder / "inner" / "x.tar").unlink()
            (folder / "inner").rmdir()
        write_tar(folder / "set" / "train-0000.tar", members)
        return folder / "set" / "train-0000.tar"

    return make


def _parquet(folder: Path) -> Path:
    from tests.generators.test_imports import CLASSES, as_parquet

    image = picture("JPEG")
    as_parquet(folder / "set", {f"{wnid}/{i}.jpg": image for wnid in CLASSES[:2] for i in range(2)})
    return folder / "set" / "data" / "train-00000-of-00001.parquet"


def _read_set(path: Path) -> object:
    from generators.published.scan import inspect_image
    from harness.images.published import EntryReader, list_images
    from harness.images.tables import open_parquet

    open_parquet.cache_clear()
    root = next(each for each in path.parents if each.name == "set")
    listing = list_images(root)
    reader = EntryReader(listing.base)
    return [inspect_image(reader, entry) for entry in listing.entries[:8]]


def _card(folder: Path) -> Path:
    _parquet(folder)
    labels = "    dtype:\n      class_label:\n        names:\n          '0': cat\n          '1': 'dog'\n"
    head = f"---\ndataset_info:\n  features:\n  - name: label\n{labels}---\n# x\n"
    return put(folder / "set", "README.md", head)


def _validation(kind: str) -> Callable[[Path], Path]:
    """Write flat validation images with the devkit or with Kaggle's table."""

    def make(folder: Path) -> Path:
        from scipy.io import savemat

        from tests.suites.transfer.conftest import struct

        root = folder / "set"
        for number in (1, 2):
            put(root, f"val/ILSVRC2012_val_{number:08d}.JPEG", picture("JPEG"))
        if kind == "solution":
            rows = "".join(f"ILSVRC2012_val_{n:08d},{wnid} 1 2 3 4\n" for n, wnid in enumerate(WNIDS, 1))
            return put(root, "LOC_val_solution.csv", "ImageId,PredictionString\n" + rows)
        data = root / "ILSVRC2012_devkit_t12" / "data"
        data.mkdir(parents=True)
        savemat(data / "meta.mat", {"synsets": struct(ILSVRC2012_ID=[1, 2], WNID=list(WNIDS))})
        truth = put(data, "ILSVRC2012_validation_ground_truth.txt", "1\n2\n")
        return truth if kind == "truth" else data / "meta.mat"

    return make


def _read_validation(path: Path) -> object:
    from suites.imagefolder import read_validation

    return read_validation(next(each for each in path.parents if each.name == "set"), WNIDS, per_class=1)


def _transfer(name: str, pattern: str) -> Reader:
    def make(folder: Path) -> Path:
        from tests.tiny_roots import transfer_set

        put(folder, "card.json", json.dumps(transfer_set(folder / "set", name, *_SIZES.get(name, (2, 1)))))
        return sorted(each for each in (folder / "set").glob(pattern) if each.is_file())[0]

    def read(path: Path) -> object:
        from suites.transfer.cards import card_for
        from suites.transfer.readers import read as read_set

        root = next(each for each in path.parents if each.name == "set")
        card = json.loads((root.parent / "card.json").read_text())
        return read_set(root, card_for(name, card))

    form = {".mat": "bytes", "json": "json"}.get(pattern[-4:], "text")
    return Reader(f"{name}: {pattern.rpartition('/')[2]}", make, read, form, dear=_MATLAB if form == "bytes" else 1)


def _coco(folder: Path) -> Path:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 24} for i in (1, 2)]
    box = {"category_id": 1, "bbox": [1, 2, 3, 4], "area": 12.0, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4]]}
    boxes = [{"id": i, "image_id": i, **box} for i in (1, 2)]
    return put(
        folder,
        "annotations/instances.json",
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}),
    )


def _read_coco(path: Path) -> object:
    from suites.perception.cards import CocoCard, coco_classes, read_coco

    content = read_coco(path.parents[1], "annotations/instances.json")
    return coco_classes(content, CocoCard.model_validate({"classes": None}))


def _ade(folder: Path) -> Path:
    return put(
        folder,
        "objectInfo150.txt",
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t3\t2\t1\twall\n2\t0.1\t3\t2\t0\tcar, auto\n",
    )


def _read_ade(path: Path) -> object:
    from suites.perception.cards import AdeCard, ade_classes

    return ade_classes(path.parent, AdeCard.model_validate({"n_classes": None, "object_info": path.name}))


def _focus(folder: Path) -> Path:
    from tests.tiny_roots import focus_set

    focus_set(folder / "set")
    return folder / "set" / "annotations.db"


def _read_focus(path: Path) -> object:
    from suites.bias.cards import FocusCard
    from suites.bias.context import list_annotations

    return list_annotations(path.parent, FocusCard.load({"expected_images": 78}))


def _classes(folder: Path) -> Path:
    return put(folder, "classes.txt", "n01440764 tench\nn01443537 goldfish\nn01484850\n")


def _read_classes(path: Path) -> object:
    from harness.core.classes import load_classes, load_folder_classes

    load_classes(str(path))
    return load_folder_classes(str(path))


def _map(folder: Path) -> Path:
    return put(folder, "map.txt", "0 n01440764\nsome fish n01443537\n2 n01484850\n")


def _read_map(path: Path) -> object:
    from generators.published.mapping import class_map
    from harness.core.classes import load_classes

    return class_map(str(path), load_classes("imagenet100"), ["0", "some fish", "2"])


def _captions(folder: Path) -> Path:
    rows = [{"path": f"{WNIDS[0]}/{i}.jpg", "class_index": 0, "caption": "a fish"} for i in range(3)]
    return put(folder, "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _read_captions(path: Path) -> object:
    from types import SimpleNamespace

    from generators.realfake.captions import open_captioner

    images: Any = SimpleNamespace(names=[f"{WNIDS[0]}/{i}.jpg" for i in range(3)])
    return open_captioner(f"file:{path}", images, "cpu")(0)


def _prompts(folder: Path) -> Path:
    return put(
        folder,
        "train_captions.csv",
        'path,class,caption\n/x/train/n01440764/1.jpg,0,a fish\n/x/train/n01440764/2.jpg,0,"two, fish"\n',
    )


def _read_prompts(path: Path) -> object:
    from generators.published.scan import _prompts as read

    return read(path.parent)


def _dataset_card(folder: Path) -> Path:
    return put(
        folder, "card.json", json.dumps({"categories": {"a": ["x"], "b": ["y"]}, "image_size": 24, "folders": ["00_a"]})
    )


def _read_card(path: Path) -> object:
    from harness.store.data import load_card
    from suites.bias.cards import In9Card

    return In9Card.load(load_card(str(path)))


def _names(folder: Path) -> Path:
    return put(folder, "names.txt", "tench\ngoldfish\n")


def _read_names(path: Path) -> object:
    from harness.classifiers import _names as read
    from harness.core.classes import ClassList

    return read(str(path), ClassList("two", WNIDS, ("tench", "goldfish")))


def readers() -> Iterator[Reader]:
    """Yield the readers of data sets."""
    for kind in ("JPEG RGB", "JPEG CMYK", "PNG RGB", "PNG P", "GIF P", "WEBP RGB", "BMP RGB", "TIFF RGB", "PPM RGB"):
        form, mode = kind.split()
        yield Reader(f"picture: {form} {mode}", _picture(form, mode), _read_picture)
    for kind in ("folders", "webdataset", "nested"):
        yield Reader(f"tar: {kind}", _archive(kind), _read_set)
    yield Reader("parquet of images", _parquet, _read_set)
    yield Reader("card of a hub data set", _card, lambda path: _read_set(path), "text")
    for kind in ("truth", "meta", "solution"):
        matlab = kind == "meta"
        yield Reader(
            f"ILSVRC: {kind}",
            _validation(kind),
            _read_validation,
            "bytes" if matlab else "text",
            dear=_MATLAB if matlab else 1,
        )
    for name, patterns in _TRANSFER.items():
        yield from (_transfer(name, pattern) for pattern in patterns)
    yield Reader("COCO annotations", _coco, _read_coco, "json")
    yield Reader("ADE20K object table", _ade, _read_ade, "text")
    yield Reader("FOCUS annotations.db", _focus, _read_focus)
    yield Reader("class list", _classes, _read_classes, "text")
    yield Reader("class map", _map, _read_map, "text")
    yield Reader("captions.jsonl", _captions, _read_captions, "lines")
    yield Reader("train_captions.csv", _prompts, _read_prompts, "text")
    yield Reader("data set card", _dataset_card, _read_card, "json")
    yield Reader("names of classes", _names, _read_names, "text")
