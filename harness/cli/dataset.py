"""The command ``dataset card``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DEFAULT_STORE, StoreOption, examples
from harness.core.errors import DataMissing

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Describe the datasets of a store for others.")


@app.callback()
def _dataset() -> None:
    """Describe the datasets of a store for others."""


@app.command(
    epilog=examples("dataset card lbgen --output cards", "dataset card lbgen:d6a861 --store my-store --output cards")
)
def card(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASETS",
            help="Generators, GENERATOR:KEY with the first digits of a key, or names of folders below STORE/synthesise; "
            "default: every dataset of the store.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Write the cards below this folder.")
    ] = Path("cards"),
) -> None:
    """Write a dataset card and a Croissant description of each dataset.

    A folder per dataset: README.md (what was made and how, counts, prompts, licence, measured biases with n and interval),
    samples.png, and croissant.json with the fields of responsible AI, validated by mlcroissant. Nothing is uploaded.
    """
    from harness.core.files import write_together
    from harness.images.decode import decode
    from harness.results.leaderboard import board

    if not store.is_dir():
        raise DataMissing(f"{store} does not exist", "no such folder", "name the folder of a store: --store FOLDER")
    for name, files in board().dataset_cards(store, names or (), decode).items():
        write_together({output / name / file: content for file, content in files.items()})
        print(output / name)
    print("publish the folder of each dataset (STORE/synthesise/NAME) beside its croissant.json", file=sys.stderr)
