"""The flat validation images of ILSVRC 2012: labels by image number, from the devkit or from Kaggle's solution file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.api import DataMissing, UserError, refuse_malformed

PREFIX = "ILSVRC2012_val_"
_DEVKITS = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/ILSVRC2012_devkit_t12", "devkit", "")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_SOLUTION = "LOC_val_solution.csv"


_NAME = re.compile(rf"{PREFIX}(\d+)(?:_(n\d{{8}}))?", re.ASCII)
"""Names of the images; some copies, such as the hub's, have the class id behind the number."""


def image_number(file: str) -> int:
    """Return the number of a validation image; 0 where the file is not called like one."""
    found = _NAME.fullmatch(Path(file).stem)
    return int(found[1]) if found else 0


def named_wnid(file: str) -> str:
    """Return the class id in the name of a validation image, such as ``ILSVRC2012_val_00000001_n01751748.JPEG``; empty: none."""
    found = _NAME.fullmatch(Path(file).stem)
    return found[2] or "" if found else ""


def labels(root: Path, name: str, images: Sequence[str]) -> tuple[str, Mapping[int, str]]:
    """Return where the labels come from, and the wnid of every validation image by its number.

    Where all names hold a class id, these are the labels; a ground truth that is there must agree with them.

    Raises:
        DataMissing, UserError: as ``ground_truth``, or a name holds another class id than the ground truth has.
    """
    named = {image_number(file): wnid for file in images if (wnid := named_wnid(file))}
    try:
        source, wnids = ground_truth(root, name)
    except DataMissing:
        if len(named) < len(images):
            raise
        return "class ids in its names", named
    odd = [number for number, wnid in named.items() if wnids.get(number, wnid) != wnid]
    if odd:
        raise UserError(
            f"{name}: {len(odd)} of {len(images)} images bear another class id than their ground truth",
            f"image {odd[0]} is {named[odd[0]]} by its name and {wnids[odd[0]]} by the {source}",
            "fetch the files again: one of the two is of another data set",
        )
    return source, wnids


def ground_truth(root: Path, name: str) -> tuple[str, Mapping[int, str]]:
    """Return where the labels come from, and the wnid of every validation image by its number.

    Only files below ``root`` are read: others are not in the fingerprint of the data set.

    Args:
        root: Data root.
        name: Data set name for messages.

    Raises:
        DataMissing: no labels below the root.
        UserError: they are damaged.
    """
    found = _find(root)
    if found is not None:
        wnids = _devkit_wnids(found, name)
        return "devkit", dict(enumerate(wnids, 1))
    solution = next((place / _SOLUTION for place in (root, root / "ILSVRC") if (place / _SOLUTION).is_file()), None)
    if solution is not None:
        return _SOLUTION, _solution_wnids(solution, name)
    beside = _find(root.parent)
    if beside is not None:
        raise DataMissing(
            f"{name}: the devkit lies beside the images",
            f"{beside} is not below {root}, so a change of its labels would not be seen",
            f"give the folder that holds both (--data {name}={root.parent}), or link it: "
            f"ln -s {beside.parent} {root}/{_DEVKITS[0]}",
        )
    raise DataMissing(
        f"{name}: flat validation images without the devkit",
        f"expected ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH} or {_SOLUTION} in {root}, found neither",
        "unpack ILSVRC2012_devkit_t12.tar.gz there, or sort the images into one folder per wnid",
    )


def _find(base: Path) -> Path | None:
    places = (base / devkit / "data" for devkit in _DEVKITS)
    return next((place for place in places if (place / _GROUND_TRUTH).is_file()), None)


def _devkit_wnids(found: Path, name: str) -> list[str]:
    """Return the wnid of every validation image in the order of the image numbers."""
    from suites.transfer.mat import load_mat, struct_field

    meta = found / "meta.mat"
    table = load_mat(name, meta, "synsets")["synsets"]
    wnid = dict(
        zip(
            (int(i) for i in struct_field(name, table, "ILSVRC2012_ID", meta)),
            struct_field(name, table, "WNID", meta),
            strict=True,
        )
    )
    words = (found / _GROUND_TRUTH).read_bytes().split()
    odd = next((place for place, word in enumerate(words) if not word.isdigit() or len(word) > 9), None)
    if odd is not None:
        raise UserError(
            f"{name}: the ground truth is damaged",
            f"{found / _GROUND_TRUTH}: entry {odd + 1} is {words[odd][:40].decode(errors='replace')!r}, expected a class number",
            "unpack ILSVRC2012_devkit_t12.tar.gz again",
        )
    numbers = [int(word) for word in words]
    unknown = sorted(set(numbers) - set(wnid))
    if unknown:
        raise UserError(
            f"{name}: ground truth names unknown classes",
            f"ids {unknown[:3]} are not in meta.mat",
            "use ground truth and meta.mat of one devkit",
        )
    return [str(wnid[number]) for number in numbers]


def _solution_wnids(path: Path, name: str) -> dict[int, str]:
    """Return the wnids of Kaggle's table: ``ImageId,PredictionString``, the latter ``wnid x y x y`` for each box."""
    found: dict[int, str] = {}
    with refuse_malformed(path, "fetch the file again"), path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            number, wnids = image_number(row.get("ImageId") or ""), (row.get("PredictionString") or "").split()[::5]
            if not number or len(set(wnids)) != 1 or found.setdefault(number, wnids[0]) != wnids[0]:
                raise UserError(
                    f"{name}: {_SOLUTION} is damaged",
                    f"{path}: {row.get('ImageId')!r} has the classes {wnids or 'none'}, expected one",
                    "fetch the file again",
                )
    return found
