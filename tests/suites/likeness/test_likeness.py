"""The parts of the suite `images` against values worked out by hand, and controls whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.fft import idctn

from harness.core.errors import DataMissing, UserError
from harness.core.resources import resolve_path
from suites.likeness import neighbours as module
from suites.likeness.duplicates import near_duplicates, perceptual_hash
from suites.likeness.encoders import load_encoder
from suites.likeness.neighbours import mean_distances, neighbours, radii, unit_features
from suites.likeness.origin import origin_correct
from suites.likeness.sampling import draw_samples


def line(*values: float) -> Any:
    return np.asarray(values, dtype=float)[:, None]


def test_points_on_a_line_give_the_values_worked_out_by_hand() -> None:
    """Real 0 1 3 7 with k = 1: radii 1 1 2 4, so balls [-1,1] [0,2] [1,5] [3,11]. Images 0.5 4 20 21: radii 3.5 3.5 1 1."""
    real, images = line(0, 1, 3, 7), line(0.5, 4, 20, 21)
    assert np.sqrt(radii(real, 1)).tolist() == [1, 1, 2, 4]
    assert np.sqrt(radii(images, 1)).tolist() == [3.5, 3.5, 1, 1]
    found = neighbours(real, images, 1, 1)
    assert found.density.tolist() == [2, 2, 0, 0]  # 0.5 lies in the first two balls, 4 in the last two
    assert found.precision.tolist() == [1, 1, 0, 0]
    assert found.coverage.tolist() == [1, 1, 1, 1]  # 0.5 in the first and second, 4 in the third and fourth
    assert found.recall.tolist() == [1, 1, 1, 1]  # [-3, 4] holds 0 1 3, [0.5, 7.5] holds 7
    with_two = neighbours(real, images, 2, 2)  # radii 3 2 3 6: balls [-3,3] [-1,3] [0,6] [1,13]
    assert (with_two.density * 2).tolist() == [3, 2, 0, 0]
    assert with_two.coverage.tolist() == [1, 1, 1, 1]


def test_a_ball_is_closed_and_an_image_is_not_its_own_neighbour() -> None:
    found = neighbours(line(0, 1, 10), line(1, 11, 40), 1, 1)  # radii 1 1 9: balls [-1,1] [0,2] [1,19]
    assert found.density.tolist() == [3, 1, 0]
    assert found.coverage.tolist() == [1, 1, 1]
    copies = neighbours(
        line(0, 0, 5), line(0, 9, 30), 1, 1
    )  # an exact copy is its neighbour at distance 0; third ball [0, 10]
    assert copies.density.tolist() == [3, 1, 0]


def test_one_outlier_among_the_images_fools_recall_but_neither_density_nor_coverage() -> None:
    real, near = line(*range(10)), line(*(100 + i for i in range(10)))
    alone = neighbours(real, near, 1, 1)
    assert alone.recall.mean() == alone.coverage.mean() == alone.density.mean() == 0
    found = neighbours(real, np.concatenate([near[:9], line(-300)]), 1, 1)
    assert found.recall.mean() == 1 and found.coverage.mean() == found.density.mean() == 0


def test_equal_distributions_give_the_expected_values_and_a_shift_lowers_them() -> None:
    rng = np.random.default_rng(0)
    real, same = (rng.normal(size=(800, 4)) for _ in range(2))
    alike = neighbours(real, same)
    assert alike.density.mean() == pytest.approx(1, abs=0.07)
    assert alike.coverage.mean() == pytest.approx(1 - 2**-5, abs=0.02)
    assert alike.precision.mean() > 0.85 and alike.recall.mean() > 0.85
    shifted = neighbours(real, same + 1.5)
    for name in ("density", "coverage", "precision", "recall"):
        assert getattr(shifted, name).mean() < getattr(alike, name).mean() - 0.15, name
    narrow = neighbours(real, same * 0.2)
    assert narrow.precision.mean() > 0.98 and narrow.recall.mean() < 0.3 and narrow.coverage.mean() < 0.5


def test_neighbours_do_not_depend_on_order_or_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    real, images = (unit_features(rng.normal(size=(200, 16))) for _ in range(2))
    whole = neighbours(real, images)
    monkeypatch.setattr(module, "_BLOCK", 7)
    one, other = rng.permutation(200), rng.permutation(200)
    mixed = neighbours(real[one], images[other])
    assert (mixed.density == whole.density[other]).all() and (mixed.precision == whole.precision[other]).all()
    assert (mixed.coverage == whole.coverage[one]).all() and (mixed.recall == whole.recall[one]).all()


@pytest.mark.parametrize(("real", "images"), [(8, 9), (9, 8), (5, 5)])
def test_samples_of_unequal_size_or_fewer_than_the_neighbours_are_refused(real: int, images: int) -> None:
    with pytest.raises(ValueError, match="equally many are compared, and more than 5"):
        neighbours(line(*range(real)), line(*range(images)))


def test_mean_distances_are_those_between_pairs() -> None:
    found = mean_distances(np.asarray([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    assert found.tolist() == [1.5, 1.0, 1.5]  # cosine distances 1, 2 and 1
    assert np.isnan(mean_distances(np.ones((1, 2)))).all()
    assert np.abs(mean_distances(np.ones((3, 2)))).max() < 1e-12


class Source:
    """Images in memory: name to content; the class is the first letter."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.names = list(files)
        self.labels = ["ab".index(name[0]) for name in files]
        self._contents = list(files.values())

    def read(self, index: int) -> bytes:
        return self._contents[index]


