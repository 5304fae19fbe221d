"""Register the harness's parts in mmdet. Imported only after ``bridge.install``, and once per process."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.models.backbones import ResNet
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules

from suites.perception.backbone import register_resnet
from suites.perception.loading import SeededItems


@DATASETS.register_module()
class SeededCoco(SeededItems, CocoDataset):
    """COCO whose augmentation depends on (seed, epoch, item) only."""


def prepare() -> Any:
    """Register all of mmdet's modules and the small ResNet; return the model registry."""
    register_all_modules(init_default_scope=True)
    register_resnet(MODELS, ResNet)
    return MODELS
