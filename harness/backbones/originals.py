"""Training from the original files: every image is decoded, cropped and resized anew in every epoch, as torchvision does.

The training copy (`harness.images.copy`) is many times faster, but its random crops are cut from a resized centre square, so
that they never see the ends of the longer side and a small crop has fewer pixels than the file holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from harness.backbones.augment import draw_crops
from harness.backbones.recipe import PretrainSettings
from harness.images.copy import ImageSource
from harness.images.decode import decode


class Originals:
    """Random crops of a data set's files at the training resolution.

    What is drawn for an image is a function of (seed, epoch, sample), as for the training copy.

    Args:
        source: The images.
        classes: Ordered class ids.
        settings: Crop area and image size.
        seed: Training seed.
        threads: Decoding threads; change no result.

    Attributes:
        labels: (n,) int64, positions in `classes`.
        cropped: True; the augmentation neither crops nor mirrors them again.
    """

    cropped = True

    def __init__(
        self, source: ImageSource, classes: Sequence[str], settings: PretrainSettings, seed: int, threads: int = 1
    ) -> None:
        self._source, self._settings, self._seed = source, settings, seed
        self.classes = tuple(classes)
        self.labels = np.asarray(source.labels, dtype=np.int64)
        self._pool = ThreadPoolExecutor(threads)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """Return the crops of some sample numbers (n,) in one epoch: (n, S, S, 3) uint8, half of them mirrored.

        Raises:
            UserError: A file cannot be decoded.
        """
        images = list(self._pool.map(self._decode, samples.tolist()))
        widths, heights = np.array([image.size for image in images]).T
        crops = draw_crops(self._seed, epoch, samples, heights, widths, self._settings.crop_area)
        size = self._settings.image_size
        cut = np.empty((len(samples), size, size, 3), dtype=np.uint8)
        for i, image in enumerate(images):
            left, top = int(crops.left[i]), int(crops.top[i])
            box = (left, top, left + int(crops.width[i]), top + int(crops.height[i]))
            pixels = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC))
            cut[i] = pixels[:, ::-1] if crops.mirrored[i] else pixels
        return cut

    def _decode(self, index: int) -> Image.Image:
        return decode(self._source.read(index), self._source.names[index])
