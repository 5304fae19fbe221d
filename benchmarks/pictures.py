"""Draw the README's pictures from a finished store: samples per generator, cue-conflict images, background swaps.

python benchmarks/pictures.py --store store --out docs/pictures
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from harness.core.classes import ClassList, load_classes
from harness.plan.profile import load_profile
from harness.store.data import DataSource, find_data, materialise

SCALE = 1
GAP = 4
INK = (40, 40, 40)


def sheet(
    rows: Sequence[Sequence[Image.Image]], labels: Sequence[str], heads: Sequence[str], margin: int = 92
) -> Image.Image:
    """Lay pictures out in rows with a label at the left and heads above."""
    size = rows[0][0].size[0] * SCALE
    width, height = margin + len(rows[0]) * (size + GAP), 18 + len(rows) * (size + GAP)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        draw.text((margin + column * (size + GAP), 3), head, INK)
    for line, (label, pictures) in enumerate(zip(labels, rows, strict=True)):
        top = 18 + line * (size + GAP)
        draw.text((4, top + size // 2 - 5), label, INK)
        for column, picture in enumerate(pictures):
            page.paste(picture.resize((size, size), Image.Resampling.NEAREST), (margin + column * (size + GAP), top))
    return page


def samples(store: Path, classes: ClassList, columns: int = 12) -> Image.Image:
    """Two rows per generator: the first images of the first classes."""
    rows, labels = [], []
    finished = (path.parent for path in (store / "synthesise").glob("*/manifest.json"))
    for folder in sorted(finished):
        spec = json.loads((folder / "manifest.json").read_text())["spec"]
        if spec["seeds"].get("generator_seed", 0) != 0:
            continue
        for index in range(2):
            rows.append([_image(folder, classes.ids[column], index) for column in range(columns)])
            labels.append(spec["name"] if index == 0 else "")
    return sheet(rows, labels, [name[:10] for name in classes.names[:columns]])


def _image(folder: Path, class_id: str, index: int) -> Image.Image:
    if (folder / "source.json").is_file():
        source = json.loads((folder / "source.json").read_text())
        root = _root(source["data"])
        paths = [json.loads(line)["path"] for line in (folder / "images.jsonl").read_text().splitlines()]
        return Image.open(root / [path for path in paths if path.startswith(f"{class_id}/")][index]).convert("RGB")
    name = f"{class_id}/{class_id}_{index:05d}.png"
    for shard in sorted((folder / "shards").glob(f"{class_id}_*.tar")):
        with tarfile.open(shard) as archive:
            if name in archive.getnames():
                content = archive.extractfile(name)
                assert content is not None
                return Image.open(io.BytesIO(content.read())).convert("RGB")
    raise SystemExit(f"{folder} has no {name}")


def _root(name: str) -> Path:
    source = find_data(name, load_profile("micro").profile.data[name])
    assert isinstance(source, DataSource)
    root = materialise(source)
    return root / "train" if (root / "train").is_dir() else root


def conflicts() -> Image.Image:
    """Images with the shape of one class and the texture that goes with another."""
    root = _root("cue-conflict")
    folders = sorted(folder for folder in root.rglob("*") if folder.is_dir() and any(folder.glob("*.png")))[:8]
    rng = np.random.default_rng(0)
    columns = [sorted(folder.glob("*.png")) for folder in folders]
    picks = [[files[i] for i in sorted(rng.choice(len(files), 3, replace=False))] for files in columns]
    rows = [[Image.open(pick[line]).convert("RGB") for pick in picks] for line in range(3)]
    return sheet(rows, ["shape above,", "texture of", "another class"], [folder.name for folder in folders])


def backgrounds() -> Image.Image:
    """One foreground with its own, a same-class and a random-class background."""
    root = _root("in9")
    base = next(path.parent for path in sorted(root.rglob("mixed_same")))
    kinds = ("original", "mixed_same", "mixed_rand", "only_fg")
    folders = sorted((base / "mixed_same" / "val").iterdir())[:8]
    rows = []
    for kind in kinds:
        line = []
        for folder in folders:
            stem = sorted((base / "mixed_same" / "val" / folder.name).iterdir())[0].name
            key = stem.removeprefix("fg_").split("_bg_")[0]
            match = next(p for p in sorted((base / kind / "val" / folder.name).iterdir()) if key in p.name)
            line.append(Image.open(match).convert("RGB"))
        rows.append(line)
    return sheet(rows, kinds, [folder.name.split("_", 1)[1][:10] for folder in folders])


def main() -> None:
    """Write the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "samples": samples(arguments.store, load_classes("micro")),
        "cue-conflict": conflicts(),
        "backgrounds": backgrounds(),
    }
    for name, picture in pictures.items():
        picture.save(arguments.out / f"{name}.png", optimize=True)
        print(arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
