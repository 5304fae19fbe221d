"""Look at every image of a published data set once: an extract cell that the import and its report are made from."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import (
    Context,
    Entry,
    EntryReader,
    UserError,
    list_images,
    open_picture,
    parse_json,
    refuse_malformed,
    truncate_partial_line,
    write_json,
    write_text,
)

ROWS = "rows.jsonl"
FACTS = "facts.json"
_CHUNK = 512
_NAMED = 10
"""Images of a class that a CLIP names."""
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Luminance quantisation of ITU-T T.81, annex K, which encoders scale by their quality setting."""


def scan(ctx: Context) -> None:
    """Write one row per image: class as published, size, mode, format, quality, spread, SHA-1; goes on after a kill."""
    (name,) = ctx.cell.data
    listing = list_images(ctx.data(name))
    part = ctx.scratch / ROWS
    done = truncate_partial_line(part)
    reader = EntryReader(listing.base)
    with part.open("a", encoding="utf-8") as stream, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first in range(done, len(listing.entries), _CHUNK):
            chunk = listing.entries[first : first + _CHUNK]
            for row in pool.map(lambda entry: inspect_image(reader, entry), chunk):
                stream.write(json.dumps(row, sort_keys=True) + "\n")
            stream.flush()
            ctx.progress(first + len(chunk), len(listing.entries), "images")
    write_text(ctx.out / ROWS, part.read_text(encoding="utf-8"))
    facts = {
        "layout": listing.layout,
        "skipped": dict(listing.skipped),
        "prompts": _prompts(ctx.data(name)),
        "label_names": listing.label_names,
        "beside": dict(listing.beside),
        "notes": (*listing.left_out, *listing.noted, *listing.missing),
    }
    write_json(ctx.out / FACTS, facts)


def read_rows(folder_file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a scan."""
    with folder_file.open(encoding="utf-8") as stream:
        yield from map(parse_json, stream)


def inspect_image(reader: EntryReader, entry: Entry) -> dict[str, Any]:
    """Return the facts of one image; what cannot be decoded has an ``error``."""
    facts: dict[str, Any] = {
        "path": entry.path,
        "folder": entry.folder,
        "stem": entry.stem,
        "container": entry.container,
        "offset": entry.offset,
        "error": "",
    }
    try:
        content = reader.read(entry)
    except UserError as error:
        return facts | {"bytes": entry.size, "sha1": "", "error": error.why}
    except OSError:
        return facts | {"bytes": entry.size, "sha1": "", "error": "the file cannot be read"}
    facts |= {"bytes": len(content), "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest()}
    try:
        found = open_picture(content, entry.path)
    except UserError as error:
        return facts | {"error": error.why}
    pixels = np.asarray(found.image)
    facts |= {"width": found.image.width, "height": found.image.height, "mode": found.mode, "format": found.format}
    facts["quality"] = jpeg_quality(found.quantization or {})
    return facts | {"spread": round(float(pixels.std(axis=(0, 1)).max()), 3)}


def jpeg_quality(tables: Mapping[int, Any]) -> int:
    """Estimate the quality setting (1 to 100) of a JPEG from its luminance table; 0 where there is none.

    The tables of the common encoder for all settings are compared by their sum, which falls with the quality.
    """
    if not tables:
        return 0
    total = sum(tables[min(tables)])
    return min(range(1, 101), key=lambda quality: abs(_table_sum(quality) - total))


def _table_sum(quality: int) -> int:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((value * scale + 50) // 100, 1), 255) for value in _LUMINANCE)


_CAPTIONS_FIX = "fetch the file again, or remove it: prompts are noted beside the images and not needed"


def _prompts(root: Path) -> dict[str, str]:
    """Return the prompts that a release lists by image path (``train_captions.csv``: path, class, prompt)."""
    import csv

    found: dict[str, str] = {}
    for place in (root, root / "train"):
        path = place / "train_captions.csv"
        if path.is_file():
            with refuse_malformed(path, _CAPTIONS_FIX), path.open(encoding="utf-8", newline="") as stream:
                for row in csv.reader(stream):
                    if len(row) >= 2 and "/" in row[0] and not _held_out(row[0]):
                        image = "/".join(Path(row[0]).parts[-2:])
                        if found.setdefault(image, row[-1]) != row[-1]:
                            raise UserError(
                                f"{path} gives {image} two prompts",
                                f"{found[image]!r} and {row[-1]!r}",
                                "leave the right line",
                            )
    return found


def _held_out(path: str) -> bool:
    return bool({"val", "validation", "test"} & set(Path(path).parts[:-2]))


def identity(ctx: Context) -> None:
    """Name ten images of every class with a CLIP among all class names: ``identity.json``, class id to share named right.

    A class under a wrong folder shows as a share near zero.
    """
    import torch

    from generators.lbgen.encoders import load_named_encoder
    from generators.lbgen.preprocess import preprocess
    from generators.published.mapping import class_map

    tower = load_named_encoder(ctx.source("clip"), ctx.device)
    (name,) = ctx.cell.data
    listing = list_images(ctx.data(name))
    folders = {entry.folder for entry in listing.entries}
    spec = ctx.params["settings"]["class_map"]
    labels = class_map(spec, ctx.classes, folders, listing.label_names, listing.beside).labels
    reader = EntryReader(listing.base)
    with torch.no_grad():
        text = torch.nn.functional.normalize(
            tower.text_features([f"photo of {label}" for label in ctx.classes.names]), dim=1
        )
    shares: dict[str, float] = {}
    for label, entries in sorted(_by_class(listing.entries, labels).items()):
        hits = []
        for pixels in itertools.islice(_squares(reader, entries, tower.size), _NAMED):
            with torch.no_grad():
                ready = preprocess(pixels.to(ctx.device), tower.size, tower.mean, tower.std)
                hits.append(int((tower.model.encode_image(ready).float() @ text.T).argmax()) == label)
        if hits:
            shares[ctx.classes.ids[label]] = round(sum(hits) / len(hits), 3)
    write_json(ctx.out / "identity.json", shares)


def _by_class(entries: tuple[Entry, ...], labels: Mapping[str, int]) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.folder in labels:
            found.setdefault(labels[entry.folder], []).append(entry)
    return found


def _squares(reader: EntryReader, entries: Sequence[Entry], size: int) -> Iterator[Any]:
    """Yield images as (1, 3, size, size) in [0, 1]; those that the scan reports as undecodable are passed over."""
    import torch

    from harness.api import decode_image, square_crop

    for entry in entries:
        try:
            image = decode_image(reader.read(entry), entry.path)
        except (OSError, UserError):
            continue
        pixels = np.asarray(square_crop(image, size), dtype=np.uint8)
        yield torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
