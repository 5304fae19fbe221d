"""Resolve the two networks, Mask R-CNN with FPN and UperNet, to the toolboxes' model dictionaries."""

from __future__ import annotations

from typing import Any

from suites.perception.arches import Arch
from suites.perception.jobs import Target
from suites.perception.settings import AdeSettings, CocoSettings

Config = dict[str, Any]
STRIDES = (4, 8, 16, 32)


def _backbone(arch: Arch, path: str, **extra: Any) -> Config:
    return {
        "type": arch.type,
        **arch.arguments,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "strides": (1, 2, 2, 2),
        "dilations": (1, 1, 1, 1),
        "style": "pytorch",
        "init_cfg": {"type": "Pretrained", "checkpoint": path},
        **extra,
    }


def mask_rcnn(settings: CocoSettings, target: Target, backbone: str) -> Config:
    channels = settings.fpn_channels
    return {
        "type": "MaskRCNN",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": target.mean_255,
            "std": target.std_255,
            "bgr_to_rgb": True,
            "pad_mask": True,
            "pad_size_divisor": 32,
        },
        "backbone": _backbone(
            target.arch,
            backbone,
            frozen_stages=settings.frozen_stages,
            norm_cfg={"type": "BN" if settings.norm_eval else "SyncBN", "requires_grad": True},
            norm_eval=settings.norm_eval,
        ),
        "neck": {
            "type": "FPN",
            "in_channels": list(target.arch.channels),
            "out_channels": channels,
            "num_outs": 5,
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": channels,
            "feat_channels": channels,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [settings.anchor_scale],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [*STRIDES, 64],
            },
            "bbox_coder": _coder(1.0, 1.0),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": _roi_head(settings, len(target.classes)),
        "train_cfg": _coco_train(settings),
        "test_cfg": _coco_test(settings),
    }


def _coder(centre: float, size: float) -> Config:
    return {
        "type": "DeltaXYWHBBoxCoder",
        "target_means": [0.0, 0.0, 0.0, 0.0],
        "target_stds": [centre, centre, size, size],
    }


def _roi_head(settings: CocoSettings, n_classes: int) -> Config:
    channels = settings.fpn_channels
    return {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": _extractor(7, channels),
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": channels,
            "fc_out_channels": settings.fc_channels,
            "roi_feat_size": 7,
            "num_classes": n_classes,
            "bbox_coder": _coder(0.1, 0.2),
            "reg_class_agnostic": False,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "mask_roi_extractor": _extractor(14, channels),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": settings.mask_convs,
            "in_channels": channels,
            "conv_out_channels": settings.mask_channels,
            "num_classes": n_classes,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }


def _extractor(size: int, channels: int) -> Config:
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0},
        "out_channels": channels,
        "featmap_strides": list(STRIDES),
    }


def _assigner(positive: float, negative: float, lowest: float) -> Config:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": lowest,
        "match_low_quality": True,
        "ignore_iof_thr": -1,
    }


def _sampler(count: int, fraction: float, add_truth: bool) -> Config:
    return {
        "type": "RandomSampler",
        "num": count,
        "pos_fraction": fraction,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": add_truth,
    }


def _proposals(before: int, kept: int) -> Config:
    nms = {"type": "nms", "iou_threshold": 0.7}
    return {"nms_pre": before, "max_per_img": kept, "nms": nms, "min_bbox_size": 0}


def _coco_train(settings: CocoSettings) -> Config:
    return {
        "rpn": {
            "assigner": _assigner(0.7, 0.3, 0.3),
            "sampler": _sampler(settings.rpn_samples, 0.5, False),
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": _proposals(settings.rpn_pre_nms_train, settings.proposals),
        "rcnn": {
            "assigner": _assigner(0.5, 0.5, 0.5),
            "sampler": _sampler(settings.roi_samples, 0.25, True),
            "mask_size": 28,
            "pos_weight": -1,
            "debug": False,
        },
    }


def _coco_test(settings: CocoSettings) -> Config:
    return {
        "rpn": _proposals(settings.rpn_pre_nms_test, settings.proposals),
        "rcnn": {
            "score_thr": 0.05,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": settings.detections,
            "mask_thr_binary": 0.5,
        },
    }


def upernet(settings: AdeSettings, target: Target, backbone: str) -> Config:
    norm = {"type": "SyncBN", "requires_grad": True}
    shared: Config = {
        "num_classes": len(target.classes),
        "norm_cfg": norm,
        "align_corners": False,
        "dropout_ratio": 0.1,
    }
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False}
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": target.mean_255,
            "std": target.std_255,
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": 255,
            "size": (settings.crop, settings.crop),
        },
        "pretrained": None,
        "backbone": _backbone(target.arch, backbone, norm_cfg=norm, norm_eval=False, contract_dilation=True),
        "decode_head": {
            "type": "UPerHead",
            "in_channels": list(target.arch.channels),
            "in_index": [0, 1, 2, 3],
            "pool_scales": (1, 2, 3, 6),
            "channels": settings.head_channels,
            "loss_decode": {**loss, "loss_weight": 1.0},
            **shared,
        },
        "auxiliary_head": {
            "type": "FCNHead",
            "in_channels": target.arch.channels[2],
            "in_index": 2,
            "channels": settings.auxiliary_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": {**loss, "loss_weight": 0.4},
            **shared,
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
