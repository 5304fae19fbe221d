"""This process's place among the processes of one training (torchrun), or alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from harness.core.errors import UserError

TIMEOUT = timedelta(minutes=30)
"""After which a rank gives up waiting for another one."""


@dataclass(frozen=True)
class Ranks:
    """Hold the number of this process, of all processes, and this process's device."""

    rank: int
    world: int
    device: torch.device

    def share(self, batch_size: int) -> np.ndarray:
        """Return this rank's positions in a batch.

        A rank takes a slice from the front and its mirror image from the back, so the partner an image is
        mixed with (its mirror in the batch) is on the same rank and is the same for every world size.

        Raises:
            UserError: The batch cannot be shared so.
        """
        if self.world == 1:
            return np.arange(batch_size)
        if batch_size % (2 * self.world):
            raise UserError(
                f"a batch of {batch_size} cannot be shared by {self.world} processes",
                "each process takes an even part of every batch",
                f"choose a multiple of {2 * self.world} for the batch size",
            )
        part = batch_size // (2 * self.world)
        front = np.arange(self.rank * part, (self.rank + 1) * part)
        return np.concatenate([front, batch_size - 1 - front[::-1]])

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank."""
        if self.world == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value > 0)


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment describes, for the length of the block.

    The device of a rank is `cuda:LOCAL_RANK` when `device` is "cuda"; the backend is nccl there, gloo on CPU.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, torch.device(device))
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    started = not dist.is_initialized()
    if started:
        # Those that start the ranks notice one that hangs earlier, and say which; this is for ranks that somebody else has started.
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), world, place)
    finally:
        if started:
            dist.destroy_process_group()
