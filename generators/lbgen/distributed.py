"""Sums over the processes of a data-parallel fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Communicator(Protocol):
    """A group of processes that deal the micro-batches of a step among them."""

    rank: int
    world_size: int

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes; all processes call it in the same order."""


class SingleProcess:
    """The group of one."""

    rank = 0
    world_size = 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are."""


class TorchDistributed:
    """The default torch.distributed group, which the caller has set up (torchrun)."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum in place, one collective per dtype."""
        for dtype in sorted({each.dtype for each in tensors}, key=str):
            group = [each for each in tensors if each.dtype == dtype]
            flat = torch.cat([each.flatten() for each in group])
            torch.distributed.all_reduce(flat)
            for each, part in zip(group, flat.split([each.numel() for each in group]), strict=True):
                each.copy_(part.view_as(each))
