"""Suite `coco`: detection and instance masks after fine-tuning Mask R-CNN from the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units
from suites.perception.settings import CocoSettings

if TYPE_CHECKING:
    import pandas as pd


class Coco(Suite[CocoSettings]):
    """Fine-tune Mask R-CNN on fractions of COCO and keep the match of every detection."""

    card = SuiteCard(
        id="coco",
        version=3,
        summary="Does the backbone help to find and outline objects? Mask R-CNN with FPN, fine-tuned on COCO 2017.",
        formula="AP: precision interpolated at 101 recalls, mean over IoU 0.50:0.05:0.95 and categories; 100 detections",
        metrics={
            "COCO_AP_box": "average precision of boxes, mean over IoU 0.50:0.05:0.95 and categories",
            "COCO_AP_mask": "average precision of masks, mean over IoU 0.50:0.05:0.95 and categories",
            "COCO_AP50_*": "average precision at IoU 0.50; box or mask",
            "COCO_AP75_*": "average precision at IoU 0.75; box or mask",
            "COCO_AP_?_*": "average precision of small (S), medium (M) or large (L) objects; box or mask",
        },
        conventions=(
            "training is mmdet's own, with the frozen recipe of the settings (sgd-2x: mask-rcnn_r50_fpn_2x_coco)",
            "the paper gives no schedule, optimizer, image size or seed for this table; the recipe is this project's",
            "stem and first stage frozen, batch norms on the statistics of pre-training: lowest filters and statistics "
            "stay those of the pre-training images; frozen_stages -1 with norm_eval false frees both, for comparison",
            "fractions: image ids in the order of SHA-256 of 'seed:id', nested; epochs constant",
            "a small fraction also gets fewer updates; constant = iterations keeps them, as a protocol of its own",
            "the last checkpoint is measured, never the best; values are not rounded",
            "ids of images, categories and objects may be any 64-bit integers, 0 included (pycocotools alone never matches "
            "an object with id 0); an object without iscrowd is a single one",
            "interval: jackknife over validation images",
            "calibrate first: torchvision's ResNet50 should reach box AP 38.2 (sgd-1x) or 39.2 (sgd-2x), mmdet's model zoo",
            "known disagreement: the paper's 39.32 has two decimals, mmdet prints one; last or best epoch, EMA or raw "
            "weights and number of runs are not said",
        ),
        citation="Lin et al., ECCV 2014; He et al., ICCV 2017; lbGen, CVPR 2025, Table 2",
        order=500,
        data=("coco",),
        groups=("perception",),
    )
    Settings = CocoSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "image_id": "integer",
        "category_id": "integer",
        "iou_type": "text",
        "area": "text",
        "n_gt": "integer",
    }
    row_key = ("image_id", "category_id", "iou_type", "area")
    precision = "fp32"  # the toolboxes train and test in float32, whatever the checkpoint computes in
    data_inspectors: ClassVar[Mapping[str, str]] = {"coco": "suites.perception.inspect:coco"}
    origins: ClassVar[Mapping[str, str]] = {"coco": "COCO 2017, cocodataset.org"}

    def items(self, settings: CocoSettings, arch: str) -> Sequence[Item]:
        """Return one evaluation per fraction and training seed."""
        from suites.perception.stages import items

        return items("coco", settings, arch)

    def protocol(self, settings: CocoSettings) -> str:
        """Name the recipe and every number of it that is not the recipe's own."""
        from suites.perception.stages import wording

        return wording(settings)

    def cost(self, item: Item, settings: CocoSettings, cards: Mapping[str, Any]) -> str:
        """Return iterations, pictures and pixels of one run."""
        from suites.perception.cards import CocoCard
        from suites.perception.stages import cost

        return cost(item, settings, CocoCard(**cards["coco"]).train_images)

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image, category, kind of overlap and object size."""
        from suites.perception.cards import CocoCard
        from suites.perception.coco import run_coco
        from suites.perception.stages import job, keep_provenance

        run = job(ctx, "coco")
        rows = run_coco(run, CocoCard(**ctx.card("coco")), ctx.settings(CocoSettings))
        keep_provenance(ctx, run)
        return rows

    def score(self, rows: pd.DataFrame, item: Item, settings: CocoSettings, cards: Mapping[str, Any]) -> Score:
        """Return box and mask AP with their companions."""
        from suites.perception.stages import coco_score

        return coco_score(rows, item, settings.replicates)

    def units(
        self, rows: pd.DataFrame, item: Item, settings: CocoSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return images for paired comparisons of box and mask AP."""
        from suites.perception.units import coco_units

        kinds = {"COCO_AP_box": "bbox", "COCO_AP_mask": "segm"}
        wanted = [(kinds[name.split("@")[0]], name) for name in names if name.split("@")[0] in kinds]
        return tuple(coco_units(rows, kind, name) for kind, name in wanted)
