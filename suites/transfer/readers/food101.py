"""Food-101: ``images/<class>/<id>.jpg`` and ``meta/{train,test}.txt`` or ``.json``."""

from __future__ import annotations

from pathlib import Path

from harness.api import DataMissing, UserError, find_root, parse_json
from suites.transfer.cards import TransferCard
from suites.transfer.data import LabelledImages, Part, checked, label_index, read_lines, refuse_names

_PLACES = ("", "food-101", "food101", "food-101/food-101")


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read Food-101; the class index is that of the sorted class names."""
    base = find_root(
        card.name,
        root,
        _PLACES,
        lambda folder: (folder / "meta").is_dir() and (folder / "images").is_dir(),
        "images/ and meta/",
    )
    stems = {name: _stems(card, base, name) for name in ("train", "test")}
    classes = tuple(sorted({stem.split("/")[0] for part in stems.values() for stem in part}))
    trainval, test = (_part(card, classes, stems[name], name) for name in ("train", "test"))
    return checked(LabelledImages(card.dataset, "food-101", base, classes, trainval, test), card)


def _stems(card: TransferCard, base: Path, name: str) -> list[str]:
    text, table = base / "meta" / f"{name}.txt", base / "meta" / f"{name}.json"
    if text.is_file():
        return read_lines(card, text)
    if not table.is_file():
        raise DataMissing(
            f"{card.name}: the list of {name} images is missing",
            f"expected {text.name} or {table.name} in {text.parent}, found neither",
            "unpack the archive again",
        )
    try:
        content = parse_json(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(card, table, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(card, table, f"it holds a {type(content).__name__}, expected class names with lists of images")
    for name, stems in content.items():
        if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
            raise _damaged(
                card, table, f"{name!r} holds {str(stems)[:60]!r}, expected a list such as ['{name}/1005649']"
            )
    found = [stem for _, stems in sorted(content.items()) for stem in stems]
    refuse_names(card, table, found)
    return found


def _damaged(card: TransferCard, table: Path, why: str) -> UserError:
    return UserError(f"{card.name}: {table.name} is damaged", f"{table}: {why}", "unpack the archive again")


def _part(card: TransferCard, classes: tuple[str, ...], stems: list[str], name: str) -> Part:
    labels = label_index(card, classes, [stem.split("/")[0] for stem in stems], f"{name} list")
    return Part(tuple(f"images/{stem}.jpg" for stem in stems), labels)
