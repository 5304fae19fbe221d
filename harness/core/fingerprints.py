"""Fingerprints of data sets and model files: what tells inputs apart in the keys of cells."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.core.hashcache import HashCache
from harness.core.identity import file_sha256
from harness.core.tree import walk

BULK = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic",
    ".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".parquet", ".arrow", ".npy", ".npz", ".h5", ".hdf5",
    ".tfrecord", ".mdb",
})  # fmt: skip
"""Suffixes of pictures, arrays and archives. Every other file may hold labels or splits."""
WHOLE_FILES, WHOLE_BYTES = 20_000, 2**30
"""Up to so many files and bytes of a kind (bulk or other) together, the bytes of all of them count."""
SAMPLED_FILES, BLOCK = 4096, 2**19
"""Beyond: so many files at even places in the order of names; of a large one, blocks at even places."""
COSTLY = 2**23
"""Bytes above which a hash is kept beside the store."""
_SLOW = 2**30
_SETTLED_NS = 2 * 10**9
_THREADS = 8

_File = tuple[str, int]
"""Path relative to the root, and size."""


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of what lies outside the store; those that took long to make are kept in a cache beside it."""

    cache: HashCache

    @classmethod
    def beside(cls, store: Path | None) -> Fingerprints:
        """Return fingerprints with the cache of a store; None keeps them for this process only."""
        return cls(HashCache(store / "hashes.json" if store else None))

    def file(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes, all of them whatever its size."""
        stat = path.stat()
        name, state = f"file {path.resolve()}", _state(stat)
        if stat.st_size < COSTLY or (kept := self.cache.get(name, state)) is None:
            if stat.st_size >= _SLOW:
                print(f"note: hashing {path} ({stat.st_size / 2**30:.1f} GiB)", file=sys.stderr)
            settled, kept = _settled(_newest(stat)), file_sha256(path)
            if settled and stat.st_size >= COSTLY:
                self.cache.put(name, state, kept)
        return kept

    def model(self, path: Path) -> str:
        """Return the fingerprint of a model: a file's SHA-256, or that of a folder's paths and the SHA-256 of each file.

        Raises:
            FileNotFoundError: nothing is there.
            DataMissing: a link in the folder leads nowhere.
        """
        if path.is_file():
            return self.file(path)
        digest = hashlib.sha256()
        for name, _ in walk(path):
            digest.update(os.fsencode(name) + f"\0{self.file(path / name)}\n".encode())
        return digest.hexdigest()

    def data(self, root: Path) -> str:
        """Return the fingerprint of a data set's folder.

        It holds the path and size of every file, and the bytes of all files where the pictures and archives (and,
        counted apart, all other files) are at most 20,000 of 1 GiB together. Beyond, it holds the bytes of 4,096 files
        at even places in the order of paths; of those above 1 MiB the first and last 512 KiB, and with fewer files more
        blocks between. So it sees every other name, size and number of files. Pictures exchanged for others of exactly
        the same sizes it sees in a small data set always; in a large one where a share ``f`` of them is exchanged, with
        probability ``1 - (1 - f)**4096``: 98 % at one in a thousand. Times are no part of it.

        Raises:
            FileNotFoundError: nothing is there.
            DataMissing: a link leads nowhere, or a folder cannot be read.
        """
        listed, state, newest = _listing(root)
        name = f"data {root.resolve()}"
        if (kept := self.cache.get(name, state)) is not None:
            return kept
        settled, looked_at = _settled(newest), [*_looked_at(listed)]
        digest = hashlib.sha256(b"data 2\n")
        for path, size in listed:
            digest.update(os.fsencode(path) + f"\0{size}\n".encode())
        with ThreadPoolExecutor(_THREADS) as pool:
            for found in pool.map(lambda job: _content(root, *job), looked_at):
                digest.update(found)
        if settled and (len(listed) > WHOLE_FILES or sum(size for (_, size), _ in looked_at) >= COSTLY):
            self.cache.put(name, state, digest.hexdigest())
        return digest.hexdigest()


def _state(stat: os.stat_result) -> str:
    """Return what a file system says of a file: any writing changes it, whoever sets the times back."""
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _newest(stat: os.stat_result) -> int:
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _settled(newest: int) -> bool:
    """Return whether a change is so old that a further one has another time; only then is a hash kept."""
    return time.time_ns() - newest > _SETTLED_NS


def _listing(root: Path) -> tuple[list[_File], str, int]:
    """Return all files with their sizes, a digest of their states, and the time of the latest change."""
    listed, digest, newest = [], hashlib.sha256(), 0
    for name, entry in walk(root):
        stat = entry.stat()
        listed.append((name, stat.st_size))
        digest.update(os.fsencode(name) + f"\0{_state(stat)}\n".encode())
        newest = max(newest, _newest(stat))
    return listed, digest.hexdigest(), newest


def _looked_at(listed: Sequence[_File]) -> Iterator[tuple[_File, int]]:
    """Yield the files whose bytes count, each with the number of blocks that are read of it; 0: all of it."""
    kinds: dict[bool, list[_File]] = {False: [], True: []}
    for each in listed:
        kinds[os.path.splitext(each[0])[1].lower() in BULK].append(each)
    for bulk, files in kinds.items():
        if len(files) <= WHOLE_FILES and sum(size for _, size in files) <= WHOLE_BYTES:
            yield from ((each, 0) for each in files)
            continue
        count = min(len(files), SAMPLED_FILES)
        blocks = max(2, SAMPLED_FILES // count) if bulk else 0
        yield from ((files[place], blocks) for place in even_places(len(files), count))


def even_places(n: int, count: int) -> list[int]:
    """Return ``count`` of the positions 0 ... n-1 at even distances, the first and the last among them."""
    return [round(i * (n - 1) / max(count - 1, 1)) for i in range(count)]


def _content(root: Path, file: _File, blocks: int) -> bytes:
    name, size = file
    path = root / name
    if not blocks or size <= blocks * BLOCK:
        return os.fsencode(name) + f"\0{file_sha256(path)}\n".encode()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for start in even_places(size - BLOCK + 1, blocks):
            stream.seek(start)
            digest.update(stream.read(BLOCK))
    return os.fsencode(name) + f"\0{digest.hexdigest()}\n".encode()
