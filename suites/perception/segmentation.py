"""Register the harness's parts in mmsegmentation. Imported only after ``bridge.install``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation.metrics import IoUMetric
from mmseg.models.backbones import ResNet
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.utils import register_all_modules

from suites.perception.backbone import register_resnet
from suites.perception.loading import SeededItems

IGNORED = 255


@DATASETS.register_module()
class SeededAde(SeededItems, BaseSegDataset):
    """ADE20K folders with the class list of the card; label 0 ("other") is ignored."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(img_suffix=".jpg", seg_map_suffix=".png", reduce_zero_label=True, **kwargs)

    def check(self, content: Any) -> None:
        """Refuse labels that the table of classes does not have; on a GPU they would end in an unclear error."""
        labels = content["data_samples"].gt_sem_seg.data
        known = labels[labels != IGNORED]
        n_classes = len(self.metainfo["classes"])
        if known.numel() and int(known.max()) >= n_classes:
            raise ValueError(f"label {int(known.max()) + 1} is above the {n_classes} classes of the table")


@METRICS.register_module()
class PixelCounts(IoUMetric):
    """Write intersection, union, prediction and label areas per image and class, unrounded."""

    def __init__(self, rows_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows_file = Path(rows_file)

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Count one batch."""
        n_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            predicted = sample["pred_sem_seg"]["data"].squeeze()
            label = sample["gt_sem_seg"]["data"].squeeze().to(predicted)
            counts = self.intersect_and_union(predicted, label, n_classes, self.ignore_index)
            self.results.append((Path(sample["img_path"]).stem, torch.stack(counts).long().numpy()))

    def compute_metrics(self, results: list[tuple[str, Any]]) -> dict[str, float]:
        """Write the counts; the numbers are made from them elsewhere."""
        stems = np.array([stem for stem, _ in results])
        # A file handle, because numpy appends a suffix to bare names.
        with self.rows_file.open("wb") as handle:
            np.savez(handle, stems=stems, counts=np.stack([counts for _, counts in results]))
        return {}


def prepare() -> Any:
    """Register all of mmsegmentation's modules and the small ResNet; return the model registry."""
    register_all_modules(init_default_scope=True)
    register_resnet(MODELS, ResNet)
    return MODELS
