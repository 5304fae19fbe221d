"""The eight transfer sets of the embedded world, each in the layout in which its public namesake is distributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.microworld.datasets.files import (
    cell_array,
    save_images,
    save_json,
    save_lines,
    save_mat,
    seed,
    struct_array,
)
from harness.microworld.datasets.pictures import class_names, draw
from harness.microworld.renderer import SIZE_PX

PARTITIONS = 10
EUROSAT_VAL = 8


def _shuffled(count: int, *facts: str | int) -> list[int]:
    return np.random.default_rng(seed("order", *facts)).permutation(count).tolist()


def write_aircraft(root: Path, trainval: int, test: int) -> None:
    """Write FGVC Aircraft: 7-digit images, the three levels of names, and a list per level and split."""
    base = root / "fgvc-aircraft-2013b" / "data"
    variants = class_names("aircraft")
    each = trainval + test
    numbers = [f"{2000000 + 37 * number:07d}" for number in _shuffled(each * len(variants), "aircraft")]
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for label, variant in enumerate(variants):
        own = numbers[label * each : (label + 1) * each]
        save_images([base / "images" / f"{number}.jpg" for number in own], draw("aircraft", label, each))
        for index, number in enumerate(own):
            part = "test" if index >= trainval else "train" if index % 2 == 0 else "val"
            splits[part].append((number, variant))
    splits["trainval"] = splits["train"] + splits["val"]
    levels: Mapping[str, tuple[str, Callable[[str], str]]] = {
        "variant": ("variants", lambda variant: variant),
        "family": ("families", lambda variant: variant.split("-")[0]),
        "manufacturer": ("manufacturers", lambda variant: variant.split(" ")[0]),
    }
    for level, (plural, name_of) in levels.items():
        save_lines(base / f"{plural}.txt", sorted({name_of(variant) for variant in variants}))
        for part, rows in splits.items():
            lines = (f"{number} {name_of(variant)}" for number, variant in sorted(rows))
            save_lines(base / f"images_{level}_{part}.txt", lines)
    save_lines(base / "images_box.txt", (f"{number} 1 1 {SIZE_PX} {SIZE_PX}" for number in sorted(numbers)))


def write_cars(root: Path, trainval: int, test: int) -> None:
    """Write Stanford Cars in its split distribution: two folders, the devkit, and the labelled test annotations."""
    base = root / "stanford_cars"
    models = class_names("cars196")
    box = {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": SIZE_PX, "bbox_y2": SIZE_PX}
    fields = (*box, "class", "fname")
    images = [draw("cars196", label, trainval + test) for label in range(len(models))]
    tables: dict[str, NDArray[np.void]] = {}
    for part, start, stop in (("train", 0, trainval), ("test", trainval, trainval + test)):
        items = [(label, index) for label in range(len(models)) for index in range(start, stop)]
        rows = []
        for number, position in enumerate(_shuffled(len(items), "cars196", part), start=1):
            label, index = items[position]
            name = f"{number:05d}.jpg"
            save_images([base / f"cars_{part}" / name], images[label][index][None])
            rows.append({**box, "class": label + 1, "fname": name})
        tables[part] = struct_array(rows, fields)
        if part == "test":
            unlabelled = struct_array(rows, [field for field in fields if field != "class"])
            save_mat(base / "devkit" / "cars_test_annos.mat", {"annotations": unlabelled})
    save_mat(base / "devkit" / "cars_meta.mat", {"class_names": cell_array(models)})
    save_mat(base / "devkit" / "cars_train_annos.mat", {"annotations": tables["train"]})
    save_mat(base / "cars_test_annos_withlabels.mat", {"annotations": tables["test"]})


def write_dtd(root: Path, trainval: int, test: int) -> None:
    """Write DTD: a folder per texture and ten partitions into train, val and test."""
    base = root / "dtd"
    names = class_names("dtd")
    stems = {name: [f"{name}/{name}_{index + 1:04d}.jpg" for index in range(trainval + test)] for name in names}
    for label, name in enumerate(names):
        save_images([base / "images" / stem for stem in stems[name]], draw("dtd", label, trainval + test))
    for partition in range(1, PARTITIONS + 1):
        order = {name: _shuffled(trainval + test, "dtd", partition, name) for name in names}
        bounds = {"train": (0, trainval // 2), "val": (trainval // 2, trainval), "test": (trainval, trainval + test)}
        for part, (start, stop) in bounds.items():
            chosen = [stems[name][index] for name in names for index in sorted(order[name][start:stop])]
            save_lines(base / "labels" / f"{part}{partition}.txt", chosen)
    save_lines(base / "labels" / "labels_joint_anno.txt", (f"{stem} {name}" for name in names for stem in stems[name]))


def write_eurosat(root: Path, trainval: int, test: int) -> None:
    """Write EuroSAT: ``2750/<Class>/<Class>_<n>.jpg`` and no split; a few classes are smaller, as in the public set."""
    for label, name in enumerate(class_names("eurosat")):
        count = eurosat_images(label, trainval, test)
        folder = root / "2750" / name
        save_images([folder / f"{name}_{index + 1}.jpg" for index in range(count)], draw("eurosat", label, count))


def eurosat_images(label: int, trainval: int, test: int) -> int:
    """Return the images of one EuroSAT class: every third class is short of four training images."""
    return trainval + test - (4 if label % 3 == 2 else 0)


def write_flowers(root: Path, trainval: int, test: int) -> None:
    """Write Flowers-102: numbered images, 1-based labels, and a test part larger than the training part and uneven."""
    names = class_names("flowers")
    counts = [trainval + test + flower_surplus(label) for label in range(len(names))]
    items = [(label, index) for label, count in enumerate(counts) for index in range(count)]
    images = [draw("flowers", label, count) for label, count in enumerate(counts)]
    parts: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    labels = []
    for number, position in enumerate(_shuffled(len(items), "flowers"), start=1):
        label, index = items[position]
        save_images([root / "jpg" / f"image_{number:05d}.jpg"], images[label][index][None])
        labels.append(label + 1)
        parts["tstid" if index >= trainval else "trnid" if index < trainval // 2 else "valid"].append(number)
    save_mat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    save_mat(root / "setid.mat", {key: np.array([ids], dtype=np.uint16) for key, ids in parts.items()})


def flower_surplus(label: int) -> int:
    """Return how many test images a flower has beyond the common number; the surpluses of ten flowers add to zero."""
    return 2 * (label % 10) - 9


def write_pets(root: Path, trainval: int, test: int) -> None:
    """Write Oxford-IIIT Pets: breed in the file name, split files with class, species (1 cat, 2 dog) and breed number."""
    breeds = class_names("pets")
    rows: dict[str, list[str]] = {"trainval": [], "test": []}
    within = {1: 0, 2: 0}
    for label, breed in enumerate(breeds):
        species = 1 if breed[0].isupper() else 2
        within[species] += 1
        order = _shuffled(trainval + test, "pets", breed)
        names = [f"{breed}_{number + 1}" for number in order]
        save_images([root / "images" / f"{name}.jpg" for name in names], draw("pets", label, trainval + test))
        for index, name in enumerate(names):
            rows["trainval" if index < trainval else "test"].append(f"{name} {label + 1} {species} {within[species]}")
    for part, lines in rows.items():
        save_lines(root / "annotations" / f"{part}.txt", lines)
    header = [
        "#Image CLASS-ID SPECIES BREED ID",
        "#ID: 1:37 class ids",
        "#SPECIES: 1:Cat 2:Dog",
        "#BREED ID: 1-25:Cat 1:12:Dog",
    ]
    save_lines(root / "annotations" / "list.txt", header + sorted(rows["trainval"] + rows["test"]))


def write_food(root: Path, trainval: int, test: int) -> None:
    """Write Food-101: ``images/<class>/<id>.jpg`` and the lists of ``meta`` as text and JSON."""
    base = root / "food-101"
    names = class_names("food101")
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, name in enumerate(names):
        ids = [100000 + 83 * number for number in _shuffled(trainval + test, "food101", name)]
        stems = [f"{name}/{number}" for number in ids]
        save_images([base / "images" / f"{stem}.jpg" for stem in stems], draw("food101", label, trainval + test))
        parts["train"][name], parts["test"][name] = sorted(stems[:trainval]), sorted(stems[trainval:])
    for part, lists in parts.items():
        save_json(base / "meta" / f"{part}.json", lists)
        save_lines(base / "meta" / f"{part}.txt", (stem for stems in lists.values() for stem in stems))
    save_lines(base / "meta" / "classes.txt", names)
    save_lines(base / "meta" / "labels.txt", (name.replace("_", " ").capitalize() for name in names))


def write_sun(root: Path, trainval: int, test: int) -> None:
    """Write SUN397: nested class folders and ten partitions; every list line begins with a slash."""
    names = class_names("sun397")
    files: dict[str, list[str]] = {}
    for label, name in enumerate(names):
        files[name] = [_sun_file(name, index) for index in range(trainval + test)]
        paths = [root / "SUN397" / name / file for file in files[name]]
        save_images(paths, draw("sun397", label, trainval + test))
    lists = root / "Partitions"
    save_lines(lists / "ClassName.txt", (f"/{name}" for name in names))
    for partition in range(1, PARTITIONS + 1):
        order = {name: _shuffled(trainval + test, "sun397", partition, name) for name in names}
        for part, start, stop in (("Training", 0, trainval), ("Testing", trainval, trainval + test)):
            chosen = [f"/{name}/{files[name][index]}" for name in names for index in order[name][start:stop]]
            save_lines(lists / f"{part}_{partition:02d}.txt", chosen)


def _sun_file(name: str, index: int) -> str:
    letters = np.random.default_rng(seed("sun397 file", name, index)).integers(26, size=16)
    return "sun_" + "".join(chr(ord("a") + int(letter)) for letter in letters) + ".jpg"


WRITERS: Mapping[str, Callable[[Path, int, int], None]] = {
    "aircraft": write_aircraft, "cars196": write_cars, "dtd": write_dtd, "eurosat": write_eurosat,
    "flowers": write_flowers, "pets": write_pets, "food101": write_food, "sun397": write_sun,
}  # fmt: skip


def sizes(name: str, trainval: int, test: int) -> tuple[int, int]:
    """Return how many images the trainval and test parts of a set hold."""
    labels: Sequence[int] = range(len(class_names(name)))
    if name == "eurosat":
        return sum(eurosat_images(label, trainval, test) - test for label in labels), test * len(labels)
    if name == "flowers":
        return trainval * len(labels), sum(test + flower_surplus(label) for label in labels)
    return trainval * len(labels), test * len(labels)
