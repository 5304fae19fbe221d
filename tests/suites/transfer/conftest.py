"""Writers of tiny data sets in the public layouts."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from suites.transfer.cards import DerivedSplit, TransferCard

AIRCRAFT = ("707-320", "Cessna 172", "F/A-18")
SUN = ("a/abbey", "a/apartment_building/outdoor", "z/zen_garden")


def image(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def lines(path: Path, rows: list[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(rows) + end).encode())


def struct(**columns: list[object]) -> np.ndarray:
    """Return a MATLAB struct array (1, N)."""
    size = len(next(iter(columns.values())))
    table = np.empty((1, size), dtype=[(name, object) for name in columns])
    for name, values in columns.items():
        for i, value in enumerate(values):
            table[name][0, i] = value
    return table


def cell(names: list[str]) -> np.ndarray:
    array = np.empty((1, len(names)), dtype=object)
    array[0, :] = names
    return array


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    lines(base / "variants.txt", list(AIRCRAFT))
    number = 0
    for part in ("train", "val", "test"):
        rows = []
        for name in AIRCRAFT:
            number += 1
            image(base / "images" / f"{number:07d}.jpg", number)
            rows.append(f"{number:07d} {name}")
        lines(base / f"images_variant_{part}.txt", rows)


def cars_consolidated(root: Path) -> None:
    names = [f"car_ims/{i:06d}.jpg" for i in range(1, 9)]
    for i, name in enumerate(names):
        image(root / name, i)
    one = [1] * 8
    savemat(
        root / "cars_annos.mat",
        {
            "annotations": struct(
                relative_im_path=names,
                bbox_x1=one,
                bbox_y1=one,
                bbox_x2=one,
                bbox_y2=one,
                **{"class": [1, 1, 1, 1, 2, 2, 2, 2], "test": [0, 0, 1, 1, 0, 0, 1, 1]},
            ),
            "class_names": cell(["AM General Hummer SUV 2000", "smart fortwo Convertible 2012"]),
        },
    )


def cars_split(root: Path, nested: bool = False) -> None:
    (root / "devkit").mkdir(parents=True)
    savemat(
        root / "devkit" / "cars_meta.mat", {"class_names": cell(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"])}
    )
    files = [f"{i:05d}.jpg" for i in range(1, 5)]
    for part, target in (
        ("cars_train", root / "devkit" / "cars_train_annos.mat"),
        ("cars_test", root / "cars_test_annos_withlabels.mat"),
    ):
        for i, name in enumerate(files):
            image(root / part / (part if nested else "") / name, i)
        one = [1] * 4
        savemat(
            target,
            {
                "annotations": struct(
                    bbox_x1=one, bbox_y1=one, bbox_x2=one, bbox_y2=one, **{"class": [2, 1, 2, 1], "fname": files}
                )
            },
        )
    savemat(root / "devkit" / "cars_test_annos.mat", {"annotations": struct(bbox_x1=[1] * 4, fname=files)})


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for number, part in enumerate(("train", "val", "test")):
        rows = []
        for name in ("zigzagged", "banded"):
            for i in range(2):
                file = f"{name}/{name}_{number * 2 + i:04d}.jpg"
                image(base / "images" / file, i)
                rows.append(file)
        lines(base / "labels" / f"{part}1.txt", rows)
        lines(base / "labels" / f"{part}2.txt", rows[:1])
    lines(base / "images" / "banded" / ".directory", ["stray"])


def eurosat(root: Path, top: str = "2750") -> None:
    for label, name in enumerate(("AnnualCrop", "Forest", "SeaLake")):
        for i in range(1, 13):
            image(root / top / name / f"{name}_{i}.jpg", 100 * label + i, size=(16, 16))


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    for i in range(1, 13):
        image(base / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2] * 6], dtype=np.uint8)})
    savemat(
        base / "setid.mat",
        {
            "trnid": np.array([[2, 1]], dtype=np.uint16),
            "valid": np.array([[3, 4]], dtype=np.uint16),
            "tstid": np.array([[5, 6, 7, 8, 9, 10, 11, 12]], dtype=np.uint16),
        },
    )


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for part, number in (("trainval", 1), ("test", 100)):
        rows = ["#Image CLASS-ID SPECIES BREED ID"]
        for label, (breed, species) in enumerate((("Abyssinian", 1), ("american_bulldog", 2), ("Bengal", 1)), start=1):
            for i in range(2):
                image(base / "images" / f"{breed}_{number + i}.jpg", i)
                rows.append(f"{breed}_{number + i} {label} {species} 1")
        lines(base / "annotations" / f"{part}.txt", rows)
    (base / "images" / "Abyssinian_34.mat").write_bytes(b"stray")


def food101(root: Path, form: str = "txt") -> None:
    base = root / "food-101"
    for part, start in (("train", 0), ("test", 10)):
        table = {name: [f"{name}/{start + i}" for i in range(2)] for name in ("waffles", "apple_pie")}
        for stem in functools.reduce(operator.iadd, table.values(), []):
            image(base / "images" / f"{stem}.jpg", start)
        (base / "meta").mkdir(exist_ok=True)
        if form == "txt":
            lines(base / "meta" / f"{part}.txt", functools.reduce(operator.iadd, table.values(), []))
        else:
            (base / "meta" / f"{part}.json").write_text(json.dumps(table))


def sun397(root: Path) -> None:
    rows: dict[str, list[str]] = {"Training": [], "Testing": []}
    for i, name in enumerate(SUN):
        for part in rows:
            for k in range(2):
                file = f"{name}/sun_{i}{k}{part[:2].lower()}.jpg"
                image(root / "SUN397" / file, k)
                rows[part].append(f"/{file}")
    lines(root / "Partitions" / "ClassName.txt", [f"/{name}" for name in reversed(SUN)])
    for part, files in rows.items():
        lines(root / "Partitions" / f"{part}_01.txt", ["", *files], end="\r\n")


CARDS = {
    "aircraft": TransferCard(dataset="aircraft", classes=3, trainval=6, test=3),
    "cars196": TransferCard(dataset="cars196", classes=2, trainval=4, test=4),
    "dtd": TransferCard(dataset="dtd", classes=2, trainval=8, test=4),
    "eurosat": TransferCard(
        dataset="eurosat", classes=3, trainval=24, test=12, derived=DerivedSplit(test_per_class=4, val_per_class=2)
    ),
    "flowers": TransferCard(dataset="flowers", classes=2, trainval=4, test=8),
    "pets": TransferCard(dataset="pets", classes=3, trainval=6, test=6),
    "food101": TransferCard(dataset="food101", classes=2, trainval=4, test=4),
    "sun397": TransferCard(dataset="sun397", classes=3, trainval=6, test=6),
}

WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "aircraft": ("aircraft", aircraft),
    "cars-consolidated": ("cars196", cars_consolidated),
    "cars-split": ("cars196", cars_split),
    "cars-split-nested": ("cars196", lambda root: cars_split(root, nested=True)),
    "cars-torchvision": ("cars196", lambda root: cars_split(root / "stanford_cars")),
    "dtd-doubled": ("dtd", dtd),
    "eurosat": ("eurosat", eurosat),
    "eurosat-torchvision": ("eurosat", lambda root: eurosat(root, "eurosat/2750")),
    "eurosat-repackaged": ("eurosat", lambda root: eurosat(root, "EuroSAT_RGB")),
    "flowers": ("flowers", flowers),
    "pets": ("pets", pets),
    "food101-txt": ("food101", food101),
    "food101-json": ("food101", lambda root: food101(root, "json")),
    "sun397": ("sun397", sun397),
}


@pytest.fixture(params=sorted(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Path, TransferCard]:
    """Every layout in turn: (layout, data set, root, card)."""
    dataset, write = WRITERS[request.param]
    write(tmp_path)
    return request.param, dataset, tmp_path, CARDS[dataset]


@pytest.fixture
def layout(tmp_path: Path) -> Callable[[str], tuple[Path, TransferCard]]:
    """Return a function that writes one layout and returns (root, card)."""

    def write(name: str) -> tuple[Path, TransferCard]:
        dataset, writer = WRITERS[name]
        writer(tmp_path)
        return tmp_path, CARDS[dataset]

    return write


@pytest.fixture
def save_image() -> Callable[..., None]:
    """Return the image writer."""
    return image


@pytest.fixture
def save_struct() -> Callable[..., np.ndarray]:
    """Return the maker of MATLAB struct arrays."""
    return struct


@pytest.fixture(scope="session")
def few_images():
    """Return a function of a seed: features of unit length and labels, 200 training and 600 test images, 256 dimensions.

    The noise is correlated, so that much of what separates the classes lies in directions of small variance.
    """
    import numpy as np

    def make(seed: int):
        rng = np.random.default_rng(seed)
        mix = rng.normal(size=(128, 256)) * (1 + np.arange(128))[:, None] ** -0.5
        centres = 0.6 * rng.normal(size=(20, 128))

        def part(labels):
            x = 3 + (centres[labels] + rng.normal(size=(len(labels), 128))) @ mix
            x += 0.3 * rng.normal(size=x.shape)
            return x / np.linalg.norm(x, axis=1, keepdims=True), labels

        return (*part(np.repeat(np.arange(20), 10)), *part(np.arange(600) % 20))

    return make
