"""Cards of the eight transfer data sets: what a reader must find on disk.

The default cards describe the public data sets (sizes: lbGen, CVPR 2025, Table 6, and the t-ReX toolbox); a profile
may select others, for instance for small data in the same layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.api import UserError


class DerivedSplit(BaseModel):
    """A split for a data set that is distributed without one: per class, test images first, then validation images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_per_class: int = Field(ge=1)
    val_per_class: int = Field(ge=0)
    seed: int = 22
    """Seed of the split, the same for every backbone and run; 22 is the toolbox's default seed."""


class TransferCard(BaseModel):
    """Expectations about one data set; ``None`` means not checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    """Key of the reader: ``aircraft``, ``cars196``, ``dtd``, ``eurosat``, ``flowers``, ``pets``, ``food101``, ``sun397``."""
    title: str = ""
    """Name used in messages; the key where empty."""
    classes: int | None = None
    trainval: int | None = None
    test: int | None = None
    partition: int = 1
    """Which of the distributed partitions to read (DTD and SUN397 have ten)."""
    derived: DerivedSplit | None = None
    """Needed by EuroSAT only."""
    md5: Mapping[str, str] = Field(default_factory=dict)
    """File name to MD5 of annotation files whose content is known."""
    listing: str = ""
    """Fingerprint of names, labels and parts where they are known in advance; empty: not checked."""

    @property
    def name(self) -> str:
        """Return the name used in messages."""
        return self.title or self.dataset


_FLOWERS_MD5 = {
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
}

PUBLIC_CARDS: Mapping[str, TransferCard] = MappingProxyType(
    {
        card.dataset: card
        for card in (
            TransferCard(dataset="aircraft", title="FGVC Aircraft (variants)", classes=100, trainval=6667, test=3333),
            TransferCard(dataset="cars196", title="Stanford Cars", classes=196, trainval=8144, test=8041),
            TransferCard(dataset="dtd", title="DTD (partition 1)", classes=47, trainval=3760, test=1880),
            TransferCard(
                dataset="eurosat",
                title="EuroSAT RGB",
                classes=10,
                trainval=18900,
                test=8100,
                derived=DerivedSplit(test_per_class=810, val_per_class=540),
                listing="08116f8e10bee9f600fd44d0c06b63a7f3eaf53686ccc6ac23051144d22809a5",
            ),
            TransferCard(
                dataset="flowers", title="Oxford Flowers-102", classes=102, trainval=2040, test=6149, md5=_FLOWERS_MD5
            ),
            TransferCard(dataset="pets", title="Oxford-IIIT Pets", classes=37, trainval=3680, test=3669),
            TransferCard(dataset="food101", title="Food-101", classes=101, trainval=75750, test=25250),
            TransferCard(dataset="sun397", title="SUN397 (partition 1)", classes=397, trainval=19850, test=19850),
        )
    }
)
"""The public data sets, in the order of the paper's tables."""

SOURCES = (
    "sizes and data sets: lbGen, CVPR 2025, Table 6; splits, transform, search and solver: released transfer code of t-ReX "
    "(Sariyildiz et al., ICLR 2023), which the paper names",
    "solver: the objective of scikit-learn's multinomial logistic regression, its threshold 1e-4 since 1.4 (mean form), 2000 "
    "iterations; the stopping rule is ours",
    "grid, seeds, few-shot subsets and fixed EuroSAT split: ours, as neither source specifies them",
)
"""Where the parts of the transfer protocol come from."""

MAX_ITERATIONS = 2000
"""Iterations after which the toolbox, and the probe by default, gives a fit up."""

STOPPING = (
    "a fit of the search stops when max|gradient| of the mean form is <= 1e-4 (scikit-learn's threshold, but features are centred, "
    "so it is another point) and the gap (|G| / (lambda |W|))^2 <= 1e-4; G is the gradient in W, the bias at its optimum",
    "the gap bounds what the objective exceeds its optimum by, as a share of its penalty |W|^2 / 2 (not of the whole objective), "
    "wherever the fit started; its square root bounds the distance of W from the optimum, relative to |W|",
    "where the optimum is W = 0 the gap is 0 once gradient and excess are within float64's rounding",
    "the refit goes on to max|gradient| <= 1e-6 and gap <= 1e-6, in both modes; solver = converged uses these in the search too",
    "a fit that stops short of this, after max_iterations or for rounding, carries a warning; one that cannot leave the zero "
    "classifier although it is not the optimum is an error",
    f"max_iterations does not change a fit that has converged, only one that has not; so a value other than {MAX_ITERATIONS} is part "
    "of what makes numbers comparable",
)
"""When the probe's solver stops."""

ORIGINS = MappingProxyType(
    {
        "aircraft": "FGVC-Aircraft 2013b, Oxford VGG",
        "cars196": "Stanford Cars (Krause et al., 2013); the official site is gone, torchvision names mirrors",
        "dtd": "Describable Textures r1.0.1, Oxford VGG",
        "eurosat": "EuroSAT RGB (Helber et al., 2019), github: phelber/EuroSAT",
        "flowers": "102 Category Flowers, Oxford VGG",
        "pets": "Oxford-IIIT Pet, Oxford VGG",
        "food101": "Food-101 (Bossard et al., 2014), ETH Zurich",
        "sun397": "SUN397 and its Partitions, vision.princeton.edu/projects/2010/SUN",
    }
)
"""Where each data set is published."""

DATASETS: tuple[str, ...] = tuple(PUBLIC_CARDS)


def card_for(dataset: str, differences: Mapping[str, object]) -> TransferCard:
    """Return the public card with what the profile says differs; known hashes hold for the public files only.

    Raises:
        UserError: an unknown data set, an unknown field, or a value of the wrong type.
    """
    if dataset not in PUBLIC_CARDS:
        raise UserError(
            f"unknown transfer data set '{dataset}'", f"known are {', '.join(DATASETS)}", "correct the name"
        )
    public = PUBLIC_CARDS[dataset]
    if not differences:
        return public
    try:
        return TransferCard.model_validate(
            {**public.model_dump(), "md5": {}, "listing": "", **differences, "dataset": dataset}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"the card of data set '{dataset}' is not valid",
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
            f"known fields: {', '.join(TransferCard.model_fields)}",
        ) from error
