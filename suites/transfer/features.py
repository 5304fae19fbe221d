"""Pooled features of image lists under a frozen classifier."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from harness.api import UserError
from suites.transfer.transforms import EvalTransform, State, load_pixels

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

UNREADABLE_LIMIT = 0.01
"""More unreadable files than this share mean a damaged data set, not a damaged file."""
_AHEAD = 2


class FeatureModel(Protocol):
    """What feature extraction needs from a classifier: pooled features of RGB in [0, 1], in eval mode, without gradients."""

    def features(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        """Return (B, d) features of (B, 3, H, W) images; ``kind`` is ``pooled``, ``cls`` or ``gap``."""
        ...


@dataclass(frozen=True)
class DecodeReport:
    """Which files were damaged; one line each."""

    truncated: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return the notes for a record: counts with the first names."""
        notes = []
        for what, names in (
            ("truncated, decoded part used", self.truncated),
            ("unreadable, grey used", self.unreadable),
        ):
            if names:
                notes.append(f"{len(names)} file(s) {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}")
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one image list, in its order."""

    x: npt.NDArray[np.float32]
    """(n, d)."""
    labels: npt.NDArray[np.int64]
    """(n,)."""
    report: DecodeReport


def image_batches(
    root: Path, paths: Sequence[str], transform: EvalTransform, *, batch_size: int, workers: int
) -> Iterator[tuple[npt.NDArray[np.float32], list[tuple[str, State, str]]]]:
    """Yield ((B, 3, H, W) float32 in [0, 1], [(path, state, reason)]) in order, decoding ahead in threads."""
    starts = deque(range(0, len(paths), batch_size))
    waiting: deque[tuple[Sequence[str], list[Future[tuple[npt.NDArray[np.float32], State, str]]]]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        while starts or waiting:
            while starts and len(waiting) < _AHEAD:
                start = starts.popleft()
                chunk = paths[start : start + batch_size]
                waiting.append((chunk, [pool.submit(load_pixels, root / path, transform) for path in chunk]))
            chunk, futures = waiting.popleft()
            results = [future.result() for future in futures]
            yield np.stack([r[0] for r in results]), [(p, r[1], r[2]) for p, r in zip(chunk, results, strict=True)]


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
    """Return one feature row per path, in order; a damaged file is counted, never dropped.

    Args:
        classifier: The frozen backbone; takes RGB in [0, 1] and normalises by itself.
        root: Folder of the paths.
        paths: Image files relative to the root.
        labels: (n,) class indices.
        transform: Resize and crop.
        kind: ``pooled`` (convolutional backbones), ``cls`` or ``gap`` (transformers).
        batch_size: Images per forward pass; the result does not depend on it beyond rounding.
        workers: Decoding threads.
        progress: Called with the numbers of images done and in all.
        name: Data set name for messages.

    Raises:
        UserError: more than one per cent of the files is unreadable, or features are not finite.
    """
    found = extract_slice(
        classifier,
        root,
        paths,
        labels,
        transform,
        kind=kind,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        name=name,
    )
    check_readable(name, found.report.unreadable, len(paths))
    return found


def rank_slice(count: int, rank: int, world: int) -> slice:
    """Return the run of items that one of ``world`` processes works on; runs in rank order are all items in order."""
    return slice(count * rank // world, count * (rank + 1) // world)


def join_slices(slices: Sequence[Features]) -> Features:
    """Return the slices of all ranks as one, in rank order."""
    report = DecodeReport(
        tuple(line for part in slices for line in part.report.truncated),
        tuple(line for part in slices for line in part.report.unreadable),
    )
    return Features(
        np.concatenate([part.x for part in slices]), np.concatenate([part.labels for part in slices]), report
    )


def extract_slice(
    classifier: FeatureModel,
    root: Path,
    paths: Sequence[str],
    labels: npt.NDArray[np.int64],
    transform: EvalTransform,
    *,
    kind: str,
    batch_size: int,
    workers: int,
    progress: Progress | None,
    name: str,
) -> Features:
    """Return the features of a part of a list, whose damaged files are only counted: see ``extract_features``."""
    import torch

    rows: list[npt.NDArray[np.float32]] = []
    truncated: list[str] = []
    unreadable: list[str] = []
    done = 0
    with torch.inference_mode():
        for pixels, states in image_batches(root, paths, transform, batch_size=batch_size, workers=workers):
            rows.append(classifier.features(torch.from_numpy(pixels), kind).float().cpu().numpy())
            truncated += [f"{path} ({reason})" for path, state, reason in states if state == "truncated"]
            unreadable += [f"{path} ({reason})" for path, state, reason in states if state == "unreadable"]
            done += len(states)
            if progress is not None:
                progress(done, len(paths))
    x = np.concatenate(rows).astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise UserError(
            f"{name}: the backbone gives features that are not finite",
            f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} images are affected",
            "the checkpoint is damaged or its training diverged; train or load it again",
        )
    return Features(x, np.asarray(labels, dtype=np.int64), DecodeReport(tuple(truncated), tuple(unreadable)))


def check_readable(name: str, unreadable: Sequence[str], total: int) -> None:
    """Tolerate single unreadable files.

    Raises:
        UserError: more than one file and more than one per cent.
    """
    if len(unreadable) > max(1, UNREADABLE_LIMIT * total):
        raise UserError(
            f"{name}: {len(unreadable)} of {total} images cannot be decoded",
            unreadable[0],
            "unpack the images of this data set again",
        )
