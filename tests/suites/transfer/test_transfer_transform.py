"""The evaluation transform and the features it leads to."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from harness.core.errors import UserError
from harness.images.decode import to_rgb
from suites.transfer.features import extract_features
from suites.transfer.transforms import EvalTransform, eval_transform, load_pixels, probe_transform

TRANSFORM = EvalTransform("t", 48, 48)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def test_transfer_transform_grey_known_answer():
    pixels = probe_transform()(Image.new("RGB", (300, 260), (128, 128, 128)))
    assert pixels.shape == (3, 224, 224) and pixels.dtype == np.float32
    normalised = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    assert np.allclose(normalised.min(axis=(1, 2)), [0.0741, 0.2052, 0.4265], atol=1e-4)
    assert np.allclose(normalised.max(axis=(1, 2)), [0.0741, 0.2052, 0.4265], atol=1e-4)


def test_transfer_transform_sizes():
    probe = probe_transform()
    assert probe.resized(500, 300) == (373, 224)
    assert probe.resized(300, 500) == (224, 373)
    assert probe.resized(64, 64) == (224, 224)
    assert probe(Image.new("RGB", (500, 300))).shape == probe(Image.new("RGB", (64, 64))).shape == (3, 224, 224)


def test_transfer_transform_ids_differ():
    assert (probe_transform().id, eval_transform().id) == ("probe224", "eval256")
    assert (eval_transform().resize_short, eval_transform().crop) == (256, 224)
    for size in (32, 64, 224):
        assert probe_transform(size).id != eval_transform(size).id
        assert eval_transform(size).crop == size < eval_transform(size).resize_short


def test_transfer_transform_matches_torchvision():
    from torchvision import transforms

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (97, 151, 3), dtype=np.uint8))
    for transform in (probe_transform(64), eval_transform(56)):
        other = transforms.Compose(
            [
                transforms.Resize(transform.resize_short, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(transform.crop),
            ]
        )
        expected = np.asarray(other(image)).transpose(2, 0, 1).astype(np.float32) / 255
        assert np.array_equal(transform(image), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1", "I;16"])
def test_transfer_transform_modes(mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((30, 40), 300, dtype=np.uint16))
    else:
        image = Image.new("RGB", (40, 30), (200, 200, 200)).convert(mode)
    pixels = probe_transform(32)(to_rgb(image))
    assert pixels.shape == (3, 32, 32) and 0 <= pixels.min() <= pixels.max() <= 1
    if mode in ("L", "RGBA", "LA"):
        assert np.allclose(pixels, 200 / 255, atol=2e-3)


def _file(tmp_path, form, keep):
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    path = tmp_path / f"x.{form.lower()}"
    path.write_bytes(stream.getvalue()[: int(keep * len(stream.getvalue()))])
    return path


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_file_is_completed_as_by_the_switch_of_the_decoder(tmp_path, form, monkeypatch):
    path = _file(tmp_path, form, 0.6)
    pixels, reason = load_pixels(path, TRANSFORM, complete=True)
    assert reason and pixels.std() > 0.05  # the decoded part is there
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(path) as tolerant:
        assert np.array_equal(pixels, TRANSFORM(tolerant.convert("RGB")))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    assert isinstance(load_pixels(path, TRANSFORM, complete=False), UserError)


def test_a_whole_file_has_no_reason_and_what_is_no_image_gives_an_error(tmp_path):
    assert load_pixels(_file(tmp_path, "JPEG", 1.0), TRANSFORM, complete=True)[1] == ""
    (tmp_path / "bad.jpg").write_bytes(b"no image at all")
    assert "bad.jpg cannot be read" in load_pixels(tmp_path / "bad.jpg", TRANSFORM, complete=True).what


class Mean:
    """Features that tell images and kinds apart: channel means at four corners."""

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        assert kind == "pooled" and x.dtype == torch.float32 and float(x.max()) <= 1
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def _folder(tmp_path, save_image, count):
    paths = [f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        save_image(tmp_path / path, i, size=(20 + i, 20))
    return paths


def test_transfer_features_order_batch_and_workers(tmp_path, save_image):
    paths = _folder(tmp_path, save_image, 11)
    labels, transform = np.arange(11), EvalTransform("t", 16, 16)
    told = []
    runs = [
        extract_features(
            Mean(),
            tmp_path,
            paths,
            labels,
            transform,
            batch_size=b,
            workers=w,
            progress=lambda done, total: told.append((done, total)),
        )
        for b, w in ((11, 1), (3, 1), (4, 3))
    ]
    assert runs[0].x.shape == (11, 12) and runs[0].x.dtype == np.float32 and runs[0].labels.tolist() == list(range(11))
    for run in runs[1:]:
        assert np.abs(run.x - runs[0].x).max() <= 1e-4
    alone = extract_features(Mean(), tmp_path, paths[7:8], labels[7:8], transform)
    assert np.allclose(alone.x[0], runs[0].x[7], atol=1e-6)
    assert (11, 11) in told and told[1:5] == [(3, 11), (6, 11), (9, 11), (11, 11)]


def test_transfer_features_count_truncated_files_and_name_all_unusable_ones(tmp_path, save_image):
    paths = _folder(tmp_path, save_image, 8)
    whole = (tmp_path / paths[5]).read_bytes()
    (tmp_path / paths[5]).write_bytes(whole[: len(whole) // 2])
    found = extract_features(Mean(), tmp_path, paths, np.zeros(8), probe_transform(16), batch_size=3)
    assert len(found.x) == 8 and len(found.truncated) == 1 and found.truncated[0].startswith(f"{paths[5]} (")
    assert found.notes == (f"1 file(s) truncated, decoded part used: {found.truncated[0]}",)
    (tmp_path / paths[2]).write_bytes(b"broken")
    with pytest.raises(UserError, match=f"{paths[2]} cannot be read as an image"):
        extract_features(Mean(), tmp_path, paths, np.zeros(8), probe_transform(16), batch_size=3)
    (tmp_path / paths[7]).write_bytes(b"broken")
    with pytest.raises(UserError, match="2 files cannot be used") as caught:
        extract_features(Mean(), tmp_path, paths, np.zeros(8), probe_transform(16), batch_size=3, workers=2)
    assert paths[2] in caught.value.why and paths[7] in caught.value.why


def test_transfer_features_must_be_finite(tmp_path, save_image):
    class Broken:
        def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
            return torch.full((len(x), 2), float("nan"))

    with pytest.raises(UserError, match="not finite"):
        extract_features(Broken(), tmp_path, _folder(tmp_path, save_image, 2), np.zeros(2), probe_transform(16))
