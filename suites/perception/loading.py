"""Load training items so that neither workers, batch size nor a kill changes them, and no worker outlives its parent.

Imported only after ``bridge.install``: this module needs mmengine.
"""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS

_PR_SET_PDEATHSIG = 1


class BrokenItem(Exception):
    """Name a picture that cannot be used, in one line.

    It takes a single text, because torch rebuilds the exceptions of its loader's workers from their text.
    """

    @property
    def line(self) -> str:
        """Return what was said first, without the traceback that torch puts around it."""
        return str(self).rpartition(f"{type(self).__name__}: ")[2].strip()


def derive(*parts: object) -> int:
    """Hash the parts to a 32-bit seed."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@FUNCTIONS.register_module()
def start_loader(worker_id: int) -> None:
    """Tie a loader's worker to the process that started it.

    A worker that is blocked on the full pipe of a killed process would stay for ever: its siblings keep the pipe's
    other end open. Linux is asked to kill it; elsewhere torch's own watch ends the workers that are not blocked.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent.pid:  # it ended before the request
        os._exit(1)


class SeededItems:
    """Mix into a dataset: index ``visit * len + item``; random state by (seed, visit, item); broken items are named."""

    def __init__(self, *args: Any, item_seed: int = 0, **kwargs: Any) -> None:
        self.item_seed = item_seed
        super().__init__(*args, **kwargs)

    def __getitem__(self, index: int) -> Any:
        visit, item = divmod(index, len(self))  # type: ignore[arg-type]
        python, numpy = random.getstate(), np.random.get_state()
        seed = derive("item", self.item_seed, visit, item)
        random.seed(seed)
        np.random.seed(seed)
        try:
            content = super().__getitem__(item)  # type: ignore[misc]
            self.check(content)
        except Exception as error:
            path = self.get_data_info(item)["img_path"]
            words = " ".join(str(error).split()) or "no reason given"
            raise BrokenItem(f"{path}: {type(error).__name__}, {words}") from error
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
        return content

    def check(self, content: Any) -> None:
        """Refuse an item that was read but cannot be right, by a ValueError."""

    def get_data_info(self, index: int) -> Any:
        """Return one item's description, whatever its visit."""
        return super().get_data_info(index % len(self))  # type: ignore[arg-type,misc]


@DATA_SAMPLERS.register_module()
class VisitSampler(DefaultSampler):
    """Shuffle each epoch by (seed, epoch) and tell the dataset which epoch it is."""

    def __iter__(self) -> Iterator[int]:
        offset = self.epoch * len(self.dataset)
        return (offset + int(index) for index in super().__iter__())


@DATA_SAMPLERS.register_module()
class VisitStream(torch.utils.data.Sampler[int]):
    """Yield endless shuffled passes from sample ``start`` on, so that resuming loads no consumed data."""

    def __init__(self, dataset: Any, seed: int, start: int = 0) -> None:
        self.dataset, self.seed, self.start = dataset, seed, start

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        visit, position = divmod(self.start, size)
        while True:
            order = np.random.default_rng(derive("pass", self.seed, visit)).permutation(size)
            for item in order[position:]:
                yield visit * size + int(item)
            visit, position = visit + 1, 0
