"""Read checkpoints under torch >= 2.6, whose loader unpickles only classes on an allow-list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def resumable() -> Iterator[None]:
    """Allow mmengine's own training checkpoints to be read inside the block.

    They pickle logging history (``HistoryBuffer`` over numpy arrays) and numpy scalars of the schedulers.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    # Functions registered under a name lose it when referred to by attribute only, hence the explicit pairs.
    rebuild = np._core.multiarray  # type: ignore[attr-defined]
    allowed = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        rebuild._reconstruct,
        rebuild.scalar,
        getattr,
        *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "b1")),
    ]
    with torch.serialization.safe_globals(allowed):
        yield
