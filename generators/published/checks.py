"""The eight checks of an import: pure functions from the rows of a scan to named findings with counts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from generators.published.mapping import ClassMap
from harness.api import ClassList

Rows = Sequence[Mapping[str, Any]]
NEAR_CONSTANT = 2.0
"""Standard deviation over pixels (0..255) below which an image is near-constant: a black safety-checker answer."""
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm"),
}  # fmt: skip
_WNID = re.compile(r"(?<![a-z0-9])n\d{8}(?!\d)")
_SHOWN = 5
_CHECKS = MappingProxyType({5: "duplicates", 7: "parents", 8: "identity"})
"""Checks that need something beside the images themselves."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    number: int
    """Check 1 to 8."""
    name: str
    text: str
    paths: tuple[str, ...] = ()
    """Images it is about."""
    question: str = ""
    """Key of the decision it asks for; empty: nothing to decide."""
    fatal: bool = False
    """True where no decision can help."""

    @property
    def count(self) -> int:
        """Return the number of images it is about."""
        return len(self.paths)


def check_all(
    rows: Rows,
    classes: ClassList,
    mapping: ClassMap,
    *,
    total: int = 0,
    size_px: int = 0,
    per_class: int = 0,
    skipped: Mapping[str, int] = MappingProxyType({}),
    notes: Sequence[str] = (),
    real_sha1: Collection[str] = (),
    parents: Collection[str] = (),
    identity: Mapping[str, float] | None = None,
    not_done: Mapping[int, str] = MappingProxyType({}),
) -> list[Finding]:
    """Return the findings of all eight checks, in order, from the rows of a scan.

    Args:
        rows: One row per image.
        classes: Class list of the run.
        mapping: What the published folders mean.
        total, size_px: Documented number and side of the images; 0: none.
        per_class: Images asked for of each class.
        skipped: Number of files in formats that are not read, by suffix.
        notes: What the listing left out, in words.
        real_sha1: SHA-1 of real images as large as some image here.
        parents: ``wnid/stem`` of the real parents; empty where they are unknown.
        identity: Share of images per class that a CLIP names right.
        not_done: Why one of the checks 5 (against real images), 7 and 8 cannot be done, by its number.
    """
    found = (
        *_folders(rows, classes, mapping),
        *named_otherwise(rows, classes, mapping.labels),
        *(Finding(3, "files", note) for note in notes),
        *_counts(rows, classes, mapping.labels, total, per_class),
        *_files(rows, size_px, skipped),
        *_constant(rows),
        *_duplicates(rows, real_sha1),
        *_codecs(rows),
        *_parents(rows, mapping.labels, classes, parents),
        *_identity(identity),
        *(Finding(number, _CHECKS[number], f"not done: {why}") for number, why in not_done.items()),
    )
    return sorted(found, key=lambda each: each.number)


def _folders(rows: Rows, classes: ClassList, mapping: ClassMap) -> Iterable[Finding]:
    labels, counts = mapping.labels, Counter(row["folder"] for row in rows)
    unknown = {name: n for name, n in counts.items() if name not in labels and name not in mapping.elsewhere}
    outside = {name: n for name, n in counts.items() if name not in labels and name in mapping.elsewhere}
    if unknown:
        shown = ", ".join(f"{name} ({n})" for name, n in sorted(unknown.items())[:_SHOWN])
        hint = ""
        if all(name.isdigit() for name in unknown) and not any(name.isdigit() for name in labels):
            hint = (
                "; they are numbers, and only their publisher knows the order they count in (class_map=index where that is the "
                "sorted class ids of this run, else a file of lines 'label wnid')"
            )
        elif unknown.keys() <= set(classes.names):
            hint = "; they look like class names: class_map=names"
        paths = tuple(row["path"] for row in rows if row["folder"] in unknown)
        text = f"{len(unknown)} folders name no class of {classes.name}: {shown}{hint}"
        yield Finding(1, "folders", text, paths, "unknown-folders")
    if outside:
        yield Finding(
            1, "folders", f"{len(outside)} classes ({sum(outside.values())} images) are not in {classes.name}"
        )
    missing = [classes.ids[i] for i in sorted(set(range(len(classes))) - {labels.get(name, -1) for name in counts})]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (" ..." if len(missing) > _SHOWN else "")
        yield Finding(1, "folders", f"{len(missing)} of {len(classes)} classes have no folder: {shown}", fatal=True)
    if not unknown and not missing:
        yield Finding(1, "folders", f"all {len(classes)} classes are there, no unknown folder")


