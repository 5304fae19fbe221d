"""Readers of the public on-disk layouts of the eight transfer data sets, one module each."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from harness.api import UserError
from suites.transfer.cards import DATASETS, TransferCard
from suites.transfer.data import LabelledImages


def read(root: Path, card: TransferCard) -> LabelledImages:
    """Read the data set that ``card`` describes from ``root`` and check it.

    Raises:
        DataMissing: files are missing.
        UserError: the data differ from the card.
    """
    if card.dataset not in DATASETS:
        raise UserError(
            f"unknown transfer data set '{card.dataset}'",
            f"known are {', '.join(DATASETS)}",
            "correct the data set card",
        )
    module = import_module(f"suites.transfer.readers.{card.dataset}")
    return cast(LabelledImages, module.read(Path(root), card))
