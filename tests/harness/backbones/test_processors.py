"""Image processors of transformers: followed whatever their settings, or refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UserError

BASE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.4] * 3,
        "image_std": [0.3] * 3}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "mean", "std", "crop", "flipped"),
    [
        ({}, 0.4, 0.3, 1.0, False),
        ({"do_normalize": False}, 0.0, 1.0, 1.0, False),
        ({"rescale_factor": 1 / 127.5}, 0.2, 0.15, 1.0, False),
        ({"do_rescale": False}, 0.4 / 255, 0.3 / 255, 1.0, False),
        ({"image_mean": None, "image_std": None}, 0.5, 0.5, 1.0, False),
        ({"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "size": {"shortest_edge": 40},
          "crop_size": {"height": 32, "width": 32}, "do_normalize": False}, 0.0, 1.0, 0.8, True),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875}, 0.4, 0.3, 0.875, False),
    ],
)  # fmt: skip
def test_the_image_processor_of_transformers_is_followed_whatever_its_settings(
    settings: Mapping[str, Any], mean: float, std: float, crop: float, flipped: bool, tmp_path: Path
) -> None:
    from harness.backbones.processors import inputs_of

    feed = {name: value for name, value in {**BASE, **settings}.items() if value is not None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(feed))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    found = inputs_of(tmp_path)
    assert found.mean == pytest.approx((mean,) * 3, rel=1e-3, abs=1e-6) and found.std == pytest.approx(
        (std,) * 3, rel=1e-3
    )
    assert (found.image_size, found.crop, found.flipped) == (32, pytest.approx(crop), flipped)


CROPS: Mapping[str, Any] = {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
                            "image_processor_type": "CLIPImageProcessor"}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "squash"),
        ({"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40}, "do_center_crop": True,
          "crop_size": {"height": 32, "width": 32}}, "squash"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}, "squash"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875}, "center"),
        (CROPS, "center"),
    ],
)  # fmt: skip
def test_a_processor_that_squashes_images_is_told_from_one_that_crops(
    settings: Mapping[str, Any], mode: str, tmp_path: Path
) -> None:
    """The two differ on images that are not square; the probe is one."""
    from harness.backbones.processors import inputs_of

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**BASE, **settings}))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert inputs_of(tmp_path).crop_mode == mode


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image.crop((0, 0, 512, 512)), "middle"),
        (lambda image: image.resize((512, 341)) if image.width > 512 else image, "of an image of 768 x 512"),
    ],
)
def test_a_processor_that_shows_another_part_of_an_image_is_refused(
    change: Callable[..., Any], words: str, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    import numpy as np
    from PIL import Image

    from harness.backbones.processors import measured

    def process(images: list[Any], **_: object) -> Any:
        side = Image.new("RGB", (512, 512))
        changed = change(images[0])
        side.paste(changed, ((512 - changed.width) // 2, (512 - changed.height) // 2))
        return {"pixel_values": np.asarray(side.resize((64, 64)), "float32").transpose(2, 0, 1)[None] / 255}

    class Processor(SimpleNamespace):
        def __call__(self, images: list[Any], **options: object) -> Any:
            return process(images, **options)

    with pytest.raises(UserError, match="cannot be followed") as caught:
        measured(Processor(size={}, resample=2, do_resize=True), tmp_path)
    assert words in caught.value.why


def test_an_image_processor_that_pads_or_does_not_resize_is_refused(tmp_path: Path) -> None:
    from harness.backbones.processors import inputs_of

    crop = {"do_center_crop": True, "crop_size": {"height": 48, "width": 48}, "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 32}}  # fmt: skip
    for settings, words in (({"do_resize": False}, "does not resize"), (crop, "pads")):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**BASE, **settings}))
        (tmp_path / "config.json").write_text('{"model_type": "vit"}')
        with pytest.raises(UserError, match=words):
            inputs_of(tmp_path)