def named_otherwise(rows: Rows, classes: ClassList, labels: Mapping[str, int]) -> Iterable[Finding]:
    """Compare what numbers were taken to mean with the wnids that ImageNet's files bear in their names."""
    position = {class_id: index for index, class_id in enumerate(classes.ids)}
    numbered = [row for row in rows if row["folder"].isdigit() and row["folder"] in labels]
    told = [
        (row, position[found[0]]) for row in numbered if (found := _WNID.search(row["stem"])) and found[0] in position
    ]
    wrong = [row for row, index in told if labels[row["folder"]] != index]
    if wrong:
        text = (
            f"{len(wrong)} of {len(told)} images bear the class id of another class in their file names, such as "
            f"{wrong[0]['stem']} under label {wrong[0]['folder']}: class_map is wrong"
        )
        yield Finding(1, "folders", text, _paths(wrong), fatal=True)


def _counts(rows: Rows, classes: ClassList, labels: Mapping[str, int], total: int, per_class: int) -> Iterable[Finding]:
    counts = Counter(labels[row["folder"]] for row in rows if row["folder"] in labels)
    if not counts:
        return
    text = f"{sum(counts.values())} images, {min(counts.values())} to {max(counts.values())} of a class"
    if total:
        text += f"; documented: {total} ({sum(counts.values()) - total:+d})"
    yield Finding(2, "counts", text)
    usual = per_class or max(counts.values())
    short = sorted((n, classes.ids[label]) for label, n in counts.items() if n < usual)
    if short:
        shown = ", ".join(f"{wnid} ({n})" for n, wnid in short[:_SHOWN])
        yield Finding(2, "short classes", f"{len(short)} classes have fewer than {usual} images: {shown}")


def _files(rows: Rows, size_px: int, skipped: Mapping[str, int]) -> Iterable[Finding]:
    if skipped:
        shown = ", ".join(f"{suffix} {n}" for suffix, n in sorted(skipped.items()))
        yield Finding(3, "files", f"{sum(skipped.values())} files are left out, their formats are not read: {shown}")
    broken = [row for row in rows if row["error"]]
    if broken:
        first = broken[0]
        text = f"{len(broken)} files cannot be decoded, such as {first['path']}: {first['error']}"
        yield Finding(3, "files", text, _paths(broken), "undecodable")
    whole = [row for row in rows if not row["error"]]
    modes = Counter(row["mode"] for row in whole if row["mode"] != "RGB")
    if modes:
        shown = ", ".join(f"{mode} {n}" for mode, n in sorted(modes.items()))
        yield Finding(3, "files", f"{sum(modes.values())} images are not RGB and will be converted: {shown}")
    odd = [row for row in whole if size_px and (row["width"], row["height"]) != (size_px, size_px)]
    if odd:
        sizes = Counter(f"{row['width']}x{row['height']}" for row in odd)
        shown = ", ".join(f"{size} ({n})" for size, n in sizes.most_common(_SHOWN))
        yield Finding(3, "sizes", f"{len(odd)} images are not {size_px}x{size_px}: {shown}", _paths(odd))
    if not broken and not modes and not odd:
        yield Finding(3, "files", "every file decodes as RGB" + (f" of {size_px}x{size_px}" if size_px else ""))


