"""Resolve the two frozen recipes to plain dictionaries that mmengine's Runner takes, with no look-up by name.

Every value is the stock config's, spelled out; what a profile may shrink comes from the settings. Only paths
differ between machines, so the hash of a config is taken with placeholder paths.
"""

from __future__ import annotations

from suites.perception.cards import AdeCard, CocoCard
from suites.perception.jobs import Places, Target
from suites.perception.networks import Config, mask_rcnn, upernet
from suites.perception.settings import BASE_BATCH, AdeSettings, CocoSettings


def coco_config(settings: CocoSettings, card: CocoCard, target: Target, places: Places, seed: int) -> Config:
    """Resolve the Mask R-CNN run: model, data, schedule, evaluation dump."""
    return {
        "model": mask_rcnn(settings, target, places.backbone),
        "train_dataloader": {
            "batch_size": settings.batch_size,
            **_workers(settings.workers),
            "sampler": {"type": "VisitSampler", "shuffle": True, "seed": seed},
            "batch_sampler": {"type": "AspectRatioBatchSampler"},
            "dataset": {
                "type": "SeededCoco",
                "item_seed": seed,
                "data_root": places.root,
                "ann_file": places.train_list,
                "data_prefix": {"img": card.train_folder},
                "metainfo": {"classes": target.classes},
                "filter_cfg": {"filter_empty_gt": True, "min_size": settings.min_side},
                "pipeline": _coco_pipeline(settings, train=True),
            },
        },
        "val_dataloader": {
            "batch_size": 1,
            **_workers(settings.workers),
            "drop_last": False,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {
                "type": "SeededCoco",
                "data_root": places.root,
                "ann_file": card.val_json,
                "data_prefix": {"img": card.val_folder},
                "metainfo": {"classes": target.classes},
                "test_mode": True,
                "pipeline": _coco_pipeline(settings, train=False),
            },
        },
        "val_evaluator": {
            "type": "CocoMetric",
            "ann_file": f"{places.root}/{card.val_json}",
            "metric": ["bbox", "segm"],
            "format_only": True,
            "outfile_prefix": places.results,
        },
        "train_cfg": {
            "type": "EpochBasedTrainLoop",
            "max_epochs": settings.epochs,
            "val_interval": settings.epochs,
            "val_begin": settings.epochs,
        },
        "optim_wrapper": _optimizer(settings),
        "param_scheduler": [
            {
                "type": "LinearLR",
                "start_factor": 0.001,
                "by_epoch": False,
                "begin": 0,
                "end": settings.warmup_iterations,
            },
            {
                "type": "MultiStepLR",
                "begin": 0,
                "end": settings.epochs,
                "by_epoch": True,
                "milestones": list(settings.milestones),
                "gamma": 0.1,
            },
        ],
        **_runtime("mmdet", seed),
    }


def ade_config(
    settings: AdeSettings, card: AdeCard, target: Target, places: Places, seed: int, fraction: float
) -> Config:
    """Resolve the UperNet run; iterations, horizon and intervals scale with the fraction."""
    total = settings.total_iterations(fraction)
    return {
        "model": upernet(settings, target, places.backbone),
        "train_dataloader": {
            "batch_size": settings.batch_size,
            **_workers(settings.workers),
            "sampler": {"type": "VisitStream", "seed": seed, "start": 0},
            "dataset": {
                **_ade_dataset(settings, card, target, places, train=True),
                "ann_file": places.train_list,
                "item_seed": seed,
            },
        },
        "val_dataloader": {
            "batch_size": 1,
            **_workers(settings.workers),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {**_ade_dataset(settings, card, target, places, train=False), "test_mode": True},
        },
        "val_evaluator": {"type": "PixelCounts", "rows_file": places.results},
        "train_cfg": {"type": "StreamLoop", "max_iters": total, "val_interval": total, "val_begin": total},
        "optim_wrapper": _optimizer(settings),
        "param_scheduler": _poly(settings, total),
        **_runtime("mmseg", seed),
    }