def files(prefix: str, counts: dict[str, int]) -> dict[str, bytes]:
    return {f"{c}/{prefix}{i}": f"{prefix} {c} {i}".encode() for c, count in counts.items() for i in range(count)}


def chosen(real: Source, images: Source, per_class: int) -> tuple[list[str], list[str], list[int]]:
    found = draw_samples(real, images, ["a", "b"], per_class)
    return [real.names[i] for i in found.real], [images.names[i] for i in found.images], list(found.labels)


def test_at_most_half_of_the_real_images_and_equally_many_of_each_class_are_drawn() -> None:
    real, images = Source(files("r", {"a": 9, "b": 40})), Source(files("g", {"a": 30, "b": 6}))
    one, other, labels = chosen(real, images, 10)
    assert labels == [0] * 4 + [1] * 6 and len(one) == len(other) == len(set(one)) == len(set(other)) == 10
    assert [name[0] for name in one] == [name[0] for name in other] == list("aaaabbbbbb")


def test_real_images_are_compared_with_other_real_images() -> None:
    real = Source(files("r", {"a": 12, "b": 12}))
    renamed = Source({f"{name}-again": real.read(i) for i, name in enumerate(real.names)})
    for images in (real, renamed):
        one, other, labels = chosen(real, images, 50)
        assert labels == [0] * 6 + [1] * 6
        assert not {*one} & {name.removesuffix("-again") for name in other}


def test_the_samples_do_not_depend_on_the_order_of_the_lists_and_a_smaller_one_is_part_of_a_larger() -> None:
    made, listed = files("g", {"a": 20, "b": 20}), files("r", {"a": 20, "b": 20})
    forward = chosen(Source(listed), Source(made), 8)
    assert forward == chosen(Source(dict(reversed(listed.items()))), Source(dict(reversed(made.items()))), 8)
    small = chosen(Source(listed), Source(made), 3)
    assert set(small[0]) < set(forward[0]) and set(small[1]) < set(forward[1])


def drawing(number: int, side: int = 96) -> Image.Image:
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = sorted(rng.integers(0, side, 2)), sorted(rng.integers(0, side, 2))
        pen.ellipse((x[0], y[0], x[1] + 8, y[1] + 8), fill=tuple(rng.integers(0, 256, 3)))
    return picture