def _constant(rows: Rows) -> Iterable[Finding]:
    flat = [row for row in rows if not row["error"] and row["spread"] < NEAR_CONSTANT]
    if not flat:
        yield Finding(4, "near-constant", "no image is near-constant")
        return
    counts = Counter(row["folder"] for row in flat)
    shown = ", ".join(f"{folder} {n}" for folder, n in counts.most_common(_SHOWN))
    text = (
        f"{len(flat)} images ({len(flat) / len(rows):.2%}) in {len(counts)} classes are near-constant (black): {shown}"
    )
    yield Finding(4, "near-constant", text, _paths(flat), "near-constant")


def _duplicates(rows: Rows, real_sha1: Collection[str]) -> Iterable[Finding]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["sha1"]:
            groups[row["sha1"]].append(row)
    within = sum(len(group) - len({row["folder"] for row in group}) for group in groups.values())
    across = [row for group in groups.values() if len({row["folder"] for row in group}) > 1 for row in group]
    if within:
        yield Finding(5, "duplicates", f"{within} images repeat another of their own class")
    if across:
        text = f"{len(across)} images are the same file under different classes, such as {across[0]['path']}"
        yield Finding(5, "duplicates", text, _paths(across), "across-classes")
    copies = [row for row in rows if row["sha1"] in real_sha1]
    if copies:
        text = f"{len(copies)} images are files of the real training set, such as {copies[0]['path']}"
        yield Finding(5, "duplicates", text, _paths(copies), "real-duplicates")
    if not within and not across and not copies:
        yield Finding(5, "duplicates", "no two files are equal")


def _codecs(rows: Rows) -> Iterable[Finding]:
    whole = [row for row in rows if not row["error"]]
    kinds = Counter(
        f"JPEG quality about {row['quality']}" if row["format"] == "JPEG" else str(row["format"]) for row in whole
    )
    yield Finding(6, "codec", ", ".join(f"{kind}: {n}" for kind, n in kinds.most_common(_SHOWN)) or "no image")
    wrong = [row for row in whole if _suffix(row) and _suffix(row) not in _SUFFIXES.get(row["format"], (_suffix(row),))]
    if wrong:
        pairs = Counter(f"{row['format']} called {_suffix(row)}" for row in wrong)
        shown = ", ".join(f"{pair} {n}" for pair, n in pairs.most_common())
        text = f"{len(wrong)} files have the suffix of another format: {shown}"
        yield Finding(6, "codec", text, _paths(wrong), "wrong-suffix")


def _suffix(row: Mapping[str, Any]) -> str:
    """Return the suffix that claims a format; empty for names that claim none (rows of parquet files)."""
    suffix = PurePosixPath(row["path"]).suffix.lower()
    return suffix if any(suffix in known for known in _SUFFIXES.values()) else ""


def _parents(rows: Rows, labels: Mapping[str, int], classes: ClassList, parents: Collection[str]) -> Iterable[Finding]:
    if not parents:
        return
    found = {f"{classes.ids[labels[row['folder']]]}/{row['stem']}" for row in rows if row["folder"] in labels}
    covered = len(found & set(parents))
    orphans = len(found - set(parents))
    text = f"{covered} of {len(parents)} real images have a child of their name; {orphans} images have no parent"
    yield Finding(7, "parents", text)


def _identity(identity: Mapping[str, float] | None) -> Iterable[Finding]:
    if identity is None:
        return
    mean = sum(identity.values()) / max(len(identity), 1)
    wrong = sorted(wnid for wnid, share in identity.items() if share <= 0.1)
    text = f"a CLIP names {mean:.0%} of ten images a class, over {len(identity)} classes"
    if wrong:
        text += f"; {len(wrong)} classes are hardly ever named (wrongly mapped?): {', '.join(wrong[:_SHOWN])}"
    yield Finding(8, "identity", text)


def _paths(rows: Rows) -> tuple[str, ...]:
    return tuple(str(row["path"]) for row in rows)