def _runtime(scope: str, seed: int) -> Config:
    return {
        "val_cfg": {"type": "ValLoop"},
        "default_scope": scope,
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}},
        "randomness": {"seed": seed, "deterministic": False},
        "log_level": "WARNING",
        "default_hooks": {"logger": None, "checkpoint": None},
    }


def _workers(count: int) -> Config:
    return {"num_workers": count, "persistent_workers": count > 0, "worker_init_fn": {"type": "start_loader"}}


def _optimizer(settings: CocoSettings | AdeSettings) -> Config:
    lr = settings.lr * settings.batch_size / BASE_BATCH
    inner: Config = {"type": settings.optimizer, "lr": lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "SGD":
        inner["momentum"] = settings.momentum
    else:
        inner["betas"] = settings.betas
    wrapper: Config = {"type": "OptimWrapper", "optimizer": inner, "clip_grad": None}
    rules: Config = {}
    if not settings.decay_norms:
        rules["norm_decay_mult"] = 0.0
    if settings.backbone_lr != 1:
        rules["custom_keys"] = {"backbone": {"lr_mult": settings.backbone_lr}}
    if rules:
        wrapper["paramwise_cfg"] = rules
    return wrapper


def _poly(settings: AdeSettings, total: int) -> list[Config]:
    warmup = settings.warmup_iterations
    poly: Config = {
        "type": "PolyLR",
        "eta_min": settings.lr_end,
        "power": settings.poly_power,
        "begin": warmup,
        "end": total,
        "by_epoch": False,
    }
    linear: Config = {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": warmup}
    return [linear, poly] if warmup else [poly]


def _coco_pipeline(settings: CocoSettings, train: bool) -> list[Config]:
    resize = {"type": "Resize", "scale": (settings.image_long, settings.image_short), "keep_ratio": True}
    if train:
        return [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
            resize,
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ]
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [{"type": "LoadImageFromFile"}, resize, {"type": "PackDetInputs", "meta_keys": keys}]


def _ade_dataset(settings: AdeSettings, card: AdeCard, target: Target, places: Places, train: bool) -> Config:
    images, labels = (card.train_folder, card.train_labels) if train else (card.val_folder, card.val_labels)
    resize: Config = {"scale": (settings.image_long, settings.image_short), "keep_ratio": True}
    load = [{"type": "LoadImageFromFile"}]
    annotations = {"type": "LoadAnnotations", "reduce_zero_label": True}
    if train:
        pipeline: list[Config] = [
            *load,
            annotations,
            {"type": "RandomResize", **resize, "ratio_range": (settings.scale_low, settings.scale_high)},
            {"type": "RandomCrop", "crop_size": (settings.crop, settings.crop), "cat_max_ratio": 0.75},
            {"type": "RandomFlip", "prob": 0.5},
            _distortion(settings.distortion),
            {"type": "PackSegInputs"},
        ]
    else:
        # Labels load after the resize: they are compared at their own size.
        pipeline = [*load, {"type": "Resize", **resize}, annotations, {"type": "PackSegInputs"}]
    return {
        "type": "SeededAde",
        "data_root": places.root,
        "data_prefix": {"img_path": images, "seg_map_path": labels},
        "metainfo": {"classes": target.classes},
        "pipeline": pipeline,
    }


def _distortion(strength: float) -> Config:
    """Return mmsegmentation's photometric distortion, its ranges shrunk by ``strength``."""
    if strength == 1:
        return {"type": "PhotoMetricDistortion"}
    spread = (1 - 0.5 * strength, 1 + 0.5 * strength)
    return {
        "type": "PhotoMetricDistortion",
        "brightness_delta": round(32 * strength),
        "contrast_range": spread,
        "saturation_range": spread,
        "hue_delta": max(1, round(18 * strength)),
    }
