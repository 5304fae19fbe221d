"""Geometry and the prediction loop."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.errors import UserError
from suites.bias.images import Geometry, _check_outputs, predict


def test_resize_crop_equals_torchvision():
    from PIL import Image
    from torchvision.transforms import CenterCrop, Resize

    rng = np.random.default_rng(0)
    for size in ((301, 224), (97, 260), (64, 64), (225, 223), (40, 33)):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        expected = np.asarray(CenterCrop(64)(Resize(64)(image)))
        assert (Geometry("resize-crop", 64).apply(image, "x") == expected).all(), size


def test_stored_geometry_changes_nothing_and_refuses_other_sizes():
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert (Geometry("stored", 224).apply(Image.fromarray(pixels), "x") == pixels).all()
    with pytest.raises(UserError, match="x is 224x224 pixels"):
        Geometry("stored", 256).apply(Image.fromarray(pixels), "x")


def test_batch_size_changes_no_decision(tmp_path, save_image, untrained_network):
    names = [save_image(tmp_path / f"{i}.png", (i * 9, 255 - i * 9, 40), noise=i + 1).name for i in range(23)]
    model = untrained_network([f"c{i}" for i in range(10)])
    runs = [predict(model, tmp_path, names, Geometry("stored", 24), batch_size=size) for size in (1, 7, 64)]
    for run in runs[1:]:
        assert np.abs(run.logits - runs[0].logits).max() < 1e-4
        assert (run.top1 != runs[0].top1).sum() <= 2


def test_inputs_are_rgb_fractions_in_file_order(tmp_path, save_image):
    import torch

    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    names = [save_image(tmp_path / f"{i}.png", colour).name for i, colour in enumerate(colours)]

    class Mean:
        classes, image_size, interpolation = ("r", "g", "b"), 0, "bilinear"

        def __call__(self, images):
            assert float(images.min()) >= 0 and float(images.max()) <= 1
            return images.mean(dim=(2, 3))

    run = predict(Mean(), tmp_path, names, Geometry("stored", 24), batch_size=2)
    assert torch.equal(torch.from_numpy(run.logits), torch.eye(3))
    assert run.columns()["top1"].tolist() == ["r", "g", "b"]
    assert run.columns()["top5"][0] == "r g b"


def test_logits_that_are_not_finite_are_no_call_to_train_a_model_that_nobody_trained_here() -> None:
    with pytest.raises(
        UserError, match=r"(?s)outputs for b\.png are not finite.*function that gives the logits"
    ) as caught:
        _check_outputs(np.array([[0.0, 1.0], [np.nan, 0.0]], np.float32), ["x", "y"], ["a.png", "b.png"])
    assert "correct that function, or fetch or train" in caught.value.fix
