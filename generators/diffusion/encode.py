"""Encode images off the critical path: threads encode, one thread delivers, in the order of submission."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

PNG_LEVEL = 6
"""Compression level; fixed, because the bytes are hashed."""

Key = TypeVar("Key", bound=Hashable)


def encode_png(image: np.ndarray) -> bytes:
    """Return the PNG bytes of an (H, W, 3) uint8 image: no metadata, so equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


class OrderedEncoder(Generic[Key]):
    """A bounded queue of images, encoded by threads and handed to ``sink(key, png)`` one by one, in order.

    ``submit`` blocks when ``depth`` images are waiting. An error of the encoder or the sink is raised by the next
    ``submit`` or by ``close``; nothing is delivered after it.
    """

    def __init__(self, sink: Callable[[Key, bytes], None], *, threads: int = 2, depth: int = 64) -> None:
        self._sink = sink
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="png")
        self._waiting: queue.Queue[tuple[Key, Future[bytes]] | None] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._drain = threading.Thread(target=self._deliver, name="png-sink", daemon=True)
        self._drain.start()

    def submit(self, key: Key, image: np.ndarray) -> None:
        """Queue one image; the array must not change until it has been delivered."""
        self._raise()
        self._waiting.put((key, self._pool.submit(encode_png, image)))

    def close(self) -> None:
        """Deliver what is queued, stop the threads and raise the first error, if any."""
        if self._drain.is_alive():
            self._waiting.put(None)
            self._drain.join()
        self._pool.shutdown()
        self._raise()

    def __enter__(self) -> OrderedEncoder[Key]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException:
            if error is None:  # an error inside the block is the more telling one
                raise

    def _deliver(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # keep draining, so that submit never blocks on a dead sink
            key, encoded = item
            try:
                self._sink(key, encoded.result())
            except BaseException as error:  # handed to the submitting thread
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
