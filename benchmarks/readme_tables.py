"""Print the README's tables from finished stores or baseline folders: ``python benchmarks/readme_tables.py PLACE [PLACE ...]``.

One column a generator, one line a metric; percent ± half a 95 % interval for new test items, * first tie group of its
backbone, ! a validity check failed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from leaderboard.exports import cell_text
from leaderboard.rows import RowKey
from leaderboard.sources import gather
from leaderboard.tables import Column, Table, build_tables

ORDER = ("real", "sd15", "genrobust-base", "genrobust-ft", "realfake-reimpl", "lbgen", "lbgen-released")
NAMES = {
    "in-domain top1": "in-domain top-1", "linear-probe transfer": "linear probe, mean of eight",
    "few-shot transfer@0.1": "few-shot, a tenth of the images", "coco COCO_AP_box": "COCO box AP",
    "ade20k ADE20K_mIoU": "ADE20K mIoU", "texture-bias TI": "TI", "context-bias CB_avg": "CB_avg",
    "background-bias BG_Gap": "BG_Gap",
}  # fmt: skip
BACKBONES = {"resnet10": "**ResNet10**", "vit_pico": "**small ViT**"}
IMAGES = ("generated-correlation rho_texture", "generated-correlation rho_scene")


def main() -> None:
    """Print the table of all generators that the places hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", nargs="+", type=Path)
    (table,) = build_tables(gather(parser.parse_args().places))
    generators = [name for name in ORDER if any(key.generator == name for key in table.rows)]
    print("| | " + " | ".join(f"`{name}`" for name in generators) + " |\n|---|" + "---|" * len(generators))
    columns = {column.title: column for column in table.columns}
    for title in IMAGES:
        if title in columns:
            texts = [_images(table, name, columns[title]) for name in generators]
            print(f"| {title} | " + " | ".join(texts) + " |")
    for backbone, heading in BACKBONES.items():
        rows = {key.generator: key for key in table.rows if key.backbone == backbone}
        for place, (title, name) in enumerate(
            (t, n) for t, n in NAMES.items() if _measured(table, rows, columns.get(t))
        ):
            column = columns[title]
            arrow = {"higher": "↑", "lower": "↓"}[column.better]
            texts = [cell_text(table, rows[g], column) if g in rows else "–" for g in generators]
            print(f"| {f'{heading} ' if not place else ''}{name} {arrow} | " + " | ".join(texts) + " |")


def _measured(table: Table, rows: dict[str, RowKey], column: Column | None) -> bool:
    return column is not None and any(column in table.rows[key] for key in rows.values())


def _images(table: Table, generator: str, column: Column) -> str:
    found = [cells[column] for key, cells in table.rows.items() if key.generator == generator and column in cells]
    value = found[0].estimate.value if found else None
    return "–" if value is None else f"{column.scale * value:.0f}"


if __name__ == "__main__":
    main()
