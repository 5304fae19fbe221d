"""Training from the original files: torchvision's crops, whatever the batch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from harness.backbones.augment import Augment, Crops, crop_resize, draw_crops
from harness.backbones.originals import Originals
from harness.backbones.recipe import PretrainSettings

SETTINGS = PretrainSettings(arch="resnet10", image_size=16, epochs=1, warmup_epochs=0, batch_size=4)


class Files:
    """Pictures in memory, each with a size of its own."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        rng = np.random.default_rng(0)
        self.images = [rng.integers(80, 176, (height, width, 3), dtype=np.uint8) for width, height in sizes]
        self.names = [f"{i}.png" for i in range(len(sizes))]
        self.labels = [i % 2 for i in range(len(sizes))]

    def read(self, index: int) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(self.images[index]).save(stream, "PNG")
        return stream.getvalue()


def test_crops_of_rectangles_lie_inside_and_have_the_recipes_areas_and_aspects() -> None:
    samples = np.arange(3000)
    heights, widths = np.full(3000, 80), np.full(3000, 120)
    c = draw_crops(5, 1, samples, heights, widths, (0.08, 1.0))
    assert (
        (c.top >= 0).all()
        and (c.top + c.height <= 80).all()
        and (c.left >= 0).all()
        and (c.left + c.width <= 120).all()
    )
    area, aspect = c.height * c.width / (80 * 120), c.width / c.height
    assert area.min() > 0.07 and area.max() <= 1 and aspect.min() > 0.7 and aspect.max() < 1.4
    assert c.left.max() > 40  # the ends of the longer side are seen
    # Statistics of torchvision's own draws.
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    theirs = np.array(
        [RandomResizedCrop.get_params(torch.zeros(3, 80, 120), [0.08, 1.0], [3 / 4, 4 / 3]) for _ in samples]
    )
    for mine, other in zip((c.top, c.left, c.height, c.width), theirs.T, strict=True):
        assert abs(mine.mean() - other.mean()) < 5 * other.std() / np.sqrt(1500)


def test_images_too_long_for_any_try_get_the_largest_centred_crop_of_an_allowed_aspect() -> None:
    wide = draw_crops(0, 0, np.arange(50), np.full(50, 10), np.full(50, 400), (0.9, 1.0))
    assert set(wide.height) == {10} and set(wide.width) == {13} and set(wide.left) == {(400 - 13) // 2}
    tall = draw_crops(0, 0, np.arange(50), np.full(50, 400), np.full(50, 10), (0.9, 1.0))
    assert set(tall.width) == {10} and set(tall.height) == {13} and set(tall.top) == {(400 - 13) // 2}


def test_squares_give_what_the_training_copy_gives() -> None:
    files = Files([(32, 32)] * 8)
    samples = np.arange(8)
    mine = Originals(files, ("a", "b"), SETTINGS, seed=3).read(samples, 2)
    side = np.full(8, 32)
    crops = draw_crops(3, 2, samples, side, side, SETTINGS.crop_area)
    theirs = crop_resize(torch.from_numpy(np.stack(files.images)), crops, 16).permute(0, 2, 3, 1).numpy()
    assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= 1  # Pillow rounds between its two passes


def test_crops_depend_on_neither_batch_nor_threads_and_differ_between_epochs() -> None:
    files = Files([(40, 30), (30, 50), (33, 33), (90, 20)])
    one, many = (Originals(files, ("a", "b"), SETTINGS, seed=1, threads=threads) for threads in (1, 3))
    whole = one.read(np.arange(4), 0)
    for i in range(4):
        assert (many.read(np.array([i]), 0)[0] == whole[i]).all()
    assert (one.read(np.arange(4), 1) != whole).any()


def test_cropped_images_are_not_cropped_again() -> None:
    settings = PretrainSettings(
        arch="resnet10", image_size=16, epochs=1, warmup_epochs=0, batch_size=4, randaugment_ops=0
    )
    batch = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    augment = Augment(settings, 2, 0, torch.device("cpu"), cropped=True)
    assert torch.equal(augment.pixels(batch, np.arange(4), 0), batch.permute(0, 3, 1, 2))
    assert isinstance(draw_crops(0, 0, np.arange(2), np.full(2, 9), np.full(2, 9), (0.5, 1.0)), Crops)


@pytest.mark.parametrize("value", [1, 7, -1])
def test_copy_px_is_a_side_or_zero(value: int) -> None:
    from pydantic import ValidationError

    from harness.plan.profile import DatasetSettings

    with pytest.raises(ValidationError):
        DatasetSettings(copy_px=value)
    assert DatasetSettings(copy_px=0).copy_px == 0
