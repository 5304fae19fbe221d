"""Pooled features of image lists under a frozen classifier."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from harness.api import UserError, refuse_files
from suites.transfer.transforms import EvalTransform, load_pixels

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

_AHEAD = 2


class FeatureModel(Protocol):
    """What feature extraction needs from a classifier: pooled features of RGB in [0, 1], in eval mode, without gradients."""

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        """Return (B, d) features of (B, 3, H, W) images; ``kind`` is ``pooled``, ``cls`` or ``gap``."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one image list, in its order."""

    x: npt.NDArray[np.float32]
    """(n, d)."""
    labels: npt.NDArray[np.int64]
    """(n,)."""
    truncated: tuple[str, ...] = ()
    """Files that ended early, of which the decoded part was used, each with the decoder's reason."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes for a record: the number of truncated files with the first names."""
        shown = ", ".join(self.truncated[:3]) + (" ..." if len(self.truncated) > 3 else "")
        return (f"{len(self.truncated)} file(s) truncated, decoded part used: {shown}",) if self.truncated else ()


def image_batches(
    root: Path,
    paths: Sequence[str],
    transform: EvalTransform,
    *,
    batch_size: int,
    workers: int,
    complete: bool,
    read: Callable[[str], bytes] | None = None,
) -> Iterator[tuple[npt.NDArray[np.float32], list[str]]]:
    """Yield ((B, 3, H, W) float32 in [0, 1], [why a file is truncated]) in order, decoding ahead in threads.

    ``read`` returns the encoded bytes of a path that is no file below ``root``.

    Raises:
        UserError: at the end, with all files that cannot be used.
    """
    starts = deque(range(0, len(paths), batch_size))
    waiting: deque[list[Future[tuple[npt.NDArray[np.float32], str] | UserError]]] = deque()
    bad: list[UserError] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        while starts or waiting:
            while starts and len(waiting) < _AHEAD:
                chunk = paths[(start := starts.popleft()) : start + batch_size]
                waiting.append(
                    [
                        pool.submit(load_pixels, root / path, transform, complete, read and partial(read, path))
                        for path in chunk
                    ]
                )
            results = [future.result() for future in waiting.popleft()]
            bad += [result for result in results if isinstance(result, UserError)]
            good = [result for result in results if not isinstance(result, UserError)]
            if not bad:
                yield np.stack([pixels for pixels, _ in good]), [truncated for _, truncated in good]
    refuse_files(bad)


def rank_slice(count: int, rank: int, world: int) -> slice:
    """Return the run of items that one of ``world`` processes works on; runs in rank order are all items in order."""
    return slice(count * rank // world, count * (rank + 1) // world)


def join_slices(shares: Sequence[Features]) -> Features:
    """Return the shares of all ranks as one, in rank order."""
    return Features(
        np.concatenate([share.x for share in shares]),
        np.concatenate([share.labels for share in shares]),
        tuple(line for share in shares for line in share.truncated),
    )


def extract_features(
    classifier: FeatureModel,
    root: Path,
    paths: Sequence[str],
    labels: npt.NDArray[np.int64],
    transform: EvalTransform,
    *,
    kind: str = "pooled",
    batch_size: int = 128,
    workers: int = 1,
    progress: Progress | None = None,
    name: str = "images",
) -> Features:
    """Return one feature row per path, in order. Truncated files are used as far as they go, and counted.

    The transfer protocol's toolbox loads truncated files, which some of the public data sets hold.

    Args:
        classifier: The frozen backbone; takes RGB in [0, 1] and normalises by itself.
        root: Folder of the paths.
        paths: Image files relative to the root.
        labels: (n,) class indices.
        transform: Resize and crop.
        kind: ``pooled`` (convolutional backbones), ``cls`` or ``gap`` (transformers).
        batch_size: Images per forward pass; the result does not depend on it beyond rounding.
        workers: Decoding threads.
        progress: Called with (images done, images in all).
        name: Data set name for messages.

    Raises:
        UserError: files cannot be used (all are named), or features are not finite.
    """
    import torch

    rows: list[npt.NDArray[np.float32]] = []
    truncated: list[str] = []
    done = 0
    batches = image_batches(root, paths, transform, batch_size=batch_size, workers=workers, complete=True)
    with torch.inference_mode():
        for pixels, reasons in batches:
            rows.append(classifier.features(torch.from_numpy(pixels), kind).float().cpu().numpy())
            chunk = paths[done : done + len(reasons)]
            truncated += [f"{path} ({reason})" for path, reason in zip(chunk, reasons, strict=True) if reason]
            done += len(reasons)
            if progress is not None:
                progress(done, len(paths))
    x = np.concatenate(rows).astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise UserError(
            f"{name}: the backbone gives features that are not finite",
            f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} images are affected",
            "the checkpoint is damaged or its training diverged; train or load it again",
        )
    return Features(x, np.asarray(labels, dtype=np.int64), tuple(truncated))
