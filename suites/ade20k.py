"""Suite `ade20k`: semantic segmentation after fine-tuning UperNet from the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units
from suites.perception.settings import AdeSettings

if TYPE_CHECKING:
    import pandas as pd


class ADE20K(Suite[AdeSettings]):
    """Fine-tune UperNet on fractions of ADE20K and keep the pixel counts of every image and class."""

    card = SuiteCard(
        id="ade20k",
        version=2,
        summary="Does the backbone help to label every pixel? UperNet, fine-tuned on ADE20K (challenge release).",
        formula="mIoU = mean over classes of sum(intersection) / sum(union), sums over images; label 0 ignored",
        metrics={
            "ADE20K_mIoU": "mean over classes of intersection over union, sums over images",
            "ADE20K_aAcc": "share of labelled pixels that are correct",
            "ADE20K_mAcc": "mean over classes of the share of their pixels that are correct",
        },
        conventions=(
            "training is mmsegmentation's own, with the frozen recipe of the settings (sgd-2x: upernet_r50 160k)",
            "the backbone is a plain ResNet, not the stock config's V1c; nothing is frozen",
            "the paper gives no schedule, optimizer, image size or seed for this table; the recipe is this project's",
            "fractions: stems in the order of SHA-256 of 'seed:stem', nested; iterations scale with the fraction",
            "a small fraction also gets fewer updates; constant = iterations keeps them, as a protocol of its own",
            "single scale, no flip, whole image; classes that occur nowhere are left out of the mean",
            "interval: jackknife over validation images",
            "calibrate first: mmsegmentation's zoo has mIoU 42.05 at 160k with ResNet50-V1c; slightly less is right here",
            "over nine tenths of the multiply-adds are in the decode head: a mild test of the backbone",
            "known disagreement: the paper's 42.44 lies between 42.05 (single scale) and 42.78 (several scales and flip)",
        ),
        citation="Zhou et al., CVPR 2017; Xiao et al., ECCV 2018; lbGen, CVPR 2025, Table 2",
        order=510,
        data=("ade20k",),
        groups=("perception",),
    )
    Settings = AdeSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "stem": "text",
        "class_index": "integer",
        "intersection": "integer",
        "union": "integer",
    }
    row_key = ("stem", "class_index")
    precision = "fp32"  # the toolboxes train and test in float32, whatever the checkpoint computes in
    data_inspectors: ClassVar[Mapping[str, str]] = {"ade20k": "suites.perception.inspect:ade20k"}
    origins: ClassVar[Mapping[str, str]] = {
        "ade20k": "ADEChallengeData2016, MIT scene parsing challenge (sceneparsing.csail.mit.edu)"
    }

    def items(self, settings: AdeSettings, arch: str) -> Sequence[Item]:
        """Return one evaluation per fraction and training seed."""
        from suites.perception.stages import items

        return items("ade20k", settings, arch)

    def protocol(self, settings: AdeSettings) -> str:
        """Name the recipe and every number of it that is not the recipe's own."""
        from suites.perception.stages import wording

        return wording(settings)

    def cost(self, item: Item, settings: AdeSettings, cards: Mapping[str, Any]) -> str:
        """Return iterations, pictures and pixels of one run."""
        from suites.perception.cards import AdeCard
        from suites.perception.stages import cost

        return cost(item, settings, AdeCard(**cards["ade20k"]).train_images)

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image and class."""
        from suites.perception.ade import run_ade
        from suites.perception.cards import AdeCard
        from suites.perception.stages import job, keep_provenance

        run = job(ctx, "ade20k")
        rows = run_ade(run, AdeCard(**ctx.card("ade20k")), ctx.settings(AdeSettings))
        keep_provenance(ctx, run)
        return rows

    def score(self, rows: pd.DataFrame, item: Item, settings: AdeSettings, cards: Mapping[str, Any]) -> Score:
        """Return mIoU with its companions."""
        from suites.perception.stages import ade_score

        return ade_score(rows, item, settings.replicates)

    def units(
        self, rows: pd.DataFrame, item: Item, settings: AdeSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return images for paired comparisons of mIoU."""
        from suites.perception.units import ade_units

        return tuple(ade_units(rows, name) for name in names if name.split("@")[0] == "ADE20K_mIoU")