def test_the_perceptual_hash_is_the_signs_of_the_low_frequencies() -> None:
    table = np.zeros((32, 32))
    table[0, 0] = 32 * 128
    wanted = np.random.default_rng(5).permutation(63)  # an order of the frequencies, so that the median is known
    table[:8, :8].flat[1:] = (wanted - 31) * 8.0
    low = np.rint(idctn(table, norm="ortho"))
    assert low.min() >= 0 and low.max() <= 255
    image = Image.fromarray(np.repeat(low.astype(np.uint8)[..., None], 3, axis=2))
    bits = f"{perceptual_hash(image):063b}"
    clear = np.abs(wanted - 31) > 1  # values beside the median are below the rounding to grey levels
    assert [bit == "1" for bit, sure in zip(bits, clear, strict=True) if sure] == (wanted > 31)[clear].tolist()


def test_a_copy_in_another_codec_and_size_is_a_near_duplicate_and_another_picture_is_not(tmp_path: Path) -> None:
    pictures = [drawing(number) for number in range(30)]
    pictures[3].save(tmp_path / "copy.jpg", quality=60)
    pictures += [
        Image.open(tmp_path / "copy.jpg"),
        pictures[8].resize((64, 64)),
        pictures[9].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]
    hashes = np.asarray([perceptual_hash(each) for each in pictures], dtype=np.uint64)
    assert np.flatnonzero(near_duplicates(hashes)).tolist() == [3, 8, 30, 31]


def test_hashes_are_compared_bit_by_bit() -> None:
    hashes = np.asarray([0b0, 0b11, 0b111000, 0b1111111000], dtype=np.uint64)
    assert near_duplicates(hashes, 2).tolist() == [True, True, False, False]
    assert near_duplicates(hashes, 1).tolist() == [False] * 4
    assert near_duplicates(hashes, 4).tolist() == [True, True, True, True]


def test_the_origin_of_images_that_are_alike_is_not_recognised_and_that_of_others_is() -> None:
    rng = np.random.default_rng(2)
    real, same = (rng.normal(size=(400, 16)) for _ in range(2))
    alike = origin_correct(real, same)
    assert alike.shape == (800,) and abs(alike.mean() - 0.5) < 0.06
    assert origin_correct(real, same + 3).mean() > 0.99
    slightly = origin_correct(real, same + np.eye(16)[0])
    assert 0.6 < slightly.mean() < 0.8 and abs(slightly[:400].mean() - slightly[400:].mean()) < 0.1


def test_a_feature_that_only_one_half_has_does_not_help() -> None:
    """Were an image judged by a classifier that had seen it, a feature of its own would give its origin away."""
    n = 40
    features = np.eye(2 * n)
    found = origin_correct(features[:n], features[n:])
    assert 0.3 < found.mean() < 0.7


CLIP = str(resolve_path("package:harness.microworld/weights/clip_large"))


def test_features_do_not_depend_on_batch_or_neighbours() -> None:
    encoder = load_encoder(CLIP, "cpu")
    pictures = [drawing(number, 64) for number in range(9)]
    whole = unit_features(encoder.features(pictures))
    few = unit_features(encoder.features(pictures, batch=4))
    back = unit_features(encoder.features(pictures[::-1]))[::-1]
    assert np.abs(whole - few).max() <= 1 and (whole == back).all()
    assert encoder.texts(["photo of star", "photo of ring"]).shape == (2, whole.shape[1])


def test_a_timm_model_is_read_from_its_folder_and_has_no_text(tmp_path: Path) -> None:
    import timm
    import torch
    from timm.models import save_for_hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = timm.create_model("test_resnet", num_classes=5).eval()
    save_for_hf(
        model, tmp_path, model_config={"architecture": "test_resnet", "num_classes": 5}, safe_serialization="both"
    )
    encoder = load_encoder(str(tmp_path), "cpu")
    found = encoder.features([drawing(1), drawing(2)])
    assert found.shape == (2, model.num_features) and np.abs(found[0] - found[1]).max() > 0
    with pytest.raises(UserError, match="names no CLIP"):
        encoder.texts(["a"])


def test_an_encoder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no encoder at"):
        load_encoder(str(tmp_path), "cpu")
    with pytest.raises(DataMissing, match="cannot load the encoder timm:nonesuch"):
        load_encoder("timm:nonesuch", "cpu")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises((DataMissing, UserError)):
        load_encoder(str(tmp_path), "cpu")
