"""Read checkpoints under torch >= 2.6, whose loader unpickles only classes on an allow-list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STATISTICS = ("min", "max", "current", "mean")


def _statistic(owner: object, name: str) -> Any:
    """Return a statistic of mmengine's ``HistoryBuffer``: all that its pickles look up by name.

    Raises:
        UnpicklingError: anything else is asked for.
    """
    import pickle

    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r} is not allowed")
    return getattr(owner, name)


@contextmanager
def resumable() -> Iterator[None]:
    """Allow mmengine's own training checkpoints to be read inside the block.

    They pickle logging history (``HistoryBuffer`` over numpy arrays) and numpy scalars of the schedulers.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    # A buffer lists its statistics as attributes of its class; the real ``getattr`` would reach anything from them.
    # Functions registered under a name lose it when referred to by attribute only, hence the explicit pairs.
    rebuild = np._core.multiarray  # type: ignore[attr-defined]
    allowed = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        rebuild._reconstruct,
        rebuild.scalar,
        (_statistic, "builtins.getattr"),
        *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "b1")),
    ]
    with torch.serialization.safe_globals(allowed):
        yield
